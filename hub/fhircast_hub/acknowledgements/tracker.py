"""Deliveries: which connection was told what and has not answered yet (FHIRcast 3.0.0, 2.5 "Event Notification Response").

Each node keeps this for its own connections, beside the sessions: acknowledgements are as many as deliveries, and nearly all of
them change nothing. What does becomes a command. Pure as `decide` is: time is an argument, and what time is to be told is
`deadline()`. To remember an event costs the same for one connection as for a thousand.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Collection, Sequence

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.commands import Acknowledged, Command, Refused, Silence, Unanswered
from fhircast_hub.core.state.effects import Notice
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

    __slots__ = ("answered", "at", "later", "notice", "refused", "to", "topic")

    def __init__(self, topic: _Topic, notice: Notice, to: Sequence[str], at: float, later: Collection[str]) -> None:
        self.topic = topic
        self.notice = notice
        self.to = to
        self.at = at
        self.later = later
        self.answered: set[str] = set()  # by whom, with whatever status
        self.refused: set[str] = set()


class _Peer:
    """A connection: `since` is when it began to be missed when it is silent, `sure` until when all that it was sent has arrived."""

    __slots__ = ("acknowledges", "connection", "heard", "refused", "sid", "since", "strikes", "sure", "topic")

    def __init__(self, topic: _Topic, subscription: Subscription, connection: str, since: float) -> None:
        self.topic = topic
        self.sid = subscription.sid
        self.connection = connection
        self.acknowledges = subscription.acknowledges
        self.strikes = subscription.strikes
        self.refused = False
        self.heard: float | None = None
        self.since = since
        self.sure = subscription.sure


class Deliveries:
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
        self._latest[subscription.sid] = connection

    def disconnected(self, connection: str) -> float:
        """A connection went: until when all that was sent to it has arrived (epoch seconds; 0 for one that never was here)."""
        peer = self._peers.pop(connection, None)
        if peer is None:
            return 0.0
        if self._latest.get(peer.sid) == connection:
            del self._latest[peer.sid]
        peer.topic.connections -= 1
        if not peer.topic.connections:
            del self._topics[peer.topic.key]
        return peer.sure

    def sure(self, sid: str) -> float:
        """As `disconnected`, for the connection that the subscription `sid` still has."""
        peer = self._peers.get(self._latest.get(sid, ""))
        return peer.sure if peer else 0.0

    def acknowledged_at(self, sid: str) -> float | None:
        """When the connection that the subscription `sid` has acknowledged last (epoch seconds); None if it never did."""
        peer = self._peers.get(self._latest.get(sid, ""))
        return peer.heard if peer else None

    def alive(self, connection: str, at: float) -> None:
        """All that was sent to this connection until `at` has arrived: it answered a ping."""
        if (peer := self._peers.get(connection)) is not None:
            peer.sure = max(peer.sure, at)

    def sent(self, notice: Notice, to: Sequence[str], now: float, later: Collection[str] = ()) -> None:
        """A frame was handed to these connections, but to those of `later` it was not yet. Those of other nodes do not count."""
        topic = next((peer.topic for name in to if (peer := self._peers.get(name)) is not None), None)
        if topic is None:
            return
        self._follow_clock(now)
        sent = _Sent(topic, notice, to, now, later)
        repeats = topic.sent.setdefault(notice.id, [])
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
        told = [sent.at for sent in found if len(sent.to) > 1 or peer.connection in sent.to]
        peer.sure, peer.heard = max(peer.sure, min(told, default=0.0)), now
        success = read.status is None or read.status // 100 == _SUCCESS
        followed = success and found[-1].notice.matters
        commands: list[Command] = []
        if not peer.acknowledges or peer.strikes or (peer.refused and followed):
            peer.acknowledges, peer.strikes, peer.since = True, 0, min(peer.since, now)
            peer.refused = peer.refused and not followed
            commands.append(Acknowledged(peer.sid, followed=followed))
        if read.status is not None and not success:
            commands += _refusal(peer, found, read.status, read.reason)
        return peer.topic.key, commands

    def deadline(self) -> float | None:
        """When `unanswered` is to be asked."""
        return self._waiting[0].at + self._timeout + TOGETHER if self._waiting else None

    def unanswered(self, now: float) -> list[tuple[SessionKey, Unanswered]]:
        """What was not acknowledged in time, by session. Of what a connection left unanswered together the last is named."""
        self._follow_clock(now)
        silent: dict[str, _Sent] = {}
        while self._waiting and self._waiting[0].at + self._timeout <= now:
            sent = self._waiting.popleft()
            _forget(sent)
            if sent.notice.matters and self._policy is not Policy.OFF:
                silent |= {name: sent for name in sent.to if self._is_missed(name, sent)}
        silences: dict[SessionKey, list[Silence]] = {}
        for name, sent in silent.items():
            peer = self._peers[name]
            peer.strikes += 1
            silences.setdefault(sent.topic.key, []).append(Silence(peer.sid, name, sent.notice))
        return [(key, Unanswered(tuple(found))) for key, found in silences.items()]

    def _follow_clock(self, now: float) -> None:
        """A clock that was set back begins the time of what waits anew; else nobody would be missed until it is as late again."""
        if self._waiting and self._waiting[-1].at > now:
            for sent in self._waiting:
                sent.at = min(sent.at, now)
            for peer in self._peers.values():
                peer.since = now if now < peer.since < _NEVER else peer.since

    def _is_missed(self, name: str, sent: _Sent) -> bool:
        peer = self._peers.get(name)
        return peer is not None and peer.since <= sent.at and name not in sent.answered and name not in sent.later


def _refusal(peer: _Peer, found: list[_Sent], status: int, reason: str) -> list[Command]:
    """The refusal of the last of these that the connection was told, unless it refused that before."""
    told = [sent for sent in found if peer.connection in sent.to and peer.connection not in sent.later]
    if not told or not told[-1].notice.matters or peer.connection in told[-1].refused:
        return []
    told[-1].refused.add(peer.connection)
    peer.refused = True
    return [Refused(peer.sid, peer.connection, told[-1].notice, status, reason)]


def _forget(sent: _Sent) -> None:
    others = sent.topic.sent.get(sent.notice.id)
    if others and others[0] is sent:
        others.pop(0)
        if not others:
            del sent.topic.sent[sent.notice.id]
