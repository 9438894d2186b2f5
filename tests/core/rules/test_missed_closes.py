"""A subscriber that comes back receives the closes of its absence."""

from __future__ import annotations

import pytest

from tests.core.rules.absence import away
from tests.core.world import CLOSES, OPENS, World, encounter, patient, study

PATIENT = "Patient-open,Patient-close"


@pytest.mark.req("SUB-12")
def test_who_comes_back_is_told_what_was_closed() -> None:
    """The confirmation, the missed closes in order, then the current opens: nothing else, and nothing twice."""
    world = World()
    world.join("chart", f"{OPENS},{CLOSES}")
    for id_ in ("p1", "p2", "p3"):
        world.publish("Patient-open", patient(id_))
    world.publish("Patient-close", patient("p3"))
    world.wait(1)
    world.news("chart")
    world.disconnect("chart")
    world.wait(1)
    world.publish("Patient-close", patient("p2"))
    world.publish("ImagingStudy-open", study("s1"))
    world.publish("ImagingStudy-close", study("s1"))
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    world.connect("chart")
    assert world.news("chart") == [
        "subscribe",
        "Patient-close p2",
        "ImagingStudy-close s1",
        "Patient-open p1",
        "Encounter-open e1",
    ]


@pytest.mark.req("SUB-12")
def test_missed_closes_are_the_same_messages() -> None:
    """Byte for byte what the others were sent."""
    world = World()
    world.join("chart", PATIENT)
    world.join("viewer", "Patient-close")
    world.publish("Patient-open", patient("p1"))
    world.disconnect("chart")
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.connect("chart")
    assert world.heard("chart")[-1:] == world.heard("viewer")


@pytest.mark.req("SUB-12")
def test_what_is_current_is_told_always() -> None:
    """Also to somebody who missed nothing, and who knows it already."""
    world = World()
    world.join("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    world.disconnect("chart")
    world.connect("chart")
    world.disconnect("chart")
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-open p1"]


@pytest.mark.req("SUB-12", "EVT-12")
def test_only_closes_that_were_asked_for_are_told() -> None:
    """A subscriber of opens is told no closes on coming back."""
    world = World()
    world.join("chart", "Patient-open,ImagingStudy-close")
    world.publish("Patient-open", patient("p1"))
    world.disconnect("chart")
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe"]


@pytest.mark.req("SUB-12", "SUB-36")
def test_a_close_that_may_not_have_arrived_is_told_again() -> None:
    """The socket was dead for a while before anybody knew."""
    world = World()
    world.join("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    world.wait(5)
    delivered_until = world.now
    world.wait(5)
    world.publish("Patient-close", patient("p1"))
    world.wait(15)
    world.disconnect("chart", delivered_until=delivered_until)
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p1"]


@pytest.mark.req("SUB-12", "SUB-34")
def test_a_close_is_held_for_hours() -> None:
    """For an absent subscriber, closes are kept as long as its lease lasts."""
    world = World()
    world.join("chart", PATIENT, lease=7200)
    world.publish("Patient-open", patient("p1"))
    world.disconnect("chart")
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.wait(7000)
    world.publish("Patient-close", patient("p2"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p1", "Patient-close p2"]


@pytest.mark.req("SUB-12")
def test_what_is_told_on_coming_back_may_get_lost_too() -> None:
    """One socket after the other breaks before anything was answered: the close is told on each."""
    world = World()
    world.join("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    world.wait(5)
    delivered_until = world.now
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.news("chart")
    world.disconnect("chart", delivered_until=delivered_until)
    for _ in range(3):
        world.wait(10)
        world.connect("chart")
        assert world.news("chart") == ["subscribe", "Patient-close p1"]
        world.wait(1)
        world.disconnect("chart", delivered_until=world.tracker.delivered_until("chart"))


@pytest.mark.req("SUB-12")
def test_what_was_closed_before_the_first_socket_came_was_not_missed() -> None:
    """A context that was never sent as open needs no close."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    world.subscribe("chart", PATIENT)
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.wait(1)
    world.connect("chart")
    assert world.news("chart") == ["subscribe"]
    world.disconnect("chart", delivered_until=world.tracker.delivered_until("chart"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe"]


@pytest.mark.req("SUB-12")
def test_a_socket_may_be_dead_for_as_long_as_pings_take_to_tell() -> None:
    """With a ping every 20 s, more rarely than by default, and 20 s to answer, one is found after up to 40 s."""
    world = World()
    world.join("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    world.wait(1)
    delivered_until = world.now
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.wait(35)
    world.publish("Patient-close", patient("p2"))
    world.news("chart")
    world.disconnect("chart", delivered_until=delivered_until)
    world.connect("chart")
    assert world.news("chart")[:2] == ["subscribe", "Patient-close p1"]


@pytest.mark.req("SUB-12", "SUB-42")
@pytest.mark.parametrize("end", ["noticed", "taken over"])
def test_a_close_that_may_not_have_arrived_is_not_told_of_what_is_open_again(end: str) -> None:
    """The socket was dead, or not, when p1 was closed and opened again: its close must not come after its open."""
    world = World()
    world.join("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    world.wait(5)
    delivered_until = world.now
    world.wait(5)
    world.publish("Patient-close", patient("p1"))
    world.publish("Patient-open", patient("p1"))
    world.wait(1)
    world.news("chart")
    if end == "noticed":
        world.disconnect("chart", delivered_until=delivered_until)
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-open p1"]


@pytest.mark.req("SUB-12")
def test_what_was_closed_and_opened_again_meanwhile_is_told_as_it_was() -> None:
    """An absent subscriber missed the close, and the closes that came with it. Then the open is sent."""
    world = World()
    away(world)
    world.publish("Patient-close", patient("p2"))
    world.publish("Patient-open", patient("p2"))
    world.wait(1)
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p2", "Patient-open p2"]


@pytest.mark.req("SUB-12")
def test_what_a_young_socket_was_told_on_coming_back_is_held() -> None:
    """The new socket may be dead too. Contexts closed until the hub notices are retained."""
    world = World()
    away(world)
    delivered_until = world.now
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.wait(200)
    world.connect("chart")
    world.wait(10)
    world.publish("Patient-close", patient("p2"))
    world.news("chart")
    world.disconnect("chart", delivered_until=delivered_until)
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p1", "Patient-close p2", "Patient-open p3"]


@pytest.mark.req("SUB-12", "LIM-1")
def test_of_several_contexts_that_go_at_once_each_close_is_held() -> None:
    """One large open pushes out four. An absent subscriber is sent all four."""
    world = World(retained_bytes=100_000_000)
    world.join("chart", PATIENT)
    for number in range(4):
        world.publish("Patient-open", patient(f"p{number}"), {"key": "extension", "data": "x" * 2_000_000})
    world.disconnect("chart")
    world.wait(1)
    world.publish("Patient-open", patient("big"), {"key": "extension", "data": "x" * 8_000_000})
    world.connect("chart")
    assert world.news("chart") == [
        "subscribe",
        *(f"Patient-close p{number}" for number in range(4)),
        "Patient-open big",
    ]
