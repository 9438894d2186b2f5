"""Deliveries: which connection was told what and has not answered yet (FHIRcast 3.0.0, 2.5 "Event Notification Response").

Each node keeps this for its own connections, beside the sessions: acknowledgements are as many as tracker, and nearly all of
them change nothing. What does becomes a command. Pure as `decide` is: time is an argument, and what time is to be told is
`deadline()`. To remember an event costs the same for one connection as for a thousand.
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

#: Events of a session that wait for acknowledgements; more are not published within any timeout by people.
MAX_WAITING = 4096
#: Repeats of one event (EVT-17) that wait beside the first; a sender is to wait ten seconds before each.
MAX_REPEATS = 80
#: Seconds after its time for which a silence waits for others, so that what was sent together is reported together (SYN-4).
TOGETHER = 0.1

_NEVER = float("inf")
_SUCCESS = 2


class Policy(enum.Enum):
    """Who must acknowledge (SYN-6)."""

    STRICT = "strict"
    LENIENT = "lenient"
    OFF = "off"


class _Topic:
    """A session's events that wait, newest last in each list; several of one id are repeats (EVT-17)."""

    def __init__(self, key: SessionKey) -> None:
        self.key = key
        self.connections = 0
        self.sent: dict[str, list[_Sent]] = {}


class _Sent:
    """A frame that was handed `at` a time to the connections `to`, but to those of `later` it was not yet."""

    __slots__ = ("answered", "at", "event_ref", "later", "refused", "to", "topic")

    def __init__(
        self, topic: _Topic, event_ref: EventRef, to: Sequence[str], at: float, later: Collection[str]
    ) -> None:
        self.topic = topic
        self.event_ref = event_ref
        self.to = to
        self.at = at
        self.later = later
        self.answered: set[str] = set()  # by whom, with whatever status
        self.refused: set[str] = set()


class _Peer:
    """A connection: `missed_since` is when it began to be missed when it is silent, `delivered_until` until when all that it was sent has arrived."""

    __slots__ = (
        "acknowledged_at",
        "acknowledges",
        "connection",
        "delivered_until",
        "missed_acks",
        "missed_since",
        "refused",
        "subscription_id",
        "topic",
    )

    def __init__(self, topic: _Topic, subscription: Subscription, connection: str, since: float) -> None:
        self.topic = topic
        self.subscription_id = subscription.subscription_id
        self.connection = connection
        self.acknowledges = subscription.acknowledges
        self.missed_acks = subscription.missed_acks
        self.refused = False
        self.acknowledged_at: float | None = None
        self.missed_since = since
        self.delivered_until = subscription.delivered_until


class AckTracker:
    """All of one node's. `timeout` is in seconds, `policy` says who is missed when silent."""

    def __init__(self, policy: Policy, timeout: float) -> None:
        self._policy = policy
        self._timeout = timeout
        self._topics: dict[SessionKey, _Topic] = {}
        self._peers: dict[str, _Peer] = {}
        self._latest: dict[str, str] = {}
        self._waiting: deque[_Sent] = deque()

    def connected(self, key: SessionKey, subscription: Subscription, connection: str, now: float) -> None:
        """A connection of this subscription came."""
        topic = self._topics.setdefault(key, _Topic(key))
        topic.connections += 1
        since = now if subscription.acknowledges or self._policy is Policy.STRICT else _NEVER
        self._peers[connection] = _Peer(topic, subscription, connection, since)
        self._latest[subscription.subscription_id] = connection

    def disconnected(self, connection: str) -> float:
        """A connection went: until when all that was sent to it has arrived (epoch seconds; 0 for one that never was here)."""
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
        """As `disconnected`, for the connection that the subscription `subscription_id` still has."""
        peer = self._peers.get(self._latest.get(subscription_id, ""))
        return peer.delivered_until if peer else 0.0

    def acknowledged_at(self, subscription_id: str) -> float | None:
        """When the connection that the subscription `subscription_id` has acknowledged last (epoch seconds); None if it never did."""
        peer = self._peers.get(self._latest.get(subscription_id, ""))
        return peer.acknowledged_at if peer else None

    def alive(self, connection: str, at: float) -> None:
        """All that was sent to this connection until `at` has arrived: it answered a ping."""
        if (peer := self._peers.get(connection)) is not None:
            peer.delivered_until = max(peer.delivered_until, at)

    def sent(self, event_ref: EventRef, to: Sequence[str], now: float, later: Collection[str] = ()) -> None:
        """A frame was handed to these connections, but to those of `later` it was not yet. Those of other nodes do not count."""
        topic = next((peer.topic for name in to if (peer := self._peers.get(name)) is not None), None)
        if topic is None:
            return
        self._follow_clock(now)
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
        """A connection sent this text: what follows from it, and for which session; None if it acknowledges nothing (SYN-15).

        `{"id", "status"}`, where the status is a number, or text that begins with one: "Any 2xx code indicates success, any other
        code indicates failure" (2.5). Without one that can be read it counts as received (SYN-1). A refusal may say its `reason`.
        """
        peer = self._peers.get(connection)
        if peer is None:
            return None
        if (read := read_acknowledgement(message)) is None or (found := peer.topic.sent.get(read.id)) is None:
            return None
        for sent in found:
            sent.answered.add(connection)
        # What was handed to one connection alone says nothing of another.
        received = [sent.at for sent in found if len(sent.to) > 1 or peer.connection in sent.to]
        peer.delivered_until, peer.acknowledged_at = max(peer.delivered_until, min(received, default=0.0)), now
        success = read.status is None or read.status // 100 == _SUCCESS
        followed = success and found[-1].event_ref.reportable
        commands: list[Command] = []
        if not peer.acknowledges or peer.missed_acks or (peer.refused and followed):
            peer.acknowledges, peer.missed_acks, peer.missed_since = True, 0, min(peer.missed_since, now)
            peer.refused = peer.refused and not followed
            commands.append(Acknowledged(peer.subscription_id, followed=followed))
        if read.status is not None and not success:
            commands += _refusal(peer, found, read.status, read.reason)
        return peer.topic.key, commands

    def deadline(self) -> float | None:
        """When `unanswered` is to be asked."""
        return self._waiting[0].at + self._timeout + TOGETHER if self._waiting else None

    def unanswered(self, now: float) -> list[tuple[SessionKey, AcksTimedOut]]:
        """What was not acknowledged in time, by session. Of what a connection left unanswered together the last is named."""
        self._follow_clock(now)
        silent: dict[str, _Sent] = {}
        while self._waiting and self._waiting[0].at + self._timeout <= now:
            sent = self._waiting.popleft()
            _forget(sent)
            if sent.event_ref.reportable and self._policy is not Policy.OFF:
                silent |= {name: sent for name in sent.to if self._is_missed(name, sent)}
        missed_acks: dict[SessionKey, list[MissedAck]] = {}
        for name, sent in silent.items():
            peer = self._peers[name]
            peer.missed_acks += 1
            missed_acks.setdefault(sent.topic.key, []).append(MissedAck(peer.subscription_id, name, sent.event_ref))
        return [(key, AcksTimedOut(tuple(found))) for key, found in missed_acks.items()]

    def _follow_clock(self, now: float) -> None:
        """A clock that was set back begins the time of what waits anew; else nobody would be missed until it is as late again."""
        if self._waiting and self._waiting[-1].at > now:
            for sent in self._waiting:
                sent.at = min(sent.at, now)
            for peer in self._peers.values():
                peer.missed_since = now if now < peer.missed_since < _NEVER else peer.missed_since

    def _is_missed(self, name: str, sent: _Sent) -> bool:
        peer = self._peers.get(name)
        return (
            peer is not None and peer.missed_since <= sent.at and name not in sent.answered and name not in sent.later
        )


def _refusal(peer: _Peer, found: list[_Sent], status: int, reason: str) -> list[Command]:
    """The refusal of the last of these that the connection was told, unless it refused that before."""
    received = [sent for sent in found if peer.connection in sent.to and peer.connection not in sent.later]
    if not received or not received[-1].event_ref.reportable or peer.connection in received[-1].refused:
        return []
    received[-1].refused.add(peer.connection)
    peer.refused = True
    return [Rejected(peer.subscription_id, peer.connection, received[-1].event_ref, status, reason)]


def _forget(sent: _Sent) -> None:
    others = sent.topic.sent.get(sent.event_ref.id)
    if others and others[0] is sent:
        others.pop(0)
        if not others:
            del sent.topic.sent[sent.event_ref.id]
