"""The hub, as a process of its own: `fhircast-hub serve`, with its store and its log in a folder that goes with it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import httpx

from demo import DemoError
from fhircast_hub.dev import AUDIENCE

#: Seconds that the hub has to start, and to stop.
PATIENCE = 10
#: Lines of its log that are shown when something went wrong.
SHOWN = 20


@asynccontextmanager
async def running_hub(issuer: str, port: int | None) -> AsyncIterator[str]:
    """A hub that trusts this issuer, ready; its hub.url. Raises DemoError if it does not start or does not end well."""
    port = port or _free_port()
    url = f"http://127.0.0.1:{port}/api/hub"
    with TemporaryDirectory(prefix="fhircast-demo-") as folder, open(Path(folder, "hub.log"), "w+b") as log:  # noqa: ASYNC230  # a line now and then
        hub = _Process(await _start(_environ(url, port, issuer, store=f"sqlite:///{folder}/hub.db")), log)
        try:
            if not await hub.ready(f"http://127.0.0.1:{port}/health/ready"):
                raise DemoError(f"the hub did not start: {await hub.last_words()}")
            try:
                yield url
            except Exception:
                hub.show_log()
                raise
        finally:
            code = await hub.stop()
        if code:
            raise DemoError(f"the hub ended with exit code {code}")


def _environ(url: str, port: int, issuer: str, store: str) -> dict[str, str]:
    """The caller's environment, whose other settings of the hub count, with what the demo stands on."""
    return os.environ | {
        "FHIRCAST_HOST": "127.0.0.1",
        "FHIRCAST_PORT": str(port),
        "FHIRCAST_PUBLIC_URL": url,
        # No jwks_uri: the hub finds the keys by the issuer's discovery document.
        "FHIRCAST_ISSUERS": json.dumps([{"issuer": issuer, "audience": AUDIENCE}]),
        "FHIRCAST_STORE": store,
        "FHIRCAST_LOG_FORMAT": "json",
        "FHIRCAST_LOG_LEVEL": "info",
        # Nor by way of a proxy.
        **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1"),
    }


async def _start(environ: dict[str, str]) -> Process:
    """In a process group of its own: a Ctrl-C in the terminal is for the demo, which then stops the hub."""
    command = (sys.executable, "-m", "fhircast_hub", "serve")
    return await asyncio.create_subprocess_exec(*command, env=environ, stdout=PIPE, stderr=STDOUT, process_group=0)


class _Process:
    """The hub that runs, and the file that keeps what it says."""

    def __init__(self, process: Process, log: IO[bytes]) -> None:
        self._process, self._log = process, log
        self._listens = asyncio.Event()
        self._ended = False
        self._keeping = asyncio.create_task(self._keep_log())

    async def _keep_log(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            self._log.write(line)
            if b'"event":"starting"' in line:
                self._listens.set()
        self._ended = True
        self._listens.set()

    async def ready(self, url: str) -> bool:
        """Wait until it is, or is not to be: its port takes the question when it is open, and answers when all is ready."""
        try:
            async with asyncio.timeout(PATIENCE), httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
                await self._listens.wait()
                return not self._ended and (await client.get(url)).status_code == httpx.codes.OK
        except (TimeoutError, httpx.TransportError):
            return False

    async def last_words(self) -> str:
        """Why it did not start: its log is JSON, a refusal is a line of text."""
        await self.stop()
        words = [line for line in self._lines() if not line.startswith("{")]
        return words[-1] if words else f"it was not ready within {PATIENCE} s"

    async def stop(self) -> int:
        """End it as an operator would, by force where that does not help or nobody waits for it any more; its exit code."""
        try:
            if self._process.returncode is None:
                self._process.terminate()
            async with asyncio.timeout(PATIENCE):
                await self._keeping
                return await self._process.wait()
        except BaseException:
            if self._process.returncode is None:
                self._process.kill()
            raise

    def show_log(self) -> None:
        """The end of its log, for whoever looks for what went wrong."""
        for line in self._lines()[-SHOWN:]:
            print(f"hub.log  {line}", file=sys.stderr)

    def _lines(self) -> list[str]:
        self._log.seek(0)
        return [line for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]


def _free_port() -> int:
    """The hub must know its public URL before it listens, so the port is chosen here."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
