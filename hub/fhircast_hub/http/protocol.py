"""HTTP/1.1 within budgets: uvicorn's protocol, which of itself takes headers, chunks and connections without end."""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fhircast_hub.budgets.table import (
    CHUNKS,
    CONNECTIONS,
    HEADER_BYTES,
    HEADER_SECONDS,
    HEADERS,
    OVERHEAD,
    PIPELINED,
    SLICE,
    STALLED,
)
from fhircast_hub.budgets.turns import Turns
from fhircast_hub.edge.client_addresses import ClientAddresses, address_key
from fhircast_hub.telemetry.metrics import Metrics

#: Seconds that a client may reuse its connection after a request; longer than a proxy's own patience of a minute.
KEEP_ALIVE_SECONDS = 65
#: uri-host [ ":" port ] (RFC 9110 section 7.2), without a look at what the parts mean.
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_TURNED_AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\n%bconnection: close\r\nretry-after: 5\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 53\r\n\r\n"
    b"more requests wait for their turn than may; try later"
)


class HttpContext:
    """What all connections of a server share.

    `who` says of a request's ASGI scope which known user's turn it takes; None for a stranger, whose connection has turns of its own.
    """

    def __init__(
        self,
        turns: Turns,
        who: Callable[[Mapping[str, Any]], Hashable | None],
        addresses: ClientAddresses,
        metrics: Metrics,
    ) -> None:
        self.turns = turns
        self.who = who
        self.addresses = addresses
        self.metrics = metrics
        #: HTTP connections, by place of their address
        self.connections: Counter[bytes] = Counter()
        #: those that wait for a request, or for all of its headers, the longest first
        self.idle: dict[bytes, dict[HttpProtocol, None]] = {}


class _Flow(FlowControl):
    """uvicorn's, which pauses while a body is not taken, or an answer is due before the next request."""

    def __init__(self, transport: asyncio.Transport, resumed: Callable[[], None]) -> None:
        super().__init__(transport)
        self._resumed = resumed

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._resumed()


class HttpProtocol(HttpToolsProtocol):
    """One connection, until it is upgraded to a WebSocket."""

    def __init__(self, sharing: HttpContext, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._sharing = sharing
        self._place = b""  # among the connections that are counted
        self._overhead = self._chunks = 0  # bytes of a request that are no body; chunks of its body
        self._in_headers = True
        self._body_left = 0  # as its length was declared
        self._idle = True  # no request is being answered
        self._ended = self._gone = False  # nothing is parsed any more; nobody is there
        self._rest, self._at = b"", 0  # what was read, and how much of it was parsed
        self._waits = False  # for a step to read on in
        self._patience: asyncio.TimerHandle | None = None  # for headers that do not end
        self._stalled: asyncio.TimerHandle | None = None  # for an answer of which nothing is taken
        self._refusal = ""  # why a request is no HTTP, where uvicorn does not say it

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.flow = _Flow(transport, self._read_again)
        self._await_headers()
        address = self.client[0] if self.client else ""
        if not self._sharing.addresses.trusts(address):
            self._place = address_key(address)
            self._sharing.connections[self._place] += 1
            idle = self._sharing.idle.setdefault(self._place, {})
            idle[self] = None
            if self._sharing.connections[self._place] > CONNECTIONS.most:
                next(iter(idle))._cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = self._gone = True
        self._leave()
        super().connection_lost(exc)
        # Else these refer to each other, and stay until the collector of garbage comes, which counts objects and not bytes.
        self.pipeline.clear()
        self.flow = FlowControl(self.transport)
        self.cycle = self.scope = None  # type: ignore[assignment]  # nothing is asked any more
        self.headers, self._rest = [], b""

    def data_received(self, data: bytes) -> None:
        if self._rest:
            self._rest += data
            return
        self._rest, self._at = data, 0
        if self._sharing.turns.claim_step():
            self._read()
        else:
            self.transport.pause_reading()
            self._wait()

    def _step(self) -> None:
        """The turn of this connection has come."""
        self._waits = False
        self._read()

    def _read(self) -> None:
        """Parse what was read: a small request at once, and what is left of a long one in steps of its own (LIM-3)."""
        began, free = time.perf_counter(), True
        while self._at < len(self._rest) and not (self._ended or self.flow.read_paused):
            if not (free or self._sharing.turns.claim_step()):
                break
            free = False
            # The bytes of a body cost nothing; each header and each chunk costs a call.
            many = max(int(SLICE.most), self._body_left)
            data = self._rest[self._at : self._at + many]
            self._at += len(data)
            self._feed(data)
        self._sharing.turns.add_step_time(time.perf_counter() - began)
        if self._at < len(self._rest) and not self._ended:
            self.transport.pause_reading()
            if not self.flow.read_paused:
                self._wait()
            return
        size, self._rest, self._at = self._at, b"", 0
        if self._ended or self.flow.read_paused:
            return
        if size > SLICE.most:  # one connection could bring megabytes in a turn
            self.transport.pause_reading()
            self._wait()
        else:
            self.transport.resume_reading()

    def _wait(self) -> None:
        """Read on in a step of one's own."""
        if not self._waits:
            self._waits = True
            if not self._await_turn(self._step):
                self._cut()

    def _await_turn(self, begin: Callable[[], object]) -> bool:
        """Wait for the turn of the user who asks, or of this connection. False where too many wait already."""
        # Who asked last on this connection asks again.
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and (who := self._sharing.who(cycle.scope)) is not None:
            return self._sharing.turns.queue_step(who, begin)
        return self._sharing.turns.queue_step(self, begin, address_key=self._place or b"proxy")

    def _read_again(self) -> None:
        """uvicorn takes more: of what was read before, then of what comes."""
        if self._at < len(self._rest):
            self._wait()
        else:
            self.transport.resume_reading()

    def _feed(self, data: bytes) -> None:
        self._overhead += len(data)
        super().data_received(data)
        if self._idle and self._patience is None and not self._ended:  # a line end is the start of a request too
            self._await_headers()
        if self._overhead > (HEADER_BYTES.most if self._in_headers else OVERHEAD.most):
            self._cut()

    def on_body(self, body: bytes) -> None:
        self._overhead -= len(body)
        self._body_left = max(0, self._body_left - len(body))
        super().on_body(body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        self._unwatch()
        if self.transport.get_write_buffer_size():
            self._watch()
        super().resume_writing()

    # What the parser finds

    def on_message_begin(self) -> None:
        self._overhead = self._chunks = 0
        self._in_headers, self._body_left = True, 0
        self._await_headers()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come here too, behind the body.
        if len(self.headers) > HEADERS.most:
            self._cut()
        else:
            if name.lower() == b"content-length" and value.isdigit():
                self._body_left = int(value)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._stop_waiting()
        self._busy()
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
        if self._sharing.turns.claim_step():
            super()._start_asgi_task(cycle, app)
        elif not self._await_turn(functools.partial(self._begin, cycle, app)):
            self._sharing.metrics.connections_cut.inc()
            headers = b"".join(b"%b: %b\r\n" % header for header in self.server_state.default_headers)
            self.transport.write(_TURNED_AWAY % headers)
            self.transport.close()

    def _begin(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if not (cycle.disconnected or self._gone):
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        if self._gone:
            return
        super().on_response_complete()
        if not (self.pipeline or self._ended) and self.cycle.response_complete:
            self._idle = True
            if self._place:
                self._sharing.idle[self._place][self] = None
        # The newest request may be one that was pipelined behind this. Where its answer is complete and its body is not, what came is
        # dropped, and the rest must end as soon as headers must.
        if self.cycle.response_complete and self.cycle.more_body:
            self.cycle.body = bytearray()
            self._await_headers()
        if self.transport.is_closing() and self._stalled is None:  # what is left of the answer has an end too
            self._watch()

    def timeout_keep_alive_handler(self) -> None:
        """uvicorn's timer has run for a part of KEEP_ALIVE_SECONDS. A client that takes nothing of its answer is cut off."""
        if self.transport.get_write_buffer_size():
            self._watch()
        elif self.timeout_keep_alive < KEEP_ALIVE_SECONDS:
            rest = KEEP_ALIVE_SECONDS - self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(rest, super().timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def handle_websocket_upgrade(self) -> None:
        self._ended = True
        self._leave()
        self.transport.resume_reading()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        self._ended = True
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

    def _busy(self) -> None:
        """A request is being answered."""
        self._idle = False
        if self._place:
            self._sharing.idle[self._place].pop(self, None)

    def _cut(self) -> None:
        """The connection went beyond a budget."""
        if not self._ended:
            self._sharing.metrics.connections_cut.inc()
        self._ended = True
        self._busy()
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
            self._busy()
            self._sharing.connections[self._place] -= 1
            if not self._sharing.connections[self._place]:
                del self._sharing.connections[self._place], self._sharing.idle[self._place]
            self._place = b""
