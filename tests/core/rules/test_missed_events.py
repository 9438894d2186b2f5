"""Events retained for an absent subscriber are dropped once nobody can have missed them."""

from __future__ import annotations

from typing import Any

import pytest

from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules.missed_events import retain
from fhircast_hub.core.rules.webhook_outbox import connection_name
from fhircast_hub.core.state.commands import Connected
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.state.session import RetainedEvent, Session, Subscription
from tests.core.world import World, patient

PATIENT = "Patient-open,Patient-close"


def session(world: World) -> Session:
    assert world.session
    return world.session


def close_one(world: World) -> None:
    """A patient comes and goes."""
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-close", patient("p1"))


def rests(world: World) -> bool:
    """Whether no closed context is left."""
    return b"p1" not in repr(session(world)).encode()


@pytest.mark.req("OPS-7", "SUB-12", "OPS-11")
@pytest.mark.parametrize("rules", [{}, {"retained_messages": 0}], ids=["held", "lost"])
@pytest.mark.parametrize("age", [0, 100])
def test_what_all_have_heard_is_forgotten_within_a_minute(age: int, rules: dict[str, Any]) -> None:
    """No other event is needed. Until then a socket may turn out to be dead, and the close missed."""
    world = World(**rules)
    world.join("chart", PATIENT)
    world.wait(age)
    close_one(world)
    world.wait(45)
    assert not rests(world)
    world.wait(10)
    assert rests(world)


@pytest.mark.req("OPS-7", "SUB-12", "OPS-12")
def test_what_somebody_missed_is_forgotten_with_the_lease() -> None:
    """An event is kept as long as its subscriber may come back, whatever others do."""
    world = World()
    world.join("chart", PATIENT, lease=1000)
    world.join("viewer", PATIENT, lease=5000)
    world.publish("Patient-open", patient("p1"))
    world.disconnect("chart")
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.wait(900)
    assert not rests(world)
    world.wait(100)
    assert list(session(world).subscriptions) == ["viewer"]
    assert rests(world)


@pytest.mark.req("OPS-7", "SUB-12", "OPS-12")
def test_what_was_missed_is_forgotten_once_it_was_told() -> None:
    """The subscriber is back and was sent the missed events. A minute later none is left."""
    world = World()
    world.join("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    world.disconnect("chart")
    world.wait(1000)
    world.publish("Patient-close", patient("p1"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p1"]
    world.wait(55)
    assert rests(world)


@pytest.mark.req("OPS-7", "OPS-13")
@pytest.mark.parametrize("how", ["nobody came", "unsubscribed", "a callback"])
def test_where_nobody_can_come_back_nothing_is_held(how: str) -> None:
    """A subscriber that never had a socket has missed nothing, and posts to callbacks wait in a place of their own."""
    world = World()
    if how == "a callback":
        world.subscribe("hook", "Patient-close", callback="https://example.org/callback")
        world.do(Connected("hook", connection_name("hook")))
    else:
        world.subscribe("new", PATIENT)
    if how == "unsubscribed":
        world.join("chart", PATIENT)
    close_one(world)
    assert bool(session(world).retained) is (how == "unsubscribed")
    if how == "unsubscribed":
        world.unsubscribe("chart")
    assert not session(world).retained
    assert not session(world).dropped_closes


@pytest.mark.req("OPS-7", "SUB-12", "OPS-11")
def test_a_socket_that_was_dead_is_told_what_it_missed_before_it_is_forgotten() -> None:
    """Its pings said so 30 s after the close at most."""
    world = World()
    world.join("chart", PATIENT)
    world.wait(100)
    delivered_until = world.now
    world.wait(2)
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-close", patient("p1"))
    world.wait(30)
    world.disconnect("chart", delivered_until=delivered_until, code=1006)
    world.wait(500)
    world.news("chart")
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p1"]


@pytest.mark.req("SUB-12", "SUB-35")
def test_dropped_closes_stay_in_the_order_of_their_acceptance() -> None:
    """Also where a close is too large to be retained, and goes before an older one that has to make room."""
    absent = Subscription("s", "ann", "s", ("Patient-close",), 9e9, 1.0, never_connected=False)
    before = Session(realm="r", topic="t", owner="", subscriptions={"s": absent})
    rules = Rules(retained_messages=1, retained_bytes=1000)
    first = retain(before, [retained_close("Patient", "p1", 100.0)], rules)
    large = retained_close("Encounter", "e1", 200.0, size=2000)
    second = retain(first, [retained_close("Patient", "p2", 200.0), large], rules)
    assert list(second.dropped_closes.items()) == [("Patient/p1", 100.0), ("Encounter/e1", 200.0)]


def retained_close(type_: str, id_: str, at: float, size: int = 100) -> RetainedEvent:
    """A close with a frame of `size` bytes."""
    return RetainedEvent(at, EventRef("e", "e", f"{type_}-close"), type_, f"{type_.lower()}/{id_}", bytes(size))
