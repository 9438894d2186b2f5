"""Audiences: connections that are decided for together, and who is in which."""

from __future__ import annotations

import pytest

from core.world import OPENS, World, patient, study
from fhircast_hub.core import audiences
from fhircast_hub.core.audiences import NOTHING, Told
from fhircast_hub.core.session import Audience

PATIENT = frozenset({"patient-open"})
STUDY = frozenset({"imagingstudy-open"})
TOLD: Told = ("patient/p1", "", "")


def members(of: tuple[Audience, ...]) -> list[set[str]]:
    return [set(audience.members) for audience in of]


@pytest.mark.req("EVT-12")
def test_those_who_asked_for_the_same_are_one_audience() -> None:
    """Two who were granted the same and told the same are together, others apart."""
    one = audiences.join((), "a", PATIENT, NOTHING)
    two = audiences.join(one, "b", PATIENT, NOTHING)
    three = audiences.join(two, "c", STUDY, NOTHING)
    assert members(audiences.join(three, "d", PATIENT, TOLD)) == [{"a", "b"}, {"c"}, {"d"}]


@pytest.mark.req("EVT-12")
def test_an_event_is_for_those_who_were_granted_it() -> None:
    """Of all audiences those whose events it is among, each member once."""
    of = audiences.join(
        audiences.join(audiences.join((), "a", PATIENT, NOTHING), "b", PATIENT | STUDY, TOLD), "c", STUDY, TOLD
    )
    assert audiences.subscribed(of, "patient-open") == ("a", "b")
    assert audiences.subscribed(of, "imagingstudy-open") == ("b", "c")
    assert audiences.subscribed(of, "home-open") == ()


@pytest.mark.req("SUB-17")
def test_who_left_is_in_none() -> None:
    """Leaving takes a connection out, and an audience with its last member; who is not there cannot leave."""
    of = audiences.join(audiences.join((), "a", PATIENT, NOTHING), "b", STUDY, NOTHING)
    assert members(audiences.leave(of, "a")) == [{"b"}]
    assert audiences.leave(audiences.leave(of, "a"), "b") == ()
    assert audiences.leave(of, "c") == audiences.leave(of, "") == of


@pytest.mark.req("DER-3")
def test_what_was_told_is_kept_by_type() -> None:
    """A type's newest replaces its last and leaves the others."""
    told = audiences.remember(audiences.remember(NOTHING, "imagingstudy", "imagingstudy/s1"), "patient", "patient/p1")
    assert told == ("patient/p1", "", "imagingstudy/s1")
    assert audiences.remember(told, "patient", "patient/p2") == ("patient/p2", "", "imagingstudy/s1")
    assert audiences.told_to(audiences.join((), "a", PATIENT, told), "a") == told
    assert audiences.told_to((), "a") == NOTHING


@pytest.mark.req("DER-3")
def test_a_close_is_forgotten_by_all() -> None:
    """Audiences that become alike are one again; a close of something else forgets nothing."""
    of = audiences.join(audiences.join((), "a", PATIENT, NOTHING), "b", PATIENT, TOLD)
    assert members(of) == [{"a"}, {"b"}]
    assert audiences.forget(of, "patient/p2") == of
    assert audiences.forget(of, "observation/o1") == of
    assert members(audiences.forget(of, "patient/p1")) == [{"a", "b"}]
    other: Told = ("patient/p2", "", "")
    left = audiences.forget(audiences.join(of, "c", PATIENT, other), "patient/p1")
    assert audiences.told_to(left, "c") == other
    assert audiences.forget_all(of) == audiences.forget(of, "patient/p1")


@pytest.mark.req("DER-3", "EVT-1")
def test_audiences_meet_again() -> None:
    """Somebody who came late is told the same next time, and is decided for together with the others from then on."""
    world = World()
    world.join("early", OPENS)
    world.publish("Patient-open", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.publish("Home-open")
    world.join("late", OPENS)
    world.publish("ImagingStudy-open", study("s2"), patient("p2"))
    world.publish("Patient-open", patient("p3"))
    world.publish("Encounter-open", {"key": "encounter", "resource": {"resourceType": "Encounter", "id": "e1"}})
    assert world.session is not None
    assert len(world.session.audiences) == 1
