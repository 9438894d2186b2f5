"""Messages: what a posted event must have, what comes out of it, and that resources pass as the bytes that came."""

from __future__ import annotations

import copy
import json
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhircast_hub.core.errors import BadRequest, TooLarge
from fhircast_hub.core.wire.event import check_topic, parse_event
from fhircast_hub.core.wire.frames import confirmation, denial, derived_id, event_frame, with_version
from fhircast_hub.core.wire.timestamps import rfc3339
from tests.core.world import NOON, SPEC, TOPIC, body, item, message, patient, report, spec, study

VERSION = "b9574cb0-e9e5-4be1-8957-5fcb51ef33c1"
#: The specification's messages that an application may post.
POSTED = sorted(path.stem for path in SPEC.glob("*.json") if b'"hub.event"' in path.read_bytes())
VERSIONS = ("context.versionId", "context.priorVersionId")


def refused(text: bytes) -> str:
    with pytest.raises(BadRequest) as error:
        parse_event(text)
    assert "\n" not in str(error.value), "one line of reason"
    assert len(str(error.value)) < 400
    return str(error.value)


def changed(**members: object) -> dict[str, Any]:
    """A Patient-open with members of its event (`hub_event` for hub.event) or its envelope changed; ... takes one out."""
    posted = message("Patient-open", patient("p1"))
    for name, value in members.items():
        of = posted["event"] if name in ("hub_topic", "hub_event", "context") else posted
        if value is ...:
            del of[name.replace("_", ".")]
        else:
            of[name.replace("_", ".")] = value
    return posted


def raw(value: str, resource: str = '"resourceType":"Patient","id":"p1"') -> bytes:
    """A Patient-open whose patient has one more member, of this JSON text."""
    return (
        f'{{"timestamp":"2023-04-01T12:00:00Z","id":"1","event":{{"hub.topic":"t","hub.event":"Patient-open",'
        f'"context":[{{"key":"patient","resource":{{{resource},"x":{value}}}}}]}}}}'
    ).encode()


# What is read (EVT-5, 8, 9, 10)


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


@pytest.mark.req("EVT-5")
@pytest.mark.parametrize("url", ["DiagnosticReport/r1", "https://fhir.example.com/r4/DiagnosticReport/r1"])
def test_select_and_update_name_their_anchor_by_reference(url: str) -> None:
    """The last two segments of a reference say what it means, whatever server it names."""
    anchor = {"key": "report", "reference": {"reference": url}}
    updates = {"key": "updates", "resource": {"resourceType": "Bundle", "type": "transaction"}}
    assert parse_event(body(message("DiagnosticReport-select", anchor))).ref == "diagnosticreport/r1"
    assert parse_event(body(message("DiagnosticReport-update", anchor, updates))).ref == "diagnosticreport/r1"


# What is refused (EVT-5, 6)

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


@pytest.mark.req("EVT-5")
@pytest.mark.parametrize("id_", ["x", "OHIF-x7f3k2", "☃", "x" * 256])
def test_an_id_is_any_text(id_: str) -> None:
    """Whatever its form, up to 256 characters."""
    assert parse_event(body(changed(id=id_))).id == id_


@pytest.mark.req("EVT-5")
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
        *("2018-01-08T01:37:05Z" + "0" * 999, "٢٠١٨-01-08T01:37:05Z"),
    ],
)
def test_other_timestamps_are_refused(timestamp: str) -> None:
    """A date alone, a date that does not exist, and other notations are no ISO 8601 date and time."""
    assert "timestamp" in refused(body(changed(timestamp=timestamp)))


BUNDLE = {"key": "updates", "resource": {"resourceType": "Bundle"}}
NO_ITEM: list[object] = [1, "x", None, [], {}, {"resource": {}}, {"key": 1}]
NO_RESOURCE: list[object] = [{}, {"id": "1"}, 1, "x", []]
NO_REFERENCE: list[object] = [None, 1, "DiagnosticReport/r1", {}, {"reference": 1}, {"reference": "Patient/p1"}]
ANCHOR = {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}}


@pytest.mark.req("EVT-5")
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


@pytest.mark.req("EVT-5")
@pytest.mark.parametrize("name", ["open-patient-chart", "heartbeat", "org.example.a-b", "Patient-opened", "Home-close"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """Legacy names get a clear 400."""
    refused(body(changed(hub_event=name)))


@pytest.mark.req("EVT-6")
@pytest.mark.parametrize(
    "value",
    [
        *("NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "-", "1e", "0x1", "tru", "undefined", "'a'"),
        *('"\\q"', '"\\u12"', '"a\x01b"', '"a\tb"', '"a\nb"', '"', "[1,]", '{"a":1,}', '{"a" 1}', "{1:2}", "[", "]"),
    ],
)
def test_what_is_no_json_is_refused_wherever_it_stands(value: str) -> None:
    """Also deep in a resource, which the hub does not read: it would break every subscriber."""
    refused(raw(value))
    refused(raw(f'[{{"a":{value}}}]'))
    refused(raw("1").replace(b'"id":"1"', b'"id":"1","x":' + value.encode()))


@pytest.mark.req("EVT-6")
@pytest.mark.parametrize("text", [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\x80"])
def test_what_is_no_utf_8_is_refused(text: bytes) -> None:
    """Stray bytes, overlong forms and surrogates, inside of a resource's text."""
    refused(raw('"a?b"').replace(b"?", text))


@pytest.mark.req("EVT-6")
def test_other_encodings_and_trailing_text_are_refused() -> None:
    """JSON is UTF-8, and one value."""
    text = raw("1")
    for other in (text.decode().encode("utf-16"), text + b"x", text + text, text[:-1]):
        refused(other)


@pytest.mark.req("EVT-6")
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")])
def test_nesting_ends_at_64(brackets: tuple[str, str]) -> None:
    """The envelope, the event, the context, the item and the resource are five of them."""

    def nested(deep: int) -> bytes:
        value = brackets[0] * (deep - 5) + "1" + brackets[1] * (deep - 5)
        return raw(value, '"resourceType":"Patient","id":"p1","y":[[],[]]')

    parse_event(nested(64))
    for deep in (65, 70, 5000):
        refused(nested(deep))


def nesting(value: object) -> int:
    """How deep it nests, counted the plain way."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(nesting, inner), default=0)


@pytest.mark.req("EVT-6")
@given(st.lists(st.text('[]{}"\\a', max_size=4)), st.lists(st.booleans(), max_size=8), st.integers(50, 60))
def test_nesting_is_counted_outside_of_texts(texts: list[str], kinds: list[bool], deep: int) -> None:
    """Brackets, quotes and backslashes in texts, beside and inside of what nests, are no nesting, and hide none."""
    value: object = texts
    for level in range(deep):
        value = {"".join(texts): value, "x": texts} if kinds and kinds[level % len(kinds)] else [value, *texts]
    text = raw(json.dumps(value))
    if nesting(json.loads(text)) > 64:
        refused(text)
    else:
        parse_event(text)


@pytest.mark.req("EVT-6")
def test_brackets_that_do_not_nest_are_no_nesting() -> None:
    """Many in a row, and many inside of texts, beside quotes and backslashes, are fine."""
    parse_event(raw("[" + ",".join(['{"a":[]}'] * 500) + "]"))
    parse_event(raw(json.dumps("[" * 100 + '"\\' + "{" * 100 + '\\"')))


@pytest.mark.req("EVT-6")
@pytest.mark.parametrize(
    "text", [b"[" * 70 + b'"' + b'\\"' * 500_000, b'{"a":"' * 170_000, b"[" * 70 + b'"' * 1_000_001]
)
def test_a_megabyte_made_to_be_slow_to_read_is_refused(text: bytes) -> None:
    """Read in time beyond proportion to its size, this would not end today; it must not stop the hub."""
    refused(text)


@pytest.mark.req("EVT-6")
@pytest.mark.parametrize("name", ["timestamp", "id", "event", "other", "i\\u0064"])
def test_a_member_of_the_envelope_twice_is_refused(name: str) -> None:
    """The hub and a subscriber could each read another one, however it is spelled."""
    once = body(changed(other=1))
    refused(once[:-1] + b', "%b": 1}' % name.encode())
    refused(b'{"%b": 1, ' % name.encode() + once[1:])


@pytest.mark.req("EVT-6")
@pytest.mark.parametrize("name", ["hub.topic", "hub.event", "context", "other", "hub\\u002etopic"])
def test_a_member_of_the_event_twice_is_refused(name: str) -> None:
    """The same goes for what is inside of `event`."""
    posted = changed()
    posted["event"]["other"] = 1
    text = body(posted)
    parse_event(text)
    refused(text.replace(b'"event": {', b'"event": {"%b": [], ' % name.encode()))
    refused(text[:-2] + b', "%b": []}}' % name.encode())


OF_AN_UPDATE = [
    b'"resourceType": "Bundle"',
    b'"type": "transaction"',
    b'"request": {"method": "PUT"}',
    b'"method": "PUT"',
    b'"fullUrl": "urn:uuid:1"',
    b'"resource": {"resourceType": "Observation"',
    b'"status": "final"',
    b'"key": "updates"',
    b'"reference": "DiagnosticReport/r1"',
]
OF_A_SELECT = [
    b'"reference": "Observation/o1"',
    b'"id": "o2"',
    b'"id": "o3"',
    b'"reference": {"reference": "DiagnosticReport/r1"',
]
SHARED = {
    "fullUrl": "urn:uuid:1",
    "request": {"method": "PUT"},
    "resource": {"resourceType": "Observation", "id": "o1", "status": "final"},
}
UPDATE = message(
    "DiagnosticReport-update",
    {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}},
    {"key": "updates", "resource": {"resourceType": "Bundle", "type": "transaction", "entry": [SHARED]}},
)
SELECT = message(
    "DiagnosticReport-select",
    {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}},
    {"key": "select", "reference": [{"reference": "Observation/o1"}]},
    {"key": "select", "resource": [{"resourceType": "Observation", "id": "o2"}]},
    {"key": "select", "resources": [1, {"resourceType": "Observation", "id": "o3"}]},
)
#: What makes a text so long that it is read in another way; beside it, a member whose value is neither text nor object.
FILLED = ["", "x" * 40_000, 1]


def with_another(text: bytes, member: bytes, name: bytes) -> bytes:
    """The text with one more member of that name before this member."""
    assert text.count(member) == 1
    return text.replace(member, b'"%b": null, %b' % (name, member))


@pytest.mark.req("EVT-6")
@pytest.mark.parametrize("filled", FILLED)
@pytest.mark.parametrize(
    ("posted", "member"),
    [
        *((UPDATE, member) for member in OF_AN_UPDATE),
        *((SELECT, member) for member in OF_A_SELECT),
        *((changed(), member) for member in (b'"key": "patient"', b'"resourceType": "Patient"', b'"id": "p1"')),
    ],
)
def test_a_member_twice_is_refused_wherever_the_hub_looks(
    posted: dict[str, Any], member: bytes, filled: object
) -> None:
    """In an item, at the top of its resource or reference, and so in each entry of an update, however it is spelled."""
    posted = copy.deepcopy(posted)
    posted["event"]["context"] += [{"key": "x", "y": filled}]
    text = body(posted)
    name = json.loads(
        b"{" + member.rstrip(b"{}") + (b"null}" if member.endswith(b"{") else b"}" * (1 + member.count(b"{")))
    ).popitem()[0]
    parse_event(with_another(text, member, b'a\\"\\u0022b'))
    for spelled in (name, f"\\u{ord(name[0]):04x}{name[1:]}"):
        assert "once" in refused(with_another(text, member, spelled.encode()))


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


@pytest.mark.req("EVT-6")
@pytest.mark.parametrize("padding", [b"", b"y" * 40_000])
def test_a_member_twice_further_in_is_not_looked_for(padding: bytes) -> None:
    """A resource is the business of those who read it."""
    parse_event(raw('{"a":1,"a":[{"b":1,"b":"' + padding.decode() + '"}]}'))
    parse_event(body(UPDATE).replace(b'"final"', b'[{"a":1,"a":"%b"}]' % padding))


@pytest.mark.req("EVT-6")
@pytest.mark.parametrize("padding", ["", "y" * 40_000])
def test_an_object_has_at_most_128_members(padding: str) -> None:
    """The envelope, the event, an item and a resource; the rest is as it is."""

    def more(members: dict[str, Any], count: int) -> None:
        members.update((f"{number}{padding if number == 1 else ''}", number) for number in range(count - len(members)))

    for path in ((), ("event",), ("event", "context", 0), ("event", "context", 0, "resource")):
        for count in (128, 129):
            posted = changed()
            members: Any = posted
            for step in path:
                members = members[step]
            more(members, count)
            if count == 128:
                parse_event(body(posted))
            else:
                assert "128 members" in refused(body(posted))
    parse_event(
        raw(json.dumps({str(number): padding for number in range(9)} | {f"x{number}": 1 for number in range(999)}))
    )


@pytest.mark.req("EVT-6")
def test_a_body_has_at_most_50000_objects_and_arrays() -> None:
    """Or one for each twenty bytes, where that is more; brackets in texts are none."""

    def holding(count: int, padding: str = "") -> bytes:
        return raw("[" + ",".join(["[]"] * (count - 6)) + f',"{padding}"]')

    parse_event(holding(50_000, "[" * 99))
    assert "at most 50000 objects and arrays, and this one has 50001" in refused(holding(50_001))
    parse_event(holding(50_001, "x" * 1_000_000))


@pytest.mark.req("EVT-6")
def test_thousands_of_quotation_marks_in_names_are_refused() -> None:
    """FHIR has none there, and they are slow to read."""
    entries = [
        SHARED
        | {
            "fullUrl": f"urn:uuid:{n}",
            "resource": {"resourceType": "Observation", "id": f"o{n}"} | {f'"{m}': m for m in range(100)},
        }
        for n in range(100)
    ]
    posted = copy.deepcopy(UPDATE)
    posted["event"]["context"][1]["resource"]["entry"] = entries
    assert "quotation marks" in refused(body(posted))
    posted["event"]["context"][1]["resource"]["entry"] = entries[:39]
    assert len(parse_event(body(posted)).changes) == 39


@pytest.mark.req("CON-15")
def test_too_many_entries_are_not_read() -> None:
    """They are counted, and no more, though none is what it should be."""
    posted = copy.deepcopy(UPDATE)
    posted["event"]["context"][1]["resource"]["entry"] = [{}] * 4
    with pytest.raises(TooLarge, match="at most 3 entries, and this one has 4"):
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


# What comes out (EVT-15)


def texts() -> st.SearchStrategy[str]:
    """JSON texts of any shape, whose members, numbers and characters a decoder could change."""
    strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    string = st.builds(json.dumps, strings, ensure_ascii=st.booleans())
    numbers = st.builds(
        "{}{}{}".format, st.integers(), st.sampled_from(["", ".10", ".0"]), st.sampled_from(["", "e+05"])
    )
    leaf = string | numbers | st.sampled_from(["1.10", "true", "null", "9" * 5000, '"\\/\\u00e9"', "-0", "1E400"])

    def deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        arrays = st.lists(inner, max_size=3).map(lambda of: f"[ {' ,'.join(of)}]")
        objects = st.lists(st.tuples(string, inner), max_size=3).map(
            lambda of: "{" + ",\t".join(f"{name} :\n{value}" for name, value in of) + "}"
        )
        return arrays | objects

    return st.recursive(leaf, deeper, max_leaves=6)


@pytest.mark.req("EVT-15")
@settings(max_examples=30)
@given(texts())
def test_a_resource_comes_out_byte_for_byte(value: str) -> None:
    """White space, escapes, member order, repeated members, 1.10 and integers of any size: nothing is decoded and encoded."""
    text = raw(value)
    event = parse_event(text)
    begin = text.index(b"[{")
    assert event.context == text[begin : text.rindex(b"]") + 1]
    frame, at = with_version(event, VERSION)
    assert event.context in event.frame()
    assert frame[at:].startswith(event.context)
    assert event.context in frame


@pytest.mark.req("EVT-15")
@settings(max_examples=30)
@given(texts(), texts())
def test_unknown_members_of_the_envelope_come_out(outer: str, inner: str) -> None:
    """What stands beside id and hub.event comes out in its place and as it came."""
    text = (
        f'{{"a":{outer},"timestamp":"2023-04-01T12:00:00Z","id":"1","event":{{"x":{inner},"hub.topic":"t",'
        f'"hub.event":"Home-open","context":[],"y":{outer}}},"z":{inner}}}'
    ).encode()
    assert parse_event(text).frame() == text


@pytest.mark.req("EVT-15")
def test_the_hubs_version_stands_in_the_event() -> None:
    """It is a member of `event`, beside the context, and the only thing that is added."""
    posted = changed(extra={"a": 1})
    frame, at = with_version(parse_event(body(posted)), VERSION)
    expected = copy.deepcopy(posted)
    expected["event"]["context.versionId"] = VERSION
    assert json.loads(frame) == expected
    assert frame.count(VERSION.encode()) == 1
    assert frame[at:].startswith(b"[")


@pytest.mark.req("EVT-15")
@pytest.mark.parametrize("name", [*VERSIONS, "context\\u002eversionId"])
def test_the_senders_versions_are_taken_out(name: str) -> None:
    """Wherever in the event they stand, and however they are spelled."""
    text = body(changed())
    event = text.replace(b'"hub.event"', b'"%b": "mine", "hub.event"' % name.encode())
    event = (
        event if "\\" in name else event.replace(b"}]}}", b'}], "%b": "x"}}' % VERSIONS[name == VERSIONS[0]].encode())
    )
    assert json.loads(parse_event(event).frame()) == json.loads(text)
    frame, _ = with_version(parse_event(event), VERSION)
    assert frame.count(b"versionId") == 1
    assert b"priorVersionId" not in frame


@pytest.mark.req("EVT-15")
def test_a_version_inside_of_a_resource_is_not_the_senders() -> None:
    """meta.versionId, or whatever is called so in a resource, belongs to the resource."""
    text = raw('"1"').replace(b'"x"', b'"context.versionId"')
    assert b'"context.versionId":"1"' in parse_event(text).frame()


@pytest.mark.req("EVT-23")
@pytest.mark.parametrize("name", ["Patient-open", "DiagnosticReport-update.request"])
def test_a_byte_order_mark_before_the_text_is_no_part_of_it(name: str) -> None:
    """What is read, what is broadcast and what makes a repeat are the same with one and without."""
    text = (SPEC / f"{name}.json").read_bytes()
    assert parse_event(b"\xef\xbb\xbf" + text) == parse_event(text)


@pytest.mark.req("EVT-23", "EVT-15")
def test_a_byte_order_mark_elsewhere_is_not_taken_out() -> None:
    """U+FEFF in a text belongs to the text; a second one before the object makes no JSON."""
    assert '"x":"\ufeff"'.encode() in parse_event(b"\xef\xbb\xbf" + raw('"\ufeff"')).frame()
    assert "must be JSON" in refused(b"\xef\xbb\xbf" * 2 + raw("1"))


@pytest.mark.req("EVT-17")
def test_only_a_repeat_has_the_same_fingerprint() -> None:
    """Same id, timestamp and body: anything else is another event."""
    original = changed()
    prints = [
        parse_event(body(posted)).fingerprint
        for posted in (
            changed(),
            changed(id="other"),
            changed(timestamp="2023-04-01T12:00:01Z"),
            changed(context=[patient("p2")]),
            changed(extra=1),
        )
    ]
    assert parse_event(body(original)).fingerprint == prints[0]
    assert len(set(prints)) == len(prints)


# What the hub writes


@pytest.mark.req("SUB-3")
def test_a_confirmation_has_exactly_four_members() -> None:
    """As in the specification."""
    of = json.loads(spec("confirmation"))
    made = confirmation(of["hub.topic"], ("Patient-open", "Patient-close"), of["hub.lease_seconds"])
    assert json.loads(made) == of


@pytest.mark.req("LEA-4", "UNS-6")
def test_a_denial_is_as_specified() -> None:
    """hub.mode denied, topic, events and reason."""
    of = json.loads(spec("denial"))
    assert json.loads(denial(of["hub.topic"], ("Patient-open", "Patient-close"), of["hub.reason"])) == of


@pytest.mark.req("DER-7")
def test_the_id_of_a_derived_open_is_made_of_source_and_name() -> None:
    """A UUIDv5: the same on every node, another for every source and name."""
    ids = [derived_id(source, name) for source in ("a", "b") for name in ("Patient-open", "Encounter-open")]
    assert len(set(ids)) == 4
    assert all(uuid.UUID(id_).version == 5 for id_ in ids)
    assert derived_id("a", "Patient-open") == ids[0]


@pytest.mark.req("DER-7")
def test_a_made_event_is_an_event() -> None:
    """What the hub makes has the form that it asks of others, whatever is in it."""
    made = event_frame('a "topic" ☃', "Patient-open", "1", rfc3339(NOON), body([patient("p1")]))
    event = parse_event(made)
    assert (event.topic, event.ref, event.timestamp) == ('a "topic" ☃', "patient/p1", "2023-04-01T12:00:00.000Z")


@pytest.mark.req("DER-7")
@pytest.mark.parametrize(
    ("now", "text"),
    [
        (NOON + 0.25, "2023-04-01T12:00:00.250Z"),
        (0, "1970-01-01T00:00:00.000Z"),
        (4102444799.999, "2099-12-31T23:59:59.999Z"),
    ],
)
def test_the_hubs_timestamps_are_rfc_3339_in_utc(now: float, text: str) -> None:
    """With milliseconds and Z."""
    assert rfc3339(now) == text


@pytest.mark.req("DER-7")
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


@pytest.mark.req("EVT-6")
@settings(max_examples=30)
@given(st.binary(max_size=100) | st.text(max_size=50).map(str.encode) | texts().map(str.encode))
def test_any_body_is_read_or_refused(text: bytes) -> None:
    """Nothing that is posted makes the hub fail."""
    refused(text)


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


@pytest.mark.req("EVT-5")
@pytest.mark.parametrize(
    ("context", "words"),
    [
        ([patient("x" * 257)], "1 to 256 characters, not 257"),
        ([patient("a\x00b")], "control characters"),
        ([patient("p1"), patient("p2")], "one item with the key patient, this event's anchor, not 2"),
        ([patient("p1"), *({"key": f"k{number}"} for number in range(256))], "at most 256 items, and this one has 257"),
    ],
)
def test_an_anchor_is_one_and_its_id_is_short_and_plain(context: list[object], words: str) -> None:
    """What hub and subscriber could read differently, or what would fill the memory, is refused."""
    assert words in refused(body(changed(context=context)))


@pytest.mark.req("EVT-5")
def test_a_type_that_only_looks_like_the_events_is_refused() -> None:
    """The Kelvin sign is no k."""
    posted = message("Task-open", item("task", "Tas\u212a", "1"))
    assert "type" in refused(body(posted))
