"""HTTP/1.1 within budgets: uvicorn's protocol, which of itself takes headers, chunks and connections without end."""

from __future__ import annotations

import asyncio
import functools
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fhircast_hub.addresses import Addresses, place
from fhircast_hub.budgets import (
    CHUNKS,
    CONNECTIONS,
    HEADER_BYTES,
    HEADER_SECONDS,
    HEADERS,
    PIPELINED,
    STALLED,
    Turns,
)

#: Seconds that a client may reuse its connection after a request; longer than a proxy's own patience of a minute.
KEEP_ALIVE_SECONDS = 65
#: uri-host [ ":" port ] (RFC 9110 section 7.2), without a look at what the parts mean.
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_TURNED_AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 5\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 53\r\n\r\n"
    b"more requests wait for their turn than may; try later"
)


class Counters(Protocol):
    """What connections count."""

    connections_cut: int


class Sharing:
    """What all connections of a server share.

    `who` says of a request's ASGI scope which known user's turn it takes; None for a stranger, whose connection has turns of its own.
    """

    def __init__(
        self,
        turns: Turns,
        who: Callable[[Mapping[str, Any]], Hashable | None],
        addresses: Addresses,
        counters: Counters,
    ) -> None:
        self.turns = turns
        self.who = who
        self.addresses = addresses
        self.counters = counters
        #: connections that are no sockets, by place of their address
        self.connections: Counter[bytes] = Counter()


class HttpProtocol(HttpToolsProtocol):
    """One connection, until it is upgraded to a WebSocket."""

    def __init__(self, sharing: Sharing, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._sharing = sharing
        self._place = b""  # among the connections that are counted
        self._header_bytes = self._chunks = 0
        self._in_headers = True
        self._patience: asyncio.TimerHandle | None = None  # for headers that do not end
        self._stalled: asyncio.TimerHandle | None = None  # for an answer of which nothing is taken
        self._refusal = ""  # why a request is no HTTP, where uvicorn does not say it

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._await_headers()
        address = self.client[0] if self.client else ""
        if not self._sharing.addresses.trusts(address):
            self._place = place(address)
            self._sharing.connections[self._place] += 1
            if self._sharing.connections[self._place] > CONNECTIONS.most:
                self._cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > HEADER_BYTES.most:
                self._cut()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        self._unwatch()
        super().resume_writing()

    # What the parser finds

    def on_message_begin(self) -> None:
        self._header_bytes = self._chunks = 0
        self._in_headers = True
        self._await_headers()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come here too, behind the body.
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADER_BYTES.most or len(self.headers) > HEADERS.most:
            self._cut()
        else:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._stop_waiting()
        if self.parser.get_http_version() == "1.1":
            self._check_host()
        super().on_headers_complete()
        if len(self.pipeline) > PIPELINED.most:
            self._cut()

    def on_chunk_header(self) -> None:
        """A chunk begins: each costs a call, however short it is."""
        self._chunks += 1
        if self._chunks > CHUNKS.most:
            self._refuse(f"the body: expected at most {CHUNKS.most} chunks, got more")

    # uvicorn's own

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        turns = self._sharing.turns
        if turns.begins():
            super()._start_asgi_task(cycle, app)
            return
        who = self._sharing.who(cycle.scope)
        if not turns.waits(
            self if who is None else who, functools.partial(self._begin, cycle, app), known=who is not None
        ):
            self._sharing.counters.connections_cut += 1
            self.transport.write(_TURNED_AWAY)
            self.transport.close()

    def _begin(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if not cycle.disconnected:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The newest request may be one that was pipelined behind this. Of a body that nobody reads nothing is kept, and its rest has
        # an end, as headers have.
        if self.cycle.response_complete and self.cycle.more_body:
            self.cycle.body = bytearray()
            self._await_headers()
        if self.transport.is_closing() and self._stalled is None:  # what is left of the answer has an end too
            self._stalled = self.loop.call_later(STALLED.most, self._cut)

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came for a while. A client that has not even taken its answer is cut off."""
        if self.transport.get_write_buffer_size():
            self._cut()
        elif self.timeout_keep_alive < KEEP_ALIVE_SECONDS:
            rest = KEEP_ALIVE_SECONDS - self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(rest, super().timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def handle_websocket_upgrade(self) -> None:
        self._leave()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(self._refusal or msg)

    # The rest

    def _check_host(self) -> None:
        """ "A server MUST respond with a 400 […] to any HTTP/1.1 request message that lacks a Host header field and to any request
        message that contains more than one Host header field line or a Host header field with an invalid field value" (RFC 9112, 3.2)."""
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) != 1:
            self._refuse(f"Host: expected this header once, got it {len(hosts)} times")
        if not _HOST.fullmatch(hosts[0].strip()):
            self._refuse(f"Host: expected a host and perhaps a port, got {len(hosts[0])} bytes that are none")

    def _refuse(self, reason: str) -> None:
        """Let uvicorn refuse what it parses."""
        self._refusal = reason
        raise ValueError(reason)

    def _cut(self) -> None:
        """The connection went beyond a budget."""
        self._sharing.counters.connections_cut += 1
        self.transport.abort()

    def _await_headers(self) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(HEADER_SECONDS.most, self._cut)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _watch(self, before: int | None = None) -> None:
        """Cut the connection off once its client has taken nothing for a while."""
        left = self.transport.get_write_buffer_size()
        if before is not None and left >= before:
            self._cut()
        else:
            self._unwatch()
            self._stalled = self.loop.call_later(STALLED.most, self._watch, left)

    def _unwatch(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _leave(self) -> None:
        """The connection is none of HTTP any more."""
        self._stop_waiting()
        self._unwatch()
        if self._place:
            self._sharing.connections[self._place] -= 1
            if not self._sharing.connections[self._place]:
                del self._sharing.connections[self._place]
            self._place = b""
