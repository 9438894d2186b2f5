"""The network between a fake hub and its clients: lines that can be cut, and the sockets on them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx

_ABNORMAL = 1006


class FakeClosed(Exception):
    """The socket is closed."""


class FakeSocket:
    """The client's end of a WebSocket. `heard` is called with what it sends, `closed` with it when either side closes."""

    def __init__(self, line: Line, heard: Callable[[str], None], closed: Callable[[FakeSocket], None]) -> None:
        self._line, self._heard, self._closed = line, heard, closed
        self._frames: asyncio.Queue[str | None] = asyncio.Queue()
        self._open = True
        self._dead = False  # cut silently: nothing passes any more
        self.close_code: int | None = None
        line.sockets.add(self)

    @property
    def alive(self) -> bool:
        """Whether what is sent arrives."""
        return self._open and not self._dead

    async def recv(self) -> str:
        """The next frame. Raises FakeClosed."""
        frame = await self._frames.get()
        if frame is None:
            self._frames.put_nowait(None)
            raise FakeClosed
        return frame

    async def send(self, message: str) -> None:
        """Send a frame. Raises FakeClosed."""
        if not self._open:
            raise FakeClosed
        if self.alive:
            self._heard(message)

    async def close(self, code: int = 1000) -> None:
        """Close it from the client's side."""
        if self._open:
            self.shut(code)

    def put(self, message: dict[str, Any] | str) -> None:
        """The hub sends a message, or a text that is none."""
        if self.alive:
            self._frames.put_nowait(message if isinstance(message, str) else json.dumps(message))

    def shut(self, code: int) -> None:
        """It is closed; what was sent before still arrives."""
        if not self._open:
            return
        self._open, self.close_code = False, None if code == _ABNORMAL else code
        self._line.sockets.discard(self)
        self._frames.put_nowait(None)
        self._closed(self)

    def silence(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._dead = True


class Line:
    """A client's connection to the hub."""

    def __init__(self) -> None:
        self.sockets: set[FakeSocket] = set()
        self._whole = asyncio.Event()
        self._whole.set()
        self._silent = False

    def cut(self, *, silently: bool) -> None:
        """Nothing passes until it is restored."""
        self._silent = silently
        self._whole.clear()
        for socket in list(self.sockets):
            if silently:
                socket.silence()
            else:
                socket.shut(_ABNORMAL)

    def restore(self) -> None:
        """What is new passes."""
        self._whole.set()

    async def pass_request(self, request: httpx.Request) -> None:
        """Let a request pass. Raises httpx.ConnectError where the line is cut."""
        if self._silent:
            await self._whole.wait()
        elif not self._whole.is_set():
            raise httpx.ConnectError("the line is cut", request=request)

    async def pass_handshake(self) -> None:
        """Let a handshake pass. Raises OSError where the line is cut."""
        if self._silent:
            await self._whole.wait()
        elif not self._whole.is_set():
            raise OSError("the line is cut")
