"""HTTP/1.1 within budgets (LIM-3). uvicorn's own protocol limits neither headers nor chunks nor connections."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from fhircast_hub.budgets.table import (
    BIG_BODY,
    CHUNKS,
    HEADER_BYTES,
    HEADER_SECONDS,
    HEADERS,
    OVERHEAD,
    PIPELINED,
    SLICE,
    STALLED,
)
from fhircast_hub.edge.client_addresses import address_key
from fhircast_hub.http.connections import TOO_MANY_WAIT, Flow, HttpContext, Timer, wrong_host
from fhircast_hub.http.direct import DirectAnswer
from fhircast_hub.http.exchange import CUT
from fhircast_hub.http.parsing import Parsing

#: Seconds that an idle connection stays open: longer than the minute after which proxies close theirs.
KEEP_ALIVE_SECONDS = 65
#: Seconds that a small body may take. Then the request goes by ASGI, which gives the body BODY_SECONDS.
DIRECT_SECONDS = 0.25
#: Headers that only the way of ASGI understands. Pages of browsers send Origin (CFG-6).
_FOR_ASGI = frozenset((b"expect", b"origin", b"transfer-encoding", b"upgrade"))


class HttpProtocol(Parsing):
    """One connection, until it is upgraded to a WebSocket."""

    def __init__(self, context: HttpContext, **uvicorns: Any) -> None:
        super().__init__(context, **uvicorns)
        #: The client's address in HttpContext. b"": a trusted proxy's, or not counted any more.
        self._address_key = b""
        #: Bytes of the present request beside its body.
        self._overhead = 0
        #: Chunks of the present body.
        self._chunks = 0
        self._in_headers = True
        #: Whether the parser has come to the end of a request in this slice.
        self._message_ended = False
        #: Bytes of the present body that are still to come, by Content-Length.
        self._body_left = 0
        #: Whether no request is being answered.
        self._idle = True
        #: Whether the connection is lost.
        self._lost = False
        #: Bytes that were received but not parsed, from _at on.
        self._received, self._at = b"", 0
        #: Whether a step for reading on is queued.
        self._queued = False
        #: Cuts the connection if the headers do not end. Takes a request to ASGI whose small body does not.
        self._header_timer = Timer(self.loop)
        #: Cuts the connection if the client reads nothing of an answer.
        self._stall_timer = Timer(self.loop)
        #: Whether a header of the present request is for ASGI.
        self._needs_asgi = False
        #: The body so far of a request that may take the direct way. None: the request goes by ASGI.
        self._small_body: list[bytes] | None = None
        #: Whether this step has taken a request on the direct way. The next one claims a step of its own.
        self._took_direct = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.flow = Flow(transport, self._read_again)
        self._start_header_timer()
        address = self.client[0] if self.client else ""
        if not self._context.addresses.trusts(address):
            self._address_key = address_key(address)
            self._context.count(self, self._address_key)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = self._lost = True
        self._leave()
        super().connection_lost(exc)
        self._drop_parts()

    def data_received(self, data: bytes) -> None:
        if self._received:
            self._received += data
            return
        self._received, self._at = data, 0
        if self._context.turns.claim_step():
            self._read()
        else:
            self.transport.pause_reading()
            self._wait()

    def _step(self) -> None:
        """A step of this connection begins."""
        self._queued = False
        self._read()

    def _read(self) -> None:
        """Parse the received bytes: a small request in this step, a long one in several steps (LIM-3)."""
        started, free = time.perf_counter(), True
        while self._at < len(self._received) and not (self._ended or self.flow.read_paused):
            if not (free or self._context.turns.claim_step()):
                break
            free = False
            # The bytes of a body cost nothing. Each header and each chunk costs a call.
            data = self._received[self._at : self._at + max(int(SLICE.most), self._body_left)]
            self._at += len(data)
            self._feed(data)
        self._context.turns.add_step_time(time.perf_counter() - started)
        size, is_done = self._at, self._at == len(self._received) or self._ended
        if is_done:
            self._received, self._at = b"", 0
            if self._small_body is not None and not self._header_timer.runs:  # many clients send the body by itself
                self._wait_for_body()
            if self._ended or self.flow.read_paused:
                return
            if size <= SLICE.most:  # otherwise one connection could send megabytes in a turn
                self.transport.resume_reading()
                return
        self.transport.pause_reading()
        if not self.flow.read_paused:
            self._wait()

    def _wait(self) -> None:
        """Read on in a later step."""
        if not self._queued:
            self._queued = True
            if not self._queue_step(self._step):
                self.cut()

    def _queue_step(self, begin: Callable[[], object]) -> bool:
        """Queue a step of the request's user, or of this connection. False: too many steps wait."""
        # The next request of a connection is usually the same user's.
        if (user := self._context.user_of_cycle(self.cycle)) is not None:
            return self._context.turns.queue_step(user, begin)
        return self._context.turns.queue_step(self, begin, address_key=self._address_key or b"proxy")

    def _read_again(self) -> None:
        """uvicorn accepts data again: first the received bytes, then new ones."""
        if self._at < len(self._received):
            self._wait()
        else:
            self.transport.resume_reading()

    def _feed(self, data: bytes) -> None:
        self._overhead += len(data)
        self._message_ended = self._took_direct = False
        self._parse(data)
        # An empty line may begin a request.
        if not self._header_timer.runs and (self._in_headers or (self._idle and not self._message_ended)):
            self._start_header_timer()
        if self._overhead > (HEADER_BYTES.most if self._in_headers else OVERHEAD.most):
            self.cut()

    def on_body(self, body: bytes) -> None:
        self._overhead -= len(body)
        self._body_left = max(0, self._body_left - len(body))
        if self._small_body is not None:
            self._small_body.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._again:
            return
        self._message_ended = True
        self._header_timer.stop()
        parts, direct = self._small_body, self._context.direct
        principal = direct.recall(self.headers) if parts is not None and not self._ended else None
        if parts is None or principal is None:
            if parts is not None:
                self._go_by_asgi()
            super().on_message_complete()
            return
        body, self._small_body, keep_alive = b"".join(parts), None, self.parser.should_keep_alive()
        request = direct.request(self.client, self.url, self.headers, body, principal)
        answer = DirectAnswer(direct, self, request, principal, keep_alive=keep_alive)
        self.cycle = answer  # type: ignore[assignment]  # has what uvicorn asks of a cycle
        answer.begin()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_answer()

    def resume_writing(self) -> None:
        self._stall_timer.stop()
        if self.transport.get_write_buffer_size():
            self._watch_answer()
        super().resume_writing()

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        self._overhead = self._chunks = 0
        self._in_headers, self._body_left = True, 0
        if self._header_timer.runs:
            self._start_header_timer()
        # As uvicorn's method, without the scope of ASGI.
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._needs_asgi = False

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers after the body come here too.
        if len(self.headers) > HEADERS.most:
            self.cut()
            return
        name = name.lower()
        if name == b"content-length" and value.isdigit():
            self._body_left = int(value)
        elif name in _FOR_ASGI:
            self._needs_asgi = True
            self.expect_100_continue |= name == b"expect" and value.lower() == b"100-continue"
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._ignores_upgrade():
            return
        self._in_headers = False
        self._header_timer.stop()
        self._set_busy()
        is_1_1 = self.parser.get_http_version() == "1.1"
        if is_1_1:
            self._refuse_if(wrong_host(self.headers))
        if is_1_1 and self._may_be_direct():
            self._small_body, self._took_direct = [], True
            return
        self._go_by_asgi()
        if len(self.pipeline) > PIPELINED.most:
            self.cut()

    def _may_be_direct(self) -> bool:
        """Whether the request takes the direct way if its body comes at once. Nothing else is being answered then."""
        return (
            not (self._needs_asgi or self._took_direct)
            and 0 < self._body_left <= BIG_BODY.most
            and self.parser.get_method() == b"POST"
            and getattr(self.cycle, "response_complete", True)  # uvicorn begins with None
            and not (self.flow.write_paused or self._ended or self.transport.is_closing())
            and self._context.direct.leads_to(self.url)
        )

    def _wait_for_body(self) -> None:
        """Wait for the body of a request that may take the direct way."""
        if self._context.direct.waits_for_body(self.headers):
            self._header_timer.start(DIRECT_SECONDS, self._go_by_asgi)
        else:
            self._go_by_asgi()

    def _go_by_asgi(self) -> None:
        """Give the request, as far as its parts have come, to uvicorn."""
        url, headers, expect, parts = self.url, self.headers, self.expect_100_continue, self._small_body or ()
        self._small_body = None
        self._header_timer.stop()
        super().on_message_begin()  # makes the scope
        self.scope[CUT] = self.cut  # type: ignore[literal-required]
        self.url, self.expect_100_continue = url, expect
        self.headers += headers  # the scope has this list
        super().on_headers_complete()
        for part in parts:
            super().on_body(part)

    def on_chunk_header(self) -> None:
        """A chunk begins. Each chunk costs a call, however short."""
        self._chunks += 1
        if self._chunks > CHUNKS.most:
            self._refuse_if(f"the body may have at most {CHUNKS.most} chunks")

    def write_answer(self, answer: bytes, *, keep_alive: bool) -> None:
        """Write a whole answer of the direct way."""
        if self._lost or self.transport.is_closing():
            return
        self.transport.write(answer)
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in a task, for which the server waits when it stops."""
        task = self.loop.create_task(work)
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    # Methods of uvicorn's protocol

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if self._parses:
            self._to_begin.append((cycle, app))
        elif self._context.turns.claim_step():
            super()._start_asgi_task(cycle, app)
        elif not self._queue_step(functools.partial(self._begin, cycle, app)):
            self._context.metrics.connections_cut.inc()
            headers = b"".join(b"%b: %b\r\n" % header for header in self.server_state.default_headers)
            self.transport.write(TOO_MANY_WAIT % headers)
            self.transport.close()

    def _begin(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if not (cycle.disconnected or self._lost):
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        if self._lost:
            return
        super().on_response_complete()
        if not (self.pipeline or self._ended) and self.cycle.response_complete:
            self._idle = True
            if self._address_key:
                self._context.idle[self._address_key][self] = None
        # The answer is complete, but its body is not (self.cycle may be a pipelined request behind it). Drop the body's bytes, and
        # expect the rest as soon as headers.
        if self.cycle.response_complete and self.cycle.more_body:
            self.cycle.body = bytearray()
            self._start_header_timer()
        if self.transport.is_closing() and not self._stall_timer.runs:  # the client must read the rest of the answer
            self._watch_answer()

    def timeout_keep_alive_handler(self) -> None:
        """uvicorn's timer has run for a part of KEEP_ALIVE_SECONDS. A client that reads nothing of its answer is watched."""
        if self.transport.get_write_buffer_size():
            self._watch_answer()
        elif self.timeout_keep_alive < KEEP_ALIVE_SECONDS:
            left = KEEP_ALIVE_SECONDS - self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(left, super().timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """The server stops, after the present request."""
        if self._small_body is not None:
            self._go_by_asgi()
        super().shutdown()

    def ending(self, _seconds: float) -> asyncio.Transport | None:
        """See server.Ending."""
        return self.transport if self.transport.is_closing() else None

    def handle_websocket_upgrade(self) -> None:
        if not getattr(self.cycle, "response_complete", True):
            self.cut()  # the answer to the request before would come within the socket's frames
            return
        self._ended = True
        self._leave()
        self.transport.resume_reading()
        super().handle_websocket_upgrade()
        self._drop_parts()

    def _set_busy(self) -> None:
        """A request is being answered."""
        self._idle = False
        if self._address_key:
            self._context.idle[self._address_key].pop(self, None)

    def cut(self) -> None:
        """Cut the connection, because it is beyond a budget."""
        if not self._ended:
            self._context.metrics.connections_cut.inc()
        self._ended = True
        self._set_busy()
        self.transport.abort()

    def _start_header_timer(self) -> None:
        if not self._ended:
            self._header_timer.start(HEADER_SECONDS.most, self.cut)

    def _watch_answer(self, before: int | None = None) -> None:
        """Cut the connection if the client reads nothing of the answer. `before`: unsent bytes at the last look."""
        left = self.transport.get_write_buffer_size()
        if before is not None and left >= before:
            self.cut()
        else:
            self._stall_timer.start(STALLED.most, self._watch_answer, left)

    def _drop_parts(self) -> None:
        """Forget all that refers to this object. The garbage collector would free these late, because it counts objects, not bytes."""
        self.pipeline.clear()
        self.flow = FlowControl(self.transport)
        self.cycle = self.scope = self.parser = None  # type: ignore[assignment]  # no request follows
        self.headers, self._received = [], b""

    def _leave(self) -> None:
        """The connection ends, or becomes a WebSocket."""
        self._header_timer.stop()
        self._stall_timer.stop()
        if self._address_key:
            self._set_busy()
            self._context.uncount(self._address_key)
            self._address_key = b""
