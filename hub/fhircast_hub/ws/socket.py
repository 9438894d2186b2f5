"""The server's end of one WebSocket: its handshake, and the frames that it reads.

The writing half is `SocketWriter` in ws/socket_writer.py.

The protocol is the sans-I/O `ServerProtocol` of websockets. `ServerProtocol` is given whole frames only.
Some frames bypass `ServerProtocol`, because they are most of the traffic: events, acknowledgements, pings and pongs.
The socket is kept by hand for speed: one frame is built for all subscribers, and none is built or parsed per socket.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined]  # websockets' C version, where installed
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING, OPEN

from fhircast_hub.budgets.leaky_bucket import check_wait
from fhircast_hub.budgets.meter import Meter, metered
from fhircast_hub.budgets.table import FRAMES_A_TURN
from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.errors import BadRequest, HubError, NotFound
from fhircast_hub.core.state.commands import Disconnected
from fhircast_hub.core.state.session import Subscription
from fhircast_hub.core.wire.close_codes import ABNORMAL, GOING_AWAY, POLICY_VIOLATION, SERVICE_RESTART
from fhircast_hub.service.request_id import REQUEST_ID
from fhircast_hub.ws.frames import MAX_FRAME, FragmentedMessage, end_of_frame, is_utf8, payload
from fhircast_hub.ws.services import Headers, SocketServices
from fhircast_hub.ws.socket_writer import CLOSE_SECONDS, SocketWriter

#: Seconds that a peer has to answer a close for sending too much.
FLOOD_CLOSE_SECONDS = 1.0
#: Seconds that a peer has to answer the close of a server that stops.
STOP_SECONDS = 1.0
#: Text that is not UTF-8: the "endpoint MUST _Fail the WebSocket Connection_" (RFC 6455, 8.1).
_INVALID_DATA = 1007
_SWITCHING_PROTOCOLS = 101
#: Bytes of the longest frame header, and of the header of a masked frame of less than 126 bytes.
_MAX_HEADER, _SHORT_HEADER = 14, 6
#: Bytes of the longest frame.
_LONGEST = MAX_FRAME + _MAX_HEADER
_FRAMES_A_TURN = int(FRAMES_A_TURN.most)
#: First byte of a final text frame, and of a pong.
_FINAL_TEXT, _FINAL_PONG = 0x81, 0x8A
#: Second byte: its mask bit, and its value in a masked frame from which on a longer length follows.
_MASKED, _LONGER = 0x80, 0xFE


class HubSocket(SocketWriter, asyncio.Protocol):
    """The protocol that uvicorn gives an upgraded connection to.

    `connections` is uvicorn's: when the server stops, uvicorn calls shutdown() of each, and waits until they are gone.
    `headers` are added to the answer of the handshake.
    """

    __slots__ = (
        "_address",
        "_connections",
        "_flooded",
        "_fragments",
        "_headers",
        "_key",
        "_meter",
        "_reads_next_turn",
        "_request_id",
        "_stopping",
        "_subscription_id",
        "_task",
        "_unparsed",
    )

    def __init__(self, services: SocketServices, connections: set[Any], headers: Headers = ()) -> None:
        super().__init__(services)
        self._connections = connections
        self._headers = headers
        #: Bytes of an incomplete request or frame.
        self._unparsed = b""
        #: The session. None: the handshake is not accepted, or the connection is lost.
        self._key: SessionKey | None = None
        self._subscription_id = ""
        #: A text message in several frames, of which some are still missing.
        self._fragments = FragmentedMessage()
        #: The next frames are read in the next turn.
        self._reads_next_turn = False
        #: The peer sent too much: nothing is read any more.
        self._flooded = False
        #: The socket closes because the server stops.
        self._stopping = False
        #: CPU of the handshake.
        self._meter = Meter()
        #: The handshake. None: not begun, or done.
        self._task: asyncio.Task[None] | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connections.discard(self)
        self._services.registry.remove(self._name)
        self._submit_disconnected()
        # The parser of websockets is a generator, which refers to its protocol. The traceback of its error does too.
        self._protocol.parser.close()
        self._protocol.parser_exc = None

    def data_received(self, data: bytes) -> None:
        if self._unparsed:
            data = self._unparsed + data
        if self._key is None:
            self._unparsed = data if self._name else self._read_request(data)
            if len(self._unparsed) > MAX_FRAME:
                self._transport.abort()
        elif not self._flooded:
            self._unparsed = data[self._read_frames(data) :]

    def eof_received(self) -> None:
        self._protocol.receive_eof()

    def shutdown(self) -> None:
        """Close, because the server stops."""
        self._stopping = self._closing is None
        self.close(GOING_AWAY, "the hub is stopping")

    def ending(self, seconds: float) -> asyncio.Transport | None:
        """See server.Ending."""
        was_told = self._protocol.close_sent is not None and seconds >= STOP_SECONDS
        return self._transport if was_told or self._transport.is_closing() else None

    # The handshake

    def _read_request(self, data: bytes) -> bytes:
        """Begin the handshake when its request is complete. Returns the bytes of `data` that are not read."""
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return data
        self._protocol.receive_data(head + end)
        request = next((event for event in self._protocol.events_received() if isinstance(event, Request)), None)
        if request is None:
            self._transport.abort()
        else:
            services = self._services
            self._name = services.registry.add(self)
            self._request_id = next(services.request_ids)
            self._address = services.handshake_audit.address(request, self._transport)
            begin = functools.partial(self._begin_handshake, request)
            if not services.begin_in_turn(begin, request.path, self._address):
                services.handshake_audit.record(self._address, 503, "", None, "too many handshakes wait")
                self._log("request", method="GET", route="socket", status=503, reason="too many handshakes wait")
                self._transport.abort()
        return rest

    def _begin_handshake(self, request: Request) -> None:
        self._task = self._loop.create_task(metered(self._answer_handshake(request), self._meter))
        self._task.add_done_callback(self._end_handshake)

    async def _answer_handshake(self, request: Request) -> None:
        """Accept or refuse the handshake (SUB-11). Confirmation and replay are in the queue before the answer is sent."""
        REQUEST_ID.set(self._request_id)
        traces = self._services.traces
        recording = traces.begin(self._request_id, _raw(request)) if traces else None
        response, subscription, error = await self._response_to(request)
        topic = self._key.topic if self._key else ""
        self._services.handshake_audit.record(
            self._address, response.status_code, topic, subscription, str(error or "")
        )
        if self._lost or self._protocol.state is not CONNECTING:  # the peer is gone, or will send nothing any more
            self._submit_disconnected()
            self._transport.abort()
            return
        for name, value in self._headers:
            response.headers[name.decode()] = value.decode()
        response.headers["X-Request-Id"] = self._request_id
        self._protocol.send_response(response)
        self._write_replies()
        why = {"reason": error.logged} if error else {}
        self._log("request", method="GET", route="socket", status=response.status_code, **why)
        if recording is not None:
            recording.end("GET", response.status_code, {"route": "socket", "topic": self._topic_hash()})
        if self._key is None:
            self._services.registry.remove(self._name)
            self._transport.close()
            return
        if self._closing is None:
            self._start_pings()
        self._write_queued()
        self.data_received(b"")  # frames may have come before the answer

    async def _response_to(self, request: Request) -> tuple[Response, Subscription | None, HubError | None]:
        """The handshake's answer; with the subscription if it is accepted, and the error if the hub refuses it."""
        response = self._protocol.accept(request)
        if response.status_code != _SWITCHING_PROTOCOLS:
            return response, None, BadRequest("the request is no handshake of a WebSocket (RFC 6455, 4.2.1)")
        try:
            check_wait(self._services.handshake_wait(self._address), "handshakes")
            return response, await self._connect(request.path), None
        except HubError as error:
            response = self._protocol.reject(error.status, f"{error}\n")
            if error.retry_after is not None:
                response.headers["Retry-After"] = str(error.retry_after)
            return response, None, error

    async def _connect(self, path: str) -> Subscription:
        """Make this socket the connection of the subscription whose endpoint has this path.

        Raises NotFound without such a subscription, and TooMany for too many handshakes.
        """
        services = self._services
        subscription_id = services.resolve(path)
        if subscription_id is None:
            raise NotFound("there is no such endpoint")
        self._subscription_id = subscription_id
        subscriber = await services.service.subscriber(subscription_id)
        self._turn_key = *subscriber, None
        account = self._meter.account = services.accounts.of_user(*subscriber)
        check_wait(services.endpoint_handshakes.take(subscription_id, services.clock()), "handshakes")
        if account.over_budget:
            await services.turns.wait_for_step(self._turn_key, over=True)
        self._key, subscription = await services.ack_timer.connected(subscription_id, self._name)
        self._outbox.opened(account)
        if self._outbox.over:
            self._close_slow_reader()
        return subscription

    def _end_handshake(self, task: asyncio.Task[None]) -> None:
        self._task, self._headers = None, ()  # the socket may stay for hours, and shall be small
        self._log_failure(task)

    # Reading

    def _read_frames(self, data: bytes) -> int:
        """Read the complete frames of `data`, as many as one turn allows. Returns where the unread bytes begin."""
        position, size, left = 0, len(data), _FRAMES_A_TURN
        while size - position >= 2:
            first, second = data[position], data[position + 1]
            short = _MASKED <= second < _LONGER
            end = position + second - _MASKED + _SHORT_HEADER if short else end_of_frame(data, position)
            if end is None or size < end <= position + _LONGEST:
                break  # incomplete; a frame that is too long goes on at once, to be refused
            if not left:
                self._read_in_next_turn()
                return position
            left -= 1
            if self._allowance.credit:
                self._allowance.credit -= 1
            elif self._is_flood(min(end, size) - position):
                return size
            if first == _FINAL_TEXT and short and self._protocol.current_size is None:
                text = apply_mask(data[position + _SHORT_HEADER : end], data[position + 2 : position + _SHORT_HEADER])
                self._receive_message(text)
                if not text.isascii():
                    self._check_utf8(text)
            else:
                self._receive_other(data, position, end)
            position = end
        return position

    def _read_in_next_turn(self) -> None:
        """Pause reading, so that other sockets have their turn."""

        def read() -> None:
            self._reads_next_turn = False
            self.data_received(b"")
            if not self._reads_next_turn and not self._flooded:
                self._transport.resume_reading()

        if not self._reads_next_turn:
            self._transport.pause_reading()
            self._reads_next_turn = True
            self._loop.call_soon(read)

    def _is_flood(self, size: int) -> bool:
        """Count a frame of `size` bytes without credit. Too many of them close the socket (SYN-17)."""
        if not self._allowance.exceeds(size, self._loop.time()):
            return False
        self._flooded, self._unparsed = True, b""
        self._services.metrics.floods_closed.inc()
        self._transport.pause_reading()
        self._close_now(POLICY_VIOLATION, "more frames came than acknowledge what was sent", FLOOD_CLOSE_SECONDS)
        return True

    def _receive_other(self, data: bytes, start: int, end: int) -> None:
        """Take the frame from `start` to `end`, which is no short text. Of one that is too long, `data` has the start."""
        whole_text = data[start] == _FINAL_TEXT and data[start + 1] & _MASKED and end <= start + _LONGEST
        if whole_text and self._protocol.current_size is None:
            self._receive_text(payload(data, start, end))
        elif data[start] == _FINAL_PONG and _MASKED <= data[start + 1] < _LONGER:
            self._receive_pong(payload(data, start, end))
        else:
            self._pass_to_websockets(data[start:end])

    def _receive_pong(self, data: bytes | bytearray | memoryview) -> None:
        if (sent_at := self._pings.answered(data)) is not None:
            self._services.ack_timer.alive(self._name, sent_at)

    def _pass_to_websockets(self, data: bytes) -> None:
        """Feed websockets a whole frame, or the start of a frame that is too long. Handle its events."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            assert isinstance(event, Frame)
            if event.opcode is Opcode.PONG:
                self._receive_pong(event.data)
            elif event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._receive_fragment(event)
        self._write_replies()
        if self._protocol.state is not OPEN and self._closing is None:
            self._close_now(0, "", CLOSE_SECONDS)  # websockets has sent the close

    def _receive_fragment(self, frame: Frame) -> None:
        """Take a frame of a message that is not text, or is fragmented."""
        if frame.opcode is not Opcode.CONT:
            self._fragments.begin(text=frame.opcode is Opcode.TEXT)
        self._fragments.add(frame.data)
        if frame.fin:
            text = self._fragments.end()
            if text is None:
                self._receive_message(b"")
            else:
                self._receive_text(text)

    def _receive_text(self, message: bytes) -> None:
        """Take a whole text message. An acknowledgement counts even if a part of the text is not UTF-8 (SYN-15)."""
        self._receive_message(message)
        self._check_utf8(message)

    def _check_utf8(self, message: bytes) -> None:
        if not is_utf8(message):
            self.close(_INVALID_DATA, "expected UTF-8 in a text frame, got something else")

    def _receive_message(self, message: bytes) -> None:
        """Take a whole message; b"" for a message that is not text."""
        self._services.ack_timer.heard(self._name, message)

    # The end

    def _submit_disconnected(self) -> None:
        if self._key is not None:
            key, code = self._key, self._close_code()
            delivered_until = self._services.ack_timer.disconnected(self._name)
            self._log("socket closed", code=code)
            self._key = None
            # The subscriber of a socket that the stop has closed should come back. The subscriber counts as lost.
            counts = SERVICE_RESTART if self._stopping else code
            command = Disconnected(self._subscription_id, self._name, delivered_until, counts)
            self._services.service.submit_soon(key, command)

    def _close_code(self) -> int:
        """The code of the side that closed first (SYN-7). The peer's answer to the hub's close gives no cause."""
        sent, received = self._protocol.close_sent, self._protocol.close_rcvd
        first = received if sent is None or self._protocol.close_rcvd_then_sent else sent
        return first.code if first else ABNORMAL

    def _log_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._services.log.error("socket failed", request_id=self._request_id, exc_info=error)
            self._transport.abort()

    def _log(self, event: str, **fields: str | int | None) -> None:
        self._services.log.info(event, request_id=self._request_id, topic=self._topic_hash(), **fields)

    def _topic_hash(self) -> str | None:
        return self._services.log_hash(self._key.topic) if self._key else None


def _raw(request: Request) -> list[tuple[bytes, bytes]]:
    """The headers of a handshake, as ASGI has them."""
    return [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in request.headers.raw_items()]
