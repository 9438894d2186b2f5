"""A run of a script: the operations, and the checks of all decisions and all received frames."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import msgspec

from fhircast_hub.core.errors import HubError
from fhircast_hub.core.state.commands import Evict
from fhircast_hub.core.state.session import Outcome, Session
from tests.simulation import pictures
from tests.simulation.clients import Client
from tests.simulation.hub import Commit, Ids, Node, Store, Submission
from tests.simulation.invariants import AFTER_EACH_DECISION, Step, said
from tests.simulation.network import Clock, Link
from tests.simulation.oracle import Oracle
from tests.simulation.posts import INTERESTS, NOON, REFS, SHARED, TYPES, Post, post, token_of
from tests.simulation.script import Op, Script
from tests.simulation.shown import Shown
from tests.simulation.sockets import Socket
from tests.simulation.violation import Violation

#: One of so many decisions is checked for changing its input.
SAMPLE = 8
#: Seconds after the last operation, in which all clients come back.
PEACE = 75.0


class World:
    """One run."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.clock = Clock(NOON)
        self.store = Store()
        self.oracle = Oracle(script.rules)
        self.sockets: dict[str, Socket] = {}
        self.shown = Shown()
        self._undelivered: deque[Commit] = deque()
        self.versions: set[str] = set()
        self.taken: set[tuple[str, str]] = set()
        self.causes: Counter[tuple[str, ...]] = Counter()
        self.decisions = 0
        ids = Ids()
        self.nodes = [Node(number, script, self.clock, self.store, ids, self) for number in range(script.nodes)]
        self.clients = [
            Client(number, script.seed, behaviour, self.clock, self.nodes, self)
            for number, behaviour in enumerate(script.behaviours)
        ]
        self.risen = 0.0  # time of the last restart of the hub, or of a node
        self._posts = 0

    def run(self) -> None:
        """Run all operations, then a time in which all clients are prompt and come back. Raises Violation."""
        for client in self.clients:
            self.clock.at(NOON + 0.2 * client.number, client.join)
        at = NOON + 2.0
        for op in self.script.operations:
            at += op.wait
            self.clock.run(at)
            if op.what == "quiet":
                at += 5 + op.dice % 25
                self.clock.run(at)
                pictures.check_at_rest(self)
            else:
                self._do(op)
        self._make_peace()
        self.clock.run(at + PEACE)
        pictures.check_at_rest(self)

    def _make_peace(self) -> None:
        for client in self.clients:
            client.is_prompt = True
            if client.link is not None:
                client.link.read()
            elif not client.subscription_id:
                self.clock.after(1.0, client.join)
            else:
                self.clock.after(1.0, client._connect, client.subscription_id)

    # Operations

    def _do(self, op: Op) -> None:
        dice = random.Random(op.dice)
        getattr(self, f"_{op.what}")(self.clients[op.who], dice)

    def _post(self, client: Client, kind: str, ref: str, dice: random.Random, **more: Any) -> None:
        self._posts += 1
        at = self.clock.now - (dice.random() * 20 if dice.random() < 0.15 else 0)
        client.publish(post(client.behaviour.topic, kind, ref, f"event-{self._posts}", at, **more))

    def _open(self, client: Client, dice: random.Random) -> None:
        ref = dice.choice(REFS)
        types = tuple(TYPES)
        implied = [other for other in REFS[:6] if dice.random() < 0.3]
        # As in the catalogue: a study names its encounter and patient, a patient neither.
        above = types[: types.index(ref.partition("/")[0])]
        one_each = {other.partition("/")[0]: other for other in implied if other.partition("/")[0] in above}
        if ref.startswith(("encounter/", "diagnosticreport/")):
            one_each.setdefault("patient", dice.choice(REFS[:3]))
        self._post(client, "open", ref, dice, implied=tuple(one_each.values()))

    def _close(self, client: Client, dice: random.Random) -> None:
        current = client.picture.current
        self._post(client, "close", current if current and dice.random() < 0.5 else dice.choice(REFS), dice)

    def _home(self, client: Client, dice: random.Random) -> None:
        self._post(client, "home", "", dice, name="Home-open")

    def _say(self, client: Client, dice: random.Random) -> None:
        name = dice.choice(("SyncError", "UserLogout", "com.example.thing", "userhibernate"))
        self._post(client, "other", "", dice, name=name)

    def _select(self, client: Client, dice: random.Random) -> None:
        self._post(client, "select", client.picture.current or dice.choice(REFS), dice)

    def _update(self, client: Client, dice: random.Random) -> None:
        known = [ref for ref, known in client.picture.contexts.items() if known.version]
        ref = dice.choice(known) if known else dice.choice(REFS)
        versions = client.versions.get(ref, ["never"])
        version = versions[-1] if dice.random() < 0.75 else dice.choice((*versions, ""))
        shared = (*SHARED, ref) if dice.random() < 0.5 else SHARED
        changes = tuple(
            (other, None if dice.random() < (0.5 if other == ref else 0.2) else dice.randrange(1000))
            for other in shared
            if dice.random() < 0.5
        )
        self._post(client, "update", ref, dice, version=version, changes=changes)

    def _retry(self, client: Client, dice: random.Random) -> None:
        """Publish a post again, unchanged, perhaps by another client."""
        posts = client.posts or self.clients[0].posts
        if posts:
            again: Post = posts[-1] if dice.random() < 0.5 else dice.choice(posts)
            if again.topic == client.behaviour.topic:
                client.publish(again)

    def _join(self, client: Client, dice: random.Random) -> None:
        if client.link is not None and dice.random() < 0.5:
            client.connect()  # a second socket to the same endpoint
        elif client.link is None and client.subscription_id and dice.random() < 0.5:
            client.connect()
        else:
            client.join()

    def _leave(self, client: Client, dice: random.Random) -> None:
        client.leave(dice.choice((1000, 1001, 1001, 4000)))

    def _cut(self, client: Client, dice: random.Random) -> None:
        if client.link is not None:
            hub = dice.choice((0.0, 0.0, 0.5, None))
            client.link.cut(hub, dice.choice((0.0, 0.3, 5.0)))

    def _crash(self, client: Client, dice: random.Random) -> None:
        client.crash(dice.choice((0.0, None)))

    def _stall(self, client: Client, dice: random.Random) -> None:
        if client.link is not None:
            client.link.reading = False
            self.clock.after(dice.choice((0.5, 3.0, 15.0)), client.link.read)

    def _renew(self, client: Client, dice: random.Random) -> None:
        client.renew(dice.choice((client.behaviour.events, *INTERESTS)), dice.choice((None, 30, 300)))

    def _unsubscribe(self, client: Client, dice: random.Random) -> None:
        client.unsubscribe(by_name=dice.random() < 0.4)

    def _evict(self, client: Client, dice: random.Random) -> None:
        if client.subscription_id:
            client.node().submit(client.behaviour.topic, Evict(client.subscription_id))

    def _stop(self, client: Client, dice: random.Random) -> None:
        """Stop a node in good order; another process replaces it."""
        dice.choice(self.nodes).stop()

    def _restart(self, client: Client, dice: random.Random) -> None:
        """Kill the hub. New processes start from the rows in the store."""
        for node in self.nodes:
            node.die()
        self.clock.after(dice.choice((0.2, 2.0, 20.0)), self._rise)

    def _kill(self, client: Client, dice: random.Random) -> None:
        """Kill one node of several. The others notice after a while, and a new process takes its place."""
        if len(self.nodes) > 1 and all(node.up for node in self.nodes):
            node = dice.choice(self.nodes)
            node.die()
            self.oracle.node_died(node.name)
            self.clock.after(dice.choice((0.2, 2.0, 20.0)), self._replace, node, node.name)

    def _replace(self, node: Node, name: str) -> None:
        others = [other for other in self.nodes if other.up]
        if node.name != name or not others:
            return  # the whole hub was restarted meanwhile, or will be
        others[0].lost(name)
        self.risen = self.clock.now
        node.rise()

    def _rise(self) -> None:
        if any(node.up for node in self.nodes):
            return
        self._check_rows()
        self.store.reopen()
        self.oracle.reopen()
        self.risen = self.clock.now
        for node in self.nodes:
            node.rise()
        self.nodes[0].restarted()

    def _check_rows(self) -> None:
        """Every committed session can be read from its rows, except for state that a restart loses."""
        for topic, (session, _) in self.store.sessions.items():
            found = self.store.read(topic)
            expected = msgspec.structs.replace(session, audiences=(), next_heartbeat=None) if session else None
            if found != expected:
                raise Violation("rows_hold_the_session", f"{found}; should be {expected}")

    # simulation.hub.Observer

    def decided(self, submission: Submission, before: Session | None, decide: Callable[[], Outcome]) -> Outcome:
        """The outcome. `decide` may raise only HubError, and must not change its input."""
        self.decisions += 1
        frozen = _frozen(before) if self.decisions % SAMPLE == 0 else b""
        try:
            return decide()
        except HubError:
            raise
        except Exception as error:
            raise Violation(
                "only_refusals_are_raised", f"{type(error).__name__}: {error} by {submission.command}"
            ) from error
        finally:
            if frozen and frozen != _frozen(before):
                raise Violation("nothing_is_changed_in_place", f"by {submission.command}")

    def refused(self, submission: Submission, before: Session | None, error: HubError) -> None:
        self._check_status(submission, error.status)

    def answered(self, submission: Submission, before: Session | None, outcome: Outcome) -> None:
        self._check_status(submission, 0)
        self._check(submission, before, outcome.session, ())

    def committed(self, commit: Commit) -> None:
        submission = commit.submission
        self._check_status(submission, 0)
        self._check(submission, commit.before, commit.after, commit.effects)
        self._undelivered.append(commit)
        if len(self._undelivered) > 1:
            return  # a node made this commit during a delivery: commits are delivered in order
        while self._undelivered:
            for node in self.nodes:
                if node.up:
                    node.tell(self._undelivered[0])
            self._undelivered.popleft()

    def _check_status(self, submission: Submission, status: int) -> None:
        """CON-3, CON-19, CON-11, AUT-3, AUT-5, SUB-21, SUB-22, ...: exactly the commands are refused that should be, with the right status."""
        expected = self.oracle.status(
            submission.topic, submission.command, token_of(submission.command), submission.post, submission.at
        )
        if (expected if expected >= 400 else 0) != status:
            raise Violation("statuses_match_behaviours", f"{status or 'taken'}, not {expected}: {submission.command}")

    def _check(
        self, submission: Submission, before: Session | None, after: Session | None, effects: tuple[Any, ...]
    ) -> None:
        post, token = submission.post, token_of(submission.command)
        opened = after.contexts.get(post.ref) if after and post else None
        version = opened.version if opened else ""
        heard = self.oracle.apply(submission.topic, submission.command, token, post, submission.at, version)
        topic = self.oracle.topics.get(submission.topic)
        step = Step(self, submission, before, after, effects, topic, heard, said(effects))
        for invariant in AFTER_EACH_DECISION:
            invariant(step)
        if after is None:
            self.oracle.topics.pop(submission.topic, None)
        self._note(before, after)

    def _note(self, before: Session | None, after: Session | None) -> None:
        """Note the time for sockets that belong to no subscription any more."""
        old = before.subscriptions if before else {}
        new = after.subscriptions if after else {}
        if old is not new:
            for subscription_id, sub in old.items():
                left = subscription_id not in new or new[subscription_id].connection != sub.connection
                if left and sub.connection in self.sockets and self.sockets[sub.connection].unsubscribed_at is None:
                    self.sockets[sub.connection].unsubscribed_at = self.clock.now

    # simulation.clients.FrameObserver

    def heard(self, client: Client, link: Link, number: int, frame: dict[str, Any]) -> None:
        for invariant in pictures.ON_EACH_FRAME:
            invariant(client, link, number, frame)

    def get(self, client: Client) -> tuple[str, str, dict[str, int]] | None:
        return pictures.get(self, client.behaviour.topic)

    def socket_of(self, link: Link) -> Socket | None:
        return link.hub if isinstance(link.hub, Socket) else None


def _frozen(session: Session | None) -> bytes:
    return msgspec.msgpack.encode(session, enc_hook=sorted)
