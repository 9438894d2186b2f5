"""The hub reads a posted event, and finds its topic, name and anchor."""

from __future__ import annotations

import copy
import json

import pytest

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.wire.event import check_topic, parse_event
from tests.core.wire.event_world import FILLED, UPDATE, VERSIONS, changed
from tests.core.world import SPEC, TOPIC, body, item, message, patient, report, spec, study

#: The specification's messages that an application may post.
POSTED = sorted(path.stem for path in SPEC.glob("*.json") if b'"hub.event"' in path.read_bytes())


@pytest.mark.req("EVT-5", "EVT-15")
@pytest.mark.parametrize("name", POSTED)
def test_the_specifications_messages_pass_unchanged(name: str) -> None:
    """Each message of the specification is accepted, and goes out with the same members in the same order."""
    event = parse_event(spec(name))
    sent = json.loads(spec(name), object_pairs_hook=lambda pairs: [p for p in pairs if p[0] not in VERSIONS])
    assert json.loads(event.frame(), object_pairs_hook=list) == sent
    posted = json.loads(spec(name))
    assert (event.id, event.timestamp, event.name) == (posted["id"], posted["timestamp"], posted["event"]["hub.event"])
    assert event.context in spec(name)


@pytest.mark.req("EVT-3")
def test_the_topic_is_the_bodys() -> None:
    """event.hub.topic says which session the event is for, in any script."""
    assert parse_event(body(changed(hub_topic="Ünïcödé/☃ 𝄞"))).topic == "Ünïcödé/☃ 𝄞"


@pytest.mark.req("EVT-4")
@pytest.mark.parametrize("name", ["Patient-open", "patient-open", "PATIENT-OPEN", "pAtIeNt-OpEn"])
def test_the_senders_spelling_is_passed_on(name: str) -> None:
    """A name is compared in lower case and sent as it came."""
    event = parse_event(body(changed(hub_event=name)))
    assert (event.key, event.name) == ("patient-open", name)
    assert json.loads(event.frame())["event"]["hub.event"] == name


@pytest.mark.req("EVT-8")
@pytest.mark.parametrize(
    "context", [[], [{"key": "a", "string": "b"}], [{"key": "a", "resource": {"resourceType": "Own"}}]]
)
def test_reverse_domain_events_need_no_anchor(context: list[object]) -> None:
    """An organization's own event has whatever context it likes."""
    posted = changed(hub_event="org.example.patient_transmogrify", context=context)
    assert json.loads(parse_event(body(posted)).frame()) == posted


@pytest.mark.req("EVT-9")
@pytest.mark.parametrize(
    ("name", "key", "type_"),
    [
        ("ImagingStudy-open", "study", "ImagingStudy"),
        ("ImagingStudy-open", "imagingstudy", "ImagingStudy"),
        ("DiagnosticReport-open", "report", "DiagnosticReport"),
        ("MedicationRequest-open", "medicationrequest", "MedicationRequest"),
        ("medicationrequest-close", "medicationrequest", "MedicationRequest"),
        ("Observation-open", "observation", "Observation"),
    ],
)
def test_the_anchor_is_found_under_its_key(name: str, key: str, type_: str) -> None:
    """The catalogue's key for the catalogue's events, the lower-case type for any other resource; in any position."""
    event = parse_event(
        body(message(name, {"key": "extension", "data": {"a": 1}}, item(key, type_, "x1"), patient("p1")))
    )
    assert (event.type, event.ref) == (type_, f"{type_.lower()}/x1")


@pytest.mark.req("EVT-5")
def test_an_extension_beside_the_anchor_is_taken() -> None:
    """Context items of other kinds, with members we do not know, are none of the hub's business."""
    posted = changed(context=json.loads(spec("extension-context"))["context"])
    assert json.loads(parse_event(body(posted)).frame()) == posted


@pytest.mark.req("EVT-5", "EVT-26")
@pytest.mark.parametrize("url", ["DiagnosticReport/r1", "https://fhir.example.com/r4/DiagnosticReport/r1"])
def test_select_and_update_name_their_anchor_by_reference(url: str) -> None:
    """The last two segments of a reference say what it means, whatever server it names."""
    anchor = {"key": "report", "reference": {"reference": url}}
    updates = {"key": "updates", "resource": {"resourceType": "Bundle", "type": "transaction"}}
    assert parse_event(body(message("DiagnosticReport-select", anchor))).ref == "diagnosticreport/r1"
    assert parse_event(body(message("DiagnosticReport-update", anchor, updates))).ref == "diagnosticreport/r1"


@pytest.mark.req("EVT-5")
@pytest.mark.parametrize("id_", ["x", "OHIF-x7f3k2", "☃", "x" * 256])
def test_an_id_is_any_text(id_: str) -> None:
    """Whatever its form, up to 256 characters."""
    assert parse_event(body(changed(id=id_))).id == id_


@pytest.mark.req("EVT-5", "EVT-25")
@pytest.mark.parametrize(
    "timestamp",
    [
        *("2018-01-08T01:37:05.14", "2018-01-08T01:37:05", "2018-01-08T01:37:05Z", "2018-01-08T01:37:05.1234567Z"),
        *(
            "2018-01-08T01:37:05.123+02:00",
            "2018-01-08T01:37:05-0530",
            "2018-01-08T01:37:05+02",
            "2024-02-29T23:59:59Z",
        ),
    ],
)
def test_timestamps_are_iso_8601(timestamp: str) -> None:
    """Without zone, with any offset, with any decimals; it is passed on as it came."""
    event = parse_event(body(changed(timestamp=timestamp)))
    assert event.timestamp == timestamp
    assert json.loads(event.frame())["timestamp"] == timestamp


@pytest.mark.req("EVT-5")
@pytest.mark.parametrize("filled", FILLED)
def test_null_says_as_much_as_nothing(filled: object) -> None:
    """Where a resource, its id, a fullUrl or the URL of a request may be absent."""
    none = {"key": "x", "resource": None, "reference": None}
    parse_event(
        body(
            changed(
                context=[patient("p1"), none, {"key": "y", "resource": {"resourceType": "A", "id": None}, "z": filled}]
            )
        )
    )
    entry = {
        "fullUrl": None,
        "request": {"method": "PUT", "url": None},
        "resource": {"resourceType": "A", "id": "1", "y": filled},
    }
    posted = copy.deepcopy(UPDATE)
    for entries in ([entry], None):
        posted["event"]["context"][1]["resource"]["entry"] = entries
        assert len(parse_event(body(posted)).changes) == len(entries or ())


@pytest.mark.req("DER-7", "DER-12")
def test_what_a_context_implies_is_found() -> None:
    """Other types than the anchor's; of several studies the first."""
    event = parse_event(body(message("DiagnosticReport-open", report("r1"), study("s1"), study("s2"), patient("p1"))))
    assert event.implied == {"imagingstudy": "imagingstudy/s1", "patient": "patient/p1"}
    assert parse_event(body(changed())).implied == {}


@pytest.mark.req("SUB-5", "EVT-5")
@pytest.mark.parametrize("topic", ["", "x" * 1025, "ws", "metadata", ".well-known", "\x00", "a\nb", "\x7f", "\u0080"])
def test_what_can_be_no_topic(topic: str) -> None:
    """The same rule for forms and events."""
    with pytest.raises(BadRequest, match=r"\Ahub\.topic"):
        check_topic(topic)
    assert check_topic(TOPIC) == TOPIC
