"""Commands as processes, as a user of a terminal observes them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fhircast_client.cli import main
from tests.clients.fakes import patient
from tests.clients.places import DevHub

#: Seconds until a process must have said what is expected.
PATIENCE = 30
NYGARD = {**patient("p1"), "name": [{"family": "Nygård", "given": ["Ingrid"]}]}


class Terminal:
    """`fhircast`, with the settings of one session: `listen` in a process of its own, the others in this one."""

    def __init__(
        self, hub: DevHub, folder: Path, patch: pytest.MonkeyPatch, printed: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self.token, self._patch, self._printed = folder, hub.token, patch, printed
        url, topic = f"http://127.0.0.1:{hub.process.port}/api/hub", str(uuid.uuid4())
        self.environ = {"FHIRCAST_HUB": url, "FHIRCAST_TOPIC": topic, "FHIRCAST_TOKEN": hub.token}

    def file(self, content: Any) -> str:
        """The path of a file that holds this."""
        path = self.folder / f"{uuid.uuid4()}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return str(path)

    async def run(self, *arguments: str, stdin: str = "", **environ: str) -> tuple[int, str, str]:
        """Run a command to its end: its exit code and what it printed."""
        for name, value in (self.environ | environ).items():
            self._patch.setenv(name, value)
        self._patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), "ascii"))
        async with asyncio.timeout(PATIENCE):
            code = await asyncio.to_thread(main, arguments)
        printed = self._printed.readouterr()
        return code, printed.out, printed.err

    async def start(self, *arguments: str, **environ: str) -> asyncio.subprocess.Process:
        """Run a command in a process of its own."""
        pipe = asyncio.subprocess.PIPE
        settings = {"PATH": os.environ["PATH"], "PYTHONUTF8": "1"} | self.environ | environ
        command = (sys.executable, "-m", "fhircast_client.cli", *arguments)
        return await asyncio.create_subprocess_exec(*command, env=settings, stdout=pipe, stderr=pipe)

    @asynccontextmanager
    async def listening(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """`fhircast listen` once it has joined; after the block it ends by Ctrl-C, with exit code 0."""
        process = await self.start("listen", *arguments)
        try:
            said = await line(process.stderr)
            if "did you mean" in said:
                said = await line(process.stderr)
            assert "connected, in sync" in said
            yield process
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(PATIENCE):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def line(stream: asyncio.StreamReader | None) -> str:
    """The next line that a process prints."""
    assert stream
    async with asyncio.timeout(PATIENCE):
        return (await stream.readline()).decode()
