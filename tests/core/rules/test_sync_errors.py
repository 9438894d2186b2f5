"""SyncErrors that the hub makes: who could not follow what and why, who is told so, and what follows from it."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, NamedTuple

import pytest

from fhircast_hub.acknowledgements.tracker import Policy
from fhircast_hub.core.errors import NotFound
from fhircast_hub.core.state.commands import Acknowledged, AcksTimedOut, Evict, MissedAck, Rejected, Subscribe
from fhircast_hub.core.state.effects import Close, EventRef, Send
from tests.core.world import (
    KEY,
    NOON,
    OPENS,
    TOPIC,
    World,
    encounter,
    frozen,
    item,
    message,
    patient,
    report,
    spec,
    study,
    token,
)

SYSTEM = "https://fhircast.hl7.org/events/syncerror/"
#: Close codes (RFC 6455) that mean that a connection was lost: protocol error, no code, no close, policy, too big, too slow.
LOST = [1002, 1005, 1006, 1008, 1009, 1011, 1013, 3000, 4000]


class Told(NamedTuple):
    """What a SyncError says."""

    id: str
    name: str
    who: str
    why: str


def told(message: dict[str, Any]) -> Told:
    """What this SyncError says, in short."""
    assert message["event"]["hub.event"] == "SyncError"
    (issue,) = message["event"]["context"][0]["resource"]["issue"]
    id_, name, who, again = (coding["code"] for coding in issue["details"]["coding"])
    assert who == again
    return Told(id_, name, who, issue["diagnostics"])


def errors(world: World, subscription_id: str = "monitor") -> list[Told]:
    """The SyncErrors that this subscription was sent since it was last asked; it subscribes to nothing else."""
    return [told(each) for each in world.read(subscription_id)]


def watched(policy: Policy = Policy.LENIENT, **rules: Any) -> World:
    """A world with somebody who is told of SyncErrors and of nothing else, and answers each."""
    world = World(policy, **rules)
    world.join("monitor", "SyncError", name="A monitor")
    return world


def opening(world: World, *subscription_ids: str, number: int = 1) -> None:
    """A patient is opened, and these answer."""
    world.publish("Patient-open", patient(f"p{number}"))
    for subscription_id in subscription_ids:
        world.answer(subscription_id)


# The message


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
    """The replayed open is the event that it was; so is a close that was missed."""
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


# Who is told


@pytest.mark.req("SYN-2", "SYN-3")
def test_only_the_others_who_asked_are_told() -> None:
    """Not the refuser, though it subscribes to SyncErrors, and nobody who does not; another of its name is another."""
    world = watched()
    world.join("a", "Patient-open,SyncError", name="A")
    world.join("twin", "Patient-open,SyncError", name="A")
    world.join("chart", OPENS)
    world.join("denied", "Patient-open,SyncError", by=token(read=["Patient-open"]))
    opening(world)
    for subscription_id in ("a", "twin", "chart", "denied"):
        world.news(subscription_id)
    world.say("a", {"id": "event-1", "status": 409})
    assert len(errors(world)) == 1
    assert [world.news(subscription_id) for subscription_id in ("a", "twin", "chart", "denied")] == [
        [],
        ["SyncError"],
        [],
        [],
    ]


@pytest.mark.req("SYN-3")
def test_nobody_to_tell_is_no_error() -> None:
    """No frame for nobody, and no id used up."""
    world = World(Policy.STRICT, ack_strikes=99)
    world.join("a", "Patient-open,SyncError")
    opening(world)
    given = world.ids.given
    world.answer("a", 409)
    world.wait(11)
    world.disconnect("a", code=1006)
    world.wait(11)
    assert world.ids.given - given <= 1  # of an event that was lost with a connection
    assert world.session


@pytest.mark.req("SYN-1")
def test_each_who_refuses_is_reported() -> None:
    """Once, whatever else it says; all get the same order."""
    world = watched()
    world.join("other", "SyncError")
    for subscription_id in ("a", "b"):
        world.join(subscription_id, name=subscription_id)
    opening(world)
    for status in (202, 409, 409, 200, 500):
        for subscription_id in ("b", "a"):
            world.answer(subscription_id, status)
    frames = world.heard("other")
    assert frames == world.frames["monitor/1"][-2:]
    assert [told(json.loads(frame)).who for frame in frames] == ["b", "a"]


# What is never reported


@pytest.mark.req("SYN-10", "SYN-9")
def test_there_is_no_syncerror_about_a_syncerror() -> None:
    """The hub's own or a subscriber's, refused or left unanswered; however it is spelled."""
    world = watched(Policy.STRICT)
    world.join("a", "SyncError", name="A")
    world.join("b", "Patient-open", name="B")
    opening(world)
    world.answer("b", 409)
    for subscription_id in ("a", "monitor"):
        world.answer(subscription_id, 409)
    posted = json.loads(spec("SyncError"))
    posted["event"] |= {"hub.topic": TOPIC, "hub.event": "SYNCERROR"}
    world.post(posted)
    world.answer("a", 409)
    world.wait(99)
    assert world.news("monitor") == ["SyncError", "SYNCERROR"]
    assert world.news("a") == ["SyncError", "SYNCERROR"]
    assert not world.closed


@pytest.mark.req("SYN-9")
def test_a_subscribers_syncerror_is_distributed_as_any_event() -> None:
    """To all who asked for it, its sender too, as it came."""
    world = watched()
    world.join("a", "SyncError")
    posted = json.loads(spec("SyncError"))
    posted["event"]["hub.topic"] = TOPIC
    world.post(posted)
    assert world.read("monitor") == world.read("a") == [posted]


@pytest.mark.req("SYN-11")
@pytest.mark.parametrize("name", ["DiagnosticReport-update", "DiagnosticReport-select"])
def test_there_is_no_syncerror_about_updates_and_selects(name: str) -> None:
    """Neither refused nor unanswered, live or missed."""
    world = watched(Policy.STRICT)
    world.join("a", f"{name},DiagnosticReport-close", name="A")
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    reference = {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}}
    entry = {"resource": {"resourceType": "Observation", "id": "o1"}, "request": {"method": "PUT"}}
    for number in range(2):
        updates = {"key": "updates", "resource": {"resourceType": "Bundle", "id": "b", "entry": [entry]}}
        posted = message(name, reference, updates, id_=f"u{number}")
        posted["event"]["context.versionId"] = world.get()["context.versionId"]
        world.post(posted)
        if not number:
            world.answer("a", 409)
            world.disconnect("a")
        else:
            world.connect("a")
    world.wait(60)
    assert errors(world) == []
    assert not world.closed


# Derived opens after a refusal


@pytest.mark.req("DER-3", "DER-16")
@pytest.mark.parametrize("status", [409, 500])
def test_a_derived_open_that_was_refused_is_sent_again(status: int) -> None:
    """With the next event that implies it; who followed it is not told twice."""
    world = watched()
    for subscription_id in ("a", "b"):
        world.join(subscription_id, "Patient-open", name=subscription_id)
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.answer("a", status)
    world.answer("b")
    world.publish("ImagingStudy-open", study("s2"), patient("p1"))
    assert world.news("a") == ["Patient-open p1"] * 2
    assert world.news("b") == ["Patient-open p1"]
    world.answer("a")
    world.publish("ImagingStudy-open", study("s3"), patient("p1"))
    assert world.news("a") == world.news("b") == []


@pytest.mark.req("DER-3", "DER-16")
def test_an_open_that_was_refused_is_derived_next_time() -> None:
    """It was not followed when it was an event of its own, either."""
    world = watched()
    world.join("a", "Patient-open", name="A")
    opening(world)
    world.answer("a", 409)
    world.news("a")
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    assert world.news("a") == ["Patient-open p1"]


@pytest.mark.req("DER-3")
def test_a_refusal_of_something_else_forgets_nothing() -> None:
    """Of a close, of an older open after a newer was told, or of another type's open."""
    world = watched()
    world.join("a", "Patient-open,ImagingStudy-open,ImagingStudy-close", name="A")
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-open", patient("p2"))
    world.say("a", {"id": "event-1", "status": 409})
    world.publish("ImagingStudy-open", study("s1"))
    world.answer("a", 409)
    world.publish("ImagingStudy-close", study("s1"))
    world.answer("a", 409)
    world.news("a")
    world.publish("Encounter-open", encounter("e1"), patient("p2"))
    assert world.news("a") == []


@pytest.mark.req("DER-3", "DER-7")
def test_what_a_refused_event_named_was_not_followed_either() -> None:
    """A viewer that refuses a study of p1 stays on p2: the next that is about p1 tells it so."""
    world = watched()
    world.join("a", "Patient-open,ImagingStudy-open", name="A")
    world.publish("Patient-open", patient("p2"))
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.answer("a", 409)
    world.news("a")
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    assert world.news("a") == ["Patient-open p1"]


@pytest.mark.req("DER-3")
def test_audiences_become_one_again_after_a_refusal() -> None:
    """Who refused stands alone until it is told what the others are."""
    world = watched()
    for number in range(5):
        world.join(f"v{number}", "Patient-open")
    opening(world)
    before = world.session.audiences if world.session else ()
    world.answer("v3", 409)
    assert world.session
    assert len(world.session.audiences) == len(before) + 1
    opening(world, number=2)
    assert len(world.session.audiences) == len(before)


# Silence


@pytest.mark.req("SYN-4", "SYN-6")
def test_who_does_not_answer_is_reported() -> None:
    """With name, event, and how long was waited; not before its time, and once."""
    world = watched(ack_timeout=5)
    world.join("a", name="A")
    opening(world, "a")
    opening(world, number=2)
    world.wait(4.9)
    assert errors(world) == []
    world.wait(0.3)
    why = "A did not acknowledge Patient-open within 5 seconds"
    assert errors(world) == [Told("event-2", "Patient-open", "A", why)]
    world.wait(999)
    assert errors(world) == []


@pytest.mark.req("SYN-2", "SYN-4")
def test_the_silent_is_not_told_of_itself() -> None:
    """But of the other who was silent too."""
    world = watched(Policy.STRICT)
    for subscription_id in ("a", "b"):
        world.join(subscription_id, "Patient-open,SyncError", name=subscription_id)
    opening(world)
    world.wait(11)
    assert [error.who for error in errors(world)] == ["a", "b"]
    for subscription_id, other in (("a", "b"), ("b", "a")):
        _, error = world.read(subscription_id)
        assert told(error).who == other


@pytest.mark.req("SYN-4", "SYN-5", "SYN-24")
def test_events_that_expire_together_are_one() -> None:
    """One SyncError, about the last, and one strike."""
    world = watched(Policy.STRICT)
    world.join("a", name="A")
    for number in range(5):
        opening(world, number=number)
        world.wait(0.02)
    world.wait(11)
    assert [error.id for error in errors(world)] == ["event-5"]
    assert world.session
    assert world.session.subscriptions["a"].missed_acks == 1


@pytest.mark.req("SYN-5")
def test_strikes_end_a_subscription() -> None:
    """SyncErrors as before, the last one saying so, then denial and close; the endpoint is gone."""
    world = watched(Policy.STRICT)
    connection = world.join("a", "Patient-open,SyncError", name="A")
    for number in range(3):
        opening(world, number=number)
        world.wait(11)
    why = [f"A did not acknowledge Patient-open within 10 seconds{end}" for end in ("", "", " and was unsubscribed")]
    assert [error.why for error in errors(world)] == why
    *_, denied = world.read("a")
    assert (denied["hub.mode"], denied["hub.events"]) == ("denied", "Patient-open,SyncError")
    assert denied["hub.reason"] == "3 events in a row were not acknowledged"
    assert world.closed == {connection: 1000}
    assert world.session
    assert list(world.session.subscriptions) == ["monitor"]
    assert "a/" not in str(world.session.audiences)
    with pytest.raises(NotFound):
        world.connect("a")
    world.disconnect("a", code=1006)
    world.wait(99)
    assert errors(world) == []


@pytest.mark.req("SYN-5")
def test_the_report_comes_before_the_end() -> None:
    """The others are told first, then the silent one is denied and closed; of several one after the other."""
    world = watched(Policy.STRICT, ack_strikes=1)
    sockets = [
        world.join(subscription_id, "Patient-open,SyncError", name=subscription_id) for subscription_id in ("a", "b")
    ]
    opening(world)
    missed_acks = tuple(
        MissedAck(subscription_id, socket, EventRef("event-1", "event-1", "Patient-open"))
        for subscription_id, socket in zip("ab", sockets, strict=True)
    )
    effects = world.do(AcksTimedOut(missed_acks)).effects
    order = [
        (type(effect), effect.to if isinstance(effect, Send) else effect.connection)
        for effect in effects
        if isinstance(effect, Send | Close)
    ]
    assert order == [
        (Send, ("monitor/1", sockets[1])),
        (Send, (sockets[0],)),
        (Close, sockets[0]),
        (Send, ("monitor/1",)),
        (Send, (sockets[1],)),
        (Close, sockets[1]),
    ]


@pytest.mark.req("SYN-5")
@pytest.mark.parametrize("status", [200, 409])
def test_an_answer_ends_the_strikes(status: int) -> None:
    """Of whatever status: two silences, an answer, and two more are not three in a row."""
    world = watched(ack_strikes=3)
    connection = world.join("a", name="A")
    opening(world, "a", number=0)
    for number in range(1, 6):
        opening(world, number=number)
        if number == 3:
            world.answer("a", status)
        world.wait(11)
    assert not world.closed
    opening(world, number=6)
    world.wait(11)
    assert list(world.closed) == [connection]


@pytest.mark.req("SYN-5", "SUB-23")
def test_strikes_are_kept_over_a_reconnection() -> None:
    """Who never answers does not begin anew by coming back; who answers then does."""
    for answers in (False, True):
        world = watched(Policy.STRICT, ack_strikes=2)
        world.join("a", name="A")
        opening(world)
        world.wait(11)
        world.disconnect("a")
        connection = world.connect("a")
        if answers:
            world.answer("a")
        opening(world, number=2)
        world.wait(11)
        assert (connection in world.closed) is not answers


@pytest.mark.req("SYN-6", "SUB-23")
def test_who_acknowledged_before_a_reconnection_is_missed_after_it() -> None:
    """The subscription is known to acknowledge, also after a restart of the hub; a new one is not."""
    world = watched()
    world.join("a", name="A")
    opening(world, "a")
    world.disconnect("a")
    world.connect("a")
    world.wait(11)
    assert [error.id for error in errors(world)] == ["event-1"]
    world.restart()
    world.connect("monitor")
    world.connect("a")
    world.wait(11)
    assert [of["event"]["hub.event"] for of in world.read("monitor")[1:]] == ["SyncError"]
    world.disconnect("a")
    world.join("anew", name="A")
    opening(world, number=2)
    world.wait(99)
    assert errors(world) == []


@pytest.mark.req("SYN-4", "SUB-11")
def test_a_silence_of_the_socket_before_is_nobodys() -> None:
    """What comes late about a socket that is gone, or a subscription that is over, changes nothing."""
    world = watched()
    old = world.join("a", name="A")
    world.connect("a")
    of = EventRef("e", "e", "Patient-open", "patient/p1")
    before = frozen(world.session)
    world.do(AcksTimedOut((MissedAck("a", old, of), MissedAck("nobody", "x", of))))
    world.do(Rejected("nobody", "x", of, 409))
    world.do(Acknowledged("nobody"))
    assert frozen(world.session) == before
    assert errors(world) == []
    empty = World()
    for command in (AcksTimedOut((MissedAck("a", old, of),)), Rejected("a", old, of, 409), Acknowledged("a")):
        assert empty.do(command).effects == ()
    assert empty.session is None


# Lost connections


@pytest.mark.req("SYN-1", "SYN-7", "SYN-21")
@pytest.mark.parametrize("code", LOST)
def test_a_lost_connection_is_reported_once(code: int) -> None:
    """After RECONNECT_GRACE, about a new UUID and `syncerror`, to those who are there."""
    world = watched()
    world.join("a", name="A")
    world.disconnect("a", code=code)
    world.wait(2.9)
    assert errors(world) == []
    world.wait(0.1)
    (sent,) = world.read("monitor")
    error = told(sent)
    assert error[1:] == ("syncerror", "A", "A lost its connection and has not come back")
    assert str(uuid.UUID(error.id)) == error.id
    assert sent["timestamp"] == "2023-04-01T12:00:03.000Z"
    world.wait(999)
    assert errors(world) == []


@pytest.mark.req("SYN-8")
@pytest.mark.parametrize("code", [1000, 1001])
def test_who_leaves_is_not_lost(code: int) -> None:
    """A normal closure and a page that is left are no errors."""
    world = watched()
    world.join("a", name="A")
    world.disconnect("a", code=code)
    world.wait(7000)
    assert errors(world) == []


@pytest.mark.req("SYN-7", "SUB-12")
def test_who_is_back_in_time_is_not_lost() -> None:
    """Nor counted from its first loss when it is lost again."""
    world = watched(reconnect_grace=10)
    world.join("a", name="A")
    for _ in range(5):
        world.disconnect("a", code=1006)
        world.wait(9.9)
        world.connect("a")
        world.wait(0.05)
    world.wait(99)
    assert errors(world) == []
    world.disconnect("a", code=1006)
    world.wait(10)
    assert len(errors(world)) == 1
    world.connect("a")
    world.disconnect("a", code=1006)
    world.wait(10)
    assert len(errors(world)) == 1, "each loss that is not mended is one"


@pytest.mark.req("SYN-7", "SUB-11", "SUB-33")
def test_who_is_taken_over_is_not_lost() -> None:
    """The socket that was taken over goes later, by whatever code."""
    world = watched()
    world.join("a", name="A")
    old = world._sockets["a"]
    world.connect("a")
    new, world._sockets["a"] = world._sockets["a"], old
    world.disconnect("a", code=1008)
    assert new not in world.closed
    world.wait(99)
    assert errors(world) == []


@pytest.mark.req("SYN-7")
def test_several_who_are_lost_are_reported_each() -> None:
    """A switch went down: each by its name, in its time."""
    world = watched()
    for subscription_id in ("a", "b", "c"):
        world.join(subscription_id, name=subscription_id)
    for subscription_id in ("b", "a"):
        world.disconnect(subscription_id, code=1006)
    world.wait(1)
    world.disconnect("c", code=1006)
    world.wait(2)
    assert sorted(error.who for error in errors(world)) == ["a", "b"]
    world.wait(1)
    assert [error.who for error in errors(world)] == ["c"]


@pytest.mark.req("SYN-7", "SYN-2")
def test_the_lost_does_not_count_as_told() -> None:
    """It is sent nothing, and hears of others when it is back."""
    world = watched()
    for subscription_id in ("a", "b"):
        world.join(subscription_id, "SyncError", name=subscription_id)
    world.disconnect("a", code=1006)
    world.wait(3)
    assert world.news("a") == []
    assert world.news("b") == ["SyncError"]
    world.connect("a")
    assert world.news("a") == ["subscribe"]


@pytest.mark.req("SYN-7", "LEA-4", "UNS-6")
def test_who_is_over_is_not_lost() -> None:
    """A lease that ends, or an unsubscription, before the time to come back has passed, is the end of it."""
    world = watched()
    world.join("ended", lease=10)
    world.join("left")
    world.wait(8)
    for subscription_id in ("ended", "left"):
        world.disconnect(subscription_id, code=1006)
    world.unsubscribe("left")
    world.wait(99)
    assert errors(world) == []
    world.join("ended", lease=3)
    world.disconnect("ended", code=1006)
    world.wait(3)
    assert errors(world) == [], "in the same moment it is the lease"


@pytest.mark.req("SYN-7", "SUB-20")
def test_a_renewal_without_a_socket_does_not_bring_it_back() -> None:
    """It is lost all the same, and reported by its new name."""
    world = watched()
    world.join("a", name="Old")
    world.disconnect("a", code=1006)
    world.renew("a", "Patient-open", name="New")
    world.wait(3)
    assert [error.who for error in errors(world)] == ["New"]


@pytest.mark.req("SUB-23")
def test_who_comes_anew_replaces_the_lost_in_silence() -> None:
    """The same user and name: it is the same app. Another name, another user's, or no name is another."""
    world = watched()
    ann, bob = token("ann"), token(None, client="bob", system=True)
    for subscription_id, name in (("a", "A"), ("b", "B"), ("none", "")):
        world.join(subscription_id, name=name)
        world.disconnect(subscription_id, code=1006)
    world.subscribe("a2", OPENS, by=ann, name="A")
    world.subscribe("b2", OPENS, by=bob, name="B")
    world.subscribe("none2", OPENS, by=ann)
    assert world.session
    assert "a" not in world.session.subscriptions
    world.wait(3)
    assert sorted(error.who for error in errors(world)) == ["B", "unnamed"]


@pytest.mark.req("SYN-7", "SUB-22", "SYN-26")
@pytest.mark.parametrize("code", [1006, 1000])
def test_the_lost_that_must_make_room_is_reported_at_once(code: int) -> None:
    """For another subscription of the topic, or of the user elsewhere; who left is not."""
    for command in (
        Subscribe(token(), TOPIC, "new", ("Patient-open",), name="New"),
        Evict("a"),
    ):
        world = watched(max_subscriptions=2)
        world.join("a", name="A")
        world.disconnect("a", code=code)
        world.do(command)
        assert world.session
        assert "a" not in world.session.subscriptions
        assert [error[1:3] for error in errors(world)] == ([("syncerror", "A")] if code == 1006 else [])
        world.wait(99)
        assert errors(world) == []


@pytest.mark.req("SYN-7", "SUB-22", "SYN-26")
def test_the_unnamed_that_must_make_room_is_reported_too() -> None:
    """To have no name is not to have the same name."""
    for command in (Subscribe(token(), TOPIC, "new", ("Patient-open",)), Evict("a")):
        world = watched(max_subscriptions=2)
        world.join("a")
        world.disconnect("a", code=1006)
        world.do(command)
        assert [error.who for error in errors(world)] == ["unnamed"]


@pytest.mark.req("SYN-7", "SUB-22", "SYN-26")
def test_a_lost_one_of_another_name_is_reported_when_it_must_make_room() -> None:
    """Only one of the same name came back in another way."""
    world = watched(max_subscriptions=2)
    world.join("a", name="A")
    world.disconnect("a", code=1006)
    world.subscribe("new", OPENS, name="B")
    assert [error.who for error in errors(world)] == ["A"]


@pytest.mark.req("SYN-7", "LIM-1")
def test_a_session_of_the_lost_is_not_forgotten_before_its_time() -> None:
    """Who was lost and is back finds its session; nobody was there to be told."""
    world = World()
    world.join("a", name="A")
    world.disconnect("a", code=1006)
    world.wait(7000)
    world.connect("a")
    assert world.news("a") == ["subscribe"]


# A restart


@pytest.mark.req("SUB-23", "SUB-41")
def test_after_a_restart_there_are_thirty_seconds() -> None:
    """For who had a socket, and for who was being waited for; who had left is not waited for."""
    world = watched()
    for subscription_id in ("back", "gone", "lost", "left", "reported"):
        world.join(subscription_id, name=subscription_id)
    world.disconnect("reported", code=1006)
    world.wait(3)
    assert len(errors(world)) == 1
    world.disconnect("lost", code=1006)
    world.disconnect("left", code=1000)
    world.now += 1
    world.restart()
    world.connect("monitor")
    world.wait(29.9)
    world.connect("back")
    assert world.news("monitor") == ["subscribe"]
    world.wait(0.1)
    assert sorted(error.who for error in errors(world)) == ["gone", "lost"]
    world.wait(999)
    assert errors(world) == []


@pytest.mark.req("SUB-23", "OPS-3", "SUB-41")
def test_an_orderly_stop_leaves_time_too() -> None:
    """Whoever the hub itself disconnected (1012) has thirty seconds, before the restart and again after it."""
    world = watched()
    world.join("a", name="A")
    world.disconnect("a", code=1012)
    world.wait(29)
    assert errors(world) == []
    world.disconnect("monitor", code=1012)
    world.restart()
    world.connect("monitor")
    assert world.news("monitor") == ["subscribe"]
    world.wait(29.9)
    assert errors(world) == []
    world.wait(0.1)
    assert [error.who for error in errors(world)] == ["A"]


# Events that are older than the current context


@pytest.mark.req("EVT-20", "EVT-34")
@pytest.mark.parametrize(
    ("before", "after", "age"),
    [
        ("2023-04-01T12:00:00Z", "2023-04-01T11:59:59Z", "1 second"),
        ("2023-04-01T12:00:00Z", "2023-04-01T11:00:00.5Z", "1 hour"),
        ("2023-04-01T12:00:00Z", "2023-04-01T13:59:00+02:00", "1 minute"),
        ("2023-04-01T14:00:00+02:00", "2023-04-01T11:59:58", "2 seconds"),
        ("2023-04-01T12:00:00", "2023-04-01T06:59:58-05:00", "2 seconds"),
        ("2023-04-01T12:00:00.25Z", "2023-04-01T12:00:00.14Z", "0.11 seconds"),
        ("2023-04-01T12:00:00.0030000Z", "2023-04-01T12:00:00.0010000Z", "0.002 seconds"),
        ("2023-04-01T12:00:00Z", "2023-03-31T12:00:00Z", "1 day"),
        ("2023-04-01T12:00:00Z", "2023-04-01T11:49:55.4Z", "10 minutes 5 seconds"),
        ("2023-04-01T12:00:00Z", "2016-05-03T15:11:55.355Z", "2523 days 20 hours"),
        ("2023-04-01T12:00:00Z", "2016-05-04T12:00:01Z", "2522 days 23 hours"),
        ("2023-04-01T12:00:00Z", "2023-03-30T11:59:00Z", "2 days"),
    ],
)
def test_an_open_that_is_older_than_the_current_context_is_told(before: str, after: str, age: str) -> None:
    """It is accepted, and all subscribers of SyncError hear by how much it is older, after the open itself."""
    world = watched()
    world.join("a", "Patient-open,SyncError", name="A")
    world.post(message("Patient-open", patient("p1"), id_="one", at=before))
    world.post(message("Patient-open", patient("p2"), id_="two", at=after))
    assert world.current() == "Patient p2"
    assert world.news("a") == ["Patient-open p1", "Patient-open p2", "SyncError"]
    (error,) = errors(world)
    assert error[:3] == ("two", "Patient-open", "unnamed")
    assert error.why.startswith("Patient-open was accepted, and its timestamp is ")
    assert f"timestamp is {age} older than that of the current context" in error.why


@pytest.mark.req("EVT-20", "EVT-25")
def test_a_timestamp_without_a_zone_is_utc_wherever_the_hub_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not of the machine's zone."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC+5")
        time.tzset()
        world = watched()
        world.post(message("Patient-open", patient("p1"), id_="one", at="2023-04-01T12:00:00Z"))
        world.post(message("Patient-open", patient("p2"), id_="two", at="2023-04-01T11:59:59"))
    time.tzset()
    (error,) = errors(world)
    assert " 1 second older " in error.why


@pytest.mark.req("EVT-20", "EVT-34")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("2023-04-01T12:00:00Z", "2023-04-01T12:00:00Z"),
        ("2023-04-01T12:00:00Z", "2023-04-01T12:00:00"),
        ("2023-04-01T12:00:00Z", "2023-04-01T14:00:00.0000000+02:00"),
        ("2023-04-01T12:00:00.14Z", "2023-04-01T12:00:00.1400000Z"),
        ("2023-04-01T12:00:00Z", "2023-04-01T08:00:01-04:00"),
        ("2023-04-01T12:00:00Z", "2023-04-01T12:00:00.001Z"),
    ],
)
def test_an_open_of_the_same_time_or_later_is_not(before: str, after: str) -> None:
    """However it is written."""
    world = watched()
    world.post(message("Patient-open", patient("p1"), id_="one", at=before))
    world.post(message("Patient-open", patient("p2"), id_="two", at=after))
    assert world.current() == "Patient p2"
    assert errors(world) == []


@pytest.mark.req("EVT-20", "EVT-34")
def test_it_is_the_current_context_that_counts() -> None:
    """Not one that is open besides, nor one that was closed; a Home-open counts, as what comes first and as what follows."""
    world, early, noon, late = (
        watched(),
        *(f"2023-04-01T{hour}:00:00Z" for hour in (10, 11, 12)),
    )

    def post(name: str, *items: object, at: str) -> list[str]:
        world.post(message(name, *items, id_=f"{name}{at}{items}"[:256], at=at))
        return [error.name for error in errors(world)]

    assert post("Patient-open", patient("p1"), at=late) == []
    assert post("Patient-open", patient("p2"), at=noon) == ["Patient-open"]
    assert post("ImagingStudy-open", study("s1"), at=noon) == [], "that of p2 counts now, though p1's is later"
    assert post("Patient-close", patient("p1"), at=early) == [], "a close overtakes nothing"
    assert post("org.example.thing", at=early) == []
    assert post("UserLogout", at=early) == []
    assert post("ImagingStudy-close", study("s1"), at=late) == []
    assert post("Patient-open", patient("p3"), at=early) == [], "nothing is current"
    assert post("Home-open", at=late) == []
    assert post("Patient-open", patient("p4"), at=noon) == ["Patient-open"]
    assert post("Home-open", at=early) == ["Home-open"]
    assert post("Patient-open", patient("p5"), at=early) == []


@pytest.mark.req("EVT-20", "EVT-17")
def test_a_repeat_is_not_older_than_itself() -> None:
    """It is what made the current context."""
    world = watched()
    world.post(message("Patient-open", patient("p1"), id_="one"))
    posted = message("Patient-open", patient("p2"), id_="two", at="2023-04-01T11:00:00Z")
    world.post(posted)
    assert len(errors(world)) == 1
    world.post(posted)
    assert errors(world) == []


@pytest.mark.req("EVT-20", "SYN-10", "EVT-34")
def test_the_warning_is_no_event_that_matters() -> None:
    """Nobody need answer it, and it is not repeated for who comes later."""
    world = watched(Policy.STRICT)
    world.post(message("Patient-open", patient("p1"), id_="one"))
    world.post(message("Patient-open", patient("p2"), id_="two", at="2023-04-01T11:00:00Z"))
    world.join("late", "SyncError")
    world.answer("monitor", 409)
    world.wait(99)
    assert len(errors(world)) == 1
    assert world.news("late") == []


# Done when


@pytest.mark.req("SYN-6")
def test_a_viewer_that_never_acknowledges_works_for_an_hour() -> None:
    """Most viewers never do: under the default policy there is no SyncError, no strike and no end."""
    world = watched()
    connection = world.join("viewer", "Patient-open,Encounter-open,DiagnosticReport-open,heartbeat", name="Viewer")
    for minute in range(60):
        world.publish("ImagingStudy-open", study(f"s{minute}"), patient(f"p{minute}"))
        world.publish("Patient-close", patient(f"p{minute}"))
        world.wait(60)
        assert {"Patient-open", "heartbeat"} <= {each.split()[0] for each in world.news("viewer")}
    assert errors(world) == []
    assert connection not in world.closed
    assert world.session
    assert world.session.subscriptions["viewer"].missed_acks == 0
    world.wait(11)
    assert world.tracker.deadline() is None


def size(world: World) -> list[int]:
    """How much is remembered, in the session and beside it."""
    session, beside = world.session, world.tracker
    assert session
    members = sum(len(audience.members) for audience in session.audiences)
    topics = beside._topics
    assert set(topics) <= {KEY}
    waiting = sum(len(sent) for topic in topics.values() for sent in topic.sent.values())
    counts = len(session.subscriptions), len(session.audiences), members, len(session.contexts), len(session.retained)
    return [*counts, len(topics), len(beside._peers), len(beside._latest), len(beside._waiting), waiting]


@pytest.mark.req("SUB-23", "SYN-7")
def test_who_reconnects_every_second_leaves_nothing_behind() -> None:
    """OHIF's way, subscribing anew under its name, and Medplum's, to the same endpoint: no ghosts, no SyncErrors, no growth."""
    world = watched()
    world.join("medplum", name="Medplum")
    world.join("ohif-0", name="OHIF")
    sizes = []
    for second in range(120):
        world.publish("Patient-open", patient("p1"))
        world.answer("medplum", "200")
        world.publish("Patient-close", patient("p1"))
        for subscription_id in ("medplum", f"ohif-{second}"):
            world.disconnect(subscription_id, code=1006)
        world.wait(1)
        world.connect("medplum")
        world.join(f"ohif-{second + 1}", name="OHIF")
        sizes.append(size(world))
    assert sizes[-1] == sizes[75], "what is held for a minute is held for a minute"
    assert sizes[-1][:4] == sizes[0][:4]
    assert sizes[-1][6:8] == [3, 3]
    assert errors(world) == []
    for subscription_id in ("medplum", "ohif-120", "monitor"):
        world.disconnect(subscription_id)
    world.wait(61)
    assert size(world)[5:] == [0] * 5
    assert world.now == NOON + 181


@pytest.mark.req("SUB-23", "SYN-7", "SUB-40")
def test_who_came_anew_before_the_old_socket_was_found_dead_is_no_ghost() -> None:
    """OHIF's way over a network that broke in silence: nothing is reported, and the old subscription is gone."""
    world = watched()
    world.join("old", "Patient-open", name="OHIF")
    died = world.now
    world.wait(10)
    world.join("new", "Patient-open", name="OHIF")
    world.disconnect("old", delivered_until=died, code=1006)
    world.wait(60)
    assert errors(world) == []
    assert world.session
    assert "old" not in world.session.subscriptions


@pytest.mark.req("SUB-23", "SYN-7", "SUB-40")
@pytest.mark.parametrize("name", ["", "OHIF"])
def test_two_of_one_name_who_live_side_by_side_are_two(name: str) -> None:
    """One of them was heard of after the other came: when it is lost, that is reported."""
    world = watched()
    world.join("one", "Patient-open", name=name)
    world.join("other", "Patient-open", name=name)
    world.wait(10)
    world.disconnect("one", code=1006)
    world.wait(60)
    assert len(errors(world)) == 1


@pytest.mark.req("SUB-23", "SYN-7", "SUB-40")
@pytest.mark.parametrize(
    ("name", "newcomer", "user"),
    [("OHIF", "Other", "ann"), ("OHIF", "", "ann"), ("", "", "ann"), ("OHIF", "OHIF", "bob")],
)
def test_only_the_same_users_app_of_that_name_comes_anew(name: str, newcomer: str, user: str) -> None:
    """Whoever else came before the socket was found dead is another: the loss is reported, and the endpoint kept."""
    world = watched()
    world.join("lost", "Patient-open", name=name)
    died = world.now
    world.wait(10)
    world.join("new", "Patient-open", by=token(user, topics=[TOPIC]), name=newcomer)
    world.disconnect("lost", delivered_until=died, code=1006)
    world.wait(60)
    assert [error.who for error in errors(world)] == [name or "unnamed"]
    world.connect("lost")


@pytest.mark.req("SUB-23", "SYN-7", "SUB-40")
def test_who_came_anew_and_went_is_not_there() -> None:
    """The app has no socket at all: that its old one was lost is reported."""
    world = watched()
    world.join("old", "Patient-open", name="OHIF")
    died = world.now
    world.wait(10)
    world.join("new", "Patient-open", name="OHIF")
    world.disconnect("new", code=1000)
    world.disconnect("old", delivered_until=died, code=1006)
    world.wait(60)
    assert [error.who for error in errors(world)] == ["OHIF"]


@pytest.mark.req("SUB-23", "SYN-7")
def test_who_is_back_at_its_endpoint_did_not_come_anew() -> None:
    """It is lost again before it has answered anything: it keeps its endpoint, and is reported once."""
    world = watched()
    world.join("a", "Patient-open", name="Medplum")
    died = world.now
    world.disconnect("a", delivered_until=died, code=1006)
    world.wait(2)
    world.connect("a")
    world.wait(1)
    world.disconnect("a", delivered_until=died, code=1006)
    world.wait(60)
    assert [error.who for error in errors(world)] == ["Medplum"]
    world.connect("a")
