"""A SyncError names the event and the subscriber, and gives a reason."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from fhircast_hub.acknowledgements.tracker import Policy
from tests.core.rules.sync_error_world import Told, errors, opening, watched
from tests.core.world import (
    TOPIC,
    encounter,
    item,
    patient,
    report,
    spec,
)

SYSTEM = "https://fhircast.hl7.org/events/syncerror/"


@pytest.mark.req("SYN-1", "SYN-19", "SYN-20")
def test_a_refusal_is_a_syncerror_by_the_profile() -> None:
    """FhircastHubSyncErrorOperationOutcome, and the older system `subscriber` behind it; readable by people."""
    world = watched()
    world.join("viewer", name="Acme Viewer")
    opening(world)
    world.wait(1.5)
    world.answer("viewer", 409)
    (sent,) = world.read("monitor")
    assert str(uuid.UUID(sent["id"])) == sent["id"] != "event-1"
    codings = [("eventid", "event-1"), ("eventname", "Patient-open"), ("subscribername", "Acme Viewer")]
    coding = [{"system": SYSTEM + of, "code": code} for of, code in (*codings, ("subscriber", "Acme Viewer"))]
    why = "Acme Viewer refused to follow Patient-open (status 409)"
    assert sent == {
        "timestamp": "2023-04-01T12:00:01.500Z",
        "id": sent["id"],
        "event": {
            "hub.topic": TOPIC,
            "hub.event": "SyncError",
            "context": [
                {
                    "key": "operationoutcome",
                    "resource": {
                        "resourceType": "OperationOutcome",
                        "issue": [
                            {
                                "severity": "warning",
                                "code": "processing",
                                "diagnostics": why,
                                "details": {"coding": coding},
                            }
                        ],
                    },
                }
            ],
        },
    }


@pytest.mark.req("SYN-1", "SYN-19", "SYN-20")
def test_a_syncerror_of_the_hub_has_the_members_of_the_specifications() -> None:
    """The same keys in the same order as the example, down to the codings."""
    world = watched()
    world.join("viewer")
    opening(world)
    world.answer("viewer", 409)
    (sent,) = world.read("monitor")
    example = json.loads(spec("SyncError"))

    def shape(of: Any) -> Any:
        if isinstance(of, dict):
            return [(key, shape(value)) for key, value in of.items()]
        return [shape(of[0])] if isinstance(of, list) else type(of)

    assert shape(sent) == shape(example)


@pytest.mark.req("SYN-1", "SYN-19")
@pytest.mark.parametrize(
    ("status", "why"),
    [
        (400, "A refused to follow Patient-open (status 400)"),
        ("409 Conflict", "A refused to follow Patient-open (status 409)"),
        ("499", "A refused to follow Patient-open (status 499)"),
        (500, "A could not follow Patient-open (status 500): it was not delivered"),
        (503, "A could not follow Patient-open (status 503): it was not delivered"),
        (302, "A could not follow Patient-open (status 302): it was not delivered"),
        (100, "A could not follow Patient-open (status 100): it was not delivered"),
    ],
)
def test_the_reason_is_in_words(status: object, why: str) -> None:
    """Refused with 4xx, not delivered with others."""
    world = watched()
    world.join("a", name="A")
    opening(world)
    world.answer("a", status)
    assert errors(world) == [Told("event-1", "Patient-open", "A", why)]


@pytest.mark.req("SYN-1", "SYN-22")
@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("unsaved notes", ": unsaved notes"),
        ("  two\nlines\tand\u2028\u202emore  ", ": two lines and more"),
        ("x" * 1000, ": " + "x" * 256),
        ("Åpne notater", ": Åpne notater"),
        ("", ""),
        (" \r\n ", ""),
        (None, ""),
        (7, ""),
        (["unsaved"], ""),
    ],
)
def test_a_refusal_may_give_its_reason(reason: object, shown: str) -> None:
    """On one line, and not without end; what is no text does not spoil the refusal."""
    world = watched()
    world.join("a", name="A")
    opening(world)
    assert world.say("a", {"id": "event-1", "status": 409, "reason": reason})
    assert errors(world) == [
        Told("event-1", "Patient-open", "A", f"A refused to follow Patient-open (status 409){shown}")
    ]


@pytest.mark.req("SYN-1", "SYN-18")
@pytest.mark.parametrize("status", [200, 202, "204", "200 OK", None, True, [409], "Conflict", 99, 600, 4090])
def test_what_is_received_is_no_syncerror(status: object) -> None:
    """2xx, or nothing that can be read."""
    world = watched()
    world.join("a")
    opening(world)
    world.answer("a", status)
    world.wait(999)
    assert errors(world) == []


@pytest.mark.req("SYN-1", "SYN-19")
def test_who_has_no_name_is_unnamed() -> None:
    """In the coding and in words."""
    world = watched()
    world.join("a")
    opening(world)
    world.answer("a", 409)
    (error,) = errors(world)
    assert (error.who, error.why.split()[0]) == ("unnamed", "unnamed")


@pytest.mark.req("SYN-1", "EVT-15")
def test_a_name_is_passed_on_as_it_came() -> None:
    """Quotes, backslashes and all of Unicode."""
    world, name = watched(), 'Dr. "Ü" \\ \u2028 \U0001f600'
    world.join("a", name=name)
    opening(world)
    world.answer("a", 409)
    (error,) = errors(world)
    assert error.who == name
    assert name in error.why


@pytest.mark.req("SYN-1")
@pytest.mark.parametrize(
    ("name", "items"),
    [
        ("Patient-close", [patient("p1")]),
        ("Home-open", []),
        ("UserLogout", []),
        ("UserHibernate", []),
        ("org.example.thing", [{"key": "a"}]),
        ("MedicationRequest-open", [item("medicationrequest", "MedicationRequest", "m1")]),
        ("PATIENT-open", [patient("p1")]),
    ],
)
def test_any_event_but_a_few_may_be_refused(name: str, items: list[object]) -> None:
    """Closes, infrastructure and reverse-domain events too."""
    world = watched()
    world.join("a", name, name="A")
    posted = world.publish(name, *items)
    world.answer("a", 409)
    (error,) = errors(world)
    assert (error.id, error.name.lower(), error.who) == (posted["id"], name.lower(), "A")


@pytest.mark.req("SYN-1", "DER-7", "SYN-21")
def test_of_a_derived_open_the_source_is_named() -> None:
    """Its sender knows no other id; whether it is refused or not answered, live or on joining."""
    world = watched(Policy.STRICT)
    world.join("a", "Patient-open", name="A")
    posted = world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    assert world.news("a") == ["Patient-open p1"]
    world.answer("a", 409)
    world.join("b", "Patient-open", name="B")
    world.answer("b", 500)
    world.join("c", "Patient-open", name="C")
    world.wait(11)
    assert [error[:3] for error in errors(world)] == [(posted["id"], "DiagnosticReport-open", who) for who in "ABC"]


@pytest.mark.req("SYN-1", "CTX-1")
def test_what_is_told_on_joining_may_be_refused() -> None:
    """The report of a replayed open names the original event. So does the report of a missed close."""
    world = watched()
    world.join("a", "Patient-open,Patient-close", name="A")
    world.publish("Patient-open", patient("p1"))
    world.disconnect("a")
    world.wait(1)
    world.publish("Patient-close", patient("p1"))
    world.connect("a")
    world.answer("a", 409)
    world.publish("Patient-open", patient("p2"))
    world.disconnect("a")
    world.connect("a")
    world.answer("a", 409)
    assert [error[:2] for error in errors(world)] == [("event-2", "Patient-close"), ("event-3", "Patient-open")]


@pytest.mark.req("SYN-1", "LIM-1")
def test_a_close_of_the_hubs_own_may_be_refused() -> None:
    """The one for a context that had to go."""
    world = watched()
    world.join("a", "Encounter-close", name="A")
    for number in range(66):
        world.publish("Encounter-open", encounter(f"e{number}"), patient("p1"))
    world.answer("a", 409)
    (error,) = errors(world)
    assert error[:3] == (world.read("a")[-1]["id"], "Encounter-close", "A")
