"""A hub around the core: one store with compare-and-set, and nodes that load, decide, commit and deliver.

The module does the work of service/, acknowledgements/ and ws/, on virtual time.
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
from fhircast_hub.core.rules.nodes import socket_name
from fhircast_hub.core.state.commands import Command, Connected, NodeLost, Publish, Restarted, Tick
from fhircast_hub.core.state.effects import Close, Effect, Send
from fhircast_hub.core.state.session import Outcome, Session
from fhircast_hub.storage.row_reader import session_of
from fhircast_hub.storage.rows import changes
from tests.simulation.network import Clock, Link
from tests.simulation.posts import REALM, Post
from tests.simulation.script import Script
from tests.simulation.sockets import Socket

#: Called with the reply to a command, or with the error that refused the command.
OnReply = Callable[[object], None]


class Submission(NamedTuple):
    """A command that a node decided, on a revision of the session."""

    node: Node
    topic: str
    command: Command
    post: Post | None
    at: float
    revision: int
    on_reply: OnReply | None


class Commit(NamedTuple):
    """A committed decision. `number` counts the commits of all topics."""

    number: int
    submission: Submission
    before: Session | None
    after: Session | None
    effects: tuple[Effect, ...]


class Observer(Protocol):
    """Checks every decision of the hub."""

    def decided(self, submission: Submission, before: Session | None, decide: Callable[[], Outcome]) -> Outcome:
        """Call `decide`, and check that it changes nothing in place."""
        ...

    def refused(self, submission: Submission, before: Session | None, error: HubError) -> None: ...

    def answered(self, submission: Submission, before: Session | None, outcome: Outcome) -> None:
        """A decision needed no commit."""
        ...

    def committed(self, commit: Commit) -> None: ...

    sockets: dict[str, Socket]


class Ids:
    """New ids, the same in each run, as long as UUIDs."""

    def __init__(self) -> None:
        self.given = 0

    def uuid(self) -> str:
        self.given += 1
        return f"00000000-0000-0000-0000-{self.given:012d}"


class Store:
    """The sessions that all nodes share, by topic, and the commits. `rows` are those of the SQLite store."""

    def __init__(self) -> None:
        self.sessions: dict[str, tuple[Session | None, int]] = {}
        self.commits: list[Commit] = []
        self.rows: dict[str, dict[tuple[str, str], bytes]] = {}

    def load(self, topic: str) -> tuple[Session | None, int]:
        return self.sessions.get(topic, (None, 0))

    def commit(self, submission: Submission, before: Session | None, outcome: Outcome) -> Commit | None:
        """The commit; None if another commit came first."""
        if self.load(submission.topic)[1] != submission.revision:
            return None
        commit = Commit(len(self.commits), submission, before, outcome.session, outcome.effects)
        self.commits.append(commit)
        if outcome.session is not before:
            self.sessions[submission.topic] = outcome.session, commit.number + 1
            self._journal(submission.topic, before, outcome.session)
        return commit

    def _journal(self, topic: str, before: Session | None, after: Session | None) -> None:
        rows = self.rows.setdefault(topic, {})
        for (_, _, kind, name), body in changes(SessionKey(REALM, topic), before, after):
            if body is None:
                rows.pop((kind, name), None)
            else:
                rows[kind, name] = body

    def read(self, topic: str) -> Session | None:
        """The session as a new process reads the rows."""
        kinds: dict[str, dict[str, bytes]] = {}
        for (kind, name), body in self.rows.get(topic, {}).items():
            kinds.setdefault(kind, {})[name] = body
        return session_of(REALM, topic, kinds) if kinds else None

    def reopen(self) -> None:
        """All processes were restarted."""
        for topic, (_, revision) in list(self.sessions.items()):
            self.sessions[topic] = self.read(topic), revision


class Node:
    """A process of the hub: its sockets, its tracker, and the number of commits that it has delivered."""

    def __init__(self, number: int, script: Script, clock: Clock, store: Store, ids: Ids, observer: Observer) -> None:
        self.clock = clock
        self.script = script
        self.store = store
        self.number = number
        self.lives = 0
        self.up = True
        self._ids = ids
        self._observer = observer
        self._random = random.Random(f"{script.seed} node {number}").random
        self._lag = (0.0, 0.005, 0.05)[number % 3]
        self._names = 0
        self._timers: dict[str, float] = {}
        self._begin(len(store.commits))

    def _begin(self, followed: int) -> None:
        self.tracker = AckTracker(self.script.policy, self.script.rules.ack_timeout)
        self.sockets: dict[str, Socket] = {}
        self.followed = followed  # commits that were delivered here
        self._told = followed  # commits that are on their way here
        self._next = 0.0
        self._waiting: dict[int, tuple[OnReply, object]] = {}
        self._is_check_planned = False
        self._timers.clear()
        self.life = object()

    @property
    def name(self) -> str:
        """The node's name. A new process has a new one."""
        return f"n{self.number}-{self.lives}"

    # Commands

    def submit(
        self,
        topic: str,
        command: Command,
        on_reply: OnReply | None = None,
        post: Post | None = None,
        ticked: bool = False,
    ) -> None:
        """Load, decide and commit; after a conflict, again. A Tick that is overdue is decided first."""
        if not self.up:
            if on_reply is not None:
                on_reply(Unavailable("the hub is down"))
            return
        session, revision = self.store.load(topic)
        submission = Submission(self, topic, command, post, self.clock.now, revision, on_reply)
        overdue = session is not None and session.deadline is not None and session.deadline <= submission.at
        if overdue and not ticked and not isinstance(command, Tick | Restarted | NodeLost):
            self.submit(topic, Tick(), lambda _: self.submit(topic, command, on_reply, post, True))
            return
        try:
            outcome = self._observer.decided(submission, session, lambda: self._decide(session, submission))
        except HubError as error:
            self._observer.refused(submission, session, error)
            if on_reply is not None:
                on_reply(error)
            return
        if outcome.session is session and not outcome.effects:
            self._observer.answered(submission, session, outcome)
            if on_reply is not None:
                on_reply(outcome.reply)
        elif isinstance(command, Restarted | NodeLost) or self._random() < 0.5:
            self._commit(submission, session, outcome)
        else:
            self.clock.after(self._random() * 0.02, self._commit, submission, session, outcome)

    def _decide(self, session: Session | None, submission: Submission) -> Outcome:
        return core.decide(session, submission.command, Env(submission.at, self._ids, self.script.rules, self.name))

    def _commit(self, submission: Submission, before: Session | None, outcome: Outcome) -> None:
        if not self.up:
            return  # the process died before the commit
        commit = self.store.commit(submission, before, outcome)
        if commit is None:
            self.submit(submission.topic, submission.command, submission.on_reply, submission.post, True)
            return
        if submission.on_reply is not None:
            self._waiting[commit.number] = submission.on_reply, outcome.reply
        self._observer.committed(commit)

    # Commits

    def tell(self, commit: Commit) -> None:
        """A commit arrives here after a delay, in order."""
        self._next = max(self._next, self.clock.now + (self._lag * 2 * self._random() if self._lag else 0.0))
        if self._lag or self._told > self.followed:
            self._told += 1
            self.clock.at(self._next, self._apply, commit, self.life)
        else:
            self._told += 1
            self._apply(commit, self.life)

    def _apply(self, commit: Commit, life: object) -> None:
        if self.life is not life:
            return
        self.deliver(commit.effects, commit.number)
        self.followed += 1  # commits made meanwhile are delivered later
        if (waiting := self._waiting.pop(commit.number, None)) is not None:
            waiting[0](waiting[1])
        deadline = commit.after.deadline if commit.after else None
        self._arm(commit.submission.topic, deadline)

    def deliver(self, effects: Sequence[Effect], number: int) -> None:
        """Deliver effects to sockets, as ws/registry.py does."""
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
                    self.plan_check()
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

    def plan_check(self) -> None:
        if not self._is_check_planned and (at := self.tracker.deadline()) is not None:
            self._is_check_planned = True
            self.clock.at(max(at, self.clock.now + 0.1), self._check, self.life)

    def _check(self, life: object) -> None:
        if self.life is not life:
            return
        self._is_check_planned = False
        for key, command in self.tracker.timed_out(self.clock.now):
            self.submit(key.topic, command)
        self.plan_check()

    def heard(self, connection: str, text: bytes) -> None:
        """A frame of a client was received."""
        answer = self.tracker.acknowledged(connection, text, self.clock.now)
        if answer is not None:
            key, commands = answer
            for command in commands:
                self.submit(key.topic, command)

    # Sockets

    def connect(self, topic: str, subscription_id: str, link: Link) -> Socket:
        """A client connects to an endpoint."""
        self._names += 1
        socket = Socket(self, socket_name(self.name, self._names), topic, subscription_id, link)
        link.hub, link.replay_size = socket, math.inf
        self.sockets[socket.name] = self._observer.sockets[socket.name] = socket
        self.submit(
            topic,
            Connected(subscription_id, socket.name, self.tracker.delivered_until(subscription_id)),
            socket.answer,
        )
        return socket

    def publish(self, post: Post, command: Publish, on_reply: OnReply) -> None:
        self.submit(post.topic, command, on_reply, post)

    # Start and stop

    def stop(self) -> None:
        """The process is replaced by a new one in good order: sockets are closed with 1001."""
        for socket in list(self.sockets.values()):
            socket.stop()
        # Requests are finished before the process ends, while the sockets are closed.

    def die(self) -> None:
        """The process is killed."""
        self.up = False
        self.life = object()
        for socket in list(self.sockets.values()):
            socket.die()

    def rise(self) -> None:
        """A new process starts from the store."""
        self.up = True
        self.lives += 1
        self._begin(len(self.store.commits))
        for topic, (session, _) in self.store.sessions.items():
            self._arm(topic, session.deadline if session else None)

    def lost(self, node: str) -> None:
        """Another node is gone from every session."""
        for topic, (session, _) in list(self.store.sessions.items()):
            if session is not None:
                self.submit(topic, NodeLost(node))

    def restarted(self) -> None:
        """The new process restarts every session."""
        for topic, (session, _) in self.store.sessions.items():
            if session is not None:
                self.submit(topic, Restarted())
                after, _ = self.store.load(topic)
                self._arm(topic, after.deadline if after else None)
