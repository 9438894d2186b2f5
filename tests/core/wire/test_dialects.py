"""What other people's clients write where the specification gives two names for one thing, or none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fhircast_hub.core.errors import BadRequest, Conflict
from tests.core.world import World, message, patient, report

ANCHOR = {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}}
UPDATES = {"key": "updates", "resource": {"resourceType": "Bundle", "type": "transaction"}}


def reading() -> tuple[World, str]:
    """A report that is open, with its version, and somebody who follows it."""
    world = World()
    world.join("viewer", "DiagnosticReport-open,DiagnosticReport-update,DiagnosticReport-select")
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    (opened,) = world.read("viewer")
    return world, opened["event"]["context.versionId"]


def update(**members: Any) -> dict[str, Any]:
    posted = message("DiagnosticReport-update", ANCHOR, UPDATES, id_="an-update")
    posted["event"] |= {name.replace("__", "."): value for name, value in members.items()}
    return posted


@pytest.mark.req("CON-20")
@pytest.mark.parametrize("name", ["context__versionId", "versionId", "priorVersionId"])
def test_the_version_is_read_under_each_name(name: str) -> None:
    """The table of 2.3 has versionId and priorVersionId; the broadcast has the hub's own, and only those."""
    world, version = reading()
    world.post(update(**{name: version}))
    (told,) = world.read("viewer")
    assert told["event"]["context.priorVersionId"] == version
    assert told["event"]["context.versionId"] not in ("", version)
    assert not {"versionId", "priorVersionId"} & told["event"].keys()


@pytest.mark.req("CON-20")
def test_a_client_that_makes_a_version_of_its_own_says_the_prior_one() -> None:
    """One of the two must be the current version."""
    world, version = reading()
    with pytest.raises(Conflict, match=f"must be the current version {version}, not mine"):
        world.post(update(versionId="mine", priorVersionId="old"))
    world.post(update(versionId="mine", priorVersionId=version))
    assert world.news("viewer") == ["DiagnosticReport-update"]


@pytest.mark.req("CON-20", "CON-3")
def test_the_hubs_own_name_counts_before_the_others() -> None:
    """A stale context.versionId is stale, whatever else is said; null, or an empty one, is none."""
    world, version = reading()
    with pytest.raises(Conflict):
        world.post(update(context__versionId="old", versionId=version))
    world.post(update(context__versionId=None, versionId=version))
    with pytest.raises(Conflict, match="has none"):
        world.post(update(context__versionId="", versionId=""))
    with pytest.raises(BadRequest, match=r"event\.versionId: expected"):
        world.post(update(versionId=1))


@pytest.mark.req("CON-20", "EVT-15")
@pytest.mark.parametrize(("name", "kept"), [("DiagnosticReport-open", False), ("org.example.thing", True)])
def test_other_versions_stand_beside_no_version_of_the_hubs(name: str, kept: bool) -> None:
    """They are taken out where the hub puts its own; where it puts none, an event is passed on unchanged."""
    world = World()
    world.join("viewer", name)
    posted = message(name, report("r1"), patient("p1"))
    posted["event"]["versionId"] = "mine"
    world.post(posted)
    (told,) = world.read("viewer")
    assert ("versionId" in told["event"]) is kept


@pytest.mark.req("CON-21", "CON-12")
@pytest.mark.parametrize(
    "selected",
    [
        {"resource": [{"resourceType": "Observation", "id": "o1"}, {"resourceType": "Observation", "id": "o2"}]},
        {"resource": []},
        {"resource": ["o1"]},
        {"resources": [{"resourceType": "Observation", "id": "o1"}]},
        {"reference": [{"reference": "Observation/o1"}]},
        {"reference": {"reference": "Observation/o1"}},
    ],
)
def test_a_select_may_hold_an_array(selected: dict[str, Any]) -> None:
    """Under resource as IHE's example has it, under resources and reference as others do; passed on as it came."""
    world, _ = reading()
    posted = world.publish("DiagnosticReport-select", ANCHOR, {"key": "select", **selected})
    assert world.read("viewer") == [posted]


@pytest.mark.req("CON-21", "EVT-5", "EVT-26")
@pytest.mark.parametrize(
    ("name", "anchor"),
    [
        ("DiagnosticReport-select", {"key": "report", "resource": [{"resourceType": "DiagnosticReport", "id": "r1"}]}),
        ("Patient-open", {"key": "patient", "resource": [{"resourceType": "Patient", "id": "p1"}]}),
    ],
)
def test_an_anchor_is_no_array(name: str, anchor: object) -> None:
    """One context is opened, or selected in."""
    world, _ = reading()
    with pytest.raises(BadRequest):
        world.publish(name, anchor)


def test_what_is_passed_on_is_json() -> None:
    """Taking members out leaves no comma behind."""
    world, version = reading()
    posted = update(versionId=version, priorVersionId=version)
    posted["event"] = dict(reversed(posted["event"].items()))
    world.post(posted)
    assert [json.loads(frame)["id"] for frame in world.heard("viewer")] == ["an-update"]
