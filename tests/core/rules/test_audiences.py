"""Audiences: connections that are decided for together, and who is in which."""

from __future__ import annotations

import pytest

from fhircast_hub.core.rules import audiences, last_opens
from fhircast_hub.core.rules.last_opens import NOTHING_OPENED
from fhircast_hub.core.state.session import Audience, LastOpen, LastOpened
from tests.core.world import OPENS, World, encounter, patient, study

PATIENT = frozenset({"patient-open"})
STUDY = frozenset({"imagingstudy-open"})
P1, S1 = LastOpen("patient/p1"), LastOpen("imagingstudy/s1")
TOLD: LastOpened = (P1, LastOpen(), LastOpen())


def members(of: tuple[Audience, ...]) -> list[set[str]]:
    return [set(audience.members) for audience in of]


@pytest.mark.req("EVT-12")
def test_those_who_asked_for_the_same_are_one_audience() -> None:
    """Subscriptions with the same grants and the same opens share an audience. Others do not."""
    one = audiences.with_connection((), "a", PATIENT, NOTHING_OPENED)
    two = audiences.with_connection(one, "b", PATIENT, NOTHING_OPENED)
    three = audiences.with_connection(two, "c", STUDY, NOTHING_OPENED)
    assert members(audiences.with_connection(three, "d", PATIENT, TOLD)) == [{"a", "b"}, {"c"}, {"d"}]


@pytest.mark.req("EVT-12")
def test_an_event_is_for_those_who_were_granted_it() -> None:
    """The audiences of an event are those that subscribe to it. Each member is listed once."""
    of = audiences.with_connection(
        audiences.with_connection(
            audiences.with_connection((), "a", PATIENT, NOTHING_OPENED), "b", PATIENT | STUDY, TOLD
        ),
        "c",
        STUDY,
        TOLD,
    )
    assert audiences.subscribers_of(of, "patient-open") == ("a", "b")
    assert audiences.subscribers_of(of, "imagingstudy-open") == ("b", "c")
    assert audiences.subscribers_of(of, "home-open") == ()


@pytest.mark.req("SUB-23")
def test_who_left_is_in_none() -> None:
    """Leaving removes a connection, and an audience with its last member. An absent connection cannot leave."""
    of = audiences.with_connection(
        audiences.with_connection((), "a", PATIENT, NOTHING_OPENED), "b", STUDY, NOTHING_OPENED
    )
    assert members(audiences.without_connection(of, "a")) == [{"b"}]
    assert audiences.without_connection(audiences.without_connection(of, "a"), "b") == ()
    assert audiences.without_connection(of, "c") == audiences.without_connection(of, "") == of


@pytest.mark.req("DER-3")
def test_what_was_told_is_kept_by_type() -> None:
    """The newest open of a type replaces its last and leaves other types."""
    told = last_opens.after_open(TOLD, "imagingstudy", {"imagingstudy": "imagingstudy/s1"})
    assert told == (P1, LastOpen(), S1)
    assert last_opens.after_open(told, "patient", {"patient": "patient/p2"}) == (LastOpen("patient/p2"), LastOpen(), S1)
    assert audiences.last_opened_of(audiences.with_connection((), "a", PATIENT, told), "a") == told
    assert audiences.last_opened_of((), "a") == NOTHING_OPENED


@pytest.mark.req("DER-3", "DER-7", "DER-15")
def test_what_an_event_names_counts_until_the_next_of_its_type() -> None:
    """A study names its patient. The next study names none, so no event tells which patient is shown."""
    told = last_opens.after_open(
        NOTHING_OPENED, "imagingstudy", {"imagingstudy": "imagingstudy/s1", "patient": "patient/p1"}
    )
    assert told == (LastOpen("patient/p1", named_by="imagingstudy"), LastOpen(), S1)
    assert last_opens.after_open(told, "imagingstudy", {"imagingstudy": "imagingstudy/s1"}) == (
        LastOpen(),
        LastOpen(),
        S1,
    )
    assert last_opens.after_open(told, "encounter", {"patient": "patient/p2"})[0] == LastOpen(
        "patient/p2", named_by="encounter"
    )
    assert last_opens.after_open(TOLD, "encounter", {"patient": "patient/p1"})[0] == P1, "its own open told it already"
    stale = last_opens.after_home_open(TOLD, PATIENT)
    assert last_opens.after_open(stale, "encounter", {"patient": "patient/p1"}) == stale, "it may be shown, or not"
    assert last_opens.after_open(stale, "encounter", {"patient": "patient/p2"})[0] == LastOpen(
        "patient/p2", named_by="encounter"
    )


@pytest.mark.req("DER-9")
def test_what_a_closed_study_named_counts_no_more() -> None:
    """The name stays while another study is known."""
    told: LastOpened = (LastOpen("patient/p1", named_by="imagingstudy"), LastOpen(), S1)
    of = audiences.with_connection((), "a", PATIENT, told)
    assert audiences.forget_named(of, "imagingstudy") == of
    assert audiences.forget_named(of, "observation") == of
    closed = audiences.forget_named(audiences.after_close(of, "imagingstudy/s1"), "imagingstudy")
    assert audiences.last_opened_of(closed, "a") == NOTHING_OPENED


@pytest.mark.req("DER-3")
def test_a_close_is_forgotten_by_all() -> None:
    """Audiences that become alike are merged. The close of another context forgets nothing."""
    of = audiences.with_connection(audiences.with_connection((), "a", PATIENT, NOTHING_OPENED), "b", PATIENT, TOLD)
    assert members(of) == [{"a"}, {"b"}]
    assert audiences.after_close(of, "patient/p2") == of
    assert audiences.after_close(of, "observation/o1") == of
    assert members(audiences.after_close(of, "patient/p1")) == [{"a", "b"}]
    other: LastOpened = (LastOpen("patient/p2"), LastOpen(), LastOpen())
    left = audiences.after_close(audiences.with_connection(of, "c", PATIENT, other), "patient/p1")
    assert audiences.last_opened_of(left, "c") == other


@pytest.mark.req("DER-3", "DER-9", "DER-16")
def test_a_home_open_makes_everything_news() -> None:
    """Receivers of Home-open show nothing. Others still show the older context, and may be sent it again."""
    home = audiences.with_connection((), "a", PATIENT | {"home-open"}, TOLD)
    of = audiences.after_home_open(audiences.with_connection(home, "b", PATIENT, TOLD))
    assert audiences.last_opened_of(of, "a") == NOTHING_OPENED
    stale = LastOpen("patient/p1", in_doubt=True), LastOpen(), LastOpen()
    assert audiences.last_opened_of(of, "b") == audiences.last_opened_of(audiences.after_home_open(of), "b") == stale
    assert audiences.last_opened_of(audiences.after_close(of, "patient/p1"), "b") == NOTHING_OPENED
    assert audiences.forget_open(of, "b", ["patient/p1"]) == of
    assert (
        audiences.last_opened_of(
            audiences.forget_open(audiences.with_connection((), "c", PATIENT, TOLD), "c", ["patient/p1"]), "c"
        )
        == stale
    )


@pytest.mark.req("DER-3", "EVT-1")
def test_audiences_meet_again() -> None:
    """A latecomer is sent the same next event, and shares the audience from then on."""
    world = World()
    world.join("early", OPENS)
    world.publish("Patient-open", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.publish("Home-open")
    world.join("late", OPENS)
    world.publish("ImagingStudy-open", study("s2"), patient("p2"))
    world.publish("Patient-open", patient("p3"))
    world.publish("Encounter-open", encounter("e1"), patient("p3"))
    assert world.session is not None
    assert len(world.session.audiences) == 1
