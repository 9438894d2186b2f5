"""The writing half of a socket: at once while its peer reads, else through a bounded queue (SYN-14).

`SocketWriter` writes everything that goes to the transport: events, pings, closes, and the answers of websockets.
Frames of the hub's events bypass websockets: each is built once, and the same bytes go to all subscribers. So do pings.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from fhircast_hub.budgets.accounts import Account
from fhircast_hub.budgets.table import BIG_FRAME, QUEUED
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.wire.close_codes import POLICY_VIOLATION, TRY_AGAIN_LATER
from fhircast_hub.ws.frame_allowance import CREDITS_PER_FRAME, FrameAllowance
from fhircast_hub.ws.frames import MAX_FRAME, Frame, ping_frame, size_of
from fhircast_hub.ws.keepalive import Pings
from fhircast_hub.ws.services import QUIET, SocketServices

#: Seconds that a peer has to answer a close. Then its connection is cut.
CLOSE_SECONDS = 5.0


class Outbox:
    """Frames that wait for one peer to read, in order. Limits hold for its socket, and for all sockets of its user.

    `limits` are the frames and the bytes that may wait.
    """

    __slots__ = ("_account", "_exempt", "_limits", "_size", "frames")

    def __init__(self, limits: tuple[int, int]) -> None:
        self._limits = limits
        #: The frames, with the events that they carry. None: no frame waits. A deque takes 600 bytes, and most sockets are idle.
        self.frames: deque[tuple[Frame, EventRef | None]] | None = None
        self._size = 0
        #: Frames and bytes of the initial replay; not counted against the limits.
        self._exempt = (0, 0)
        #: The user's account. None: the handshake has not been accepted.
        self._account: Account | None = None

    def __len__(self) -> int:
        return len(self.frames or ())

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._size

    @property
    def over(self) -> bool:
        """Whether more waits than allowed. There is no limit before the handshake is accepted."""
        # A single frame may exceed queue_bytes.
        if self._account is None or len(self) < 2:
            return False
        (frames, size), (exempt_frames, exempt_size) = self._limits, self._exempt
        too_many = self._size > size + exempt_size or len(self) > frames + exempt_frames
        return too_many or self._account.queued > QUEUED.most

    @property
    def first(self) -> int:
        """Bytes of the first frame. 0: no frame waits."""
        return size_of(self.frames[0][0]) if self.frames else 0

    def opened(self, account: Account) -> None:
        """Start the limits: the handshake was accepted. `account` is the user's. Frames queued by now are the initial replay."""
        self._account = account
        account.queued += self._size
        self._exempt = len(self), self._size

    def put(self, frame: Frame, event_ref: EventRef | None) -> None:
        """Append a frame, with the event that it carries."""
        if self.frames is None:
            self.frames = deque()
        self.frames.append((frame, event_ref))
        self._charge(size_of(frame))

    def take(self) -> tuple[Frame, EventRef | None]:
        """Remove the first frame."""
        assert self.frames
        frame, event_ref = self.frames.popleft()
        self._charge(-size_of(frame))
        if not self.frames:
            self.frames, self._exempt = None, (0, 0)
        return frame, event_ref

    def clear(self) -> None:
        """Drop all frames."""
        self.frames = None
        self._charge(-self._size)

    def _charge(self, size: int) -> None:
        self._size += size
        if self._account is not None:
            self._account.queued += size


class SocketWriter(asyncio.BaseProtocol):
    """Writes frames, pings and closes to one socket. A `registry.Connection`."""

    # A dictionary of so many attributes would take 1.5 kB, and most sockets are idle.
    __slots__ = (
        "_allowance",
        "_closing",
        "_gathered",
        "_gathered_size",
        "_gathers",
        "_loop",
        "_lost",
        "_name",
        "_outbox",
        "_paused",
        "_pings",
        "_protocol",
        "_ready",
        "_services",
        "_timer",
        "_transport",
        "_turn_key",
        "_unread_replies",
        "_waits_for_turn",
    )

    _transport: asyncio.Transport

    def __init__(self, services: SocketServices) -> None:
        self._services = services
        self._loop = asyncio.get_running_loop()
        self._protocol = ServerProtocol(max_size=MAX_FRAME, logger=QUIET)
        self._outbox = Outbox((services.queue_messages, services.queue_bytes))
        self._allowance = FrameAllowance()
        self._pings = Pings()
        #: The name of the connection in the registry; "" until the request has come.
        self._name = ""
        #: Realm and subscriber, in whose turns big frames are written.
        self._turn_key: tuple[str, str, None] = ("", "", None)
        #: The transport holds bytes that the peer has not read.
        self._paused = False
        self._lost = False
        #: Frames may go to the transport: the socket is open, not paused, not closing.
        self._ready = False
        #: A big frame waits for its turn.
        self._waits_for_turn = False
        #: The next frames are held, for one write of all.
        self._gathers = False
        #: Parts of the held frames, and their bytes.
        self._gathered: list[bytes] = []
        self._gathered_size = 0
        #: Bytes that websockets answered while the peer did not read.
        self._unread_replies = 0
        #: Code and reason of the close. None: not closing.
        self._closing: tuple[int, str] | None = None
        #: For the next ping; while closing, for the end of the connection.
        self._timer: asyncio.TimerHandle | None = None

    # asyncio.BaseProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses of asyncio's
        # The transport keeps only bytes that the kernel did not take. So the outbox is the only queue, and bounded.
        self._transport.set_write_buffer_limits(high=1)  # 0 would pause a TLS transport forever

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._ready = False
        self._set_timer(None)
        self._outbox.clear()

    def pause_writing(self) -> None:
        self._paused = True
        self._ready = False

    def resume_writing(self) -> None:
        self._paused = False
        self._write_queued()

    # registry.Connection

    def write(self, frame: Frame, event_ref: EventRef | None) -> bool:
        """Write a whole frame, which carries the event `event_ref`. False: queued until the peer reads."""
        self._allowance.credit += CREDITS_PER_FRAME
        if self._ready and not self._outbox.frames:
            if isinstance(frame, bytes) and not self._gathers:
                self._transport.write(frame)
                return True
            if isinstance(frame, bytes) or self._services.turns.claim_step():
                self._hold(frame)
                return True
        if self._closing is None and not self._lost:
            self._outbox.put(frame, event_ref)
            if self._outbox.over:
                self._close_slow_reader()
            elif self._ready:
                self._write_queued_in_turn()
        return False

    def gather(self) -> None:
        """Hold the frames that are written from now on, for one write of all."""
        self._gathers = True

    def release(self) -> None:
        """Write the held frames, and hold no more."""
        self._gathers = False
        self._write_held()

    def close(self, code: int, reason: str) -> None:
        """Close after the queued frames."""
        if self._closing is None and not self._lost:
            self._closing = code, reason
            if code == POLICY_VIOLATION:
                self._outbox.clear()  # another socket took over, and gets a replay of its own
            self._set_timer(CLOSE_SECONDS, self._transport.abort)
            self._write_queued()

    @property
    def queued(self) -> tuple[int, int]:
        """Frames and bytes that wait for the peer to read."""
        return len(self._outbox), self._outbox.size

    # For the reading half

    def _write_queued(self) -> None:
        """Write queued frames while the peer reads. Then send a close that waited for them."""
        self._ready = not self._lost and not self._paused and self._protocol.state is OPEN
        while self._outbox.frames and self._ready:
            if self._outbox.first > BIG_FRAME.most and not self._services.turns.claim_step():
                self._write_held()
                self._write_queued_in_turn()
                return
            frame, event_ref = self._outbox.take()
            self._hold(frame)
            if event_ref is not None:
                self._services.ack_timer.sent(event_ref, (self._name,))
        self._write_held()
        if self._ready and self._closing is not None:
            self._ready = False
            self._protocol.send_close(*self._closing)
            self._write_replies()

    def _hold(self, frame: Frame) -> None:
        """Hold a frame for one write with the next ones. Held frames longer than BIG_FRAME are written at once."""
        self._gathered.extend((frame,) if isinstance(frame, bytes) else frame)
        self._gathered_size += size_of(frame)
        if self._gathered_size > BIG_FRAME.most:
            self._write_held()

    def _write_held(self) -> None:
        if self._gathered:
            held, self._gathered, self._gathered_size = self._gathered, [], 0
            self._transport.writelines(held)  # uvloop would write each frame of several calls by itself

    def _write_queued_in_turn(self) -> None:
        """Write a big frame in a step of its own. Else one event for many sockets would delay all other work."""

        def resume() -> None:
            self._waits_for_turn = False
            self._write_queued()

        if not self._waits_for_turn:
            self._waits_for_turn = True
            if not self._services.turns.queue_step(self._turn_key, resume):
                self._close_slow_reader()

    def _write_replies(self) -> None:
        """Write the output of websockets: handshake, pongs, closes."""
        self._write_held()
        for data in self._protocol.data_to_send():
            if not data:
                self._transport.close()
                continue
            self._unread_replies = self._unread_replies + len(data) if self._paused else 0
            self._transport.write(data)
        if self._unread_replies > MAX_FRAME:
            self._transport.abort()  # the peer sends pings, and does not read the pongs

    def _close_slow_reader(self) -> None:
        """Drop the queue and close: the peer does not read, and should reconnect (SYN-14)."""
        self._services.metrics.slow_readers_closed.inc()
        self._close_now(TRY_AGAIN_LATER, "too slow", CLOSE_SECONDS)

    def _close_now(self, code: int, reason: str, seconds: float) -> None:
        """Close without the queued frames. The peer has `seconds` to answer."""
        self._outbox.clear()
        self._closing, self._ready = (code, reason), False
        self._set_timer(seconds, self._transport.abort)
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, reason)
            self._write_replies()

    def _start_pings(self) -> None:
        self._set_timer(self._services.ping_seconds, self._send_ping)

    def _send_ping(self) -> None:
        """Ping (SYN-34), or cut the connection of a peer that is gone."""
        if self._pings.is_gone(self._transport.get_write_buffer_size()):
            self._services.metrics.pings_unanswered.inc()
            self._transport.abort()
            return
        if self._ready:
            self._transport.write(ping_frame(self._pings.next(self._services.clock())))
        self._start_pings()

    def _set_timer(self, seconds: float | None, callback: Callable[[], None] = lambda: None) -> None:
        """Replace the timer; None: no timer."""
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, callback) if seconds is not None else None
