"""The hub sends a SyncError to the other subscribers, and reports some events never."""

from __future__ import annotations

import json

import pytest

from fhircast_hub.acknowledgements.tracker import Policy
from tests.core.rules.sync_error_world import errors, opening, told, watched
from tests.core.world import (
    OPENS,
    TOPIC,
    World,
    message,
    patient,
    report,
    spec,
    token,
)

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
