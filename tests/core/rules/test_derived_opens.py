"""Derived opens: what a context implies for those who know only a part of it."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhircast_hub.core.state.commands import Subscribe
from tests.core.world import OPENS, TOPIC, World, encounter, item, message, outcome, patient, report, spec, study, token

THREE = "Patient-open,Encounter-open,ImagingStudy-open"


@pytest.mark.req("DER-7", "DER-13")
def test_implied_opens_come_before_the_event_in_their_order() -> None:
    """Patient, encounter and study of the report that named them. Receivers of the report are sent nothing else."""
    world = World()
    world.join("three", THREE)
    world.join("all", OPENS)
    world.publish("DiagnosticReport-open", report("r1"), study("s1"), study("s2"), patient("p1"), encounter("e1"))
    assert world.news("three") == ["Patient-open p1", "Encounter-open e1", "ImagingStudy-open s1"]
    assert world.news("all") == ["DiagnosticReport-open r1"]
    (first, *_) = world.session.audiences if world.session else ()
    assert [last.ref for last in first.last_opened] == ["patient/p1", "encounter/e1", "imagingstudy/s1"]


@pytest.mark.req("DER-7", "DER-12")
def test_a_derived_open_holds_the_items_of_its_own_event() -> None:
    """Patient: patient. Encounter: encounter, patient. ImagingStudy: the first study, encounter, patient. As they came."""
    world = World()
    world.join("all", THREE)
    p, e, s = patient("p1"), encounter("e1"), study("s1")
    p["resource"]["name"] = [{"family": "Müller"}]
    s["extra"] = {"b": 1, "a": 2}
    world.publish("DiagnosticReport-open", report("r1"), s, study("s2"), p, {"key": "x", "string": "y"}, e)
    assert [frame["event"]["context"] for frame in world.read("all")] == [[p], [e, p], [s, e, p]]


@pytest.mark.req("DER-7", "EVT-15")
def test_a_derived_open_holds_the_bytes_that_came() -> None:
    """Nothing of a resource changes on its way through another event."""
    world = World()
    world.join("patients", "Patient-open")
    item_ = b'{ "key":"patient","resource":{"id":"p1",\n"x":1.10,"resourceType" : "Patient","y":"\\u00e9"}}'
    world.post(
        b'{"id":"1","timestamp":"2023-04-01T12:00:00","event":{"hub.topic":"t","hub.event":"ImagingStudy-open",'
        b'"context":[{"key":"study","resource":{"resourceType":"ImagingStudy","id":"s1"}},%b]}}' % item_
    )
    assert b"[" + item_ + b"]" in world.heard("patients")[0]


@pytest.mark.req("DER-7", "DER-11")
def test_a_derived_open_is_an_event_of_its_own() -> None:
    """New id made of source and name, the source's timestamp, the topic, the catalogue's spelling, and no version."""
    world = World()
    world.join("patients", "Patient-open")
    posted = message("imagingstudy-OPEN", study("s1"), patient("p1"), at="2018-01-08T01:37:05.14")
    world.post(posted)
    (derived,) = world.read("patients")
    assert set(derived) == {"timestamp", "id", "event"}
    assert set(derived["event"]) == {"hub.topic", "hub.event", "context"}
    assert (derived["timestamp"], derived["event"]["hub.event"]) == ("2018-01-08T01:37:05.14", "Patient-open")
    assert derived["event"]["hub.topic"] == TOPIC
    assert uuid.UUID(derived["id"]).version == 5


@pytest.mark.req("DER-7", "DER-11")
def test_a_derived_open_opens_nothing_in_the_hub() -> None:
    """The current context is the study, and there is no other."""
    world = World()
    world.join("patients", "Patient-open")
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    assert world.current() == "ImagingStudy s1"
    assert world.session is not None
    assert list(world.session.contexts) == ["imagingstudy/s1"]


@pytest.mark.req("DER-2")
@pytest.mark.parametrize(
    ("name", "anchor"),
    [
        ("Encounter-open", encounter("e1")),
        ("ImagingStudy-open", study("s1")),
        ("DiagnosticReport-open", report("r1")),
        ("Observation-open", item("observation", "Observation", "o1")),
    ],
)
def test_any_anchor_implies(name: str, anchor: object) -> None:
    """Subscribers of patients are sent the patient of any opened context."""
    world = World()
    world.join("patients", "Patient-open")
    world.publish(name, anchor, patient("p1"))
    assert world.news("patients") == ["Patient-open p1"]


@pytest.mark.req("DER-2")
def test_a_patient_may_imply_an_encounter() -> None:
    """The derived encounter holds the patient, which is the anchor here."""
    world = World()
    world.join("encounters", "Encounter-open")
    world.publish("Patient-open", patient("p1"), encounter("e1"))
    assert world.read("encounters")[0]["event"]["context"] == [encounter("e1"), patient("p1")]


@pytest.mark.req("DER-7")
@pytest.mark.parametrize(
    "other",
    [
        {"key": "patient"},
        {"key": "patient", "reference": {"reference": "Patient/p1"}},
        {"key": "patient", "resource": {"resourceType": "Patient"}},
        item("patient", "Person", "p1"),
        item("subject", "Patient", "p1"),
    ],
)
def test_what_is_no_resource_with_an_id_implies_nothing(other: object) -> None:
    """A reference, a stub without id, another type or another key is no patient that could be opened."""
    world = World()
    world.join("patients", THREE)
    world.publish("ImagingStudy-open", study("s1"), other)
    assert world.news("patients") == ["ImagingStudy-open s1"]


@pytest.mark.req("DER-7")
@pytest.mark.parametrize("name", ["ImagingStudy-close", "SyncError", "Home-open", "org.example.thing"])
def test_only_opens_imply(name: str) -> None:
    """An event that opens nothing derives nothing."""
    world = World()
    world.join("patients", "Patient-open,Patient-close")
    world.publish(name, study("s1"), patient("p1"), outcome())
    assert world.news("patients") == []


@pytest.mark.req("DER-3")
def test_what_was_last_told_is_not_told_again() -> None:
    """Three studies of one patient are one patient; another patient is told, and so is the first after it."""
    world = World()
    world.join("patients", "Patient-open")
    for study_, patient_ in [("s1", "p1"), ("s2", "p1"), ("s3", "p2"), ("s4", "p2"), ("s5", "p1")]:
        world.publish("ImagingStudy-open", study(study_), patient(patient_))
    assert world.news("patients") == ["Patient-open p1", "Patient-open p2", "Patient-open p1"]


@pytest.mark.req("DER-3")
def test_a_real_open_counts_as_told() -> None:
    """Patient-open p1 is not followed by a derived one of p1, and a derived one not kept from being followed by a real one."""
    world = World()
    world.join("patients", "Patient-open")
    world.publish("Patient-open", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.publish("Patient-open", patient("p1"))
    assert world.news("patients") == ["Patient-open p1", "Patient-open p1"]


@pytest.mark.req("DER-3")
def test_each_is_told_what_they_have_not_been_told() -> None:
    """Two who know patients, one of whom came late, and one who knows only studies."""
    world = World()
    world.join("early", "Patient-open")
    world.join("studies", "ImagingStudy-open")
    world.publish("Patient-open", patient("p1"))
    world.publish("Home-open")
    world.publish("Patient-open", patient("p1"))
    world.subscribe("late", "Patient-open,Encounter-open")
    world.connect("late")
    for subscription_id in ("early", "late"):
        world.news(subscription_id)
    world.publish("ImagingStudy-open", study("s1"), encounter("e1"), patient("p1"))
    assert (world.news("early"), world.news("late")) == ([], ["Encounter-open e1"])
    assert world.news("studies") == ["ImagingStudy-open s1"]


@pytest.mark.req("DER-3", "DER-14")
@pytest.mark.parametrize(("name", "items"), [("Patient-close", [patient("p1")]), ("Home-open", [])])
def test_what_was_told_is_forgotten_when_it_ends(name: str, items: list[object]) -> None:
    """After its close, whether the closer or anybody had opened it, and after Home-open, a patient is news again."""
    world = World()
    world.join("patients", "Patient-open")
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.publish(name, *items)
    world.publish("ImagingStudy-open", study("s2"), patient("p1"))
    assert world.news("patients") == ["Patient-open p1", "Patient-open p1"]


@pytest.mark.req("DER-3")
def test_the_close_of_another_is_no_end() -> None:
    """Closing p2 does not make p1 news."""
    world = World()
    world.join("patients", "Patient-open")
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.publish("Patient-close", patient("p2"))
    world.publish("Encounter-close", encounter("p1"))
    world.publish("ImagingStudy-open", study("s2"), patient("p1"))
    assert world.news("patients") == ["Patient-open p1"]


@pytest.mark.req("DER-3", "DER-14")
def test_what_was_told_is_forgotten_at_reconnection() -> None:
    """A subscriber that returns after a close of all shows nothing."""
    world = World()
    world.join("patients", "Patient-open")
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.disconnect("patients")
    world.publish("ImagingStudy-close", study("s1"))
    world.connect("patients")
    world.publish("ImagingStudy-open", study("s2"), patient("p1"))
    assert world.news("patients") == ["subscribe", "Patient-open p1"]


@pytest.mark.req("DER-3", "EVT-17", "DER-14")
def test_a_repeat_of_the_source_repeats_it() -> None:
    """The repeat is sent again with its id, also to subscribers that heard only the derived open."""
    world = World()
    world.join("patients", "Patient-open")
    posted = message("ImagingStudy-open", study("s1"), patient("p1"))
    world.post(posted)
    world.post(posted)
    first, second = world.heard("patients")
    assert first == second


@pytest.mark.req("DER-4", "EVT-12")
def test_nobody_is_sent_what_they_may_not_read() -> None:
    """The read scope for Patient-open is asked for, as for any event."""
    world = World()
    world.join("viewer", "Patient-open,ImagingStudy-open", by=token(read=["ImagingStudy-open"]))
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    assert world.news("viewer") == ["ImagingStudy-open s1"]


@pytest.mark.req("DER-4")
def test_scope_counts_for_the_granted_events_only() -> None:
    """A token that may read patients, and did not ask for them, is sent none."""
    world = World()
    world.do(Subscribe(token(), TOPIC, "viewer", ("ImagingStudy-open",)))
    world.connect("viewer")
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    assert world.news("viewer") == ["subscribe", "ImagingStudy-open s1"]


@pytest.mark.req("DER-5")
def test_a_joiner_is_told_derived_opens_too() -> None:
    """A chart that knows only patients joins while a study is open."""
    world = World()
    posted = world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.subscribe("chart", "Patient-open")
    world.connect("chart")
    _, derived = world.read("chart")
    assert (derived["event"]["context"], derived["timestamp"]) == ([patient("p1")], posted["timestamp"])


@pytest.mark.req("DER-5", "DER-7")
def test_a_joiner_is_told_what_the_others_were_told() -> None:
    """The derived open on joining is the same message, byte for byte, as when it happened."""
    world = World()
    world.join("early", "Patient-open")
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.subscribe("late", "Patient-open")
    world.connect("late")
    assert world.heard("late")[1:] == world.heard("early")


@pytest.mark.req("DER-8")
def test_it_can_be_turned_off() -> None:
    """With DERIVE_OPENS=false nothing is derived: not from an open, nor on joining, nor for GET."""
    world = World(derive_opens=False)
    world.join("early", THREE)
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.subscribe("late", THREE)
    world.connect("late")
    assert world.news("early") == ["ImagingStudy-open s1"]
    assert world.news("late") == ["subscribe", "ImagingStudy-open s1"]


@pytest.mark.req("DER-7")
def test_the_specifications_study_implies_its_patient() -> None:
    """ImagingStudy-open of the specification, to a chart that knows patients only."""
    world = World()
    posted = json.loads(spec("ImagingStudy-open"))
    world.join("chart", "Patient-open")
    world.post(posted)
    patients = [each for each in posted["event"]["context"] if each["key"] == "patient"]
    assert [frame["event"]["context"] for frame in world.read("chart")] == [patients]


@pytest.mark.req("DER-7", "DER-3")
@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("PES"), st.sampled_from("12"), st.sampled_from("12"), st.sampled_from("12"))))
def test_whoever_listens_to_a_type_always_knows_its_newest(steps: list[tuple[str, str, str, str]]) -> None:
    """After any opens, the last that a subscriber of a type was told is the newest that was named, and nothing came twice."""
    world = World()
    world.join("patients", "Patient-open")
    newest, told = "", []
    for anchor, p, e, s in steps:
        items = {"P": patient(p), "E": encounter(e), "S": study(s)}
        name = {"P": "Patient-open", "E": "Encounter-open", "S": "ImagingStudy-open"}[anchor]
        world.publish(name, items.pop(anchor), *items.values())
        if anchor == "P" or p != newest:
            told.append(f"Patient-open {p}")
        newest = p
    assert world.news("patients") == told
