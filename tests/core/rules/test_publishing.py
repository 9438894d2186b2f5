"""The hub sends an accepted event to each subscriber of the event."""

from __future__ import annotations

import json

import pytest

from fhircast_hub.core.state.commands import Publish
from fhircast_hub.core.wire.event import parse_event
from tests.core.world import (
    CLOSES,
    OPENS,
    TOPIC,
    World,
    body,
    encounter,
    item,
    message,
    patient,
    report,
    spec,
    study,
    token,
)


@pytest.mark.req("EVT-1")
def test_an_event_is_sent_once_to_every_subscriber() -> None:
    """The sender's own subscription too, with the same id and timestamp, and to all the same bytes."""
    world = World()
    for name in ("sender", "viewer", "chart"):
        world.join(name, f"Patient-open,{name}")
    posted = world.publish("Patient-open", patient("p1"))
    frames = [world.heard(name) for name in ("sender", "viewer", "chart")]
    assert [len(of) for of in frames] == [1, 1, 1]
    assert frames[0] == frames[1] == frames[2]
    told = json.loads(frames[0][0])
    assert (told["id"], told["timestamp"]) == (posted["id"], posted["timestamp"])


@pytest.mark.req("EVT-1")
@pytest.mark.parametrize("name", ["Patient-open", "Patient-close", "ImagingStudy-open", "Encounter-close"])
def test_the_specifications_events_arrive_as_they_were_sent(name: str) -> None:
    """But for the hub's version in an open."""
    world = World()
    world.join("viewer", name)
    world.post(spec(name))
    (told,) = world.read("viewer")
    assert ("context.versionId" in told["event"]) == name.endswith("open")
    told["event"].pop("context.versionId", None)
    assert told == json.loads(spec(name))


@pytest.mark.req("EVT-15", "EVT-30")
def test_the_hubs_version_replaces_the_senders() -> None:
    """A sender's own version is replaced by the hub's."""
    world = World()
    world.join("viewer")
    posted = message("Patient-open", patient("p1"))
    posted["event"] |= {"context.versionId": "mine", "context.priorVersionId": "older"}
    world.post(posted)
    version = world.get()["context.versionId"]
    posted["id"], posted["event"]["hub.event"] = "2", "Patient-close"
    world.post(posted)
    opened, closed = world.read("viewer")
    assert opened["event"].pop("context.versionId") == version != "mine"
    for told in (opened, closed):
        assert set(told["event"]) == {"hub.topic", "hub.event", "context"}


@pytest.mark.req("EVT-4")
def test_names_match_in_any_case() -> None:
    """Subscribed to in one spelling, sent in another, passed on in the sender's."""
    world = World()
    world.join("viewer", "pAtIeNt-oPeN")
    world.publish("PATIENT-OPEN", patient("p1"))
    assert world.news("viewer") == ["PATIENT-OPEN p1"]


@pytest.mark.req("EVT-8")
def test_reverse_domain_events_pass() -> None:
    """To those who asked for that name, unchanged."""
    world = World()
    world.join("viewer", "org.example.thing")
    world.join("chart", "org.example.other")
    posted = world.publish("org.example.thing", {"key": "a", "x": [1, {"y": None}]})
    assert world.read("viewer") == [posted]
    assert world.news("chart") == []


@pytest.mark.req("EVT-9")
def test_any_resource_may_be_opened_and_closed() -> None:
    """Not only the catalogue's."""
    world = World()
    world.join("viewer", "MedicationRequest-open,MedicationRequest-close")
    request = item("medicationrequest", "MedicationRequest", "m1")
    world.publish("MedicationRequest-open", request)
    assert world.current() == "MedicationRequest m1"
    world.publish("MedicationRequest-close", request)
    assert world.current() == ""
    assert world.news("viewer") == ["MedicationRequest-open m1", "MedicationRequest-close m1"]


@pytest.mark.req("EVT-9")
def test_imagingstudy_and_study_are_one_anchor() -> None:
    """Opened under one key, closed under the other."""
    world = World()
    world.publish("ImagingStudy-open", item("imagingstudy", "ImagingStudy", "s1"))
    world.publish("ImagingStudy-close", study("s1"))
    assert world.current() == ""


@pytest.mark.req("EVT-10")
@pytest.mark.parametrize("name", ["SyncError", "UserLogout", "UserHibernate", "Home-open"])
def test_infrastructure_events_are_distributed(name: str) -> None:
    """As the specification's examples spell them, to those who asked for them."""
    world = World()
    world.join("viewer", name.upper())
    world.join("chart", OPENS)
    world.post(spec(name))
    assert world.read("viewer") == [json.loads(spec(name))]
    assert world.news("chart") == []


@pytest.mark.req("EVT-12")
def test_nobody_gets_what_they_did_not_ask_for() -> None:
    """Nor a close for an open, nor one type for another."""
    world = World()
    asked = {"a": "Patient-open", "b": "Patient-close", "c": "ImagingStudy-open", "d": "UserLogout", "e": "Patient"}
    for subscription_id, events in asked.items():
        world.join(subscription_id, events)
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-close", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"))
    told = ["Patient-open p1", "Patient-close p1", "ImagingStudy-open s1"]
    assert [world.news(subscription_id) for subscription_id in asked] == [*([each] for each in told), [], []]


@pytest.mark.req("EVT-12", "AUT-4")
def test_nobody_gets_what_they_may_not_read() -> None:
    """An event that was asked for and not granted is not sent."""
    world = World()
    world.join("viewer", "Patient-open,ImagingStudy-open", by=token(read=["Patient-open"]))
    world.publish("ImagingStudy-open", study("s1"))
    assert world.news("viewer") == []


@pytest.mark.req("EVT-11")
def test_nothing_crosses_sessions() -> None:
    """A decision is about one session and sends to its own connections only."""
    here, there = World(), World()
    here.join("here")
    there.join("there")
    here.publish("Patient-open", patient("p1"))
    assert set(here.frames) == {"here/1"}
    assert there.current() == ""


@pytest.mark.req("EVT-13", "EVT-14")
def test_all_hear_one_order() -> None:
    """Two subscribers hear their common events in one order, whatever the sender, the derivations and the audiences."""
    world = World()
    events = {
        "a": OPENS,
        "b": "Patient-open,ImagingStudy-open",
        "c": f"Patient-open,{CLOSES}",
        "d": f"{OPENS},{CLOSES}",
    }
    for subscription_id, of in events.items():
        world.join(subscription_id, of)
        world.publish(
            "ImagingStudy-open",
            study(f"s-{subscription_id}"),
            patient(f"p-{subscription_id}"),
            by=token(client=subscription_id),
        )
        world.publish("Patient-open", patient(subscription_id))
        world.publish("Patient-close", patient(subscription_id), by=token(client=subscription_id))
        world.publish(
            "DiagnosticReport-open",
            report(f"r-{subscription_id}"),
            study(f"s2-{subscription_id}"),
            encounter(subscription_id),
            patient("p1"),
        )
    heard = {subscription_id: world.heard(subscription_id) for subscription_id in events}
    for one in heard.values():
        for other in heard.values():
            assert [frame for frame in one if frame in other] == [frame for frame in other if frame in one]


@pytest.mark.req("EVT-16")
def test_closing_what_is_not_open_is_passed_on() -> None:
    """Accepted and broadcast; the current context, its version and the joiners' replay stay."""
    world = World()
    world.join("viewer", CLOSES)
    world.publish("Patient-open", patient("p1"))
    before = world.get()
    for _ in range(2):
        world.publish("Patient-close", patient("p2"))
        world.publish("ImagingStudy-close", study("p1"))
    assert world.news("viewer") == ["Patient-close p2", "ImagingStudy-close p1"] * 2
    assert world.get() == before


@pytest.mark.req("EVT-16")
def test_a_session_may_begin_with_a_close() -> None:
    """Nobody has opened anything."""
    world = World()
    world.publish("Patient-close", patient("p1"))
    assert world.current() == ""


@pytest.mark.req("EVT-20")
def test_arrival_counts_and_not_the_clock() -> None:
    """An open with an older timestamp becomes the current context, as any."""
    world = World()
    world.join("viewer", "Patient-open")
    world.post(message("Patient-open", patient("p1"), at="2023-04-01T12:00:00Z"))
    world.post(message("Patient-open", patient("p2"), at="2001-04-01T12:00:00Z"))
    assert world.current() == "Patient p2"
    assert world.news("viewer") == ["Patient-open p1", "Patient-open p2"]
    world.subscribe("late", "Patient-open")
    world.connect("late")
    assert world.news("late") == ["subscribe", "Patient-open p2"]


@pytest.mark.req("EVT-1", "EVT-13")
def test_a_decision_depends_on_nothing_else() -> None:
    """The same commands at the same time with the same ids lead to the same session and frames, on every node."""

    def run() -> tuple[object, object]:
        world = World()
        for subscription_id in ("b", "a", "c"):
            world.join(subscription_id, f"{OPENS},{CLOSES}" if subscription_id == "a" else OPENS)
        world.do(Publish(token(), parse_event(body(message("ImagingStudy-open", study("s1"), patient("p1"))))))
        world.publish("Patient-close", patient("p1"))
        return world.session, dict(world.frames)

    assert run() == run()
    session, _ = run()
    assert getattr(session, "topic", "") == TOPIC


@pytest.mark.req("DER-10")
@pytest.mark.parametrize("key", ["study", "imagingstudy"])
def test_a_study_is_derived_under_both_its_keys(key: str) -> None:
    """ "due to legacy reasons" (2.3) its key is study; some clients write the type in lower case, as for all other types."""
    world = World()
    world.join("viewer", "ImagingStudy-open")
    of = item(key, "ImagingStudy", "s1")
    world.publish("DiagnosticReport-open", report("r1"), of, patient("p1"))
    (derived,) = world.read("viewer")
    assert derived["event"]["context"] == [of, patient("p1")]
