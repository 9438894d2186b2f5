"""A TCP proxy before the database: cuts all connections, refuses new ones, holds bytes back, and delays.

Where the server's bytes are held back and the connections are then cut, the answer of a COMMIT is lost after the commit.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

_T = TypeVar("_T")
#: Seconds until the proxy's thread must have done what it was asked to.
PATIENCE = 10


class Proxy:
    """Listens on a loopback port, and forwards to another one. All methods run in the loop of the proxy."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Whether new connections are refused.
        self._refusing = False
        #: Cleared while the server's bytes are held back; likewise the clients'.
        self._answers, self._requests = asyncio.Event(), asyncio.Event()
        #: Seconds that each piece waits.
        self._delay = 0.0
        self.release()

    @property
    def port(self) -> int:
        """Where the proxy listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Listen no more, and cut all connections."""
        assert self._server is not None
        self._server.close()
        self.cut(refusing=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def lead_to(self, target: int) -> None:
        """Forward new connections to another port."""
        self._target = target

    def cut(self, *, refusing: bool = False) -> None:
        """Cut all connections, in both directions at once. Refuse new ones until `release`, if so asked."""
        self._refusing = refusing
        for writer in list(self._writers):
            writer.transport.abort()

    def hold(self, *, answers: bool = True, requests: bool = True) -> None:
        """Keep the server's bytes, the clients' or both, until `release`. Connections stay open."""
        for event, held in ((self._answers, answers), (self._requests, requests)):
            if held:
                event.clear()

    def delay(self, seconds: float) -> None:
        """Let each piece of bytes wait, until `release`."""
        self._delay = seconds

    def release(self) -> None:
        """Forward everything at once again, and accept connections. Bytes that were held back go first."""
        self._refusing, self._delay = False, 0.0
        self._answers.set()
        self._requests.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ends = [writer]
        self._writers.add(writer)
        try:
            if self._refusing:
                return
            answers, server = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(server)
            self._writers.add(server)
            both = (self._forward(reader, server, self._requests), self._forward(answers, writer, self._answers))
            await asyncio.gather(*both)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in ends:
                self._writers.discard(each)
                each.transport.abort()
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, goes: asyncio.Event) -> None:
        while piece := await reader.read(65536):
            await goes.wait()
            if self._delay:
                await asyncio.sleep(self._delay)
            writer.write(piece)
            await writer.drain()
        # One end is over: so is the other.
        writer.transport.abort()
        raise ConnectionResetError


class ProxyThread:
    """Proxies in a thread of their own, so that busy clients in this process do not slow the hubs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.proxies: list[Proxy] = []

    def add(self, target: int) -> int:
        """One more proxy before this port; its own port."""

        async def start() -> Proxy:
            proxy = Proxy(target)
            await proxy.start()
            return proxy

        self.proxies.append(self._run(start()))
        return self.proxies[-1].port

    def do(self, act: Callable[[Proxy], None], numbers: Iterable[int]) -> None:
        """Do something to these proxies at one time. Numbers begin at 0."""

        async def work() -> None:
            for number in numbers:
                act(self.proxies[number])

        self._run(work())

    def stop(self) -> None:
        """Stop all proxies."""
        for proxy in self.proxies:
            self._run(proxy.stop())

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)


@contextmanager
def proxy_thread() -> Iterator[ProxyThread]:
    """Proxies that are gone after the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    proxies = ProxyThread(loop)
    try:
        yield proxies
    finally:
        try:
            proxies.stop()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
