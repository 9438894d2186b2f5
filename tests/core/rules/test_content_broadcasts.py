"""The hub sends updates and selects to subscribers, with resources as received."""

from __future__ import annotations

import json

import pytest

from fhircast_hub.core.errors import Forbidden, InsufficientScope
from fhircast_hub.core.state.effects import Send
from tests.core.rules.content_world import EVENTS, R1, REPORTS, Reading, anchor, put
from tests.core.world import (
    World,
    message,
    patient,
    report,
    resource,
    spec,
    token,
)


@pytest.mark.req("CON-12")
def test_a_select_is_broadcast_and_changes_nothing() -> None:
    """The specification's example, and a select of nothing, which clears. A select makes no version."""
    world = World()
    world.join("viewer", EVENTS)
    world.join("chart", "DiagnosticReport-update")
    world.post(spec("DiagnosticReport-open"))
    world.heard("viewer")
    before = world.get()
    cleared = json.loads(spec("DiagnosticReport-select"))
    cleared["event"]["context"] = cleared["event"]["context"][:1]
    for posted in (json.loads(spec("DiagnosticReport-select")), cleared, cleared):
        world.post(posted)
        assert world.read("viewer") == [posted]
    assert world.get() == before
    assert world.news("chart") == []


@pytest.mark.req("CON-12", "CON-3")
def test_a_select_needs_no_version() -> None:
    """A select changes no content, whatever its content. Its extra members are not passed on."""
    world = Reading()
    posted = message("DiagnosticReport-select", anchor(R1))
    posted["event"]["context.versionId"] = "stale"
    world.post(posted)
    assert "context.versionId" not in world.told()["event"]


@pytest.mark.req("AUT-5", "AUT-9")
@pytest.mark.parametrize("verb", ["update", "select"])
def test_updates_and_selects_need_their_own_write_scope(verb: str) -> None:
    """Only the scope of the right name suffices. Another user is refused."""
    world = Reading()
    name = f"DiagnosticReport-{verb}"
    posted = world.update(put("Observation", "o1")) if verb == "update" else message(name, anchor(R1))
    others = [f"DiagnosticReport-{other}" for other in ("open", "close", "update", "select") if other != verb]
    assert name in world.refuses(posted, InsufficientScope, by=token(write=others))
    world.refuses(posted, Forbidden, by=token("bob"))
    world.post(posted, by=token(read=(), write=[name]))
    assert world.told()["id"] == posted["id"]


@pytest.mark.req("EVT-12")
def test_an_update_is_sent_to_those_who_asked_for_it_and_may_read_it() -> None:
    """A subscriber of opens is sent no updates, nor is a subscriber of another type."""
    world = Reading()
    world.join("a", "DiagnosticReport-open,DiagnosticReport-select,Patient-update")
    world.join("b", "DiagnosticReport-open,DiagnosticReport-update", by=token(read=["DiagnosticReport-open"]))
    world.join("c", "diagnosticreport-UPDATE")
    world.share(put("Observation", "o1"))
    assert [world.news(subscription_id) for subscription_id in ("a", "b", "c")] == [
        [],
        [],
        ["DiagnosticReport-update a-bundle"],
    ]


@pytest.mark.req("SYN-11")
def test_no_sync_error_is_due_for_an_update_or_select() -> None:
    """The frame's event is marked as not reportable."""
    world = Reading()
    for posted in (world.update(), message("DiagnosticReport-select", anchor(R1))):
        (send,) = world.post(posted).effects
        assert isinstance(send, Send)
        assert send.event_ref
        assert not send.event_ref.reportable


# Resources are passed on as received


RAW = (
    b'{ "x" : 1.10, "id":"o1","resourceType" :"Observation","n":123456789012345678901234567890,"e":-1.50E+02,'
    b'"s":"\\u00e9\\/\\u2028 \xc3\xa9\xf0\x9d\x84\x9e","extension":[{"b":null,"a":[ ],"b":1}]}'
)


def raw_update(version: str, resource_: bytes) -> bytes:
    return (
        b'{"timestamp":"2023-04-01T12:00:00Z","odd":[1.10],"id":"1","event":{"hub.topic":"a-topic","zz":{"b":1,"a":2.50},'
        b'"context":[{"key":"report","reference":{"reference":"DiagnosticReport/r1"}},{"key":"updates","resource":'
        b'{"type":"transaction","entry":[{"note":1.0,"request":{"method":"PUT","x":1},"resource":%b}],"resourceType":"Bundle"}}],'
        b'"hub.event":"DiagnosticReport-update","context.versionId":"%b"}}' % (resource_, version.encode())
    )


@pytest.mark.req("EVT-15", "CON-4")
def test_a_shared_resource_is_the_bytes_that_came() -> None:
    """GET and the broadcast keep member order, unknown members, numbers, escapes, white space and repeated members."""
    world = Reading()
    world.post(raw_update(world.version(), RAW))
    assert b'"entry":[{"resource":%b}]' % RAW in world.raw()
    (frame,) = world.heard("viewer")
    assert b'"entry":[{"note":1.0,"request":{"method":"PUT","x":1},"resource":%b}]' % RAW in frame


@pytest.mark.req("EVT-15", "CON-2")
def test_an_updates_envelope_comes_out_as_it_went_in() -> None:
    """Only the two versions are added, before the context."""
    world = Reading()
    before = world.version()
    posted = raw_update(before, RAW)
    world.post(posted)
    (frame,) = world.heard("viewer")
    versions = b'"context.versionId":"%b","context.priorVersionId":"%b",' % (
        world.version().encode(),
        before.encode(),
    )
    bare = posted.replace(b',"context.versionId":"%b"' % before.encode(), b"")
    assert frame == bare.replace(b'"context":[', versions + b'"context":[')


# Joining


@pytest.mark.req("CTX-1")
def test_a_joiner_is_told_the_version_that_is_current() -> None:
    """The joiner gets the open's own frame, byte for byte, but for the version. Updates may follow."""
    world = World()
    world.join("viewer", REPORTS)
    posted = message("DiagnosticReport-open", report("r1"), patient("p1"))
    posted["event"] |= {"context.versionId": "mine", "note": "context.versionId"}
    world.post(posted | {"more": [1.1]})
    (opened,) = world.heard("viewer")
    first = json.loads(opened)["event"]["context.versionId"]
    for number in range(3):
        updates = {"key": "updates", "resource": resource("Bundle", "b", entry=[put("Observation", f"o{number}")])}
        update = message("DiagnosticReport-update", anchor(R1), updates, id_=str(number))
        update["event"]["context.versionId"] = world.get()["context.versionId"]
        world.post(update)
        world.subscribe(f"late-{number}", "DiagnosticReport-open")
        world.connect(f"late-{number}")
        _, told = world.heard(f"late-{number}")
        current = world.get()["context.versionId"]
        assert told == opened.replace(first.encode(), current.encode())
        assert told.count(current.encode()) == 1


@pytest.mark.req("CTX-1", "CON-14")
def test_each_open_is_told_at_its_own_version() -> None:
    """One of two types was updated while the other was current."""
    world = Reading()
    world.publish("Patient-open", patient("p1"))
    world.share(put("Observation", "o1"))
    world.subscribe("late", EVENTS)
    world.connect("late")
    told = {each["event"]["hub.event"]: each["event"]["context.versionId"] for each in world.read("late")[1:]}
    assert told == {"DiagnosticReport-open": world.version(R1), "Patient-open": world.version("Patient/p1")}
