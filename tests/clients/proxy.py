"""A TCP proxy that stands for a network: it can be cut, and cut so that nobody notices."""

from __future__ import annotations

import asyncio
from typing import Self

from tests.ports import free_port


class Proxy:
    """Passes connections on to a port of this machine."""

    def __init__(self, target: int, port: int) -> None:
        self.port, self._target = port, target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    @classmethod
    async def start(cls, target: int) -> Self:
        """A proxy that listens on a free port."""
        proxy = cls(target, free_port())
        await proxy._listen()
        return proxy

    async def cut(self, *, silently: bool = False) -> None:
        """Reset every connection and refuse new ones; silently: keep them, and pass nothing."""
        if silently:
            self._flows.clear()
        else:
            await self.stop()

    async def restore(self) -> None:
        """Pass connections on again; what was kept flows on."""
        self._flows.set()
        if self._server is None:
            await self._listen()

    async def stop(self) -> None:
        """Close everything."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._flows.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, back))
                group.create_task(self._pass(there, writer))
        except* OSError:
            pass
        finally:
            writer.transport.abort()
            back.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._flows.wait()
            sink.write(data)
            await sink.drain()
        sink.write_eof()
