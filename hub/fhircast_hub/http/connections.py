"""The state that HTTP connections share, and parts of each connection (http/protocol.py)."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from fhircast_hub.budgets.table import CONNECTIONS
from fhircast_hub.budgets.turns import Turns
from fhircast_hub.edge.client_addresses import ClientAddresses
from fhircast_hub.http.direct import DirectAnswer, DirectWay
from fhircast_hub.telemetry.metrics import Metrics

#: The characters of uri-host [ ":" port ] (RFC 9110 section 7.2).
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
#: The answer to a request whose step found no place. The gap is for headers.
TOO_MANY_WAIT = (
    b"HTTP/1.1 503 Service Unavailable\r\n%bconnection: close\r\nretry-after: 5\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 54\r\n\r\n"
    b"too many requests wait for their turn; try again later"
)


class IdleConnection(Protocol):
    """A connection without a request, or without all headers of one."""

    def cut(self) -> None:
        """Cut the connection, because it is beyond a budget."""
        ...


class HttpContext:
    """The state that all HTTP connections of a server share.

    `user_of(scope)` is the turn's key of a request's known user. None: the connection has turns of its own.
    """

    def __init__(
        self,
        turns: Turns,
        user_of: Callable[[Mapping[str, Any]], Hashable | None],
        addresses: ClientAddresses,
        metrics: Metrics,
        direct: DirectWay,
    ) -> None:
        self.direct = direct
        self.turns = turns
        self.user_of = user_of
        self.addresses = addresses
        self.metrics = metrics
        #: The number of connections, by address_key.
        self.connections: Counter[bytes] = Counter()
        #: Connections without a request, or without all headers of one, by address_key. The longest idle is first.
        self.idle: dict[bytes, dict[IdleConnection, None]] = {}

    def count(self, connection: IdleConnection, address_key: bytes) -> None:
        """Count a new connection. Beyond CONNECTIONS, the connection of this address that is idle for longest is cut."""
        self.connections[address_key] += 1
        idle = self.idle.setdefault(address_key, {})
        idle[connection] = None
        if self.connections[address_key] > CONNECTIONS.most:
            next(iter(idle)).cut()

    def uncount(self, address_key: bytes) -> None:
        """A counted connection, which is not among the idle ones, ends or becomes a WebSocket."""
        self.connections[address_key] -= 1
        if not self.connections[address_key]:
            del self.connections[address_key], self.idle[address_key]

    def user_of_cycle(self, cycle: RequestResponseCycle | DirectAnswer | None) -> Hashable | None:
        """The turn's key of the known user of a connection's last request. None: the connection has turns of its own."""
        if isinstance(cycle, DirectAnswer):
            return cycle.user
        return self.user_of(cycle.scope) if cycle is not None else None


class Timer:
    """Calls back once, unless stopped before."""

    __slots__ = ("_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    @property
    def runs(self) -> bool:
        """Whether the timer was started and not stopped."""
        return self._handle is not None

    def start(self, seconds: float, then: Callable[..., None], *arguments: object) -> None:
        """Call `then` after these seconds, in place of an earlier call."""
        self.stop()
        self._handle = self._loop.call_later(seconds, then, *arguments)

    def stop(self) -> None:
        """Call nothing."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Flow(FlowControl):
    """uvicorn's flow control, with a callback. uvicorn pauses for an unread body, and for an answer before a pipelined request."""

    def __init__(self, transport: asyncio.Transport, on_resume: Callable[[], None]) -> None:
        super().__init__(transport)
        self._on_resume = on_resume

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._on_resume()


def wrong_host(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The fault of a request's Host, "" without one.

    "A server MUST respond with a 400 […] to any HTTP/1.1 request message that lacks a Host header field and to any request message
    that contains more than one Host header field line or a Host header field with an invalid field value" (RFC 9112, 3.2).
    """
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1:
        return f"the header Host is required once, not {len(hosts)} times"
    return _wrong_value(hosts[0])


@lru_cache(256)  # nearly always the hub's own
def _wrong_value(host: bytes) -> str:
    if _HOST.fullmatch(host.strip()):
        return ""
    return f"Host must be a host with or without a port, not {len(host)} other bytes"
