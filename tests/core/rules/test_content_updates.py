"""The hub applies all entries of an update, in order, or none of them."""

from __future__ import annotations

import json

import pytest

from fhircast_hub.core.decide import decide
from fhircast_hub.core.env import Env
from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.state.commands import Publish
from fhircast_hub.core.wire.event import parse_event
from tests.core.rules.content_world import R1, R2, Reading, anchor, delete, put
from tests.core.world import (
    body,
    encounter,
    frozen,
    item,
    patient,
    report,
    resource,
    study,
    token,
)


@pytest.mark.req("CON-6")
def test_put_adds_or_replaces_and_delete_removes() -> None:
    """A replaced resource keeps its place. A new one comes last, even one that was there before. Others stay."""
    world = Reading()
    world.share(put("Observation", "o1", value=1), put("ImagingStudy", "s1"), put("Observation", "o3"))
    world.share(put("Observation", "o3", value=3), put("Patient", "p9"), put("Observation", "o1", note="new"))
    assert world.content()["entry"] == [
        {"resource": resource("Observation", "o1", note="new")},
        {"resource": resource("ImagingStudy", "s1")},
        {"resource": resource("Observation", "o3", value=3)},
        {"resource": resource("Patient", "p9")},
    ]
    world.share(delete("Observation/o1"), put("Observation", "o5"), delete("Patient/p9"))
    assert world.shared() == ["ImagingStudy/s1", "Observation/o3", "Observation/o5"]
    world.share(put("Observation", "o1"))
    assert world.shared()[-1] == "Observation/o1"


@pytest.mark.req("CON-6")
def test_type_and_id_say_which_resource_it_is() -> None:
    """Types match in any case, ids in exact case."""
    world = Reading()
    world.share(put("Observation", "a"), put("Observation", "A"), put("Patient", "a"))
    assert world.shared() == ["Observation/a", "Observation/A", "Patient/a"]
    world.share(put("OBSERVATION", "a"))
    assert world.shared() == ["OBSERVATION/a", "Observation/A", "Patient/a"]
    world.share(delete("https://ehr.example/Observation/A"))
    assert world.shared() == ["OBSERVATION/a", "Patient/a"]


@pytest.mark.req("CON-2")
def test_an_update_may_change_nothing() -> None:
    """An empty Bundle makes a version too."""
    world = Reading()
    before = world.version()
    world.share()
    assert world.told()["event"]["context.priorVersionId"] == before
    assert world.version() != before


@pytest.mark.req("CON-19")
@pytest.mark.parametrize(
    "bad",
    [
        put("Observation", "o9") | {"request": {"method": "POST"}},
        {"request": {"method": "PUT"}, "resource": {"resourceType": "Observation"}},
        {"request": {"method": "PUT"}},
        put("Observation", "new"),
        delete("Observation/o9"),
        delete("Observation/new"),
        delete("DiagnosticReport/r1"),
        delete("Patient/p1"),
        delete("https://ehr.example/fhir/Patient/p1"),
        delete("nowhere"),
        None,
    ],
)
def test_all_of_an_update_or_nothing(bad: object) -> None:
    """One bad entry refuses all: nothing is applied or sent, and the version stays. The answer names the entry."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    world.share(put("Observation", "o1"))
    good = [put("Observation", "new"), delete("Observation/o1")]
    reason = world.refuses(world.update(*good, bad), BadRequest)
    assert "entry[2]" in reason
    world.share(*good)
    assert world.shared() == ["Observation/new"]


@pytest.mark.req("CON-19")
def test_the_entry_that_is_refused_may_be_any() -> None:
    """The index counts the sender's entries, including those before the bad one."""
    world = Reading()
    for index in range(4):
        entries = [put("Observation", f"o{number}") for number in range(3)]
        entries.insert(index, delete("Observation/absent"))
        assert f"entry[{index}]" in world.refuses(world.update(*entries), BadRequest)


@pytest.mark.req("CON-18", "CON-19")
def test_what_the_context_was_opened_with_stays() -> None:
    """A copy may be shared and deleted. The open's own resource cannot be deleted, and GET still has it."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    for ref in ("Patient/p1", R1):
        reason = world.refuses(world.update(delete(ref)), BadRequest)
        assert "opened with this one, and nobody has shared it since" in reason
        type_, _, id_ = ref.partition("/")
        world.share(put(type_, id_, status="final"))
        assert world.shared() == [ref]
        world.share(delete(ref))
        assert world.shared() == []
        assert "opened with" in world.refuses(world.update(delete(ref)), BadRequest)
    assert json.loads(world.raw())["context"][:2] == [report("r1"), patient("p1")]


@pytest.mark.req("CON-18")
def test_a_copy_of_what_the_context_was_opened_with_goes_beside_others() -> None:
    """The same update may change other resources. A reopen of the context does not change the rule."""
    world = Reading()
    world.share(put("DiagnosticReport", "r1", status="final"), put("Patient", "p2"))
    world.publish("DiagnosticReport-open", report("r1"), patient("p2"))
    world.share(delete(R1), delete("Patient/p2"), put("Observation", "o1"))
    assert world.shared() == ["Observation/o1"]


@pytest.mark.req("CON-19", "CON-10")
def test_deletes_are_about_their_own_context() -> None:
    """Resources shared in another context are not there. A copy of another open's resource may be deleted."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r2"), patient("p2"))
    world.share(put("Observation", "o2"), of=R2)
    assert "not there" in world.refuses(world.update(delete("Observation/o2"), of=R1), BadRequest)
    world.share(put("Patient", "p2"), of=R1)
    world.share(delete("Patient/p2"), of=R1)


@pytest.mark.req("EVT-5", "CON-19")
@pytest.mark.parametrize(
    "items",
    [
        [],
        [{"key": "updates", "resource": resource("Bundle", "b")}] * 2,
        [{"key": "updates", "resource": resource("Parameters", "b")}],
        [{"key": "updates", "reference": {"reference": "Bundle/b"}}],
        [{"key": "Updates", "resource": resource("Bundle", "b")}],
    ],
)
def test_an_update_has_one_bundle(items: list[object]) -> None:
    """No Bundle, two Bundles, or another resource is refused."""
    world = Reading()
    posted = world.update()
    posted["event"]["context"] = [anchor(R1), *items]
    assert "updates" in world.refuses(posted, BadRequest)


@pytest.mark.req("CON-2")
def test_the_bundle_may_stand_anywhere() -> None:
    """The Bundle may stand before the anchor or behind others. The anchor may be a resource."""
    world = Reading()
    posted = world.update(put("Observation", "o1"))
    posted["event"]["context"] = [posted["event"]["context"][1], {"key": "odd"}, report("r1")]
    world.post(posted)
    assert world.shared() == ["Observation/o1"]
    assert world.told()["event"]["context"] == posted["event"]["context"]


@pytest.mark.req("CON-16")
def test_the_entries_are_applied_and_passed_on_in_their_order() -> None:
    """Entries are passed on as received, with and without request.url."""
    world = Reading()
    entries = [put("Observation", id_) for id_ in ("o9", "o10", "o1")]
    entries[1]["request"]["url"] = "Observation/o10"
    entries.insert(1, put("Patient", "p1"))
    world.share(*entries)
    assert world.shared() == ["Observation/o9", "Patient/p1", "Observation/o10", "Observation/o1"]
    assert world.told()["event"]["context"][1]["resource"]["entry"] == entries


@pytest.mark.req("CON-2", "CON-6", "CON-9", "CON-12")
@pytest.mark.parametrize("type_", ["Patient", "ImagingStudy", "MedicationRequest"])
def test_any_anchor_has_content(type_: str) -> None:
    """The reference may have the open's key, or the type in lower case."""
    world = Reading()
    key = "study" if type_ == "ImagingStudy" else type_.lower()
    reader = token(read=[f"{type_}-open", f"{type_}-update"])
    world.join("chart", f"{type_}-update,{type_}-select")
    world.publish(f"{type_}-open", item(key, type_, "x"))
    for place, name in enumerate({key, type_.lower()}):
        posted = world.update(put("Observation", f"o{place}"), of=f"{type_}/x")
        posted["event"]["context"][0]["key"] = name
        world.post(posted)
        assert world.shared(reader)[-1] == f"Observation/o{place}"
        assert world.news("chart") == [f"{type_}-update a-bundle"]
    world.publish(f"{type_}-select", anchor(f"{type_}/x") | {"key": key})
    assert world.news("chart") == [f"{type_}-select"]
    world.publish(f"{type_}-close", item(key, type_, "x"))
    world.publish(f"{type_}-open", item(key, type_, "x"))
    assert world.shared() == []


@pytest.mark.req("CON-2", "EVT-4")
def test_names_and_references_are_read_as_everywhere() -> None:
    """Names and types match in any case, references by their last two segments, ids of any script."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("ø☃"), patient("p1"))
    posted = world.update(put("Observation", "o1"), of="DiagnosticReport/ø☃")
    posted["event"]["hub.event"] = "DIAGNOSTICREPORT-update"
    posted["event"]["context"][0]["reference"]["reference"] = "https://ehr.example/fhir/diagnosticReport/ø☃"
    world.post(posted)
    assert world.shared() == ["Observation/o1"]
    assert world.read("viewer")[-1]["event"]["hub.event"] == "DIAGNOSTICREPORT-update"


@pytest.mark.req("EVT-13", "CON-8")
def test_a_decision_changes_nothing_in_place() -> None:
    """Two updates may be decided on one session. Each sees its content, and one of two nodes commits."""
    world = Reading()
    world.share(put("Observation", "o1"))
    before = frozen(world.session)
    posted = [world.update(delete("Observation/o1")), world.update(put("Observation", "o2"))]
    commands = [Publish(token(), parse_event(body(each))) for each in posted]
    outcomes = [decide(world.session, command, Env(world.now, world.ids, world.rules)) for command in commands]
    assert frozen(world.session) == before
    contents = [outcome.session.contents["diagnosticreport/r1"] for outcome in outcomes if outcome.session]
    assert [list(content.resources) for content in contents] == [[], ["observation/o1", "observation/o2"]]
    assert len({frozen(outcome.session) for outcome in outcomes}) == 2


@pytest.mark.req("CON-2", "EVT-11")
def test_another_contexts_resources_are_its_own() -> None:
    """The same resource in two reports is two resources, which change apart."""
    world = Reading()
    world.publish("DiagnosticReport-open", report("r2"), encounter("e1"), study("s1"), patient("p1"))
    world.share(put("Observation", "o1", value=1), of=R1)
    world.share(put("Observation", "o1", value=2), of=R2)
    world.share(delete("Observation/o1"), of=R1)
    assert world.content()["entry"] == [{"resource": resource("Observation", "o1", value=2)}]
