"""A joiner receives the newest open of each type."""

from __future__ import annotations

import pytest

from tests.core.rules.joining_world import joined
from tests.core.world import (
    CLOSES,
    OPENS,
    World,
    encounter,
    item,
    patient,
    report,
    spec,
    study,
    token,
)


@pytest.mark.req("CTX-1")
def test_a_joiner_is_told_the_newest_open_of_each_type() -> None:
    """Oldest first, and of each type only the newest."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"))
    world.publish("Observation-open", item("observation", "Observation", "o1"))
    world.publish("Patient-open", patient("p2"))
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    assert joined(world, f"{OPENS},Observation-open") == [
        "ImagingStudy-open s1",
        "Observation-open o1",
        "Patient-open p2",
        "Encounter-open e1",
    ]


@pytest.mark.req("CTX-1")
def test_it_is_the_same_message_as_when_it_happened() -> None:
    """Original id, timestamp, spelling, resources and version: byte for byte what the others were sent."""
    world = World()
    world.join("early", "Patient-open")
    world.post(spec("Patient-open"))
    world.wait(1000)
    world.subscribe("late", "Patient-open")
    world.connect("late")
    assert world.heard("late")[1:] == world.heard("early")


@pytest.mark.req("CTX-1", "GET-6")
def test_its_version_is_the_current_one() -> None:
    """After the same context was opened again, a joiner is told the new open with the version that GET tells."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    again = world.publish("Patient-open", patient("p1"))
    world.subscribe("late", "Patient-open")
    world.connect("late")
    _, told = world.read("late")
    assert told["id"] == again["id"]
    assert told["event"]["context.versionId"] == world.get()["context.versionId"]


@pytest.mark.req("CTX-2")
def test_a_joiner_is_told_nothing_closed() -> None:
    """When the newest of a type is closed, the next older one that is open counts."""
    world = World()
    for id_ in ("p1", "p2", "p3"):
        world.publish("Patient-open", patient(id_))
    world.publish("Patient-close", patient("p2"))
    world.publish("Patient-close", patient("p3"))
    assert joined(world) == ["Patient-open p1"]
    world.publish("patient-CLOSE", patient("p1"))
    assert joined(world) == []


@pytest.mark.req("CTX-2")
def test_what_was_closed_before_the_first_socket_is_no_news() -> None:
    """Between the 202 and the connection a patient was opened and closed: the joiner never knew of it."""
    world = World()
    world.subscribe("chart", f"{OPENS},{CLOSES}")
    world.wait(1)
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-close", patient("p1"))
    world.connect("chart")
    assert world.news("chart") == ["subscribe"]


@pytest.mark.req("CTX-2", "CTX-7")
def test_a_closed_patient_is_not_derived() -> None:
    """A study implies its patient until that patient is closed."""
    world = World()
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    assert joined(world, "Patient-open") == ["Patient-open p1"]
    world.publish("Patient-close", patient("p1"))
    assert joined(world, "Patient-open") == []
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    assert joined(world, "Patient-open") == ["Patient-open p1"]


@pytest.mark.req("CTX-2", "CTX-7")
def test_a_closed_study_implies_nothing() -> None:
    """A closed context implies no other. An older open context may."""
    world = World()
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.publish("Encounter-open", encounter("e1"), patient("p2"))
    world.publish("Encounter-close", encounter("e1"))
    assert joined(world, "Patient-open") == ["Patient-open p1"]
    world.publish("ImagingStudy-close", study("s1"))
    assert joined(world, "Patient-open") == []


@pytest.mark.req("CTX-2")
def test_references_match_by_type_and_id() -> None:
    """The same id of another type is another context; the case of an event's name does not matter, that of an id does."""
    world = World()
    world.publish("Patient-open", patient("x"))
    world.publish("Encounter-close", encounter("x"))
    world.publish("Patient-close", patient("X"))
    assert joined(world) == ["Patient-open x"]


@pytest.mark.req("CTX-3", "EVT-12")
def test_a_joiner_is_told_nothing_they_did_not_ask_for() -> None:
    """Only the subscribed names, and not what the token may not read."""
    world = World()
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.publish("Home-open")
    assert joined(world, "Encounter-open,Patient-close,ImagingStudy-close") == []
    world.subscribe("limited", "Patient-open,ImagingStudy-open", by=token(read=["Patient-open"]))
    world.connect("limited")
    assert world.news("limited") == ["subscribe", "Patient-open p1"]


@pytest.mark.req("CTX-7")
def test_the_newer_of_stored_and_derived_is_told() -> None:
    """One per type, whichever was last."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"), patient("p2"))
    assert joined(world, "Patient-open") == ["Patient-open p2"]
    world.publish("Patient-open", patient("p3"))
    assert joined(world, "Patient-open") == ["Patient-open p3"]
    assert joined(world) == ["ImagingStudy-open s1", "Patient-open p3"]


@pytest.mark.req("CTX-7")
def test_the_stored_one_is_told_when_both_are_the_same() -> None:
    """The own open says more than the derived one: its own id, its version, all of its context."""
    world = World()
    opened = world.publish("Patient-open", {"key": "extension", "data": 1}, patient("p1"))
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.subscribe("chart", "Patient-open")
    world.connect("chart")
    assert [told["id"] for told in world.read("chart")[1:]] == [opened["id"]]


@pytest.mark.req("CTX-7", "CTX-1")
def test_derived_and_stored_opens_come_oldest_first() -> None:
    """A derived open stands where its source does, before it."""
    world = World()
    world.publish("Observation-open", item("observation", "Observation", "o1"))
    world.publish("DiagnosticReport-open", report("r1"), study("s1"), patient("p1"), encounter("e1"))
    world.publish("Encounter-open", encounter("e2"), patient("p1"))
    assert joined(world, "Patient-open,Encounter-open,ImagingStudy-open,Observation-open") == [
        "Observation-open o1",
        "Patient-open p1",
        "ImagingStudy-open s1",
        "Encounter-open e2",
    ]


@pytest.mark.req("CTX-7", "DER-7", "DER-13")
def test_a_joiner_is_told_nothing_that_a_told_event_names() -> None:
    """Receivers of the study read its patient there. A patient that was opened before comes before."""
    world = World()
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    assert joined(world, OPENS) == ["ImagingStudy-open s1"]
    world.publish("Patient-open", patient("p0"))
    world.publish("ImagingStudy-open", study("s2"), patient("p2"))
    assert joined(world, OPENS) == ["Patient-open p0", "ImagingStudy-open s2"]
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    three = "Patient-open,Encounter-open,ImagingStudy-open"
    assert joined(world, three) == ["Patient-open p0", "ImagingStudy-open s2"], "the study says p2 already"
    world.publish("DiagnosticReport-open", report("r2"), patient("p0"))
    assert joined(world, three) == ["ImagingStudy-open s2", "Patient-open p0"], "a derived one, for p2 came between"


@pytest.mark.req("CTX-5")
def test_there_is_no_gap_and_no_double_between_replay_and_live() -> None:
    """Everybody hears of every open once: the newest from the replay, later ones live."""
    for joins in range(4):
        world = World()
        for number in range(4):
            if number == joins:
                world.subscribe("joiner", "Patient-open")
                world.publish("Patient-open", patient("between"))
                world.connect("joiner")
            world.publish("Patient-open", patient(f"p{number}"))
        live = [f"Patient-open p{number}" for number in range(joins, 4)]
        assert world.news("joiner") == ["subscribe", "Patient-open between", *live]


@pytest.mark.req("CTX-6")
def test_home_comes_last_while_it_is_the_newest() -> None:
    """Contexts stay open under Home-open; the next open takes its place."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    world.post(spec("Home-open"))
    assert joined(world) == ["Patient-open p1", "home-open"]
    world.publish("Patient-close", patient("p1"))
    assert joined(world) == ["home-open"]
    world.publish("ImagingStudy-open", study("s1"))
    assert joined(world) == ["ImagingStudy-open s1"]
    world.publish("ImagingStudy-close", study("s1"))
    assert joined(world) == []


@pytest.mark.req("DER-3", "CTX-6", "DER-14")
def test_whoever_joins_at_home_is_told_the_next_patient_again() -> None:
    """After Home-open everybody is sent opens anew, also subscribers that got it on joining."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    world.publish("Home-open")
    world.join("chart", "Patient-open,Home-open")
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    assert world.news("chart") == ["Patient-open p1"]


@pytest.mark.req("SUB-20", "CTX-6", "SUB-31")
def test_a_renewal_at_home_leaves_the_application_at_home() -> None:
    """Contexts of the new names are not current. Home-open is sent again behind them."""
    world = World()
    world.publish("Patient-open", patient("p1"))
    world.join("chart", "Home-open")
    world.publish("Home-open")
    world.news("chart")
    world.renew("chart", "Patient-open,Home-open")
    assert world.news("chart") == ["subscribe", "Patient-open p1", "Home-open"]
