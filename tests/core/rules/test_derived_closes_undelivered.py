"""A subscriber receives a derived close again where the first frame may be lost."""

from __future__ import annotations

import pytest

from tests.core.rules.closing_world import away, told_by_an_encounter_that_is_closed
from tests.core.world import World, patient, report

PATIENTS = "Patient-open,Patient-close"
REPORTS = f"{PATIENTS},DiagnosticReport-open,DiagnosticReport-close"


def breaks(world: World, how: str, delivered_until: float) -> None:
    """The chart's socket breaks, on which all has arrived until `delivered_until`; the hub crashes; or another socket is about to take over."""
    if how == "lost":
        world.disconnect("chart", delivered_until=delivered_until, code=1006)
    elif how == "crash":
        world.restart()


@pytest.mark.req("DER-9", "SUB-12")
@pytest.mark.parametrize("how", ["lost", "taken over", "crash"])
def test_a_derived_close_is_told_again_that_was_sent_to_a_dead_socket(how: str) -> None:
    """An encounter told p2, a report of p2 was opened, the encounter closed. Both closes of the report's end are sent, and lost."""
    world = World()
    told_by_an_encounter_that_is_closed(world)
    world.wait(1)
    delivered_until = world.now
    world.wait(1)
    world.news("chart")
    world.publish("DiagnosticReport-close", report("r2"))
    closes = world.news("chart")
    assert closes == ["DiagnosticReport-close r2", "Patient-close p2"]
    breaks(world, how, delivered_until)
    world.wait(1)
    world.connect("chart")
    assert world.news("chart") == ["subscribe", *closes]


@pytest.mark.req("DER-9", "SUB-12")
@pytest.mark.parametrize("how", ["lost", "taken over", "crash"])
def test_a_close_that_was_missed_is_told_again_until_something_arrives(how: str) -> None:
    """The first return is cut too, before the application answers a ping; the second is not, and a third hears of nothing."""
    world = World()
    told_by_an_encounter_that_is_closed(world)
    world.wait(1)
    delivered_until = world.now
    away(world, "DiagnosticReport-close", report("r2"))
    closes = ["subscribe", "DiagnosticReport-close r2", "Patient-close p2"]
    assert world.news("chart")[-3:] == closes
    world.wait(1)
    breaks(world, how, delivered_until)
    world.connect("chart")
    assert world.news("chart") == closes
    world.wait(2)
    world.disconnect("chart", delivered_until=world.now, code=1006)
    world.connect("chart")
    assert world.news("chart") == ["subscribe"]


@pytest.mark.req("DER-9", "SUB-12")
@pytest.mark.parametrize("how", ["lost", "taken over", "crash"])
@pytest.mark.parametrize("stored", [False, True])
def test_an_open_that_was_lost_hides_no_derived_close(how: str, stored: bool) -> None:
    """The chart shows p2 when its socket dies; then p1 comes, the report of p2 is closed, and p1 too. Nothing is open at last."""
    world = World()
    if stored:
        world.publish("Patient-open", patient("p1"))
    told_by_an_encounter_that_is_closed(world)
    world.wait(2)
    delivered_until = world.now
    world.wait(1)
    world.news("chart")
    if not stored:
        world.publish("Patient-open", patient("p1"))
    world.publish("DiagnosticReport-close", report("r2"))
    world.publish("Patient-close", patient("p1"))
    assert world.news("chart")
    breaks(world, how, delivered_until)
    world.wait(1)
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "DiagnosticReport-close r2", "Patient-close p2", "Patient-close p1"]


@pytest.mark.req("SUB-12", "SUB-37")
def test_an_acknowledgement_says_nothing_of_what_was_told_behind() -> None:
    """A report's close and the patient's are told at once. The first is acknowledged, and the second lost."""
    world = World()
    told_by_an_encounter_that_is_closed(world)
    world.wait(2)
    world.news("chart")
    world.publish("DiagnosticReport-close", report("r2"))
    first, _ = world.read("chart")
    world.say("chart", {"id": first["id"], "status": 200})
    world.disconnect("chart", delivered_until=world.tracker.delivered_until("chart"), code=1006)
    world.wait(1)
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "DiagnosticReport-close r2", "Patient-close p2"]


@pytest.mark.req("DER-9", "SUB-12", "SUB-37")
@pytest.mark.parametrize("held", [1, 256])
def test_an_acknowledgement_says_nothing_of_closes_that_were_too_much_to_hold(held: int) -> None:
    """A patient is closed, then a report. The report's close is acknowledged half a second after the patient's was accepted."""
    world = World(retained_messages=held)
    world.join("chart", REPORTS)
    world.publish("Patient-open", patient("p1"))
    world.publish("DiagnosticReport-open", report("r2"), patient("p2"))
    world.wait(5)
    world.publish("Patient-close", patient("p1"))
    world.wait(0.5)
    world.publish("DiagnosticReport-close", report("r2"))
    world.disconnect("chart", delivered_until=world.now, code=1006)
    world.news("chart")
    world.wait(1)
    world.connect("chart")
    assert set(world.news("chart")) == {
        "subscribe",
        "Patient-close p1",
        "DiagnosticReport-close r2",
        "Patient-close p2",
    }


@pytest.mark.req("SUB-12", "SUB-37")
@pytest.mark.parametrize("how", ["away", "taken over"])
def test_a_close_shortly_before_the_last_sign_of_life_is_kept(how: str) -> None:
    """Another close comes a minute later. The hub remembers the closes that may still have to be sent."""
    world = World()
    world.join("chart", PATIENTS)
    world.wait(100)
    for number in (1, 2):
        world.publish("Patient-open", patient(f"p{number}"))
    world.publish("Patient-close", patient("p1"))
    world.wait(0.5)
    if how == "away":
        world.disconnect("chart", delivered_until=world.now, code=1006)
        world.wait(100)
    else:
        world.wait(45)
    world.publish("Patient-close", patient("p2"))
    world.news("chart")
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p1", "Patient-close p2"]
