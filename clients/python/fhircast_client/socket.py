"""One WebSocket: reading, writing, closing."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import InvalidProxyStatus

from fhircast_client.errors import in_one_line
from fhircast_client.events import decode, encode
from fhircast_client.proxies import UnusableProxy, websocket_proxy

#: The largest message that is read, in bytes.
_MOST_BYTES = 16 << 20
#: Messages that may wait to be written. Beyond that, the connection counts as lost.
_MOST_WAITING = 1024
_PING_SECONDS = 15
#: Two pings. A socket that takes no data for so long counts as lost.
_STUCK_SECONDS = 2 * _PING_SECONDS
#: Seconds that the hub has to answer a close.
_CLOSE_SECONDS = 2.0
_NORMAL = 1000
#: The logger of websockets would write handshakes and frames, with endpoints and patient data.
_QUIET = logging.getLogger("fhircast_client.websockets")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False
_QUIET.setLevel(logging.CRITICAL + 1)


class Socket(Protocol):
    """The part of a WebSocket that a channel uses. `recv` and `send` raise when the socket is closed. `close_code` is
    then the peer's code, or None. `close_reason` is optional, and as in websockets."""

    @property
    def close_code(self) -> int | None: ...

    async def recv(self) -> str | bytes: ...

    async def send(self, message: str) -> None: ...

    async def close(self, code: int = _NORMAL) -> None: ...


Connect = Callable[[str], Awaitable[Socket]]


async def connect(endpoint: str, tls: ssl.SSLContext | None = None) -> Socket:
    """Open a WebSocket that pings every 15 s to notice a dead hub. Cloud gateways cut connections that are idle for 20
    s. `tls`: the trusted certificates, by default those of the system.

    Raises the exceptions of websockets, and UnusableProxy.
    """
    proxy = websocket_proxy(endpoint)
    options: dict[str, Any] = {"proxy_ssl": tls} if tls and proxy and proxy.startswith("https://") else {}
    try:
        return await open_websocket(
            endpoint,
            ssl=(tls or True) if endpoint.lower().startswith("wss:") else None,
            proxy=proxy,
            **options,
            ping_interval=_PING_SECONDS,
            close_timeout=_CLOSE_SECONDS,
            max_size=_MOST_BYTES,
            logger=_QUIET,
        )
    except InvalidProxyStatus as error:  # the proxy's answer says nothing about the hub and its endpoint
        raise UnusableProxy(f"the proxy answered {error.response.status_code} to CONNECT") from None


class Channel:
    """An open WebSocket."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._waiting: asyncio.Queue[str] = asyncio.Queue(_MOST_WAITING)
        self._stuck = asyncio.Event()

    @property
    def close_code(self) -> int | None:
        """The code with which the hub closed, None where the connection broke."""
        return self._socket.close_code

    @property
    def close_reason(self) -> str:
        """The reason with which the hub closed, in one line. "" where it gave none."""
        reason = getattr(self._socket, "close_reason", None)
        return in_one_line(reason) if isinstance(reason, str) else ""

    def send(self, message: dict[str, Any]) -> None:
        """Write a message as soon as the hub reads. Does not wait."""
        try:
            self._waiting.put_nowait(encode(message).decode())
        except asyncio.QueueFull:
            self._stuck.set()

    async def read(self, receive: Callable[[Any], bool], unread: Callable[[str | bytes], None]) -> None:
        """Call `receive` with each message, until `receive` returns True or the socket is closed. `unread` is called
        with frames that cannot be read."""
        while True:
            try:
                frame = await self._socket.recv()
            except Exception:
                return
            try:
                message = decode(frame)
            except (ValueError, RecursionError):
                unread(frame)
                continue
            if receive(message):
                return

    async def write(self) -> None:
        """Write messages until the socket is closed, or the hub has not read for long."""
        writer = asyncio.create_task(self._write())
        stuck = asyncio.create_task(self._stuck.wait())
        try:
            await asyncio.wait((writer, stuck), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writer, stuck):
                task.cancel()
            await asyncio.gather(writer, stuck, return_exceptions=True)

    async def close(self) -> None:
        """Close the socket: "provide a WebSocket Connection Close Reason of 1000" (2.5). A cancelled task, too, waits
        for the end of the close: its event loop may stop afterwards."""
        closing = asyncio.create_task(self._close())
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            await closing
            raise

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS * 2):
                await self._socket.close(_NORMAL)
        except Exception as error:
            _QUIET.debug("a close failed: %s", type(error).__name__)

    async def _write(self) -> None:
        while True:
            try:
                message = await self._waiting.get()
                async with asyncio.timeout(_STUCK_SECONDS):
                    await self._socket.send(message)
            except Exception:
                return
