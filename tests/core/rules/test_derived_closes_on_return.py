"""A subscriber that comes back receives the derived closes of its absence."""

from __future__ import annotations

import pytest

from fhircast_hub.core.wire.close_codes import NORMAL
from tests.core.rules.closing_world import away, joined, told_by_an_encounter_that_is_closed
from tests.core.world import CLOSES, OPENS, World, encounter, patient, report, study

PATIENTS = "Patient-open,Patient-close"
REPORTS = f"{PATIENTS},DiagnosticReport-open,DiagnosticReport-close"
VIEWER = "Patient-open,Patient-close,ImagingStudy-open,ImagingStudy-close"


@pytest.mark.req("DER-9", "SUB-12", "DER-20")
@pytest.mark.parametrize(
    ("events", "missed"),
    [
        (PATIENTS, ["Patient-close p2"]),
        (f"{PATIENTS},DiagnosticReport-close", ["DiagnosticReport-close r1", "Patient-close p2"]),
        (f"{PATIENTS},DiagnosticReport-open", ["Patient-close p2"]),
        ("DiagnosticReport-open,DiagnosticReport-close", ["DiagnosticReport-close r1"]),
        ("Patient-open", []),
    ],
)
def test_whoever_was_away_hears_what_was_taken_back(events: str, missed: list[str]) -> None:
    """A viewer whose connection was cut when the report was closed must not stay on its patient."""
    world = World()
    world.join("chart", events)
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.news("chart")
    world.disconnect("chart", code=1006)
    world.wait(1)
    world.publish("DiagnosticReport-close", report("r1"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", *missed]


@pytest.mark.req("DER-9", "SUB-12", "DER-20")
def test_what_another_context_still_names_is_not_closed_for_who_was_away() -> None:
    """p2 is open by another report. Returning subscribers are sent p2, and no close."""
    world = World()
    world.join("chart", PATIENTS)
    for number in (1, 2):
        world.publish("DiagnosticReport-open", report(f"r{number}"), patient("p2"))
    world.news("chart")
    away(world, "DiagnosticReport-close", report("r2"))
    assert world.news("chart") == ["subscribe", "Patient-open p2"]


@pytest.mark.req("DER-9", "SUB-12")
def test_a_source_that_names_another_while_somebody_is_away() -> None:
    """The report had the wrong patient, then the right one, and was closed. Nobody stays on the wrong patient."""
    world = World()
    world.join("chart", PATIENTS)
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.news("chart")
    world.disconnect("chart", code=1006)
    world.wait(1)
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.publish("DiagnosticReport-close", report("r1"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-close p1", "Patient-close p2"]


@pytest.mark.req("DER-9", "SUB-12", "DER-20")
def test_what_was_told_before_is_closed_on_return_though_the_last_source_is_known() -> None:
    """An encounter told p2, a report named p2 when the encounter was closed, and the report is closed while somebody is away."""
    world = World()
    told_by_an_encounter_that_is_closed(world)
    world.news("chart")
    away(world, "DiagnosticReport-close", report("r2"))
    assert world.news("chart") == ["subscribe", "DiagnosticReport-close r2", "Patient-close p2"]


@pytest.mark.req("DER-9", "SUB-12", "DER-20")
def test_who_is_told_another_hears_no_close_of_what_is_named_still() -> None:
    """Two reports are open. Returning subscribers to the second hear no close of the first's patient."""
    world = World()
    world.join("chart", PATIENTS)
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.news("chart")
    world.disconnect("chart", code=1006)
    world.wait(1)
    world.publish("DiagnosticReport-open", report("r2"), patient("p2"))
    world.publish("Encounter-close", encounter("e1"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-open p2"]


@pytest.mark.req("DER-9", "SUB-12")
@pytest.mark.parametrize("how", ["stays", "lost", "left", "taken over", "crash", "renewed"])
@pytest.mark.parametrize("away", [False, True])
def test_what_is_shown_is_remembered_though_a_newer_event_names_nothing(how: str, away: bool) -> None:
    """An encounter told p1, and a study of p1 was opened; a newer study names nobody. p1 ends with the study, for all."""
    world = World()
    world.join("chart", VIEWER)
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.publish("Encounter-close", encounter("e1"))
    world.wait(2)
    if not away:
        world.publish("ImagingStudy-open", study("s2"))
    match how:
        case "lost" | "left":
            world.disconnect("chart", code=1006 if how == "lost" else NORMAL)
        case "crash":
            world.restart()
        case "renewed":
            world.renew("chart", VIEWER)
    if away:
        world.publish("ImagingStudy-open", study("s2"))
    world.news("chart")
    if how not in ("stays", "renewed"):
        world.connect("chart")
        told = world.news("chart")
        assert told[-1] == "ImagingStudy-open s2"
    world.publish("ImagingStudy-close", study("s1"))
    world.publish("ImagingStudy-close", study("s2"))
    assert world.news("chart") == ["ImagingStudy-close s1", "Patient-close p1", "ImagingStudy-close s2"]


@pytest.mark.req("DER-9", "SUB-12")
@pytest.mark.parametrize("held", [1, 256])
def test_a_close_is_told_of_whom_an_event_names_that_were_closed_before(held: int) -> None:
    """A report names p2, who was closed and opened by an encounter. The encounter is closed while the chart is away."""
    world = World(retained_messages=held)
    world.join("chart", REPORTS)
    world.publish("DiagnosticReport-open", report("r2"), patient("p2"))
    world.publish("Patient-close", patient("p2"))
    world.publish("Encounter-open", encounter("e2"), patient("p2"))
    world.wait(2)
    assert world.news("chart")[-1] == "Patient-open p2"
    away(world, "Encounter-close", encounter("e2"))
    assert world.news("chart") == ["subscribe", "Patient-close p2", "DiagnosticReport-open r2"]


@pytest.mark.req("DER-3", "CTX-7", "DER-16")
def test_what_is_named_after_a_close_that_was_missed_is_told_when_the_name_goes() -> None:
    """p1 was opened and closed while the viewer was away, and a study of p1 is open. A study of nobody comes, then an encounter of p1."""
    world = World()
    world.join("viewer", VIEWER)
    world.disconnect("viewer", code=1006)
    world.wait(1)
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-close", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.connect("viewer")
    assert world.news("viewer") == ["subscribe", "Patient-close p1", "ImagingStudy-open s1"]
    world.publish("ImagingStudy-open", study("s2"))
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    assert world.news("viewer") == joined(world, VIEWER) == ["ImagingStudy-open s2", "Patient-open p1"]


@pytest.mark.req("DER-3", "CTX-7", "DER-16")
def test_what_was_refused_and_named_is_told_when_the_name_goes() -> None:
    """The viewer refused p1 and followed a study of p1. A study of nobody comes, then an encounter of p1."""
    world = World()
    world.join("viewer", VIEWER)
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.answer("viewer", 409)
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.publish("DiagnosticReport-close", report("r1"))
    world.publish("ImagingStudy-open", study("s2"))
    world.news("viewer")
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    assert world.news("viewer") == ["Patient-open p1"]


@pytest.mark.req("DER-9", "SUB-12")
@pytest.mark.parametrize("held", [1, 256])
def test_a_close_that_was_not_needed_on_return_is_told_when_the_name_goes(held: int) -> None:
    """The socket was dead when the report of p1 was closed and a study of p1 opened. p1 ends with the study."""
    world = World(retained_messages=held)
    world.join("viewer", VIEWER)
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.news("viewer")
    world.wait(2)
    delivered_until = world.now
    world.wait(1)
    world.publish("DiagnosticReport-close", report("r1"))
    world.publish("DiagnosticReport-close", report("never"))
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.news("viewer")
    world.disconnect("viewer", delivered_until=delivered_until, code=1006)
    world.connect("viewer")
    assert world.news("viewer") == ["subscribe", "ImagingStudy-open s1"]
    world.publish("ImagingStudy-close", study("s1"))
    assert world.news("viewer") == ["ImagingStudy-close s1", "Patient-close p1"]


@pytest.mark.req("DER-9", "SUB-12", "DER-20")
@pytest.mark.parametrize("held", [1, 256])
def test_no_close_is_made_of_what_is_told_or_named_still(held: int) -> None:
    """An encounter is closed while a report of the same patient is open, or a report of another patient besides."""
    world = World(retained_messages=held)
    world.join("chart", REPORTS)
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    world.wait(2)
    world.news("chart")
    world.disconnect("chart", code=1006)
    world.publish("Encounter-close", encounter("e1"))
    away(world, "DiagnosticReport-close", report("never"))
    assert world.news("chart") == ["subscribe", "DiagnosticReport-close never", "DiagnosticReport-open r1"]


@pytest.mark.req("DER-9", "SUB-12")
def test_closes_that_are_made_come_in_the_order_of_the_last_ones() -> None:
    """The patient was closed before already; then a report of a study, an encounter and that patient came and went."""
    world = World(retained_messages=1)
    events = f"{VIEWER},Encounter-open,Encounter-close"
    world.join("chart", events)
    world.disconnect("chart", code=1006)
    world.wait(1)
    for number in (1, 2):
        world.publish("Patient-open", patient(f"p{number}"))
        world.publish("Patient-close", patient(f"p{number}"))
    world.publish("DiagnosticReport-open", report("r1"), study("s1"), encounter("e1"), patient("p1"))
    world.publish("DiagnosticReport-close", report("r1"))
    world.publish("DiagnosticReport-close", report("never"))
    world.connect("chart")
    closes = ["Patient-close p2", "ImagingStudy-close s1", "Encounter-close e1", "Patient-close p1"]
    assert world.news("chart") == ["subscribe", *closes]


@pytest.mark.req("DER-9", "SUB-12")
@pytest.mark.parametrize("held", [1, 256])
def test_closes_are_told_on_return_as_they_would_have_been(held: int) -> None:
    """Of what a report named the innermost is closed first, also where the closes must be made."""
    world = World(retained_messages=held)
    events = f"{VIEWER},Encounter-open,Encounter-close"
    world.join("chart", events)
    world.join("stays", events)
    world.publish("DiagnosticReport-open", report("r2"), study("s2"), encounter("e2"), patient("p2"))
    world.news("chart")
    world.news("stays")
    away(world, "DiagnosticReport-close", report("r2"))
    closes = ["ImagingStudy-close s2", "Encounter-close e2", "Patient-close p2"]
    assert world.news("chart") == ["subscribe", *closes]
    assert world.news("stays") == closes


@pytest.mark.req("SUB-12", "DER-7")
def test_a_close_that_was_missed_is_told_though_another_event_names_the_context() -> None:
    """A report that names the encounter opens no encounter for receivers of the report."""
    world = World()
    world.join("chart", f"{OPENS},{CLOSES}")
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    world.news("chart")
    world.disconnect("chart", delivered_until=world.now - 10, code=1006)
    world.publish("Encounter-close", encounter("e1"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"), encounter("e1"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Encounter-close e1", "DiagnosticReport-open r1"]
