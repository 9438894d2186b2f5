"""A socket whose peer does not read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from fhircast_hub.ws.socket import HubSocket
from tests.running import RunningHub, event, running_hub, until


class Stuck:
    """A transport whose peer reads on the test's command."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.held_back = 0
        self.aborted = False
        #: The socket whose peer stops reading at the next write.
        self.pauses: HubSocket | None = None

    def get_extra_info(self, name: str) -> None: ...

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return self.held_back

    def write(self, data: bytes) -> None:
        self.written.append(data)
        if self.pauses:
            self.pauses.pause_writing()

    def writelines(self, parts: Iterable[bytes]) -> None:
        self.write(b"".join(parts))

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True


@asynccontextmanager
async def stuck_socket(**settings: Any) -> AsyncIterator[tuple[RunningHub, HubSocket, Stuck]]:
    """A subscriber's socket over such a transport, its handshake answered."""
    async with running_hub(**settings) as hub:
        for number in range(3):
            await hub.publish(event(f"{'ABC'[number]}-open", "1", also=[{"key": "extension", "data": "x" * 1000}]))
        endpoint = await hub.subscribe("A-open,B-open,C-open,Patient-open")
        transport, socket = Stuck(), HubSocket(hub.hub.sockets, set())
        socket.connection_made(transport)  # type: ignore[arg-type]
        path = endpoint.partition(str(hub.port))[2]
        socket.data_received(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        socket.pause_writing()  # from its first byte on, the peer does not read
        await until(lambda: bool(transport.written))
        yield hub, socket, transport
        socket.connection_lost(None)
