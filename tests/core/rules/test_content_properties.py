"""Shared content is the same as in a model, for any updates."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhircast_hub.core.errors import BadRequest, Conflict, HubError
from fhircast_hub.core.rules.contexts import current_context
from tests.core.properties import check_strict, settings, texts, values
from tests.core.world import TOPIC, World, frozen, message, patient, report, resource, token

REFS = ["Observation/a", "Observation/b", "Patient/a", "Patient/p1", "DiagnosticReport/r1"]


class Entry(NamedTuple):
    """One entry of an update: its change, and the resource."""

    method: str
    ref: str
    value: int

    def written(self) -> dict[str, Any]:
        type_, _, id_ = self.ref.partition("/")
        if self.method == "DELETE":
            return {"fullUrl": self.ref, "request": {"method": "DELETE"}}
        return {"request": {"method": self.method}, "resource": resource(type_, id_, value=self.value)}


class Update(NamedTuple):
    """One update: its entries, and whether it names the current version."""

    entries: list[Entry]
    current: bool

    def fault(self, shared: dict[str, int]) -> tuple[type[HubError], int] | None:
        """The reason why an update cannot be applied to the content, and the index of the entry. None: it can."""
        for index, entry in enumerate(self.entries):
            if entry.method not in ("PUT", "DELETE") or entry.ref in (other.ref for other in self.entries[:index]):
                return BadRequest, index
        if not self.current:
            return Conflict, 0
        for index, entry in enumerate(self.entries):
            if entry.method == "DELETE" and entry.ref not in shared:
                return BadRequest, index
        return None


entries = st.builds(
    Entry, st.sampled_from(["PUT", "PUT", "PUT", "DELETE", "DELETE", "POST"]), st.sampled_from(REFS), st.integers(0, 9)
)
good_entries = st.lists(
    st.builds(Entry, st.sampled_from(["PUT"] * 4 + ["DELETE"]), st.sampled_from(REFS), st.integers(0, 9)),
    unique_by=lambda entry: entry.ref,
    max_size=3,
)
updates = st.builds(
    Update,
    st.one_of(good_entries, good_entries, good_entries, st.lists(entries, max_size=4)),
    st.sampled_from([True] * 6 + [False]),
)


def shown(world: World) -> dict[str, int]:
    """The shared content in GET's answer."""
    resources = [entry["resource"] for entry in world.content().get("entry", [])]
    return {f"{each['resourceType']}/{each['id']}": each["value"] for each in resources}


@pytest.mark.req("CON-2", "CON-3", "CON-6", "CON-18", "CON-19")
@settings(max_examples=100)
@given(st.lists(updates, min_size=3, max_size=12))
def test_what_is_shared_is_what_a_dict_would_hold(sequence: list[Update]) -> None:
    """GET equals the model after any updates. A bad update changes nothing, and its first bad entry is named."""
    world = World()
    world.join("viewer", "DiagnosticReport-update")
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    model: dict[str, int] = {}
    for number, update in enumerate(sequence):
        version = world.get()["context.versionId"]
        bundle = resource("Bundle", "b", entry=[entry.written() for entry in update.entries])
        reference = {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}}
        posted = message("DiagnosticReport-update", reference, {"key": "updates", "resource": bundle}, id_=str(number))
        posted["event"]["context.versionId"] = version if update.current else "stale"
        if fault := update.fault(model):
            before = frozen(world.session)
            with pytest.raises(fault[0]) as error:
                world.post(posted)
            assert fault[0] is Conflict or f"entry[{fault[1]}]" in str(error.value)
            assert frozen(world.session) == before
            assert world.news("viewer") == []
        else:
            world.post(posted)
            for entry in update.entries:
                if entry.method == "PUT":
                    model[entry.ref] = entry.value
                else:
                    del model[entry.ref]
            (told,) = world.read("viewer")
            assert told["event"]["context.priorVersionId"] == version != world.get()["context.versionId"]
        assert list(shown(world).items()) == list(model.items())
        assert world.session
        for content in world.session.contents.values():
            assert content.size == sum(len(each.entry) for each in content.resources.values())


@pytest.mark.req("EVT-15", "CON-4")
@settings(max_examples=80)
@given(
    st.dictionaries(texts.filter(lambda name: name not in ("resourceType", "id")), values, max_size=4),
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n")]),
    st.none() | texts,
)
def test_any_resource_is_shared_as_the_bytes_that_came(
    members: dict[str, Any], escaped: bool, separators: tuple[str, str], full_url: str | None
) -> None:
    """Escapes and spaces stay: GET and the broadcast have the same bytes."""
    dumps = partial(json.dumps, ensure_ascii=escaped, separators=separators)
    raw = dumps(members | {"id": "o1", "resourceType": "Observation"}).encode()
    world = World()
    world.join("viewer", "DiagnosticReport-update")
    world.publish("DiagnosticReport-open", report("r1"), patient("p1"))
    entry = {"request": {"method": "PUT"}} | ({} if full_url is None else {"fullUrl": full_url})
    text = dumps(
        message(
            "DiagnosticReport-update",
            {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}},
            {"key": "updates", "resource": resource("Bundle", "b", entry=[entry | {"resource": "HERE"}])},
        )
    )
    version = dumps({"context.versionId": world.get()["context.versionId"]})[1:-1] + separators[0]
    text = text.replace(dumps("hub.topic"), version + dumps("hub.topic"))
    world.post(text.encode().replace(b'"HERE"', raw))
    answer = current_context(world.session, token(), TOPIC, world.rules)
    assert b'"resource":%b}]' % raw in answer
    (frame,) = world.heard("viewer")
    assert separators[1].encode() + raw + b"}]" in frame
    check_strict(answer)
    check_strict(frame)
    (shared,) = world.content()["entry"]
    assert shared.get("fullUrl", "") == (full_url or "")
