"""The hub refuses an event that lacks a member or has a member of a wrong type."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhircast_hub.core.errors import BadRequest, TooLarge
from fhircast_hub.core.wire.event import parse_event
from tests.core.wire.event_world import UPDATE, changed, refused
from tests.core.world import body, item, message, patient, study

NO_TEXT: list[object] = [..., None, 1, [], {}, ""]
MISSING_OR_OTHER: dict[str, list[object]] = {
    "timestamp": NO_TEXT,
    "id": [*NO_TEXT, "x" * 257],
    "event": [..., None, 1, [], "x"],
    "hub_topic": [*NO_TEXT, "x" * 1025, "ws", "metadata", ".well-known", "a\x00b", "a\u0085b"],
    "hub_event": NO_TEXT,
    "context": [..., None, 1, {}, True, "", "x", "context", "hub.topic", "hub.event", ", "],
}


@pytest.mark.req("EVT-5")
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, of in MISSING_OR_OTHER.items() for value in of])
def test_a_member_missing_or_of_another_type_is_named(name: str, value: object) -> None:
    """timestamp, id, event, hub.topic, hub.event and context must be there, and be what they should be."""
    assert name.replace("_", ".") in refused(body(changed(**{name: value})))


@pytest.mark.req("EVT-5")
@pytest.mark.parametrize("text", [b"[]", b"1", b"null", b'"x"', b"true", b"", b"   "])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    """An event is a JSON object."""
    refused(text)


@pytest.mark.req("EVT-5", "EVT-33")
@pytest.mark.parametrize(
    "timestamp",
    [
        *("2018-01-08", "01:37:05", "now", "1515375425", "2018-13-08T01:37:05Z", "2018-02-30T01:37:05Z"),
        *("2018-01-08T25:37:05Z", "2018-01-08T01:61:05Z", "08.01.2018 01:37", "2018-01-08T01:37:05 Z", "2018-01-08T"),
        *(
            "2018-01-08T01:37:05Zulu",
            "2018-01-08T01:37:05Z\n",
            "Mon, 08 Jan 2018 01:37:05 GMT",
            "2018-01-08T01:37:05+9",
        ),
        *("2018-01-08T01:37:05Z" + "0" * 999, "٢٠١٨-01-08T01:37:05Z", "2018-01-08T01:37:05.1234567890Z"),
    ],
)
def test_other_timestamps_are_refused(timestamp: str) -> None:
    """Of a date alone, a date that does not exist, another notation, and more than nine digits behind the second."""
    assert "timestamp" in refused(body(changed(timestamp=timestamp)))


BUNDLE = {"key": "updates", "resource": {"resourceType": "Bundle"}}
NO_ITEM: list[object] = [1, "x", None, [], {}, {"resource": {}}, {"key": 1}]
NO_RESOURCE: list[object] = [{}, {"id": "1"}, 1, "x", []]
NO_REFERENCE: list[object] = [None, 1, "DiagnosticReport/r1", {}, {"reference": 1}, {"reference": "Patient/p1"}]
ANCHOR = {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}}


@pytest.mark.req("EVT-5", "EVT-26")
@pytest.mark.parametrize(
    ("name", "items"),
    [
        *(("Patient-open", [patient("p1"), x]) for x in NO_ITEM),
        *(("Patient-open", [patient("p1"), {"key": "x", "resource": x}]) for x in NO_RESOURCE),
        ("Patient-open", [patient("p1"), {"key": "x", "resource": {"resourceType": 1}}]),
        ("Patient-open", []),
        ("Patient-open", [study("s1")]),
        ("Patient-open", [item("Patient", "Patient", "p1")]),
        ("Patient-open", [{"key": "patient"}]),
        ("Patient-open", [{"key": "patient", "resource": None}]),
        ("Patient-open", [{"key": "patient", "reference": {"reference": "Patient/p1"}}]),
        ("Patient-open", [item("patient", "Person", "p1")]),
        ("Patient-open", [item("patient", "Patient", "")]),
        ("Patient-open", [{"key": "patient", "resource": {"resourceType": "Patient"}}]),
        ("Patient-open", [{"key": "patient", "resource": {"resourceType": "Patient", "id": 1}}]),
        ("Patient-close", [study("s1")]),
        ("ImagingStudy-open", [item("study", "DiagnosticReport", "r1")]),
        ("DiagnosticReport-open", [patient("p1"), study("s1")]),
        ("DiagnosticReport-select", []),
        *(
            (f"DiagnosticReport-{verb}", [{"key": "report", "reference": x}, BUNDLE])
            for verb in ("select", "update")
            for x in NO_REFERENCE
        ),
        ("DiagnosticReport-select", [{"key": "report", "reference": {"reference": "DiagnosticReport/"}}]),
        ("DiagnosticReport-update", [ANCHOR]),
        ("DiagnosticReport-update", [ANCHOR, BUNDLE, BUNDLE]),
        ("DiagnosticReport-update", [ANCHOR, {"key": "updates", "resource": {"resourceType": "List"}}]),
        ("DiagnosticReport-update", [ANCHOR, {"key": "updates", "reference": {"reference": "Bundle/1"}}]),
        ("DiagnosticReport-update", [BUNDLE]),
    ],
)
def test_a_context_that_does_not_fit_its_event_is_refused(name: str, items: list[object]) -> None:
    """Items are objects with a key, resources have a type, the anchor is there with an id and of the event's type."""
    assert "context" in refused(body(message(name, *items)))


@pytest.mark.req("EVT-5", "EVT-27")
@pytest.mark.parametrize("name", ["open-patient-chart", "heartbeat", "org.example.a-b", "Patient-opened", "Home-close"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """Legacy names get a clear 400."""
    refused(body(changed(hub_event=name)))


@pytest.mark.req("CON-15")
def test_too_many_entries_are_not_read() -> None:
    """They are counted, and no more, though none is what it should be."""
    posted = copy.deepcopy(UPDATE)
    posted["event"]["context"][1]["resource"]["entry"] = [{}] * 4
    with pytest.raises(TooLarge, match="at most 3 entries, got 4"):
        parse_event(body(posted), max_entries=3)
    assert "request" in refused(body(posted))


@pytest.mark.req("EVT-5")
@pytest.mark.parametrize(
    "posted",
    [
        changed(id="secret" + "x" * 300),
        changed(timestamp="secret"),
        changed(hub_topic="secret\x00"),
        changed(context="secret"),
        changed(context=[item("patient", "Secret", "secret")]),
        changed(context=[{"secret": "secret"}]),
        message("DiagnosticReport-select", {"key": "report", "reference": {"reference": "secret/secret"}}),
    ],
)
def test_a_refusal_reveals_nothing(posted: dict[str, Any]) -> None:
    """Ids, timestamps, topics and whatever is in a context are named by type and length only."""
    assert "secret" not in refused(body(posted)).lower()


TEXTS = ["", "x", "id", "event", "hub.event", "Home-open", "hub.topic", "context", ":", "2023-04-01T12:00Z"]
ANYTHING: list[object] = [None, 0, [], {}, *TEXTS]


@pytest.mark.req("EVT-5")
@settings(max_examples=60)
@given(st.data())
def test_an_envelope_of_any_values_is_read_or_refused(data: st.DataObject) -> None:
    """Whatever stands where the envelope's own members should be, it is read or refused."""
    posted: dict[str, Any] = {name: data.draw(st.sampled_from(ANYTHING)) for name in ("timestamp", "id")}
    posted["event"] = {name: data.draw(st.sampled_from(ANYTHING)) for name in ("hub.topic", "hub.event", "context")}
    try:
        event = parse_event(body(posted))
    except BadRequest:
        return
    assert json.loads(event.frame()) == posted


@pytest.mark.req("EVT-5", "EVT-26")
@pytest.mark.parametrize(
    ("context", "words"),
    [
        ([patient("x" * 257)], "1 to 256 characters, got 257"),
        ([patient("a\x00b")], "control characters"),
        ([patient("p1"), patient("p2")], "got 2"),
        ([patient("p1"), *({"key": f"k{number}"} for number in range(256))], "at most 256 items, got 257"),
    ],
)
def test_an_anchor_is_one_and_its_id_is_short_and_plain(context: list[object], words: str) -> None:
    """What hub and subscriber could read differently, or what would fill the memory, is refused."""
    assert words in refused(body(changed(context=context)))


@pytest.mark.req("EVT-5", "EVT-26")
def test_a_type_that_only_looks_like_the_events_is_refused() -> None:
    """The Kelvin sign is no k."""
    posted = message("Task-open", item("task", "Tas\u212a", "1"))
    assert "type" in refused(body(posted))
