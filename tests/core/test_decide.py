"""The one function: refusals change nothing, values are never changed in place, time leaves as a deadline, sessions end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.decide import decide
from fhircast_hub.core.env import Env
from fhircast_hub.core.errors import Conflict, Forbidden, HubError, NotFound
from fhircast_hub.core.limits import MAX_CONTEXTS, Rules
from fhircast_hub.core.rules.nodes import node_of
from fhircast_hub.core.state.commands import Connected, Disconnected, Evict, MakeRoom, NodeLost, Restarted, Tick
from tests.core.world import (
    CLOSES,
    NOON,
    OPENS,
    TOPIC,
    World,
    encounter,
    frozen,
    item,
    outcome,
    patient,
    report,
    study,
    token,
)

EVENTS = f"{OPENS},{CLOSES},Home-open"
TTL = 86400


# Sessions end (LIM-1)


@pytest.mark.req("LIM-1", "LIM-5")
def test_a_session_without_anybody_is_forgotten() -> None:
    """After SESSION_TTL, and with it whose it was and what its version was."""
    world = World(session_ttl=TTL)
    world.publish("SyncError", outcome())
    world.wait(TTL - 1)
    with pytest.raises(Forbidden):
        world.get(by=token("bob"))
    world.wait(1)
    assert world.session is None
    world.publish("Patient-open", patient("p1"), by=token("bob"))


@pytest.mark.req("LIM-1")
def test_an_open_context_keeps_a_session() -> None:
    """Nobody listens, and it stays; from its close on the time runs."""
    world = World(session_ttl=TTL)
    world.publish("Patient-open", patient("p1"))
    world.wait(10 * TTL)
    assert world.current() == "Patient p1"
    world.publish("Patient-close", patient("p1"))
    world.wait(TTL - 1)
    assert world.session is not None
    world.wait(1)
    assert world.session is None


@pytest.mark.req("LIM-1", "LIM-5")
def test_an_open_context_keeps_no_session_when_room_is_needed() -> None:
    """An EHR that never closes, with a topic for each login, must not use up its user's topics."""
    world = World(session_ttl=TTL)
    world.publish("Patient-open", patient("p1"))
    world.wait(TTL - 1)
    world.do(MakeRoom())
    assert world.session is not None
    world.wait(1)
    world.do(MakeRoom())
    assert world.session is None


@pytest.mark.req("LIM-1")
def test_a_session_that_is_followed_makes_no_room() -> None:
    """Nobody loses a session that somebody listens to, however long nothing happened in it."""
    world = World(session_ttl=100)
    world.join("chart", EVENTS)
    world.wait(100)
    world.do(MakeRoom())
    assert world.session is not None


@pytest.mark.req("LIM-1")
def test_a_subscription_keeps_a_session() -> None:
    """With a socket or without; from the lease's end on the time runs."""
    world = World(session_ttl=100, max_lease=10000)
    world.join("chart", EVENTS, lease=10000)
    world.disconnect("chart")
    world.wait(9999)
    assert world.session is not None
    world.wait(100)
    assert world.session is not None
    world.wait(1)
    assert world.session is None


@pytest.mark.req("LIM-1")
@pytest.mark.parametrize("end", [lambda world: world.unsubscribe("chart"), lambda world: world.do(Evict("chart"))])
def test_the_time_runs_from_the_last_subscribers_end(end: Callable[[World], object]) -> None:
    """Somebody who subscribed yesterday and leaves now leaves the topic theirs for SESSION_TTL, and not for an instant."""
    world = World(session_ttl=100)
    world.join("chart", EVENTS, lease=3600)
    world.disconnect("chart")
    world.wait(3000)
    end(world)
    world.wait(99)
    assert world.session is not None
    world.wait(1)
    assert world.session is None


@pytest.mark.req("LIM-1")
def test_use_keeps_a_session() -> None:
    """The time runs anew from each event."""
    world = World(session_ttl=100)
    for _ in range(5):
        world.publish("SyncError", outcome())
        world.wait(99)
    assert world.session is not None


@pytest.mark.req("LIM-1")
def test_early_and_late_ticks_do_no_harm() -> None:
    """The timer may fire at any time, for any session or none."""
    assert decide(None, Tick(), Env(NOON, World().ids, Rules())).session is None
    world = World(session_ttl=100)
    world.join("chart", EVENTS)
    before = world.session
    world.now += 500
    assert world.do(Tick()).session is before
    assert decide(None, Disconnected("chart", "socket", NOON, 1006), Env(NOON, world.ids, Rules())).session is None
    assert decide(None, Evict("chart"), Env(NOON, world.ids, Rules())).session is None
    assert decide(None, Restarted(), Env(NOON, world.ids, Rules())).session is None
    assert decide(None, NodeLost("n1"), Env(NOON, world.ids, Rules(), "n2")).session is None


# The owner (AUT-9)


@pytest.mark.req("AUT-9", "AUT-11")
def test_a_session_keeps_its_owner() -> None:
    """Whoever acts on it, with a claim or as a system client."""
    world = World()
    world.publish("Patient-open", patient("p1"), by=token("ann"))
    world.join("bob", by=token("bob", topics=[TOPIC]))
    world.publish("Patient-open", patient("p2"), by=token(None, client="server", system=True))
    world.publish("Patient-open", patient("p3"), by=token(None, topics=[TOPIC]))
    world.publish("Patient-open", patient("p4"), by=token("ann"))
    with pytest.raises(Forbidden):
        world.publish("Patient-open", patient("p5"), by=token("bob"))


# Refusals change nothing


@pytest.mark.req("AUT-9", "EVT-13")
@pytest.mark.parametrize(
    "attempt",
    [
        lambda world: world.subscribe("new", EVENTS, by=token("bob")),
        lambda world: world.subscribe("new", EVENTS, by=token(read=())),
        lambda world: world.subscribe("new", EVENTS),
        lambda world: world.renew("unknown", EVENTS),
        lambda world: world.renew("chart", EVENTS, by=token(read=())),
        lambda world: world.unsubscribe("unknown"),
        lambda world: world.unsubscribe("chart", by=token("bob")),
        lambda world: world.unsubscribe(None, name="unknown"),
        lambda world: world.publish("Patient-open", patient("p2"), by=token("bob")),
        lambda world: world.publish("Patient-open", patient("p2"), by=token(write=())),
        lambda world: world.publish(
            "DiagnosticReport-select", {"key": "report", "reference": {"reference": "DiagnosticReport/1"}}
        ),
        lambda world: world.do(Connected("unknown", "socket")),
    ],
)
def test_a_refused_command_changes_nothing(attempt: Callable[[World], object]) -> None:
    """The session is the value that it was, and nobody is sent anything."""
    world = World(max_subscriptions=1)
    world.join("chart", EVENTS)
    world.publish("Patient-open", patient("p1"))
    before, value, frames = world.session, frozen(world.session), len(world.frames["chart/1"])
    with pytest.raises(HubError):
        attempt(world)
    assert world.session is before
    assert frozen(world.session) == value
    assert len(world.frames["chart/1"]) == frames
    assert world.closed == {}


@pytest.mark.req("EVT-13")
def test_sockets_that_are_not_known_change_nothing() -> None:
    """The end of a socket that was replaced, or of a subscription that is over, is no news."""
    world = World()
    world.join("chart", EVENTS)
    before = world.session
    for command in (
        Disconnected("chart", "other", NOON, 1006),
        Disconnected("other", "chart/1", NOON, 1006),
        Evict("chart"),
    ):
        outcome = world.do(command)
        assert outcome.session is before
        assert outcome.effects == ()


# Whatever happens

SIDS = st.sampled_from(["a", "b", "c", "d"])
IDS = st.sampled_from(["1", "2", "3"])
NODES = st.sampled_from(["n1", "n2"])
WHO: st.SearchStrategy[Principal] = st.sampled_from(
    [
        token("ann"),
        token("ann"),
        token("ann", read=["Patient-open"], write=["Patient-open"]),
        token("bob"),
        token(None, client="server", system=True),
    ]
)
SETS = st.sampled_from(["Patient-open,Patient-close", "ImagingStudy-open", EVENTS, "Home-open,heartbeat", OPENS])


class Anything(RuleBasedStateMachine):
    """Any sequence of what can happen to a session, with sockets that come, go and are taken over."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            max_subscriptions=3, retained_messages=2, default_lease=500, connect_timeout=60, session_ttl=100
        )
        self.live: dict[str, str] = {}
        self.versions: set[str] = set()
        self.posted: list[object] = []
        self.answer = self.world.get(by=token("ann", topics=[TOPIC]))

    def attempt(self, act: Callable[[], object]) -> bool:
        """Do it, or be refused and see that nothing has changed; the value of before is never touched."""
        before, value, closed = self.world.session, frozen(self.world.session), set(self.world.closed)
        try:
            act()
        except HubError:
            assert self.world.session is before
            return False
        finally:
            assert frozen(before) == value
            ended = set(self.world.closed) - closed
            self.live = {
                subscription_id: socket for subscription_id, socket in self.live.items() if socket not in ended
            }
        return True

    @initialize()
    def begin(self) -> None:
        self.attempt(lambda: self.world.join("a", EVENTS))
        self.live["a"] = "a/1"

    @rule(subscription_id=SIDS, events=SETS, by=WHO, name=st.sampled_from(["", "OHIF"]))
    def subscribe(self, subscription_id: str, events: str, by: Principal, name: str) -> None:
        if not self.world.session or subscription_id not in self.world.session.subscriptions:
            self.attempt(lambda: self.world.subscribe(subscription_id, events, by, name=name))

    @rule(subscription_id=SIDS, events=SETS, by=WHO)
    def renew(self, subscription_id: str, events: str, by: Principal) -> None:
        self.attempt(lambda: self.world.renew(subscription_id, events, by))

    @rule(subscription_id=SIDS, by=WHO)
    def unsubscribe(self, subscription_id: str, by: Principal) -> None:
        self.attempt(lambda: self.world.unsubscribe(subscription_id, by))

    @rule(subscription_id=SIDS, node=NODES)
    def connect(self, subscription_id: str, node: str) -> None:
        made: list[str] = []
        if self.attempt(lambda: made.append(self.world.connect(subscription_id, node))):
            self.live[subscription_id] = made[0]
            assert self.world.news(subscription_id)[0] == "subscribe"

    @rule(subscription_id=SIDS, unsure=st.sampled_from([0, 0, 5]))
    def disconnect(self, subscription_id: str, unsure: float) -> None:
        if subscription_id in self.live:
            socket = self.live.pop(subscription_id)
            self.attempt(lambda: self.world.do(Disconnected(subscription_id, socket, self.world.now - unsure, 1000)))

    @rule(subscription_id=SIDS)
    def evict(self, subscription_id: str) -> None:
        self.attempt(lambda: self.world.do(Evict(subscription_id)))

    @rule(verb=st.sampled_from(["open", "close"]), type_=st.sampled_from("PESRO"), ids=st.tuples(IDS, IDS, IDS), by=WHO)
    def publish(self, verb: str, type_: str, ids: tuple[str, str, str], by: Principal) -> None:
        anchors = {"P": patient, "E": encounter, "S": study, "R": report}
        names = {"P": "Patient", "E": "Encounter", "S": "ImagingStudy", "R": "DiagnosticReport", "O": "Observation"}
        anchor = anchors[type_](ids[0]) if type_ in anchors else item("observation", "Observation", ids[0])
        others = [
            make(id_) for make, id_ in ((patient, ids[1]), (encounter, ids[2])) if make(id_)["key"] != anchor["key"]
        ]
        self.attempt(lambda: self.posted.append(self.world.publish(f"{names[type_]}-{verb}", anchor, *others, by=by)))

    @rule()
    def go_home(self) -> None:
        self.attempt(lambda: self.posted.append(self.world.publish("Home-open")))

    @rule(which=st.integers(0, 3))
    def repeat(self, which: int) -> None:
        if which < len(self.posted):
            self.attempt(lambda: self.world.post(self.posted[-1 - which]))

    @rule(seconds=st.sampled_from([0.5, 10, 70, 300]))
    def wait(self, seconds: float) -> None:
        self.attempt(lambda: self.world.wait(seconds))

    @rule(node=NODES)
    def lose_node(self, node: str) -> None:
        self.attempt(lambda: self.world.do(NodeLost(node)))
        self.live = {id_: socket for id_, socket in self.live.items() if node_of(socket) != node}

    @rule()
    def restart(self) -> None:
        self.attempt(lambda: self.world.do(Restarted()))
        self.live.clear()

    @invariant()
    def each_connected_subscription_is_in_exactly_one_audience(self) -> None:
        session = self.world.session
        members = [member for audience in session.audiences for member in audience.members] if session else []
        connected = (
            {each.connection: each for each in session.subscriptions.values() if each.connection} if session else {}
        )
        assert sorted(members) == sorted(connected)
        assert sorted(self.live.values()) == sorted(members)
        for audience in session.audiences if session else ():
            assert audience.members
            assert all(connected[member].keys == audience.keys for member in audience.members)

    @invariant()
    def the_bounds_hold(self) -> None:
        session = self.world.session
        if session:
            assert len(session.contexts) <= MAX_CONTEXTS
            assert len(session.subscriptions) <= 3
            assert sum(bool(close.frame) for close in session.retained.values()) <= 2
            assert session.current == "" or session.current == list(session.contexts)[-1]
            assert not (session.current and session.home)
            if session.subscriptions or not session.contexts:
                assert session.deadline is not None
                assert session.deadline > self.world.now

    @invariant()
    def a_change_of_context_is_a_new_version(self) -> None:
        try:
            answer = self.world.get(by=token("ann"))
        except (Forbidden, Conflict):
            return
        version = answer["context.versionId"]
        if {**answer, "context.versionId": ""} != {**self.answer, "context.versionId": ""}:
            assert version == "0" or version not in self.versions
        self.versions.add(version)
        self.answer = answer


Anything.TestCase.settings = settings(max_examples=20, stateful_step_count=25)
TestAnything = pytest.mark.req("EVT-13", "LIM-1", "NOD-2")(Anything.TestCase)


@pytest.mark.req("SUB-11")
def test_an_endpoint_that_never_was_is_not_found_in_a_forgotten_session() -> None:
    """A session that was forgotten knows no endpoint."""
    world = World(session_ttl=10)
    world.publish("SyncError", outcome())
    world.wait(10)
    with pytest.raises(NotFound):
        world.connect("chart")
