"""The hub refuses an event without write scope, from the future, or without a required context."""

from __future__ import annotations

import pytest

from fhircast_hub.core.errors import BadRequest, Forbidden, InsufficientScope
from tests.core.world import (
    World,
    encounter,
    item,
    message,
    outcome,
    patient,
    report,
    study,
    token,
)

REFERENCE = {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}}
BUNDLE = {"key": "updates", "resource": {"resourceType": "Bundle"}}

# What is refused


@pytest.mark.req("AUT-5")
@pytest.mark.parametrize(
    ("write", "name", "items"),
    [
        ((), "Patient-open", [patient("p1")]),
        (("Patient-close",), "Patient-open", [patient("p1")]),
        (("ImagingStudy-open",), "Patient-open", [patient("p1")]),
        (("Patient-open",), "SyncError", [outcome()]),
        (("Patient-open",), "Home-open", []),
        (("Patient-open",), "org.example.thing", []),
        (("DiagnosticReport-open",), "DiagnosticReport-select", [REFERENCE]),
        (("DiagnosticReport-open",), "DiagnosticReport-update", [REFERENCE, BUNDLE]),
    ],
)
def test_publishing_needs_that_events_write_scope(write: tuple[str, ...], name: str, items: list[object]) -> None:
    """Reading, or writing another event, is not enough; nobody is told."""
    world = World()
    world.join("viewer", name)
    with pytest.raises(InsufficientScope) as refused:
        world.publish(name, *items, by=token(write=write))
    assert refused.value.status == 403
    assert refused.value.scope.lower() == f"fhircast/{name}.write".lower()
    assert world.news("viewer") == []


@pytest.mark.req("AUT-5", "AUT-6")
@pytest.mark.parametrize("write", ["PATIENT-open", "*"])
def test_the_write_scope_is_enough(write: str) -> None:
    """In any case, or for all events; nothing need be readable."""
    world = World()
    world.publish("patient-OPEN", patient("p1"), by=token(read=(), write=[write]))
    assert world.current() == "Patient p1"


@pytest.mark.req("AUT-5", "AUT-9")
def test_the_owner_is_asked_before_the_scope() -> None:
    """Another user without scope is told that the topic is another's."""
    world = World()
    world.join("viewer")
    with pytest.raises(Forbidden) as refused:
        world.publish("Patient-open", patient("p1"), by=token("bob", write=()))
    assert not isinstance(refused.value, InsufficientScope)


# Clocks


@pytest.mark.req("EVT-19")
@pytest.mark.parametrize(
    ("at", "ahead"),
    [
        ("2023-04-01T12:01:00.001Z", "61 seconds (1 minute 1 second)"),
        ("2023-04-01T12:10:00Z", "600 seconds (10 minutes)"),
        ("2023-04-01T14:10:00+02:00", "600 seconds (10 minutes)"),
        ("2023-04-01T14:00:00", "7200 seconds (2 hours); without a zone it is read as UTC"),
        ("9999-12-31T23:59:60Z", "251721950400 seconds (2913448 days 12 hours)"),
    ],
)
@pytest.mark.parametrize("name", ["Patient-open", "Patient-close", "Home-open", "org.example.thing"])
def test_what_is_ahead_of_the_hubs_clock_is_refused(name: str, at: str, ahead: str) -> None:
    """The event gets 400 with the number of seconds. Nothing is sent, changed or begun."""
    world = World()
    with pytest.raises(BadRequest) as refused:
        world.post(message(name, patient("p1"), at=at))
    assert str(refused.value) == f"timestamp may be at most 60 seconds ahead of the hub's clock, not {ahead}"
    assert world.session is None


@pytest.mark.req("EVT-19", "EVT-33")
@pytest.mark.parametrize("at", ["2023-04-01T12:01:00Z", "2023-04-01T12:00:60.000000000Z", "0001-01-01T00:00:00+14:00"])
def test_what_is_no_further_ahead_is_taken(at: str) -> None:
    """A minute is what clocks of one house may differ by; the past has no end."""
    world = World()
    world.post(message("Patient-open", patient("p1"), at=at))
    assert world.current() == "Patient p1"


@pytest.mark.req("EVT-19")
def test_how_far_is_a_setting() -> None:
    """MAX_CLOCK_AHEAD=0 takes nothing that is ahead."""
    world = World(max_clock_ahead=0)
    world.post(message("Patient-open", patient("p1")))
    with pytest.raises(BadRequest, match="at most 0 seconds ahead"):
        world.post(message("Patient-open", patient("p1"), at="2023-04-01T12:00:00.001Z"))


@pytest.mark.req("EVT-19")
def test_a_form_that_is_wrong_is_said_before_whose_topic_it_is() -> None:
    """The clock is one of the checks of the envelope (order of checks)."""
    world = World()
    world.post(message("Patient-open", patient("p1")))
    with pytest.raises(BadRequest):
        world.post(message("Patient-open", patient("p1"), at="2024-04-01T12:00:00Z"), by=token("bob", write=()))


# What an event cannot be without


NO_PATIENT: list[list[object]] = [
    [],
    [item("subject", "Patient", "p1")],
    [{"key": "patient"}],
    [{"key": "patient", "reference": {"reference": "Patient/p1"}}],
    [{"key": "patient", "resource": {"resourceType": "Patient"}}],
    [item("patient", "Person", "p1")],
    [patient("p1"), patient("p2")],
]


@pytest.mark.req("EVT-21")
@pytest.mark.parametrize("others", NO_PATIENT)
@pytest.mark.parametrize(
    ("name", "anchor"), [("Encounter-open", encounter("e1")), ("DIAGNOSTICREPORT-open", report("r1"))]
)
def test_an_encounter_or_report_is_opened_with_its_patient(name: str, anchor: object, others: list[object]) -> None:
    """A close needs exactly one anchor with an id. Otherwise a subscriber of patients would stay on the one before."""
    world = World()
    with pytest.raises(BadRequest, match="the key patient"):
        world.post(message(name, anchor, *others))
    assert world.session is None


@pytest.mark.req("EVT-21")
@pytest.mark.parametrize("others", NO_PATIENT[:-1])
@pytest.mark.parametrize("name", ["ImagingStudy-open", "ImagingStudy-close"])
def test_a_study_needs_no_patient(name: str, others: list[object]) -> None:
    """ "patient | 0..1" (3.5.1); and no close needs more than its anchor."""
    World().post(message(name, study("s1"), *others))
    World().post(message("DiagnosticReport-close", report("r1"), *others))


@pytest.mark.req("EVT-22")
@pytest.mark.parametrize(
    "items",
    [
        [],
        [item("outcome", "OperationOutcome", "o")],
        [item("operationoutcome", "Patient", "p")],
        [{"key": "operationoutcome"}],
        [outcome(), outcome()],
    ],
)
@pytest.mark.parametrize("name", ["SyncError", "syncerror"])
def test_a_sync_error_says_what_was_not_followed(name: str, items: list[object]) -> None:
    """ "operationoutcome | 1..1" (3.2.1): without one, nobody could read what it is about."""
    with pytest.raises(BadRequest, match="the key operationoutcome"):
        World().post(message(name, *items))


@pytest.mark.req("EVT-22")
@pytest.mark.parametrize("key", ["operationoutcome", "OperationOutcome"])
def test_its_key_may_be_in_any_case(key: str) -> None:
    """Some clients spell the key like the resource. The key is passed on as received."""
    world = World()
    world.join("monitor", "SyncError")
    posted = world.publish("SyncError", item(key, "OperationOutcome", "o"), patient("p1"))
    assert world.read("monitor") == [posted]
