"""The hub, as a process of its own: `fhircast-hub serve`, with its store and its log in a temporary folder.

The hub is restarted when it dies, as a service manager would. Every window then reconnects.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import httpx

from demo import DemoError
from demo.places import Places

#: The hub's settings for the demo's story.
SETTINGS = {"FHIRCAST_LOGOUT_ENDS_SESSION": "true"}
#: Seconds that the hub has to start, and to stop.
PATIENCE = 15
#: Seconds between the end of a hub and the start of the next.
PAUSE = 1.0


@asynccontextmanager
async def running_hub(places: Places, host: str, issuers: Sequence[Mapping[str, Any]]) -> AsyncIterator[None]:
    """A running hub that trusts these issuers. Raises DemoError where the hub does not start, or does not end cleanly."""
    with TemporaryDirectory(prefix="fhircast-demo-") as folder, open(Path(folder, "hub.log"), "w+b") as log:  # noqa: ASYNC230  # a line now and then
        hub = _Hub(_environ(places, host, issuers, f"sqlite:///{folder}/hub.db"), log)
        await hub.start()
        try:
            if not await _ready(f"{places.origin('hub')}/health/ready", hub):
                raise DemoError(f"the hub did not start: {hub.last_words()}")
            guarding = asyncio.create_task(hub.guard())
            try:
                yield
            finally:
                guarding.cancel()
                await asyncio.wait([guarding])
        finally:
            code = await hub.stop()
        if code:
            raise DemoError(f"the hub ended with exit code {code}: {hub.last_words()}")


def _environ(places: Places, host: str, issuers: Sequence[Mapping[str, Any]], store: str) -> dict[str, str]:
    """The caller's environment, with its other settings of the hub, and the demo's own settings."""
    return os.environ | {
        "FHIRCAST_HOST": host,
        "FHIRCAST_PORT": str(places.ports["hub"]),
        "FHIRCAST_PUBLIC_URL": places.hub_url,
        "FHIRCAST_ISSUERS": json.dumps(issuers),
        "FHIRCAST_STORE": store,
        **SETTINGS,
        "FHIRCAST_LOG_FORMAT": "json",
        # do not use a proxy
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1"),
    }


async def _ready(url: str, hub: _Hub) -> bool:
    """Wait until the hub is ready, or has ended."""
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        for _ in range(int(PATIENCE / 0.05)):
            try:
                if (await client.get(url)).status_code == httpx.codes.OK:
                    return True
            except httpx.TransportError:
                pass
            if hub.has_ended():
                return False
            await asyncio.sleep(0.05)
    return False


class _Hub:
    """The hub's process, and the file with its output and that of its successors."""

    def __init__(self, environ: dict[str, str], log: IO[bytes]) -> None:
        self._environ, self._log = environ, log
        self._process: Process | None = None
        self._logging: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """In a process group of its own: Ctrl-C in the terminal is for the demo, which then stops the hub."""
        command = (sys.executable, "-m", "fhircast_hub", "serve")
        self._process = await asyncio.create_subprocess_exec(
            *command, env=self._environ, stdout=PIPE, stderr=STDOUT, process_group=0
        )
        self._logging = asyncio.create_task(self._keep_log(self._process))

    async def _keep_log(self, process: Process) -> None:
        assert process.stdout
        async for line in process.stdout:
            self._log.write(line)

    def has_ended(self) -> bool:
        """Whether there is no hub at this moment."""
        return self._process is None or self._process.returncode is not None

    async def guard(self) -> None:
        """Restart the hub whenever it ends, until cancelled."""
        while True:
            assert self._process
            code = await self._process.wait()
            print(f"demo: the hub ended ({code}); it is restarted", file=sys.stderr, flush=True)
            await asyncio.sleep(PAUSE)
            await self.start()

    def last_words(self) -> str:
        """The reason of its end: the log is JSON, a refused start is a line of text."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        words = [line for line in lines if line.strip() and not line.startswith("{")]
        return words[-1] if words else f"it was not ready within {PATIENCE} s"

    async def stop(self) -> int:
        """Stop the hub, by force if needed. Returns its exit code."""
        process, logging = self._process, self._logging
        assert process
        assert logging
        try:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(PATIENCE):
                await logging
                return await process.wait()
        except BaseException:
            if process.returncode is None:
                process.kill()
            raise
