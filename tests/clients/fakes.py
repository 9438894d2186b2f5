"""Short cuts for tests with a fake hub."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import httpx

from fhircast_client import Event, FHIRcastClient, Timings, WireMessage
from fhircast_client.socket import Connect, Socket
from fhircast_client.testing import FakeHub
from tests.clients.places import within

#: Reconnects at once; all that has to do with people takes as long as ever.
FAST = Timings(backoff_first=0.01, backoff_most=0.05, settle=0.05)
#: Seconds until what must happen has happened, on a busy machine.
PATIENCE = 20


def patient(id_: str) -> dict[str, Any]:
    """A patient."""
    return {"resourceType": "Patient", "id": id_}


def study(id_: str) -> dict[str, Any]:
    """A study."""
    return {"resourceType": "ImagingStudy", "id": id_}


def report(id_: str) -> dict[str, Any]:
    """A report."""
    return {"resourceType": "DiagnosticReport", "id": id_}


def observation(id_: str, **members: Any) -> dict[str, Any]:
    """An observation."""
    return {"resourceType": "Observation", "id": id_, **members}


async def until(condition: Callable[[], Any], said: Callable[[], Any] = lambda: "it did not come true") -> None:
    """Wait for a condition."""
    await within(PATIENCE, condition, said)


class Heard:
    """A handler that remembers whom it was called with, and does what `then` does."""

    def __init__(self, then: Callable[[Event], Any] = lambda event: None) -> None:
        self.events: list[Event] = []
        self.then = then

    async def __call__(self, event: Event) -> None:
        self.events.append(event)
        result = self.then(event)
        if result is not None:
            await result

    @property
    def anchors(self) -> list[str]:
        """What they were about."""
        return [event.anchor for event in self.events]


class Wire:
    """What a client sent and got."""

    def __init__(self, client: FHIRcastClient) -> None:
        self.messages: list[WireMessage] = []
        client.on_wire(self.messages.append)

    def of(self, direction: str, kind: str) -> list[WireMessage]:
        """The messages of this direction and kind."""
        return [message for message in self.messages if (message.direction, message.kind) == (direction, kind)]


class Through:
    """A socket on which `first` comes before all other frames, None for nothing. Where not `also`, the hub's first frame is lost."""

    def __init__(self, socket: Socket, first: str | None = None, *, also: bool = True) -> None:
        self._socket = socket
        self._first, self._also = first, also

    @property
    def close_code(self) -> int | None:
        return self._socket.close_code

    @property
    def close_reason(self) -> str | None:
        return getattr(self._socket, "close_reason", None)

    async def recv(self) -> str | bytes:
        if not self._also:
            await self._socket.recv()
            self._also = True
        first, self._first = self._first, None
        return first if first is not None else await self._socket.recv()

    async def send(self, message: str) -> None:
        await self._socket.send(message)

    async def close(self, code: int = 1000) -> None:
        await self._socket.close(code)


class HangsUp(Through):
    """A socket that the hub closes after its first frame, or before it; `said` are the code and the reason."""

    def __init__(self, socket: Socket, *, frames: int, said: tuple[int, str | None] = (1011, None)) -> None:
        super().__init__(socket)
        self._frames, self._said = frames, said

    @property
    def close_code(self) -> int | None:
        return self._said[0]

    @property
    def close_reason(self) -> str | None:
        return self._said[1]

    async def recv(self) -> str | bytes:
        self._frames -= 1
        if self._frames < 0:
            raise ConnectionError
        return await super().recv()


class Sockets:
    """What a client opens its sockets with: each endpoint, and each socket, after `made` made of it what the client gets."""

    def __init__(self, connect: Connect, made: Callable[[Socket], Socket] = lambda socket: socket) -> None:
        self._connect, self.made = connect, made
        self.endpoints: list[str] = []
        self.opened: list[Socket] = []

    async def __call__(self, endpoint: str) -> Socket:
        self.endpoints.append(endpoint)
        socket = self.made(await self._connect(endpoint))
        self.opened.append(socket)
        return socket


def http_through(
    hub: FakeHub, name: str, passed: Callable[[httpx.AsyncClient, httpx.Request], Coroutine[None, None, httpx.Response]]
) -> httpx.AsyncClient:
    """What a client sends its requests with, each by way of `passed`, which is given the usual way too."""
    usual = hub.http(name)
    return httpx.AsyncClient(transport=httpx.MockTransport(lambda request: passed(usual, request)))
