"""Every open and update gives a context a new version. An update must name the current version."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from fhircast_hub.core.errors import BadRequest, Conflict
from tests.core.rules.content_world import R1, R2, REPORTS, Reading, put
from tests.core.world import (
    World,
    patient,
    report,
    spec,
    token,
)


@pytest.mark.req("CON-1")
def test_every_open_and_update_has_a_version_that_was_never_used() -> None:
    """Each open, reopen and update gives a UUID. GET has the newest."""
    world = Reading()
    versions = [world.version()]
    for number in range(5):
        world.publish("DiagnosticReport-open", report("r2"), patient("p1"), {"key": "n", "number": number})
        versions.append(world.told()["event"]["context.versionId"])
        assert world.get()["context.versionId"] == versions[-1]
        for of in (R1, R2):
            world.share(put("Observation", "o1"), of=of)
            versions.append(world.told()["event"]["context.versionId"])
    world.publish("DiagnosticReport-close", report("r2"))
    versions.append(world.get()["context.versionId"])
    assert len({uuid.UUID(version) for version in versions}) == len(versions) == 17


@pytest.mark.req("CON-1")
def test_opening_again_keeps_the_content() -> None:
    """A reopen makes a new version, and an update on the old one is refused."""
    world = Reading()
    world.share(put("Observation", "o1"))
    old = world.version()
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    assert world.version() != old
    assert (world.shared(), world.content()["id"]) == (["Observation/o1"], world.version())
    world.refuses(world.update(version=old), Conflict)
    world.share(put("Observation", "o2"))
    assert world.shared() == ["Observation/o1", "Observation/o2"]


@pytest.mark.req("CON-2")
def test_the_specifications_update_is_broadcast_as_the_specification_has_it() -> None:
    """The specification's DiagnosticReport example from open to DELETE, with the hub's versions."""
    world = World()
    world.join("viewer", REPORTS)
    world.post(spec("DiagnosticReport-open"))
    (opened,) = world.read("viewer")
    version = opened["event"]["context.versionId"]
    for name, example in (("request", "broadcast"), ("delete", "delete")):
        posted, expected = (json.loads(spec(f"DiagnosticReport-update.{of}")) for of in (name, example))
        posted["event"]["context.versionId"] = version
        world.post(posted)
        (told,) = world.read("viewer")
        versions = {"context.priorVersionId": version, "context.versionId": told["event"]["context.versionId"]}
        assert told == expected | {"event": expected["event"] | versions}
        version = told["event"]["context.versionId"]
        assert version != versions["context.priorVersionId"]
    entries = world.content()["entry"]
    put_report = json.loads(spec("DiagnosticReport-update.delete"))["event"]["context"][2]["resource"]["entry"][1]
    assert [entry["resource"]["resourceType"] for entry in entries] == ["ImagingStudy", "DiagnosticReport"]
    assert entries[1] == {"resource": put_report["resource"]}


@pytest.mark.req("CON-2", "EVT-1")
def test_an_update_is_sent_once_to_every_subscriber() -> None:
    """All subscribers, also the sender, get the same bytes: the Bundle as received and the prior version."""
    world = Reading()
    world.join("sender", "DiagnosticReport-update")
    before = world.version()
    posted = world.share(put("Observation", "o1"), put("Patient", "p"))
    (frame,), (other,) = world.heard("viewer"), world.heard("sender")
    assert frame == other
    told = json.loads(frame)
    assert told["event"].pop("context.priorVersionId") == before
    assert told["event"].pop("context.versionId") == world.version() != before
    del posted["event"]["context.versionId"]
    assert told == posted


@pytest.mark.req("CON-2", "EVT-15", "EVT-30")
def test_the_senders_own_versions_are_taken_out() -> None:
    """Each member of the hub occurs once, with the hub's value. Other members stay."""
    world = Reading()
    before = world.version()
    posted = world.update(put("Observation", "o1"))
    posted["event"] |= {"context.priorVersionId": "mine", "note": 1}
    world.post(posted | {"context.versionId": "outer", "context.priorVersionId": "outer", "more": 2})
    (frame,) = world.heard("viewer")
    pairs = json.loads(frame, object_pairs_hook=list)
    event = dict(pairs)["event"]
    names = [name for name, _ in event]
    assert sorted(names) == sorted(
        ("hub.topic", "hub.event", "context.versionId", "context.priorVersionId", "context", "note")
    )
    assert (dict(event)["context.versionId"], dict(event)["context.priorVersionId"]) == (world.version(), before)
    assert [name for name, _ in pairs] == ["timestamp", "id", "event", "more"]


@pytest.mark.req("CON-2", "CON-14")
def test_the_versions_form_a_chain() -> None:
    """Each update's prior version is the version of the context's last open or update."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    world.heard("viewer")
    last = {R1: world.version(R1), R2: world.version(R2)}
    for number in range(6):
        of = (R1, R2, R2)[number % 3]
        world.share(put("Observation", str(number)), of=of)
        event = world.told()["event"]
        assert event["context.priorVersionId"] == last[of]
        last[of] = event["context.versionId"]


@pytest.mark.req("CON-3")
@pytest.mark.parametrize(
    ("version", "shown"),
    [
        ("b9574cb0-e9e5-4be1-8957-5fcb51ef33c1", "not b9574cb0-e9e5-4be1-8957-5fcb51ef33c1"),
        ("0", "not 0"),
        ("", "and the event has none"),
        (None, "and the event has none"),
        (..., "and the event has none"),
        ("x" * 64, "not " + "x" * 64),
        ("x" * 65, "not 65 characters of something else"),
        ("line\n", "not 5 characters of something else"),
        ("é", "not 1 characters of something else"),
    ],
)
def test_another_version_is_refused(version: object, shown: str) -> None:
    """A wrong or missing version gets 409 with the current one, and nobody is told. A short plain version is quoted."""
    world = Reading()
    world.share(put("Observation", "o1"))
    posted = world.update(put("Observation", "o2"))
    if version is ...:
        del posted["event"]["context.versionId"]
    else:
        posted["event"]["context.versionId"] = version
    reason = world.refuses(posted, Conflict)
    assert f"must be the current version {world.version()}" in reason
    assert reason.endswith(shown)
    assert Conflict.status == 409


@pytest.mark.req("CON-3")
@pytest.mark.parametrize("change", [str.upper, lambda version: version + " ", lambda version: version[:-1]])
def test_a_version_is_compared_as_it_is(change: Any) -> None:
    """No space is trimmed, and case counts."""
    world = Reading()
    while world.version() == world.version().upper():
        world.share()
    world.refuses(world.update(version=change(world.version())), Conflict)


@pytest.mark.req("CON-3")
def test_a_version_that_is_no_string_is_refused() -> None:
    """The update is malformed, not stale."""
    world = Reading()
    posted = world.update()
    posted["event"]["context.versionId"] = 7
    assert "context.versionId" in world.refuses(posted, BadRequest)


@pytest.mark.req("CON-3")
def test_another_contexts_version_is_refused() -> None:
    """The update is stale, though its version is the session's current one."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r2"), patient("p1"))
    assert world.version(R1) in world.refuses(world.update(of=R1, version=world.version(R2)), Conflict)
    assert world.version(R2) in world.refuses(world.update(of=R2, version=world.version(R1)), Conflict)


@pytest.mark.req("CON-8")
def test_of_updates_on_one_version_the_first_is_accepted() -> None:
    """The sender of other updates is told the version that each made."""
    world = Reading()
    updates = [world.update(put("Observation", f"o{number}")) for number in range(3)]
    world.post(updates[0], by=token(client="one"))
    for number, late in enumerate(updates[1:]):
        assert world.version() in world.refuses(late, Conflict, by=token(client=f"other-{number}"))
    assert world.shared() == ["Observation/o0"]
