"""The network between a fake hub and its clients: lines that can be cut, and the sockets on them.

Both ends are real: clients and the hub's own protocol exchange WebSocket frames. Only the transport between them is
fake.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Self

import httpx
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

#: Seconds that the hub has to answer a close, as in `socket.py`.
_CLOSE_SECONDS = 2.0
#: The logger that `socket.py` silences: frames contain endpoints and patient data.
_QUIET = logging.getLogger("fhircast_client.websockets")


class FakeClosed(Exception):
    """The socket is closed."""


class FakeSocket:
    """The client's end of a WebSocket to `hub`, the protocol at the other end. `heard` is called with each text that
    the hub receives."""

    def __init__(self, endpoint: str, line: Line, hub: asyncio.Protocol, heard: Callable[[str], None]) -> None:
        self._line, self._heard = line, heard
        #: None once the connection is lost for the hub.
        self._hub: asyncio.Protocol | None = hub
        self._loop = asyncio.get_running_loop()
        self._websocket = ClientProtocol(parse_uri(endpoint), max_size=None, logger=_QUIET)
        self._frames: asyncio.Queue[str | None] = asyncio.Queue()
        self._answered: asyncio.Future[None] = self._loop.create_future()
        self._gone = asyncio.Event()
        #: Cut silently: no data passes any more.
        self._dead = False
        line.sockets.add(self)
        hub.connection_made(_HubSide(self))

    @classmethod
    async def connect(cls, endpoint: str, line: Line, hub: asyncio.Protocol, heard: Callable[[str], None]) -> Self:
        """Make the handshake. Raises the exceptions of websockets."""
        socket = cls(endpoint, line, hub, heard)
        socket._websocket.send_request(socket._websocket.connect())
        socket._pass_on()
        try:
            await socket._answered
        except BaseException:
            socket.lose()
            raise
        return socket

    @property
    def alive(self) -> bool:
        """Whether sent data arrives."""
        return not (self._dead or self._gone.is_set())

    @property
    def close_code(self) -> int | None:
        """The code with which the hub closed, None where the connection broke."""
        return self._websocket.close_rcvd.code if self._websocket.close_rcvd else None

    @property
    def close_reason(self) -> str | None:
        """The reason with which the hub closed."""
        return self._websocket.close_rcvd.reason if self._websocket.close_rcvd else None

    async def recv(self) -> str:
        """The next frame. Raises FakeClosed."""
        frame = await self._frames.get()
        if frame is None:
            self._frames.put_nowait(None)
            raise FakeClosed
        return frame

    async def send(self, message: str) -> None:
        """Send a frame. Raises FakeClosed."""
        if self._gone.is_set() or self._websocket.state is not OPEN:
            raise FakeClosed
        if self.alive:
            self._heard(message)
            self._websocket.send_text(message.encode())
            self._pass_on()

    async def close(self, code: int = 1000) -> None:
        """Close from the client's side. A hub behind a silent cut is not told."""
        if self._dead:
            self._lose_here()
        elif self._websocket.state is OPEN:
            self._websocket.send_close(code)
            self._pass_on()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._gone.wait()
        except TimeoutError:
            self.lose()

    def put(self, text: str) -> None:
        """Inject a frame that the hub did not send."""
        if self.alive:
            self._frames.put_nowait(text)

    def receive(self, data: bytes) -> None:
        """Data from the hub."""
        if not self.alive:
            return
        self._websocket.receive_data(data)
        for event in self._websocket.events_received():
            if isinstance(event, Frame):
                if event.opcode is Opcode.TEXT:
                    self._frames.put_nowait(bytes(event.data).decode())
            elif not self._answered.done():
                self._answer(self._websocket.handshake_exc)
        self._pass_on()

    def lose(self) -> None:
        """End the connection for both ends. Received frames can still be read."""
        self._lose_here()
        self.lose_there()

    def lose_there(self) -> None:
        """End the connection for the hub, and for the client unless the line is cut silently."""
        if not self._dead:
            self._lose_here()
        hub, self._hub = self._hub, None
        self._line.sockets.discard(self)
        if hub is not None:
            hub.connection_lost(None)

    def _lose_here(self) -> None:
        if not self._gone.is_set():
            self._gone.set()
            self._frames.put_nowait(None)
            self._answer(OSError("the line is cut"))

    def silence(self) -> None:
        """Let no data pass any more, without closing."""
        self._dead = True

    def _answer(self, error: Exception | None) -> None:
        if self._answered.done():
            return
        if error is None:
            self._answered.set_result(None)
        else:
            self._answered.set_exception(error)

    def _pass_on(self) -> None:
        """Send the client's data to the hub, in a later turn of the event loop."""
        for data in self._websocket.data_to_send():
            self._loop.call_soon(self._arrive, data)

    def _arrive(self, data: bytes) -> None:
        if data and self._hub is not None and not self._dead:
            self._hub.data_received(data)


class _HubSide(asyncio.Transport):
    """The transport of the hub's end."""

    def __init__(self, socket: FakeSocket) -> None:
        super().__init__()
        self._socket = socket
        self._closing = False

    def write(self, data: Any) -> None:
        if not self._closing:
            self._socket.receive(bytes(data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._socket.lose_there)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """No data ever waits here."""

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """Data arrives in a turn of the event loop of its own."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""


class Line:
    """A client's connection to the hub."""

    def __init__(self) -> None:
        self.sockets: set[FakeSocket] = set()
        self._whole = asyncio.Event()
        self._whole.set()
        self._silent = False

    def cut(self, *, silently: bool) -> None:
        """Let no data pass until `restore`."""
        self._silent = silently
        self._whole.clear()
        for socket in list(self.sockets):
            if silently:
                socket.silence()
            else:
                socket.lose()

    def restore(self) -> None:
        """Let new connections pass."""
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
