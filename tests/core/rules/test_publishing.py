"""Publishing: who is sent an accepted event, what a repeat does, and what is refused."""

from __future__ import annotations

import json

import pytest

from fhircast_hub.core.errors import BadRequest, Forbidden, InsufficientScope
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
    outcome,
    patient,
    report,
    spec,
    study,
    token,
)

REFERENCE = {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}}
BUNDLE = {"key": "updates", "resource": {"resourceType": "Bundle"}}


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


@pytest.mark.req("EVT-15")
def test_the_hubs_version_replaces_the_senders() -> None:
    """A sender who says which version it is has no say in it."""
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
    """Whoever sends, whatever is derived from it and however they are grouped: what two both hear, they hear in one order."""
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


# EVT-17


@pytest.mark.req("EVT-17")
@pytest.mark.parametrize(
    ("name", "items"), [("Patient-open", [patient("p1")]), ("Patient-close", [patient("p1")]), ("Home-open", [])]
)
def test_a_repeat_of_the_newest_change_is_sent_again(name: str, items: list[object]) -> None:
    """The same bytes, as often as it comes; it keeps its version, and changes nothing."""
    world = World()
    world.join("viewer", f"{OPENS},{CLOSES},Home-open")
    world.publish("Patient-open", patient("p1"))
    posted = world.publish(name, *items)
    before = world.get()
    last = world.heard("viewer")[-1]
    for _ in range(2):
        world.post(posted)
        assert world.heard("viewer") == [last]
    assert world.get() == before


@pytest.mark.req("EVT-17")
@pytest.mark.parametrize(
    ("newer", "items"),
    [
        ("Patient-open", [patient("p2")]),
        ("ImagingStudy-open", [study("s1")]),
        ("Patient-close", [patient("p1")]),
        ("Encounter-close", [encounter("e1")]),
        ("Home-open", []),
    ],
)
@pytest.mark.parametrize("old", ["Patient-open", "Patient-close", "Home-open"])
def test_a_repeat_of_an_older_change_is_nothing(newer: str, items: list[object], old: str) -> None:
    """Once something newer was accepted, a repeat is accepted, sent to nobody, and changes nothing."""
    world = World()
    world.join("viewer", f"{OPENS},{CLOSES},Home-open")
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-open", patient("p0"))
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    posted = world.publish(old, *([] if old == "Home-open" else [patient("p0")]))
    world.publish(newer, *items)
    before = world.get()
    world.news("viewer")
    for _ in range(2):
        world.post(posted)
        assert world.news("viewer") == []
        assert world.get() == before


@pytest.mark.req("EVT-17")
def test_what_changes_no_context_makes_no_repeat_old() -> None:
    """Events that are only passed on, and closes of what is not open, are no newer change."""
    world = World()
    world.join("viewer", "Patient-open")
    posted = world.publish("Patient-open", patient("p1"))
    world.publish("SyncError", outcome())
    world.publish("Patient-close", patient("p2"))
    world.post(posted)
    assert world.news("viewer") == ["Patient-open p1"] * 2


@pytest.mark.req("EVT-17")
@pytest.mark.parametrize("change", [{"id": "other"}, {"timestamp": "2023-04-01T12:00:01Z"}, {"note": "other"}])
def test_what_differs_is_no_repeat(change: dict[str, str]) -> None:
    """Another id, timestamp or body is another event, and makes its context the current one."""
    world = World()
    posted = message("Patient-open", patient("p1"))
    world.post(posted)
    world.publish("Patient-open", patient("p2"))
    world.post(posted | change)
    assert world.current() == "Patient p1"


@pytest.mark.req("EVT-17")
def test_who_keeps_repeating_never_takes_the_session_back() -> None:
    """A sender whose socket is lost repeats its open every ten seconds, while the others move on a hundred times."""
    world = World()
    posted = world.publish("Patient-open", patient("old"))
    for number in range(100):
        world.publish("Patient-open", patient(f"p{number}"))
        world.wait(10)
        world.post(posted)
        assert world.current() == f"Patient p{number}"


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
    """400, saying by how many seconds; nothing is told, changed or begun."""
    world = World()
    with pytest.raises(BadRequest) as refused:
        world.post(message(name, patient("p1"), at=at))
    assert str(refused.value) == f"timestamp may be at most 60 seconds ahead of the hub's clock, not {ahead}"
    assert world.session is None


@pytest.mark.req("EVT-19")
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
    """Exactly one, with an id: else whoever knows only patients would stay on the one before."""
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
    """Some clients spell it as the resource is; it is passed on as it came."""
    world = World()
    world.join("monitor", "SyncError")
    posted = world.publish("SyncError", item(key, "OperationOutcome", "o"), patient("p1"))
    assert world.read("monitor") == [posted]


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
