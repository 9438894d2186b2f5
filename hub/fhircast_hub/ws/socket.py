"""One socket's life: handshake, confirmation, frames out, pings, close.

An asyncio protocol that uvicorn hands the upgraded connection to. The WebSocket protocol itself is the sans-I/O
`ServerProtocol` of websockets; two things go past it because they are most of the traffic: text frames that the hub writes,
which are built once for all subscribers, and whole text frames from the client (acknowledgements), which are read here.
Everything else, in whatever pieces it comes, is fed to it in whole frames, so it always rests between two of them.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, cast

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from fhircast_hub.budgets.leaky_bucket import check_wait
from fhircast_hub.budgets.meter import Meter, metered
from fhircast_hub.budgets.table import BIG_FRAME, FRAMES_A_TURN
from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.errors import HubError, NotFound
from fhircast_hub.core.state.commands import Disconnected
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.state.session import Subscription
from fhircast_hub.core.wire.close_codes import ABNORMAL, GOING_AWAY, POLICY_VIOLATION, SERVICE_RESTART, TRY_AGAIN_LATER
from fhircast_hub.service.service import REQUEST_ID
from fhircast_hub.ws.context import QUIET, Headers, SocketContext
from fhircast_hub.ws.frame_allowance import Allowance, Parts
from fhircast_hub.ws.frames import Frame as WrittenFrame
from fhircast_hub.ws.frames import end_of_frame, is_utf8, payload, put
from fhircast_hub.ws.keepalive import Pings
from fhircast_hub.ws.outbox import Outbox

#: Bytes in a client's frame (SYN-15): an acknowledgement takes a hundred, and a long reason may come with it.
MAX_FRAME = 65536
#: Seconds a peer has to answer a close before its connection is cut; and one that is closed for what it sends.
CLOSE_SECONDS, DEAF_SECONDS = 5.0, 1.0
#: Text that is no UTF-8: the "endpoint MUST _Fail the WebSocket Connection_" (RFC 6455, 8.1).
_INVALID_DATA = 1007
_SWITCHING_PROTOCOLS = 101
#: Bytes of the longest frame header; first byte of a final text frame; second byte's mask bit, and its value where a longer length follows.
_MAX_HEADER = 14
_FINAL_TEXT, _MASKED, _LONGER = 0x81, 0x80, 0xFE


class HubSocket(asyncio.Protocol):
    """The server's end of one WebSocket."""

    def __init__(self, context: SocketContext, connections: set[Any], headers: Headers = ()) -> None:
        self._context = context
        self._headers = headers  # of every answer of this server
        # uvicorn's: it calls shutdown() of each when the server stops, and waits for them
        self._connections = connections
        self._protocol = ServerProtocol(max_size=MAX_FRAME, logger=QUIET)
        self._loop = asyncio.get_running_loop()
        self._rest = b""  # of a request or frame that has not all come
        self._name = ""  # in the registry, once the request has come
        self._session: tuple[SessionKey, str] | None = None  # its key and our sid, once the handshake is accepted
        self._paused = False  # the transport holds what the peer does not read
        self._ready = False  # frames may go to the transport: accepted, not paused, not closing
        self._lost = False
        self._outbox = Outbox((context.queue_messages, context.queue_bytes))  # what waits until it is ready
        self._allowance, self._parts = Allowance(), Parts()  # what it may send, and a message that has not all come
        self._whose: tuple[str, str, None] = ("", "", None)  # whose turns it takes
        self._later = False  # it waits for a step in which a big frame is written
        self._again = self._deaf = False  # reads on in the next turn; reads nothing any more
        self._owed = 0  # bytes that websockets answered while the peer did not read
        self._closing: tuple[int, str] | None = None
        self._stopping = False  # the server stops, and that is why it is closing
        self._timer: asyncio.TimerHandle | None = None  # of the next ping; when closing, of the end of patience
        self._pings = Pings()
        self._meter = Meter()  # of the handshake

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without being called so
        # The transport keeps nothing back but what the kernel did not take: the queue here is the only one, and bounded.
        self._transport.set_write_buffer_limits(high=1)  # 0 would stop a TLS transport for good
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._ready = False
        self._connections.discard(self)
        self._set_timer(None)
        self._outbox.clear()
        self._context.registry.remove(self._name)
        self._disconnected()

    def pause_writing(self) -> None:
        self._paused = True
        self._ready = False

    def resume_writing(self) -> None:
        self._paused = False
        self._resume()

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        if self._session is None:
            self._rest = data if self._name else self._request(data)
            if len(self._rest) > MAX_FRAME:
                self._transport.abort()
        elif not self._deaf:
            self._rest = data[self._read(data) :]

    def _read(self, data: bytes) -> int:
        """Read the whole frames of `data`, as many as a turn may bring; how many bytes they are."""
        position, size, left = 0, len(data), FRAMES_A_TURN.most
        while size - position >= 2:
            first, second = data[position], data[position + 1]
            short = _MASKED <= second < _LONGER
            end = position + (second & ~_MASKED) + 6 if short else end_of_frame(data, position)
            longest = position + MAX_FRAME + _MAX_HEADER
            if end is None or size < end <= longest:
                break  # it has not all come; one that is too long goes on at once, to be refused
            if not left:
                self._read_on()
                return position
            left -= 1
            self._weigh(min(end, size) - position)
            if self._deaf:
                return size
            if first == _FINAL_TEXT and second & _MASKED and end <= longest and self._protocol.current_size is None:
                self._text(payload(data, position, end))
            else:
                end = min(end, size)
                self._feed(data[position:end])
            position = end
        return position

    def _read_on(self) -> None:
        """Let others have their turn before the next frames are read."""

        def read() -> None:
            self._again = False
            self.data_received(b"")
            if not self._again and not self._deaf:
                self._transport.resume_reading()

        if not self._again:
            self._transport.pause_reading()
            self._again = True
            self._loop.call_soon(read)

    def eof_received(self) -> None:
        self._protocol.receive_eof()

    # registry.Connection

    def write(self, frame: WrittenFrame, event_ref: EventRef | None) -> bool:
        self._allowance.sent()
        if self._ready and not self._outbox and (isinstance(frame, bytes) or self._context.turns.claim_step()):
            put(self._transport, frame)
            return True
        if self._closing is None and not self._lost:
            self._outbox.put(frame, event_ref)
            if self._session and self._outbox.over:
                self._too_slow()
            elif self._ready:
                self._resume_later()
        return False

    def close(self, code: int, reason: str) -> None:
        if self._closing is None and not self._lost:
            self._closing = code, reason
            if code == POLICY_VIOLATION:
                self._outbox.clear()  # whoever took over is told anew
            self._set_timer(CLOSE_SECONDS, self._transport.abort)
            self._resume()

    def shutdown(self) -> None:
        """The server stops."""
        self._stopping = self._closing is None
        self.close(GOING_AWAY, "the hub is stopping")

    @property
    def queued(self) -> tuple[int, int]:
        """Messages and bytes that wait for the peer to read."""
        return len(self._outbox), self._outbox.size

    # The rest

    def _request(self, data: bytes) -> bytes:
        """Read the handshake's request; what is left over of `data`. The answer waits for the subscription to be found."""
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return data
        self._protocol.receive_data(head + end)
        request = next((event for event in self._protocol.events_received() if isinstance(event, Request)), None)
        if request is None:
            self._transport.abort()
        else:
            self._name = self._context.registry.add(self)
            self._request_id = next(self._context.request_ids)
            self._address = self._context.trail.address(request, self._transport)
            if not self._context.begins(functools.partial(self._begin, request), request.path, self._address):
                self._context.trail.record(self._address, 503, "", None)
                self._transport.abort()
        return rest

    def _begin(self, request: Request) -> None:
        self._task = self._loop.create_task(metered(self._answer(request), self._meter))
        self._task.add_done_callback(self._answered)

    async def _answer(self, request: Request) -> None:
        """Accept the handshake, or refuse it (SUB-11). By then the confirmation and the replay wait in the queue."""
        REQUEST_ID.set(self._request_id)
        response = self._protocol.accept(request)
        subscription: Subscription | None = None
        if response.status_code == _SWITCHING_PROTOCOLS:
            try:
                check_wait(self._context.wait(self._address), "handshakes")
                key, subscription = await self._subscription(request.path)
                self._session = key, subscription.subscription_id
            except HubError as error:
                response = self._protocol.reject(error.status, f"{error}\n")
                if error.retry_after is not None:
                    response.headers["Retry-After"] = str(error.retry_after)
        topic = self._context.log_hash(self._session[0].topic) if self._session else ""
        self._context.trail.record(self._address, response.status_code, topic, subscription)
        if self._lost:
            self._disconnected()
            return
        for name, value in self._headers:
            response.headers[name.decode()] = value.decode()
        response.headers["X-Request-Id"] = self._request_id
        self._protocol.send_response(response)
        self._flush()
        self._log("request", method="GET", route="socket", status=response.status_code)
        if self._session is None:
            self._context.registry.remove(self._name)
            self._transport.close()
            return
        if self._closing is None:
            self._set_timer(self._context.ping_seconds, self._send_ping)
        self._resume()
        self.data_received(b"")

    def _answered(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._context.log.error("socket failed", request_id=self._request_id, exc_info=error)
            self._transport.abort()

    async def _subscription(self, path: str) -> tuple[SessionKey, Subscription]:
        subscription_id = self._context.resolve(path)
        if subscription_id is None:
            raise NotFound("there is no such endpoint")
        whose = await self._context.service.subscriber(subscription_id)
        self._whose = *whose, None
        account = self._meter.account = self._context.accounts.of_user(*whose)
        check_wait(self._context.handshakes.take(subscription_id, self._context.clock()), "handshakes")
        if account.over_budget:
            await self._context.turns.wait_for_step(self._whose, over=True)
        key, subscription = await self._context.ack_timer.connected(subscription_id, self._name)
        self._outbox.opened(account)
        if self._outbox.over:
            self._too_slow()
        return key, subscription

    def _disconnected(self) -> None:
        if self._session is not None:
            key, subscription_id = self._session
            code, delivered_until = self._code(), self._context.ack_timer.disconnected(self._name)
            self._log("socket closed", code=code)
            self._session = None
            self._context.service.submit_soon(key, Disconnected(subscription_id, self._name, delivered_until, code))

    def _code(self) -> int:
        """How it ended: by the code of whoever closed first. What the peer answers to the hub's is not why (SYN-7)."""
        if self._stopping:
            return SERVICE_RESTART
        sent, received = self._protocol.close_sent, self._protocol.close_rcvd
        first = received if sent is None or self._protocol.close_rcvd_then_sent else sent
        return first.code if first else ABNORMAL

    def _log(self, event: str, **fields: str | int | None) -> None:
        topic = self._context.log_hash(self._session[0].topic) if self._session else None
        self._context.log.info(event, request_id=self._request_id, topic=topic, **fields)

    def _resume(self) -> None:
        """Write what waited, as far as the peer reads; and close after it, if that waited too."""
        self._ready = self._session is not None and not self._paused and self._protocol.state is OPEN
        while self._outbox and self._ready:
            if self._outbox.first > BIG_FRAME.most and not self._context.turns.claim_step():
                self._resume_later()
                return
            frame, event_ref = self._outbox.take()
            put(self._transport, frame)
            if event_ref is not None:
                self._context.ack_timer.sent(event_ref, (self._name,))
        if self._ready and self._closing is not None:
            self._ready = False
            self._protocol.send_close(*self._closing)
            self._flush()

    def _resume_later(self) -> None:
        """A big frame is a step of its own: one event for many sockets would keep all others waiting."""

        def resume() -> None:
            self._later = False
            self._resume()

        if not self._later:
            self._later = True
            if not self._context.turns.queue_step(self._whose, resume):
                self._too_slow()

    def _feed(self, data: bytes) -> None:
        """Give websockets a whole frame, or the start of one that is too long, and do what it makes of it."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            assert isinstance(event, Frame)
            if event.opcode is Opcode.PONG:
                if (asked := self._pings.answered(event.data)) is not None:
                    self._context.ack_timer.alive(self._name, asked)
            elif event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._part(event)
        self._flush()
        if self._protocol.state is not OPEN and self._closing is None:
            self._closing = (0, "")  # websockets is closing by itself: nothing more is written
            self._ready = False
            self._outbox.clear()
            self._set_timer(CLOSE_SECONDS, self._transport.abort)

    def _part(self, frame: Frame) -> None:
        """A message that is not text, or comes in several frames."""
        if frame.opcode is not Opcode.CONT:
            self._parts.begin(text=frame.opcode is Opcode.TEXT)
        self._parts.add(frame.data)
        if frame.fin:
            text = self._parts.end()
            if text is None:
                self._hear(b"")
            else:
                self._text(text)

    def _text(self, message: bytes) -> None:
        """A whole text came. What can be read of it counts, also where a part of it is no UTF-8 (SYN-15)."""
        self._hear(message)
        if not message.isascii() and not is_utf8(message):
            self.close(_INVALID_DATA, "expected UTF-8 in a text frame, got something else")

    def _weigh(self, size: int) -> None:
        """A frame of this many bytes came. A peer that sends more than it may is not read any more."""
        if self._allowance.exceeds(size, self._loop.time()):
            self._deaf, self._rest = True, b""
            self._context.metrics.floods_closed.inc()
            self._transport.pause_reading()
            self._end(POLICY_VIOLATION, "more frames came than acknowledge what was sent", DEAF_SECONDS)

    def _hear(self, message: bytes) -> None:
        """A whole message came; of one that is not text nothing is left."""
        self._context.ack_timer.heard(self._name, message)

    def _flush(self) -> None:
        """Write what websockets answers: pongs, closes, refusals."""
        for data in self._protocol.data_to_send():
            if not data:
                self._transport.close()
                continue
            self._owed = self._owed + len(data) if self._paused else 0
            self._transport.write(data)
        if self._owed > MAX_FRAME:
            self._transport.abort()  # it asks for pongs and does not read them

    def _too_slow(self) -> None:
        """The peer does not read: what waits for it is dropped, and it is told to come back (SYN-14)."""
        self._context.metrics.slow_readers_closed.inc()
        self._end(TRY_AGAIN_LATER, "too slow", CLOSE_SECONDS)

    def _end(self, code: int, reason: str, seconds: float) -> None:
        """Close at once, without what waits."""
        self._outbox.clear()
        self._closing, self._ready = (code, reason), False
        self._set_timer(seconds, self._transport.abort)
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, reason)
            self._flush()

    def _send_ping(self) -> None:
        """Ping (SYN-13). A peer that did not answer the last one, or read nothing since, is gone."""
        if self._pings.is_gone(self._transport.get_write_buffer_size()):
            self._context.metrics.pings_unanswered.inc()
            self._transport.abort()
            return
        if self._ready:
            self._protocol.send_ping(self._pings.next(self._context.clock()))
            self._flush()
        self._set_timer(self._context.ping_seconds, self._send_ping)

    def _set_timer(self, seconds: float | None, then: Callable[[], None] = lambda: None) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, then) if seconds is not None else None
