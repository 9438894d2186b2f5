"""The examples of sessions in the modules' docstrings, and the last opens of a subscriber."""

from __future__ import annotations

import pytest

from fhircast_hub.core.rules import last_opens
from fhircast_hub.core.rules.audiences import last_opened_of
from fhircast_hub.core.rules.last_opens import NOTHING_OPENED
from fhircast_hub.core.state.session import LastOpen, LastOpened
from tests.core.world import World, patient, study

PATIENTS = "Patient-open,Patient-close"
P1, S1 = LastOpen("patient/p1"), LastOpen("imagingstudy/s1")


def last_opened(world: World, name: str) -> LastOpened:
    """The last opens of a subscriber that is connected."""
    assert world.session is not None
    return last_opened_of(world.session.audiences, world.session.subscriptions[name].connection)


def replayed(world: World, name: str, events: str) -> list[str]:
    """The messages behind the confirmation of a new subscription."""
    world.subscribe(name, events)
    world.connect(name)
    confirmation, *messages = world.news(name)
    assert confirmation == "subscribe"
    return messages


@pytest.mark.req("DER-3", "DER-7")
def test_the_example_of_last_opens() -> None:
    """The session in the head of last_opens.py, step by step."""
    world = World()
    world.join("viewer", "Patient-open")
    world.join("reader", "Patient-open,ImagingStudy-open")
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    assert world.news("viewer") == ["Patient-open p1"]
    assert world.news("reader") == ["ImagingStudy-open s1"]
    assert last_opened(world, "viewer") == (P1, LastOpen(), LastOpen())
    assert last_opened(world, "reader") == (LastOpen("patient/p1", named_by="imagingstudy"), LastOpen(), S1)
    world.publish("ImagingStudy-open", study("s2"), patient("p1"))
    assert world.news("viewer") == []
    world.publish("ImagingStudy-open", study("s3"))
    assert last_opened(world, "reader") == (LastOpen(), LastOpen(), LastOpen("imagingstudy/s3"))
    world.publish("Home-open")
    assert last_opened(world, "viewer") == (LastOpen("patient/p1", in_doubt=True), LastOpen(), LastOpen())
    world.publish("ImagingStudy-open", study("s4"), patient("p1"))
    assert world.news("viewer") == ["Patient-open p1"]
    assert last_opened(world, "viewer") == (P1, LastOpen(), LastOpen())


@pytest.mark.req("CTX-7")
def test_the_example_of_joining() -> None:
    """A replay has the newest open of each event; a derived one counts where no newer one is open."""
    world = World()
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.publish("Patient-open", patient("p2"))
    assert replayed(world, "both", "Patient-open,ImagingStudy-open") == ["ImagingStudy-open s1", "Patient-open p2"]
    assert replayed(world, "patients", "Patient-open") == ["Patient-open p2"]
    world.publish("Patient-close", patient("p2"))
    assert replayed(world, "later", "Patient-open") == ["Patient-open p1"]


@pytest.mark.req("DER-9")
@pytest.mark.parametrize(
    ("others", "told"),
    [
        ([("Patient-open", patient("p0"))], ["Patient-open p0"]),
        ([], ["Patient-close p1"]),
        ([("ImagingStudy-open", study("s0"), patient("p1"))], []),
    ],
    ids=["a patient", "nothing", "another study of the patient"],
)
def test_the_example_of_closing(others: list[tuple[object, ...]], told: list[str]) -> None:
    """The other open contexts decide what the end of a derived open tells a viewer of patients."""
    world = World()
    world.join("viewer", PATIENTS)
    for name, *items in others:
        world.publish(str(name), *items)
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    assert world.news("viewer")[-1] == "Patient-open p1"
    world.publish("ImagingStudy-close", study("s1"))
    assert world.news("viewer") == told


@pytest.mark.req("SUB-12")
def test_the_example_of_missed_events() -> None:
    """A close that was written to a dying socket is sent again, as is one that came later; a replay follows."""
    world = World()
    world.join("viewer", PATIENTS)
    for id_ in ("p0", "p1", "p2"):
        world.publish("Patient-open", patient(id_))
    heard_until = world.now
    world.wait(2)
    world.publish("Patient-close", patient("p1"))
    world.wait(1)
    world.disconnect("viewer", delivered_until=heard_until, code=1006)
    world.wait(2)
    world.publish("Patient-close", patient("p2"))
    world.news("viewer")
    world.wait(13)
    world.connect("viewer")
    confirmation, *messages = world.news("viewer")
    assert confirmation == "subscribe"
    assert messages == ["Patient-close p1", "Patient-close p2", "Patient-open p0"]


@pytest.mark.req("DER-9")
def test_an_open_of_its_own_is_kept_when_a_study_names_no_patient() -> None:
    """A study's patient is forgotten with the next study. A patient of Patient-open stays."""
    own: LastOpened = (P1, LastOpen(), S1)
    assert last_opens.after_open(own, "imagingstudy", {"imagingstudy": "imagingstudy/s2"})[0] == P1
    named: LastOpened = (LastOpen("patient/p1", named_by="imagingstudy"), LastOpen(), S1)
    after = last_opens.after_open(named, "imagingstudy", {"imagingstudy": "imagingstudy/s2"})
    assert after == (LastOpen(), LastOpen(), LastOpen("imagingstudy/s2"))
    assert last_opens.without_named_by(named, "imagingstudy") == (LastOpen(), LastOpen(), S1)
    assert last_opens.after_home_open(named, frozenset({"home-open"})) == NOTHING_OPENED
