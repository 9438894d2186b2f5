"""The hub makes a close where the original close is no longer held."""

from __future__ import annotations

from typing import Any

import pytest

from fhircast_hub.core.rules import missed_events
from tests.core.rules.absence import away
from tests.core.world import TOPIC, World, encounter, item, patient, study

PATIENT = "Patient-open,Patient-close"


@pytest.mark.req("SUB-12", "SUB-35")
@pytest.mark.parametrize("rules", [{"retained_messages": 2}, {"retained_bytes": 600}, {"retained_messages": 0}])
def test_where_closes_are_not_held_they_are_made(rules: dict[str, Any]) -> None:
    """A close for every context that somebody was told open and that is closed now, each once, older ones first."""
    world = World(**rules)
    away(world)
    world.publish("Patient-close", patient("p2"))
    world.publish("Patient-close", patient("p1"))
    for number in range(5):
        world.publish("Encounter-close", encounter(f"e{number}"))
    world.connect("chart")
    first, *closes, current = world.news("chart")
    assert (first, sorted(closes), current) == (
        "subscribe",
        ["Patient-close p1", "Patient-close p2"],
        "Patient-open p3",
    )


@pytest.mark.req("SUB-12", "SUB-35")
def test_a_made_close_is_an_event() -> None:
    """New id, the hub's time, the catalogue's spelling and key, and the resource it is about."""
    world = World(retained_messages=0)
    away(world)
    world.publish("patient-CLOSE", patient("p3"))
    world.wait(1)
    world.connect("chart")
    close = world.read("chart")[1]
    assert close.pop("id")
    assert close == {
        "timestamp": "2023-04-01T12:00:03.000Z",
        "event": {"hub.topic": TOPIC, "hub.event": "Patient-close", "context": [patient("p3")]},
    }


@pytest.mark.req("SUB-12", "EVT-12", "SUB-35")
def test_no_close_is_made_that_was_not_asked_for() -> None:
    """As with those that are held."""
    world = World(retained_messages=0)
    away(world, "Patient-open")
    world.publish("Patient-close", patient("p3"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-open p2"]


@pytest.mark.req("SUB-12", "EVT-9")
@pytest.mark.parametrize("type_", ["MedicationRequest", "ImagingStudy", "DiagnosticReport"])
def test_a_made_close_names_its_type_as_it_was_spelled(type_: str) -> None:
    """FHIR's types have capitals inside, those of the catalogue and all others."""
    world = World(retained_messages=0)
    key = {"ImagingStudy": "study", "DiagnosticReport": "report"}.get(type_, type_.lower())
    anchor = item(key, type_, "x1")
    world.join("chart", f"{type_}-open,{type_}-close")
    world.publish(f"{type_}-open", anchor, patient("p1"))
    world.disconnect("chart")
    world.wait(1)
    world.publish(f"{type_}-close", anchor)
    world.connect("chart")
    _, close = world.read("chart")
    assert (close["event"]["hub.event"].lower(), close["event"]["context"]) == (f"{type_}-close".lower(), [anchor])


@pytest.mark.req("SUB-12")
def test_a_close_is_made_for_what_was_told_by_a_derived_open() -> None:
    """A chart that knows only patients was told p1 by a study, and missed that p1 was closed."""
    world = World(retained_messages=0)
    world.join("chart", PATIENT)
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    assert world.news("chart") == ["Patient-open p1"]
    world.disconnect("chart")
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p1"]


@pytest.mark.req("SUB-12")
@pytest.mark.parametrize("end", ["noticed", "taken over"])
def test_a_close_is_made_for_what_was_closed_before_the_end_was_noticed(end: str) -> None:
    """The socket died, p1 was closed, other closes pushed that out of what is held; then the socket is found dead."""
    world = World(retained_messages=1)
    world.join("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    world.wait(1)
    delivered_until = world.now
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.publish("Encounter-close", encounter("e1"))
    world.wait(1)
    world.news("chart")
    if end == "noticed":
        world.disconnect("chart", delivered_until=delivered_until)
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p1"]


@pytest.mark.req("SUB-12", "SUB-35")
def test_what_is_held_is_not_made() -> None:
    """One close was pushed out, the other is held: each is told once, the older first."""
    world = World(retained_messages=1)
    away(world)
    world.publish("Patient-close", patient("p3"))
    world.publish("Patient-close", patient("p1"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p3", "Patient-close p1", "Patient-open p2"]


@pytest.mark.req("SUB-12", "LIM-1", "SUB-34")
def test_closes_that_are_too_many_to_hold_are_not_remembered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten."""
    monkeypatch.setattr(missed_events, "REMEMBERED_CLOSES", 3)
    world = World(retained_messages=1)
    away(world)
    for number in range(10):
        world.publish("Encounter-close", encounter(f"e{number}"))
    assert world.session
    assert list(world.session.dropped_closes) == [f"Encounter/e{number}" for number in (6, 7, 8)]


@pytest.mark.req("SUB-12", "SUB-35")
def test_what_is_open_again_is_not_closed() -> None:
    """No close is made for a context that was closed and opened again."""
    world = World(retained_messages=0)
    away(world)
    world.publish("Patient-close", patient("p3"))
    world.publish("Patient-open", patient("p3"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-open p3"]
