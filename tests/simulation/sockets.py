"""The hub's end of a WebSocket, as in ws/socket.py: a bounded queue, pings, closes. A ledger lists the transmitted frames."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.errors import NotFound
from fhircast_hub.core.state.commands import Disconnected
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.state.session import Subscription
from fhircast_hub.core.wire.close_codes import (
    ABNORMAL,
    GOING_AWAY,
    NORMAL,
    POLICY_VIOLATION,
    SERVICE_RESTART,
    TRY_AGAIN_LATER,
)
from tests.simulation.network import Link
from tests.simulation.posts import REALM

if TYPE_CHECKING:
    from tests.simulation.hub import Node

PING_SECONDS = 15.0
#: Seconds in which a peer must answer a close.
CLOSE_SECONDS = 5.0


class SentFrame:
    """A frame that was handed to the transport, with the times of this, and of its first acknowledgement and refusal."""

    __slots__ = ("answered", "at", "event_ref", "refused", "reported")

    def __init__(self, event_ref: EventRef, at: float) -> None:
        self.event_ref = event_ref
        self.at = at
        self.answered: float | None = None
        self.refused: float | None = None
        self.reported = False


class Socket:
    """One socket of a node."""

    def __init__(self, node: Node, name: str, topic: str, subscription_id: str, link: Link) -> None:
        self.name = name
        self.subscription_id = subscription_id
        self.topic = topic
        self.link = link
        self.node = node
        self.accepted = False
        self.closing: int | None = None
        self.ended_at: tuple[float, int] | None = None  # time and close code
        self.queue: deque[tuple[Any, EventRef | None]] = deque()
        self.ledger: list[SentFrame] = []
        self.first_answer: float | None = None
        self.answers_since: float | None = None  # time of an acknowledgement that came in time for sure
        self.acknowledged_before = False  # another socket of the subscription acknowledged
        self.missed_acks: list[float] = []  # times of reports
        self.unsubscribed_at: float | None = None  # when the subscription ended, or had another socket
        self._replay_size = 0  # frames of the replay are not counted against the limit
        self._stopping = False
        self._ping: float | None = None
        self._unread = 0

    @property
    def ready(self) -> bool:
        return self.accepted and self.closing is None and self.ended_at is None and not self.link.full

    # Called by the node

    def write(self, frame: Any, event_ref: EventRef | None) -> bool:
        if self.ready and not self.queue:
            self._transmit(frame, event_ref)
            return True
        if self.closing is None and self.ended_at is None:
            self.queue.append((frame, event_ref))
            limit = self.node.script.queue_messages + self._replay_size
            if self.accepted and len(self.queue) > max(1, limit):
                self._close(TRY_AGAIN_LATER)
        return False

    def close(self, code: int) -> None:
        """Close after all frames written before."""
        if self.closing is None and self.ended_at is None:
            if code == POLICY_VIOLATION:
                self.queue.clear()
            if self.queue and not self.ready:
                self.queue.append((("close", code), None))
                self.node.clock.after(CLOSE_SECONDS, self.end, ABNORMAL)
            else:
                self._close(code)

    def stop(self) -> None:
        self._stopping = self.closing is None
        self.close(GOING_AWAY)

    def die(self) -> None:
        """The process was killed: queued frames are lost."""
        if self.ended_at is None:
            self.ended_at = self.node.clock.now, ABNORMAL
            self.link.cut(None, 0.05)

    def answer(self, reply: object) -> None:
        """The handshake is accepted or refused. Confirmation and replay wait in the queue."""
        node = self.node
        if not isinstance(reply, Subscription):
            self.ended_at = node.clock.now, NORMAL
            node.sockets.pop(self.name, None)
            self.link.replay_size = 0
            self.link.down("refused", isinstance(reply, NotFound))
            return
        node.tracker.connected(SessionKey(REALM, self.topic), reply, self.name, node.clock.now)
        self.accepted, self.acknowledged_before = True, reply.acknowledges
        if self.ended_at is not None:
            self._disconnected()
            return
        self.link.down("accepted")
        self._replay_size = self.link.replay_size = len(self.queue)
        self.resume()
        node.clock.after(PING_SECONDS, self._send_ping)

    # Called by the network

    def resume(self) -> None:
        while self.queue and self.ready:
            frame, event_ref = self.queue.popleft()
            if frame[0] == "close":
                self._close(frame[1])
                return
            self._transmit(frame, event_ref)
            if event_ref is not None:
                self.node.tracker.sent(event_ref, (self.name,), self.node.clock.now)
                self.node.plan_check()
        if not self.queue:
            self._replay_size = 0

    def arrived(self, link: Link, what: str, payload: Any) -> None:
        if self.ended_at is not None:
            return
        if what == "text":
            self._heard(payload)
        elif what == "pong" and payload == self._ping:
            self._ping = None
            self.node.tracker.alive(self.name, payload)
        elif what == "close":
            self.end(payload if self.closing is None else self.closing)

    def ended(self, link: Link) -> None:
        self.end(ABNORMAL if self.closing is None else self.closing)

    def end(self, code: int) -> None:
        """The connection has ended."""
        if self.ended_at is None:
            code = self.closing or code
            self.ended_at = self.node.clock.now, SERVICE_RESTART if self._stopping else code
            self.queue.clear()
            self.node.sockets.pop(self.name, None)
            self.link.cut(None, 0.2)
            if self.accepted:
                self._disconnected()

    def _transmit(self, frame: Any, event_ref: EventRef | None) -> None:
        if event_ref is not None:
            self.ledger.append(SentFrame(event_ref, self.node.clock.now))
        self.link.down("frame", frame)

    def _heard(self, text: bytes) -> None:
        now = self.node.clock.now
        said = msgspec.json.decode(text)
        timeout = self.node.script.rules.ack_timeout
        for sent in self.ledger:
            if sent.event_ref.id == said["id"]:
                if self.first_answer is None:
                    self.first_answer = now
                if self.answers_since is None and now <= sent.at + timeout:
                    self.answers_since = now
                if sent.refused is None and not str(said.get("status", 200)).startswith("2"):
                    sent.refused = now
                if sent.answered is None:
                    sent.answered = now
        self.node.heard(self.name, text)

    def _disconnected(self) -> None:
        assert self.ended_at is not None
        delivered_until = self.node.tracker.disconnected(self.name)
        self.node.submit(self.topic, Disconnected(self.subscription_id, self.name, delivered_until, self.ended_at[1]))

    def _close(self, code: int) -> None:
        self.closing = code
        self.queue.clear()
        self.link.down("close", code)
        self.node.clock.after(CLOSE_SECONDS, self.end, code)

    def _send_ping(self) -> None:
        """Ping the peer. A peer that did not answer the last ping, or read nothing since, is dead."""
        if self.ended_at is not None or self.closing is not None:
            return
        unread = len(self.link.unread) + self.link.on_the_way if self.link.full else 0
        if self._ping is not None or (unread and unread == self._unread):
            self.end(ABNORMAL)
            return
        self._unread = unread
        if self.ready:
            self._ping = self.node.clock.now
            self.link.down("ping", self._ping)
        self.node.clock.after(PING_SECONDS, self._send_ping)
