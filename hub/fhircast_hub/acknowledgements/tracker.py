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

import msgspec

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.commands import Acknowledged, AcksTimedOut, Command, MissedAck, Rejected
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.state.session import Subscription
from fhircast_hub.core.wire.acknowledgement import Acknowledgement, read_acknowledgement

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
        #: `id` of an event -> its oldest frame.
        self.sent: dict[str, _Sent] = {}


class _Sent(msgspec.Struct, eq=False):
    """A frame that was handed to connections. Small and quickly made: tens of thousands wait for their time to pass."""

    topic: _Topic
    event_ref: EventRef
    to: Sequence[str]
    #: Epoch seconds of the handover.
    at: float
    #: Those of `to` whose frame still waits in the connection's queue.
    later: Collection[str]
    #: Connections that have acknowledged, with any status.
    answered: set[str] = msgspec.field(default_factory=set)
    #: Connections whose refusal was reported.
    refused: frozenset[str] = frozenset()
    #: Later frames of the same event (EVT-17), oldest first. None: there are none, or an older frame has them.
    repeats: list[_Sent] | None = None

    def forget(self) -> None:
        """Miss no acknowledgement of this frame any more. The frame is removed when its time is over."""
        self.to = ()
        for repeat in self.repeats or ():
            repeat.to = ()


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
        for name in to:
            if (peer := self._peers.get(name)) is not None:
                break
        else:
            return
        waiting, topic = self._waiting, peer.topic
        if waiting and waiting[-1].at > now:
            self._adjust_to_clock(now)
        sent = _Sent(topic, event_ref, to, now, later)
        waiting.append(sent)
        first = topic.sent.setdefault(event_ref.id, sent)
        if first is not sent:
            _add_repeat(first, sent)
        elif len(topic.sent) > MAX_WAITING:
            topic.sent.pop(next(iter(topic.sent))).forget()

    def acknowledged(self, connection: str, message: bytes, now: float) -> tuple[SessionKey, Sequence[Command]] | None:
        """Read a text that a connection sent. Returns the session and the commands that follow.

        Returns None for a text that acknowledges nothing (SYN-15).

        An acknowledgement is `{"id", "status"}`, where the status is a number, or text that begins with a number: "Any 2xx code
        indicates success, any other code indicates failure" (2.5). An event without a readable status counts as received (SYN-1).
        A refusal may have a `reason`.
        """
        peer = self._peers.get(connection)
        if peer is None:
            return None
        if (read := read_acknowledgement(message)) is None or (first := peer.topic.sent.get(read.id)) is None:
            return None
        found = (first,) if first.repeats is None else (first, *first.repeats)
        for sent in found:
            sent.answered.add(connection)
        for sent in found:
            # A frame replayed to another socket proves nothing about this one.
            if len(sent.to) > 1 or connection in sent.to:
                if sent.at > peer.delivered_until:
                    peer.delivered_until = sent.at
                break
        peer.acknowledged_at = now
        success = read.status is None or read.status // 100 == _SUCCESS
        if success and peer.acknowledges and not peer.missed_acks and not peer.refused:
            return peer.topic.key, ()
        return peer.topic.key, _commands(peer, found, read, success, now)

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
            if not sent.answered.issuperset(sent.to):
                last_missed |= dict.fromkeys(self._missed(sent), sent)
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

    def _missed(self, sent: _Sent) -> list[str]:
        """The connections whose acknowledgement of this frame is missed."""
        if not sent.event_ref.reportable or self._policy is Policy.OFF:
            return []
        return [
            name
            for name in sent.to
            if (peer := self._peers.get(name)) is not None
            and peer.awaited_since <= sent.at
            and name not in sent.answered
            and name not in sent.later
        ]


def _commands(peer: _Peer, found: Sequence[_Sent], read: Acknowledgement, success: bool, now: float) -> list[Command]:
    """The commands that follow from an acknowledgement of these frames."""
    followed = success and found[-1].event_ref.reportable
    commands: list[Command] = []
    if not peer.acknowledges or peer.missed_acks or (peer.refused and followed):
        peer.acknowledges, peer.missed_acks, peer.awaited_since = True, 0, min(peer.awaited_since, now)
        peer.refused = peer.refused and not followed
        commands.append(Acknowledged(peer.subscription_id, followed=followed))
    if read.status is not None and not success:
        commands += _refusal(peer, found, read.status, read.reason)
    return commands


def _refusal(peer: _Peer, found: Sequence[_Sent], status: int, reason: str) -> list[Command]:
    """The refusal of the newest of these frames that the connection received, unless that was refused before."""
    received = [sent for sent in found if peer.connection in sent.to and peer.connection not in sent.later]
    if not received or not received[-1].event_ref.reportable or peer.connection in received[-1].refused:
        return []
    received[-1].refused |= {peer.connection}
    peer.refused = True
    return [Rejected(peer.subscription_id, peer.connection, received[-1].event_ref, status, reason)]


def _add_repeat(first: _Sent, repeat: _Sent) -> None:
    """Add a frame to the first of its event. Beyond MAX_REPEATS the oldest repeat is forgotten."""
    if first.repeats is None:
        first.repeats = []
    first.repeats.append(repeat)
    if len(first.repeats) > MAX_REPEATS:
        first.repeats.pop(0).to = ()


def _forget(sent: _Sent) -> None:
    """Take a frame out of its session. Its first repeat takes its place."""
    held, id_ = sent.topic.sent, sent.event_ref.id
    if held.get(id_) is not sent:
        return
    if sent.repeats:
        held[id_] = sent.repeats.pop(0)
        held[id_].repeats = sent.repeats or None
    else:
        del held[id_]
