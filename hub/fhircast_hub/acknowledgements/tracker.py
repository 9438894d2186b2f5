"""AckTracker: which frames its node's connections were sent and have not acknowledged yet (FHIRcast 3.0.0, 2.5 "Event
Notification Response"). `timed_out` finds late acknowledgements.

Each node tracks its own connections, beside the sessions: acknowledgements are as many as deliveries, and nearly all of them change
no session. Those that do become commands. The tracker is pure as `decide` is: time is an argument, and `deadline()` says when
the tracker wants to be asked. Remembering a frame costs the same for one connection as for a thousand.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Collection, Sequence

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.commands import Acknowledged, AcksTimedOut, Command, MissedAck, Rejected
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.state.session import Subscription
from fhircast_hub.core.wire.acknowledgement import read_acknowledgement

#: Frames of a session that wait for acknowledgements. People do not publish more within a timeout.
MAX_WAITING = 4096
#: Repeats of one event (EVT-17) that wait beside the first. A sender waits ten seconds before each repeat.
MAX_REPEATS = 80
#: Seconds that a missed acknowledgement waits for others, so that frames sent together are reported together (SYN-4).
TOGETHER = 0.1

_NEVER = float("inf")
_SUCCESS = 2


class Policy(enum.Enum):
    """Which connections must acknowledge (SYN-6)."""

    STRICT = "strict"
    #: Those that have acknowledged before.
    LENIENT = "lenient"
    OFF = "off"


class _Topic:
    """The frames of one session that wait for acknowledgements."""

    def __init__(self, key: SessionKey) -> None:
        self.key = key
        #: Number of the session's connections on this node.
        self.connections = 0
        #: `id` of an event -> its frames, oldest first. All but the first are repeats (EVT-17).
        self.sent: dict[str, list[_Sent]] = {}


class _Sent:
    """A frame that was handed to connections."""

    __slots__ = ("answered", "at", "event_ref", "later", "refused", "to", "topic")

    def __init__(
        self, topic: _Topic, event_ref: EventRef, to: Sequence[str], at: float, later: Collection[str]
    ) -> None:
        self.topic = topic
        self.event_ref = event_ref
        self.to = to
        #: Epoch seconds of the handover.
        self.at = at
        #: Those of `to` whose frame still waits in the connection's queue.
        self.later = later
        #: Connections that have acknowledged, with any status.
        self.answered: set[str] = set()
        #: Connections whose refusal was reported.
        self.refused: set[str] = set()


class _Peer:
    """A connection of this node."""

    __slots__ = (
        "acknowledged_at",
        "acknowledges",
        "awaited_since",
        "connection",
        "delivered_until",
        "missed_acks",
        "refused",
        "subscription_id",
        "topic",
    )

    def __init__(self, topic: _Topic, subscription: Subscription, connection: str, awaited_since: float) -> None:
        self.topic = topic
        self.subscription_id = subscription.subscription_id
        self.connection = connection
        self.acknowledges = subscription.acknowledges
        self.missed_acks = subscription.missed_acks
        #: Whether the connection has refused an event, and followed none since.
        self.refused = False
        #: Epoch seconds of the last acknowledgement. None: there was none.
        self.acknowledged_at: float | None = None
        #: Frames sent from this time on (epoch seconds) must be acknowledged. Infinity: none must.
        self.awaited_since = awaited_since
        #: Everything sent before this time (epoch seconds) is known to have arrived.
        self.delivered_until = subscription.delivered_until


class AckTracker:
    """Tracks the connections of one node. `timeout` is the time for an acknowledgement, in seconds."""

    def __init__(self, policy: Policy, timeout: float) -> None:
        self._policy = policy
        self._timeout = timeout
        self._topics: dict[SessionKey, _Topic] = {}
        #: Name of a connection -> the connection.
        self._peers: dict[str, _Peer] = {}
        #: subscription_id -> name of its newest connection.
        self._latest: dict[str, str] = {}
        #: Frames that wait for acknowledgements, oldest first.
        self._waiting: deque[_Sent] = deque()

    def connected(self, key: SessionKey, subscription: Subscription, connection: str, now: float) -> None:
        """Track a new connection of `subscription`."""
        topic = self._topics.setdefault(key, _Topic(key))
        topic.connections += 1
        awaited_since = now if subscription.acknowledges or self._policy is Policy.STRICT else _NEVER
        self._peers[connection] = _Peer(topic, subscription, connection, awaited_since)
        self._latest[subscription.subscription_id] = connection

    def disconnected(self, connection: str) -> float:
        """Forget a connection. Returns its `delivered_until` (epoch seconds), 0 if unknown."""
        peer = self._peers.pop(connection, None)
        if peer is None:
            return 0.0
        if self._latest.get(peer.subscription_id) == connection:
            del self._latest[peer.subscription_id]
        peer.topic.connections -= 1
        if not peer.topic.connections:
            del self._topics[peer.topic.key]
        return peer.delivered_until

    def delivered_until(self, subscription_id: str) -> float:
        """`delivered_until` of the subscription's present connection (epoch seconds), 0 without a connection."""
        peer = self._peers.get(self._latest.get(subscription_id, ""))
        return peer.delivered_until if peer else 0.0

    def acknowledged_at(self, subscription_id: str) -> float | None:
        """When the subscription's present connection acknowledged last (epoch seconds). None: never."""
        peer = self._peers.get(self._latest.get(subscription_id, ""))
        return peer.acknowledged_at if peer else None

    def alive(self, connection: str, at: float) -> None:
        """A connection answered a ping: everything sent before `at` (epoch seconds) has arrived."""
        if (peer := self._peers.get(connection)) is not None:
            peer.delivered_until = max(peer.delivered_until, at)

    def sent(self, event_ref: EventRef, to: Sequence[str], now: float, later: Collection[str] = ()) -> None:
        """Track a frame that was handed to the connections `to`. Those of other nodes are ignored.

        At the connections `later` the frame still waits in a queue. `sent` is called again when the frame leaves the queue.
        """
        topic = next((peer.topic for name in to if (peer := self._peers.get(name)) is not None), None)
        if topic is None:
            return
        self._adjust_to_clock(now)
        sent = _Sent(topic, event_ref, to, now, later)
        repeats = topic.sent.setdefault(event_ref.id, [])
        repeats.append(sent)
        if len(repeats) > MAX_REPEATS:
            repeats.pop(1).to = ()
        self._waiting.append(sent)
        if len(topic.sent) > MAX_WAITING:
            for oldest in topic.sent.pop(next(iter(topic.sent))):
                oldest.to = ()

    def acknowledged(self, connection: str, message: bytes, now: float) -> tuple[SessionKey, list[Command]] | None:
        """Read a text that a connection sent. Returns the session and the commands that follow.

        Returns None for a text that acknowledges nothing (SYN-15).

        An acknowledgement is `{"id", "status"}`, where the status is a number, or text that begins with a number: "Any 2xx code
        indicates success, any other code indicates failure" (2.5). An event without a readable status counts as received (SYN-1).
        A refusal may have a `reason`.
        """
        peer = self._peers.get(connection)
        if peer is None:
            return None
        if (read := read_acknowledgement(message)) is None or (found := peer.topic.sent.get(read.id)) is None:
            return None
        for sent in found:
            sent.answered.add(connection)
        # A frame replayed to another socket proves nothing about this one.
        received = [sent.at for sent in found if len(sent.to) > 1 or peer.connection in sent.to]
        peer.delivered_until, peer.acknowledged_at = max(peer.delivered_until, min(received, default=0.0)), now
        success = read.status is None or read.status // 100 == _SUCCESS
        followed = success and found[-1].event_ref.reportable
        commands: list[Command] = []
        if not peer.acknowledges or peer.missed_acks or (peer.refused and followed):
            peer.acknowledges, peer.missed_acks, peer.awaited_since = True, 0, min(peer.awaited_since, now)
            peer.refused = peer.refused and not followed
            commands.append(Acknowledged(peer.subscription_id, followed=followed))
        if read.status is not None and not success:
            commands += _refusal(peer, found, read.status, read.reason)
        return peer.topic.key, commands

    def deadline(self) -> float | None:
        """When `timed_out` wants to be called (epoch seconds). None: no frame waits."""
        return self._waiting[0].at + self._timeout + TOGETHER if self._waiting else None

    def timed_out(self, now: float) -> list[tuple[SessionKey, AcksTimedOut]]:
        """The missed acknowledgements, by session. They are forgotten here. Of several of one connection, the last is returned."""
        self._adjust_to_clock(now)
        last_missed: dict[str, _Sent] = {}
        while self._waiting and self._waiting[0].at + self._timeout <= now:
            sent = self._waiting.popleft()
            _forget(sent)
            if sent.event_ref.reportable and self._policy is not Policy.OFF:
                last_missed |= {name: sent for name in sent.to if self._is_missed(name, sent)}
        missed_acks: dict[SessionKey, list[MissedAck]] = {}
        for name, sent in last_missed.items():
            peer = self._peers[name]
            peer.missed_acks += 1
            missed_acks.setdefault(sent.topic.key, []).append(MissedAck(peer.subscription_id, name, sent.event_ref))
        return [(key, AcksTimedOut(tuple(found))) for key, found in missed_acks.items()]

    def _adjust_to_clock(self, now: float) -> None:
        """After the clock was set back, begin all waiting times again. Otherwise they would last until the old time comes again."""
        if self._waiting and self._waiting[-1].at > now:
            for sent in self._waiting:
                sent.at = min(sent.at, now)
            for peer in self._peers.values():
                peer.awaited_since = now if now < peer.awaited_since < _NEVER else peer.awaited_since

    def _is_missed(self, name: str, sent: _Sent) -> bool:
        peer = self._peers.get(name)
        return (
            peer is not None and peer.awaited_since <= sent.at and name not in sent.answered and name not in sent.later
        )


def _refusal(peer: _Peer, found: list[_Sent], status: int, reason: str) -> list[Command]:
    """The refusal of the newest of these frames that the connection received, unless that was refused before."""
    received = [sent for sent in found if peer.connection in sent.to and peer.connection not in sent.later]
    if not received or not received[-1].event_ref.reportable or peer.connection in received[-1].refused:
        return []
    received[-1].refused.add(peer.connection)
    peer.refused = True
    return [Rejected(peer.subscription_id, peer.connection, received[-1].event_ref, status, reason)]


def _forget(sent: _Sent) -> None:
    """Take a frame out of its session."""
    others = sent.topic.sent.get(sent.event_ref.id)
    if others and others[0] is sent:
        others.pop(0)
        if not others:
            del sent.topic.sent[sent.event_ref.id]
