"""The shell that the core runs in here: one store with compare-and-set, and nodes that load, decide, commit and follow.

It does what service/, acknowledgements/ and ws/ do, on virtual time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from fhircast_hub.acknowledgements.tracker import AckTracker
from fhircast_hub.core import decide as core
from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.env import Env
from fhircast_hub.core.errors import HubError, Unavailable
from fhircast_hub.core.state.commands import Command, Connected, Publish, Restarted, Tick
from fhircast_hub.core.state.effects import Close, Effect, Send
from fhircast_hub.core.state.session import Outcome, Session
from fhircast_hub.storage.rows import changes, session_of
from tests.simulation.network import Clock, Link
from tests.simulation.posts import REALM, Post
from tests.simulation.script import Script
from tests.simulation.sockets import Socket

#: What came of a command: the reply, or why it was refused.
Then = Callable[[object], None]


class Asked(NamedTuple):
    """A command that was decided: on which revision, when, by which node, for which post."""

    node: Node
    topic: str
    command: Command
    post: Post | None
    at: float
    revision: int
    then: Then | None


class Commit(NamedTuple):
    """A change in the one order: `number` counts the commits of all topics."""

    number: int
    asked: Asked
    before: Session | None
    after: Session | None
    effects: tuple[Effect, ...]


class Witness(Protocol):
    """Who sees all that the hub decides."""

    def decided(self, asked: Asked, before: Session | None, decide: Callable[[], Outcome]) -> Outcome:
        """Call `decide`, and look at what it did."""
        ...

    def refused(self, asked: Asked, before: Session | None, error: HubError) -> None: ...

    def answered(self, asked: Asked, before: Session | None, outcome: Outcome) -> None:
        """Nothing had to be committed."""
        ...

    def committed(self, commit: Commit) -> None: ...

    sockets: dict[str, Socket]


class Ids:
    """Ids that were never given before, the same in each run; as long as UUIDs, which is all that the hub minds."""

    def __init__(self) -> None:
        self.given = 0

    def uuid(self) -> str:
        self.given += 1
        return f"00000000-0000-0000-0000-{self.given:012d}"


class Store:
    """Sessions that all nodes share, by topic, and the commits. What is committed is journalled in the rows of the SQLite store."""

    def __init__(self) -> None:
        self.sessions: dict[str, tuple[Session | None, int]] = {}
        self.commits: list[Commit] = []
        self.rows: dict[str, dict[tuple[str, str], bytes]] = {}

    def load(self, topic: str) -> tuple[Session | None, int]:
        return self.sessions.get(topic, (None, 0))

    def commit(self, asked: Asked, before: Session | None, outcome: Outcome) -> Commit | None:
        """The commit, or None if somebody else was faster."""
        if self.load(asked.topic)[1] != asked.revision:
            return None
        commit = Commit(len(self.commits), asked, before, outcome.session, outcome.effects)
        self.commits.append(commit)
        if outcome.session is not before:
            self.sessions[asked.topic] = outcome.session, commit.number + 1
            self._journal(asked.topic, before, outcome.session)
        return commit

    def _journal(self, topic: str, before: Session | None, after: Session | None) -> None:
        rows = self.rows.setdefault(topic, {})
        for (_, _, kind, name), body in changes(SessionKey(REALM, topic), before, after):
            if body is None:
                rows.pop((kind, name), None)
            else:
                rows[kind, name] = body

    def read(self, topic: str) -> Session | None:
        """The session as a new process reads it from its rows."""
        kinds: dict[str, dict[str, bytes]] = {}
        for (kind, name), body in self.rows.get(topic, {}).items():
            kinds.setdefault(kind, {})[name] = body
        return session_of(REALM, topic, kinds) if kinds else None

    def reopen(self) -> None:
        """Every process is new."""
        for topic, (_, revision) in list(self.sessions.items()):
            self.sessions[topic] = self.read(topic), revision


class Node:
    """One process of the hub: its sockets, its tracker, its place in the order of commits."""

    def __init__(self, number: int, script: Script, clock: Clock, store: Store, ids: Ids, witness: Witness) -> None:
        self.clock = clock
        self.script = script
        self.store = store
        self.number = number
        self.up = True
        self._ids = ids
        self._witness = witness
        self._random = random.Random(f"{script.seed} node {number}").random
        self._lag = (0.0, 0.005, 0.05)[number % 3]
        self._names = 0
        self._timers: dict[str, float] = {}
        self._begin(len(store.commits))

    def _begin(self, followed: int) -> None:
        self.tracker = AckTracker(self.script.policy, self.script.rules.ack_timeout)
        self.sockets: dict[str, Socket] = {}
        self.followed = followed  # commits that were done here
        self._told = followed  # commits that are on their way here
        self._next = 0.0
        self._waiting: dict[int, tuple[Then, object]] = {}
        self._looking = False
        self._timers.clear()
        self.life = object()

    # Commands

    def submit(
        self, topic: str, command: Command, then: Then | None = None, post: Post | None = None, ticked: bool = False
    ) -> None:
        """Load, decide, commit; on conflict again. What is overdue comes first."""
        if not self.up:
            if then is not None:
                then(Unavailable("the hub is down"))
            return
        session, revision = self.store.load(topic)
        asked = Asked(self, topic, command, post, self.clock.now, revision, then)
        overdue = session is not None and session.deadline is not None and session.deadline <= asked.at
        if overdue and not ticked and not isinstance(command, Tick | Restarted):
            self.submit(topic, Tick(), lambda _: self.submit(topic, command, then, post, True))
            return
        try:
            outcome = self._witness.decided(asked, session, lambda: self._decide(session, asked))
        except HubError as error:
            self._witness.refused(asked, session, error)
            if then is not None:
                then(error)
            return
        if outcome.session is session and not outcome.effects:
            self._witness.answered(asked, session, outcome)
            if then is not None:
                then(outcome.reply)
        elif isinstance(command, Restarted) or self._random() < 0.5:
            self._commit(asked, session, outcome)
        else:
            self.clock.after(self._random() * 0.02, self._commit, asked, session, outcome)

    def _decide(self, session: Session | None, asked: Asked) -> Outcome:
        return core.decide(session, asked.command, Env(asked.at, self._ids, self.script.rules))

    def _commit(self, asked: Asked, before: Session | None, outcome: Outcome) -> None:
        if not self.up:
            return  # the process died between the two: nothing has happened
        commit = self.store.commit(asked, before, outcome)
        if commit is None:
            self.submit(asked.topic, asked.command, asked.then, asked.post, True)
            return
        if asked.then is not None:
            self._waiting[commit.number] = asked.then, outcome.reply
        self._witness.committed(commit)

    # Commits

    def tell(self, commit: Commit) -> None:
        """A commit is on its way here: it arrives after a delay, in order."""
        self._next = max(self._next, self.clock.now + (self._lag * 2 * self._random() if self._lag else 0.0))
        if self._lag or self._told > self.followed:
            self._told += 1
            self.clock.at(self._next, self._follow, commit, self.life)
        else:
            self._told += 1
            self._follow(commit, self.life)

    def _follow(self, commit: Commit, life: object) -> None:
        if self.life is not life:
            return
        self.deliver(commit.effects, commit.number)
        self.followed += 1  # what is committed meanwhile comes behind
        if (waiting := self._waiting.pop(commit.number, None)) is not None:
            waiting[0](waiting[1])
        deadline = commit.after.deadline if commit.after else None
        self._arm(commit.asked.topic, deadline)

    def deliver(self, effects: Sequence[Effect], number: int) -> None:
        """As ws/registry.py does."""
        for effect in effects:
            if isinstance(effect, Send):
                later = [
                    name
                    for name in effect.to
                    if (socket := self.sockets.get(name)) is not None
                    and not socket.write((number, effect.frame), effect.event_ref)
                ]
                if effect.event_ref is not None:
                    self.tracker.sent(effect.event_ref, effect.to, self.clock.now, later)
                    self.look_later()
            elif isinstance(effect, Close) and (closing := self.sockets.get(effect.connection)) is not None:
                closing.close(effect.code)

    def _arm(self, topic: str, deadline: float | None) -> None:
        if deadline is None or self._timers.get(topic) == deadline:
            return
        self._timers[topic] = deadline
        self.clock.at(deadline, self._tick, topic, deadline, self.life)

    def _tick(self, topic: str, deadline: float, life: object) -> None:
        if self.life is life and self._timers.get(topic) == deadline:
            del self._timers[topic]
            self.submit(topic, Tick())

    # Acknowledgements

    def look_later(self) -> None:
        if not self._looking and (at := self.tracker.deadline()) is not None:
            self._looking = True
            self.clock.at(max(at, self.clock.now + 0.1), self._look, self.life)

    def _look(self, life: object) -> None:
        if self.life is not life:
            return
        self._looking = False
        for key, command in self.tracker.timed_out(self.clock.now):
            self.submit(key.topic, command)
        self.look_later()

    def heard(self, connection: str, text: bytes) -> None:
        """A client's frame."""
        answer = self.tracker.acknowledged(connection, text, self.clock.now)
        if answer is not None:
            key, commands = answer
            for command in commands:
                self.submit(key.topic, command)

    # Sockets

    def connect(self, topic: str, subscription_id: str, link: Link) -> Socket:
        """A client asks for a socket of the subscription `subscription_id`."""
        self._names += 1
        socket = Socket(self, f"n{self.number}-{self._names}", topic, subscription_id, link)
        link.hub, link.told_first = socket, math.inf
        self.sockets[socket.name] = self._witness.sockets[socket.name] = socket
        self.submit(
            topic,
            Connected(subscription_id, socket.name, self.tracker.delivered_until(subscription_id)),
            socket.answer,
        )
        return socket

    def publish(self, post: Post, command: Publish, then: Then) -> None:
        self.submit(post.topic, command, then, post)

    # Lives

    def stop(self) -> None:
        """The process ends as it should, and a new one takes its place: sockets are closed with 1001."""
        for socket in list(self.sockets.values()):
            socket.stop()
        # What was begun is finished before the process goes; the sockets say goodbye meanwhile.

    def die(self) -> None:
        """The process is killed."""
        self.up = False
        self.life = object()
        for socket in list(self.sockets.values()):
            socket.die()

    def rise(self) -> None:
        """A new process begins where the store is."""
        self.up = True
        self._begin(len(self.store.commits))

    def restarted(self) -> None:
        """It takes up every session where the last process left it."""
        for topic, (session, _) in self.store.sessions.items():
            if session is not None:
                self.submit(topic, Restarted())
                after, _ = self.store.load(topic)
                self._arm(topic, after.deadline if after else None)
