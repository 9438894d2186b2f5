"""A node that decides, and a second node that follows the first by the changed rows alone."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from fhircast_hub.acknowledgements.tracker import Policy
from fhircast_hub.core.access.principal import Principal, SessionKey
from fhircast_hub.core.errors import HubError
from fhircast_hub.core.rules.webhook_outbox import connection_name
from fhircast_hub.core.state.commands import (
    BeginSession,
    Command,
    Connected,
    EndSession,
    Evict,
    MakeRoom,
    NodeLost,
    PostFinished,
    Rejected,
    ResumePosts,
    Revoked,
    Undeliverable,
    VerificationFailed,
)
from fhircast_hub.core.state.effects import Effect, EventRef, Send
from fhircast_hub.core.state.session import Outcome, Session, Subscription
from fhircast_hub.storage.row_reader import apply_changes, session_of
from fhircast_hub.storage.rows import changes, shared_changes
from tests.core.rules.content_world import anchor, delete, put
from tests.core.rules.webhook_world import Hooked
from tests.core.world import (
    CLOSES,
    KEY,
    OPENS,
    encounter,
    frozen,
    message,
    outcome,
    patient,
    report,
    resource,
    study,
    token,
)

#: Changes that a late node applies at a time.
AT_A_TIME = 7
#: Kinds of rows that a store with one process does not have.
SHARED_KINDS = {"audience", "members", "connections"}
PARTS = ("subscriptions", "contexts", "contents", "retained", "outbox")
FIELDS = (*PARTS, "recent", "dropped_closes", "home", "audiences", "webhook_connections")
REPORTS = "DiagnosticReport-open,DiagnosticReport-update,DiagnosticReport-select,DiagnosticReport-close"
EVENTS = (f"{OPENS},{CLOSES},Home-open,SyncError", REPORTS, "Patient-open,heartbeat", "ImagingStudy-open,SyncError")
TOKENS = (
    token(),
    token(client="other-app"),
    replace(token(), opaque=True),
    token("bob"),
    token(write=["Patient-open"]),
)
#: Names of nodes.
NODES = ("n1", "n2", "n3")
ANCHORS = {"Patient": patient, "Encounter": encounter, "ImagingStudy": study, "DiagnosticReport": report}


class Follower:
    """Two nodes that apply changes to their own session, one at once and one later, and a store that keeps the rows."""

    def __init__(self, key: SessionKey = KEY) -> None:
        self._key = key
        #: The session at the node that applies each change at once.
        self.session: Session | None = None
        #: The session at the node that applies several changes at a time, and the rows of those that wait.
        self._late: Session | None = None
        self._waiting: dict[tuple[str, str], bytes | None] = {}
        self._changes = 0
        #: All rows of the store.
        self.rows: dict[tuple[str, str], bytes] = {}

    def follow(self, before: Session | None, after: Session | None) -> None:
        """Check that the change from `before` to `after` arrives whole, and changes nothing else."""
        rows = list(shared_changes(self._key, before, after))
        assert [row for row in rows if row[0][2] not in SHARED_KINDS] == list(changes(self._key, before, after))
        self._follow_later({(kind, name): body for (_, _, kind, name), body in rows}, after)
        for (_, _, kind, name), body in rows:
            if body is None:
                del self.rows[kind, name]  # only rows that the store has are deleted
            else:
                self.rows[kind, name] = body
        old, value = self.session, frozen(self.session)
        self.session = apply_changes(old, self._key, [(kind, name, body) for (_, _, kind, name), body in rows])
        assert frozen(old) == value
        for found in (self.session, self.read()):
            assert found == after
            assert orders(found) == orders(after)
        if before and after and old and self.session:
            assert list(self.session.subscriptions) == list(after.subscriptions)
            check_same_objects(before, after, old, self.session)

    def _follow_later(self, rows: dict[tuple[str, str], bytes | None], after: Session | None) -> None:
        self._waiting |= rows
        self._changes += 1
        if self._changes % AT_A_TIME == 0:
            self._late = apply_changes(
                self._late, self._key, [(kind, name, body) for (kind, name), body in self._waiting.items()]
            )
            self._waiting = {}
            assert self._late == after
            assert orders(self._late) == orders(after)

    def read(self) -> Session | None:
        """The session as a node reads all rows, in no order."""
        kinds: dict[str, dict[str, bytes]] = {}
        for (kind, name), body in sorted(self.rows.items(), key=lambda row: row[1], reverse=True):
            kinds.setdefault(kind, {})[name] = body
        return session_of(*self._key, kinds) if kinds else None


def orders(session: Session | None) -> object:
    """The order of those dicts whose order decisions go by."""
    if session is None:
        return None
    posts = {id_: list(queue.posts) for id_, queue in session.outbox.items()}
    return [*session.contexts], [*session.retained], [*session.recent], [*session.dropped_closes], posts


def check_same_objects(before: Session, after: Session, old: Session, new: Session) -> None:
    """What is the same object in `before` and `after` is the same object in the follower's `old` and `new`."""
    for field in FIELDS:
        if getattr(after, field) is getattr(before, field):
            assert getattr(new, field) is getattr(old, field), field
    for part in PARTS:
        check_same_parts(*(getattr(session, part) for session in (before, after, old, new)))
    for ref in before.contents.keys() & after.contents.keys():
        check_same_parts(*(session.contents[ref].resources for session in (before, after, old, new)))
    for id_ in before.outbox.keys() & after.outbox.keys():
        check_same_parts(*(session.outbox[id_].posts for session in (before, after, old, new)))
    for audiences in zip(*(session.audiences for session in (before, after, old, new)), strict=False):
        if audiences[0] is audiences[1]:
            assert audiences[2] is audiences[3]
        if audiences[0].members is audiences[1].members:
            assert audiences[2].members is audiences[3].members


def check_same_parts(before: dict[Any, Any], after: dict[Any, Any], old: dict[Any, Any], new: dict[Any, Any]) -> None:
    if before is after:
        assert new is old
    for name in before.keys() & after.keys():
        if before[name] is after[name]:
            assert new[name] is old[name], name


class Walk(Hooked):
    """A random walk through the commands. `accepted` counts commands by name, `refused` all others."""

    def __init__(self, seed: int) -> None:
        super().__init__(
            Policy.STRICT,
            max_subscriptions=7,
            retained_messages=6,
            session_ttl=300,
            max_lease=900,
            logout_ends_session=True,
        )
        self.follower = Follower()
        self.accepted: Counter[str] = Counter()
        self.refused = 0
        self._followed: Session | None = None
        self._dice = random.Random(seed)
        self._given = 0
        self._messages: list[object] = []
        self.do(BeginSession(KEY.realm, KEY.topic, "ann"))

    def do(self, command: Command, node: str | None = None) -> Outcome:
        self._follow()  # a restart changes the session by itself
        outcome = super().do(command, node)
        self.accepted[type(command).__name__] += 1
        self._follow()
        return outcome

    def _perform(self, effect: Effect) -> None:
        # A heartbeat that is due while its last subscription ends is sent to nobody.
        if not isinstance(effect, Send) or effect.to:
            super()._perform(effect)

    def _follow(self) -> None:
        if self.session is not self._followed:
            before, self._followed = self._followed, self.session
            self.follower.follow(before, self.session)

    def step(self) -> None:
        """One random step, which may be several commands, or be refused."""
        self.node = self.choose_node()
        steps: dict[Callable[[], object], int] = {
            self._open: 24,
            self._close: 8,
            self._update: 20,
            self._repeat: 4,
            self._say_something: 4,
            self._subscribe_socket: 8,
            self._connect_socket: 10,
            self._lose_socket: 5,
            self._answer: 5,
            self._subscribe_callback: 5,
            self._verify: 9,
            self._finish_post: 30,
            self._end_subscription: 3,
            self._renew: 5,
            self._wait: 8,
            self.lose_node: 3,
            self._administer: 4,
        }
        (act,) = self._dice.choices(list(steps), list(steps.values()))
        try:
            act()
        except HubError:
            self.refused += 1
            assert self.session is self._followed

    def choose_node(self) -> str:
        """The node that decides all of a step."""
        return self._dice.choice(NODES)

    # Publications

    def _open(self) -> None:
        type_ = self._dice.choice([*ANCHORS, "DiagnosticReport"])
        others = [make(self._id()) for name, make in ANCHORS.items() if name != type_ and self._dice.random() < 0.3]
        if self._dice.random() < 0.1:
            self._messages.append(self.publish("Home-open"))
        else:
            items = [ANCHORS[type_](self._id()), *others]
            self._messages.append(self.publish(f"{type_}-open", *items, by=self._by()))

    def _close(self) -> None:
        type_ = self._dice.choice([*ANCHORS])
        self._messages.append(self.publish(f"{type_}-close", ANCHORS[type_](self._id()), by=self._by()))

    def _update(self) -> None:
        """Mostly of an open context at its version. Resources are put and deleted, and fullUrls move between them."""
        reports = [other for other in self._session().contexts.values() if other.type == "DiagnosticReport"]
        ref, version = f"DiagnosticReport/{self._id()}", "stale"
        if reports and self._dice.random() < 0.9:
            chosen = self._dice.choice(reports)
            ref, version = f"DiagnosticReport/{chosen.ref.partition('/')[2]}", chosen.version
        entries = []
        for number in self._dice.sample(range(4), self._dice.randrange(4)):
            url = {"fullUrl": f"urn:uuid:{self._dice.randrange(5)}"} if self._dice.random() < 0.5 else {}
            is_put = self._dice.random() < 0.75
            entries.append({**put("Observation", f"o{number}"), **url} if is_put else delete(f"Observation/o{number}"))
        bundle = {"key": "updates", "resource": resource("Bundle", "b", type="transaction", entry=entries)}
        self._events += 1
        posted = message("DiagnosticReport-update", anchor(ref), bundle, id_=f"event-{self._events}")
        posted["event"]["context.versionId"] = version
        self._messages.append(posted)
        self.post(posted, self._by())

    def _repeat(self) -> None:
        if self._messages:
            self.post(self._dice.choice(self._messages[-3:]))

    def _say_something(self) -> None:
        if self._dice.random() < 0.05:
            self.publish("UserLogout")
        elif self._dice.random() < 0.5:
            self.publish("SyncError", outcome())
        else:
            self.publish("DiagnosticReport-select", anchor(f"DiagnosticReport/{self._id()}"))

    # Sockets

    def _subscribe_socket(self) -> None:
        name, lease = self._dice.choice(("", "viewer")), self._dice.choice((None, 60))
        self.subscribe(self._new_id("s"), self._dice.choice(EVENTS), self._by(), name=name, lease=lease)

    def _connect_socket(self) -> None:
        self.connect(self._any(lambda each: not each.callback))

    def _lose_socket(self) -> None:
        id_ = self._any(lambda each: bool(not each.callback and each.connection))
        if id_ in self._sockets:
            self.disconnect(id_, self.now - self._dice.choice((0, 5)), self._dice.choice((1000, 1001, 1006, 1012)))

    def _answer(self) -> None:
        id_ = self._any(lambda each: bool(not each.callback and each.connection))
        if id_ in self._sockets and self._dice.random() < 0.6:
            sent = json.loads(self._dice.choice(self.frames[self._sockets[id_]]))
            self.say(id_, {"id": sent.get("id", ""), "status": self._dice.choice((200, 200, 409))})
        else:
            self.do(Rejected(id_, self._sockets.get(id_, ""), EventRef("e", "e", "Patient-open", "patient/1"), 500))

    # Webhooks

    def _subscribe_callback(self) -> None:
        callback = f"https://app.example/{self._dice.randrange(3)}"
        self.ask(self._new_id("h"), self._dice.choice(EVENTS), callback, by=self._by(), secret=b"sealed")

    def _verify(self) -> None:
        id_ = self._any(lambda each: bool(each.callback and each.never_connected))
        if self._dice.random() < 0.8:
            self.do(Connected(id_, connection_name(id_)))
        else:
            self.do(VerificationFailed(id_))

    def _finish_post(self) -> None:
        numbers = [number for queue in self._session().outbox.values() for number in queue.posts]
        if numbers:
            self.do(PostFinished(self._dice.choice(numbers), self._dice.choice((200, 200, 200, 200, 409, 500))))

    # Ends

    def _end_subscription(self) -> None:
        id_ = self._any(lambda each: True)
        end = self._dice.randrange(5)
        if end == 0:
            self.unsubscribe(id_, self._by())
        elif end == 1:
            self.unsubscribe(None, callback="https://app.example/1")
        else:
            self.do((Evict(id_), Revoked(id_), Undeliverable(id_, "gone"))[end - 2])

    def _renew(self) -> None:
        self.renew(self._any(lambda each: not each.callback), self._dice.choice(EVENTS), self._by())

    def _wait(self) -> None:
        self.wait(self._dice.choice((0.5, 0.5, 0.5, 5.0, 12.0, 12.0, 31.0, 400.0)))

    def lose_node(self) -> None:
        self.do(self._dice.choice((ResumePosts(), NodeLost(self._dice.choice(NODES)))))

    def _administer(self) -> None:
        act = self._dice.randrange(12)
        if act == 0:
            self.do(EndSession("the user has left"))
        elif act < 5:
            self.restart()
        elif act < 8:
            self.do(BeginSession(KEY.realm, KEY.topic, "ann"))
        else:
            self.do(MakeRoom())

    # Dice

    def _id(self) -> str:
        return str(self._dice.randrange(1, 4))

    def _by(self) -> Principal:
        return TOKENS[0] if self._dice.random() < 0.8 else self._dice.choice(TOKENS)

    def _new_id(self, prefix: str) -> str:
        self._given += 1
        return f"{prefix}{self._given}"

    def _session(self) -> Session:
        return self.session or Session(realm=KEY.realm, topic=KEY.topic, owner="")

    def _any(self, is_so: Callable[[Subscription], bool]) -> str:
        """The id of a subscription for which it is so, or of none."""
        return self._dice.choice(
            [*(each.subscription_id for each in self.subscriptions().values() if is_so(each))] or ["x"]
        )
