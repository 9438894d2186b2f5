"""Values: sessions, changes and effects as numbers. The real core decides, and each decision is made once.

The rows of a change and the effects go through the encodings of the log, as between two nodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.decide import decide
from fhircast_hub.core.env import Env
from fhircast_hub.core.errors import HubError
from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules.nodes import nodes_of
from fhircast_hub.core.rules.webhook_outbox import waiting_posts
from fhircast_hub.core.state.commands import (
    Command,
    Connected,
    Disconnected,
    NodeLost,
    PostFinished,
    Publish,
    ResumePosts,
    Tick,
)
from fhircast_hub.core.state.effects import Close, Effect, Post, Send
from fhircast_hub.core.state.session import Session
from fhircast_hub.core.wire.close_codes import ABNORMAL
from fhircast_hub.core.wire.event import Event
from fhircast_hub.postgresql.log import decode_changes, decode_effects, encode_changes, encode_effects
from fhircast_hub.storage.row_reader import apply_changes
from fhircast_hub.storage.rows import shared_changes
from tests.model.world import Cause
from tests.simulation.posts import FULL, NOON, REALM

RULES = Rules()
#: Seconds from the beginning to the time that is late for returns.
LATE = 45.0

_encode = msgspec.msgpack.Encoder().encode


class Decision(NamedTuple):
    """An outcome of the core. `status`: that of the refusal, 0 for none."""

    status: int
    #: Whether the session is the same object, so that only effects are committed.
    same: bool = True
    after: int = 0
    changes: int = 0
    effects: int = 0


class Told(NamedTuple):
    """What effects say to whom."""

    #: Connection -> its frames, in order.
    frames: dict[str, tuple[bytes, ...]]
    closed: frozenset[str]
    #: Numbers of posts.
    posts: tuple[int, ...]
    #: Names of the subscribers that a SyncError reports.
    reported: tuple[str, ...]


class _Ids:
    """New ids of one decision: the same decision gets the same ids."""

    def __init__(self, cause: Cause) -> None:
        self._cause, self._given = cause, 0

    def uuid(self) -> str:
        self._given += 1
        return f"{'-'.join(map(str, self._cause))}-{self._given}"


def key_of(topic: int) -> SessionKey:
    """The key of a topic's session."""
    return SessionKey(REALM, f"topic-{topic}")


class Values:
    """The values of one search. `events` are those of the callers."""

    def __init__(self, events: Iterable[Event], *, slow_commits: bool = False) -> None:
        self.slow_commits = slow_commits
        self.events = tuple(events)
        self._numbers: dict[bytes, int] = {}
        self._values: list[bytes] = [b""]
        self._sessions: dict[int, Session] = {}
        self._told: dict[int, Told] = {0: Told({}, frozenset(), (), ())}
        self._nodes: dict[int, frozenset[str]] = {}
        self._decisions: dict[tuple[int, Cause, bool, str], Decision] = {}
        self._applied: dict[tuple[int, int, int], int] = {}

    def put(self, session: Session) -> int:
        """The number of a session."""
        number = self._number(_text(session))
        self._sessions.setdefault(number, session)
        return number

    def session(self, number: int) -> Session:
        """The session of this number."""
        return self._sessions[number]

    def is_overdue(self, session: int) -> bool:
        """Whether the session's deadline has passed, when it is late."""
        deadline = self._sessions[session].deadline
        return deadline is not None and deadline <= NOON + LATE

    def awaits(self, session: int) -> bool:
        """Whether a lost subscriber is awaited."""
        return any(each.reconnect_deadline for each in self._sessions[session].subscriptions.values())

    def waiting_posts(self, session: int) -> frozenset[int]:
        """core.rules.webhook_outbox.waiting_posts."""
        return waiting_posts(self._sessions[session])

    def nodes(self, session: int) -> frozenset[str]:
        """core.rules.nodes.nodes_of."""
        if (found := self._nodes.get(session)) is None:
            found = self._nodes[session] = nodes_of(self._sessions[session])
        return found

    def decide(self, session: int, cause: Cause, late: bool, node: str) -> Decision:
        """The core's decision of a node on a command."""
        question = session, cause, late, node
        if (found := self._decisions.get(question)) is None:
            found = self._decisions[question] = self._decide(*question)
        return found

    def applied(self, session: int, topic: int, changes: int) -> int:
        """The session after the rows of a change were written. Raises what apply_changes raises."""
        question = session, topic, changes
        if (found := self._applied.get(question)) is None:
            decoded = decode_changes(self._values[changes])
            after = apply_changes(self._sessions[session], key_of(topic), decoded)
            assert after is not None
            found = self._applied[question] = self.put(after)
        return found

    def told(self, effects: int) -> Told:
        """What these effects say."""
        if (found := self._told.get(effects)) is None:
            found = self._told[effects] = _told(decode_effects(self._values[effects]))
        return found

    def _decide(self, number: int, cause: Cause, late: bool, node: str) -> Decision:
        before = self._sessions[number]
        env = Env(NOON + late * LATE, _Ids(cause), RULES, node)
        try:
            outcome = decide(before, self._command(cause), env)
        except HubError as error:
            return Decision(error.status)
        assert outcome.session is not None
        same = outcome.session is before
        changes = [] if same else list(shared_changes(key_of(cause.topic), before, outcome.session))
        return Decision(
            0,
            same,
            number if same else self.put(outcome.session),
            self._number(encode_changes(changes)),
            self._number(encode_effects(outcome.effects)) if outcome.effects else 0,
        )

    def _command(self, cause: Cause) -> Command:
        subscription = f"sub-{cause.number}"
        match cause.kind:
            case "event":
                return Publish(FULL.principal(), self.events[cause.number])
            case "connect":
                return Connected(subscription, cause.name)
            case "gone":
                return Disconnected(subscription, cause.name, 0.0, ABNORMAL)
            case "lost":
                return NodeLost(cause.name)
            case "answered":
                return PostFinished(cause.number, 200)
            case "resume":
                return ResumePosts()
        assert cause.kind == "tick"
        return Tick()

    def _number(self, value: bytes) -> int:
        if (number := self._numbers.get(value)) is None:
            number = self._numbers[value] = len(self._values)
            self._values.append(value)
        return number


def _text(session: Session) -> bytes:
    """The rows of a session, the same for equal sessions. Sets and rows are in no order, so they are sorted."""
    audiences = [(sorted(each.keys), each.last_opened, each.members) for each in session.audiences]
    names = sorted(session.webhook_connections), sorted(session.sent_nothing)
    rest = replace(session, audiences=(), webhook_connections=frozenset(), sent_nothing=frozenset())
    rows = sorted((kind, name, body) for (_, _, kind, name), body in shared_changes(key_of(0), None, rest))
    return _encode((session.topic, audiences, names, rows))


def _told(effects: list[Effect]) -> Told:
    frames: dict[str, tuple[bytes, ...]] = {}
    reported: list[str] = []
    for effect in effects:
        if isinstance(effect, Send):
            for connection in effect.to:
                frames[connection] = (*frames.get(connection, ()), effect.frame)
            if effect.event_ref is not None and effect.event_ref.name == "SyncError":
                reported.append(_subscriber(effect.frame))
    closed = frozenset(effect.connection for effect in effects if isinstance(effect, Close))
    return Told(frames, closed, tuple(each.number for each in effects if isinstance(each, Post)), tuple(reported))


def _subscriber(frame: bytes) -> str:
    issue = json.loads(frame)["event"]["context"][0]["resource"]["issue"][0]
    codes = {coding["system"].rpartition("/")[2]: coding["code"] for coding in issue["details"]["coding"]}
    return str(codes["subscriber"])
