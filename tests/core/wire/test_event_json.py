"""The hub refuses a body that is no JSON, nests too deep, has a member twice or too many members."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhircast_hub.core.wire.event import parse_event
from tests.core.wire.event_world import FILLED, SHARED, UPDATE, changed, raw, refused, texts
from tests.core.world import body, message


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


@pytest.mark.req("EVT-6", "EVT-28")
@pytest.mark.parametrize("name", ["timestamp", "id", "event", "other", "i\\u0064"])
def test_a_member_of_the_envelope_twice_is_refused(name: str) -> None:
    """The hub and a subscriber could each read another one, however it is spelled."""
    once = body(changed(other=1))
    refused(once[:-1] + b', "%b": 1}' % name.encode())
    refused(b'{"%b": 1, ' % name.encode() + once[1:])


@pytest.mark.req("EVT-6", "EVT-28")
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
SELECT = message(
    "DiagnosticReport-select",
    {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}},
    {"key": "select", "reference": [{"reference": "Observation/o1"}]},
    {"key": "select", "resource": [{"resourceType": "Observation", "id": "o2"}]},
    {"key": "select", "resources": [1, {"resourceType": "Observation", "id": "o3"}]},
)


def with_another(text: bytes, member: bytes, name: bytes) -> bytes:
    """The text with one more member of that name before this member."""
    assert text.count(member) == 1
    return text.replace(member, b'"%b": null, %b' % (name, member))


@pytest.mark.req("EVT-6", "EVT-28")
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


@pytest.mark.req("EVT-6", "EVT-28")
@pytest.mark.parametrize("padding", [b"", b"y" * 40_000])
def test_a_member_twice_further_in_is_not_looked_for(padding: bytes) -> None:
    """A resource is the business of those who read it."""
    parse_event(raw('{"a":1,"a":[{"b":1,"b":"' + padding.decode() + '"}]}'))
    parse_event(body(UPDATE).replace(b'"final"', b'[{"a":1,"a":"%b"}]' % padding))


@pytest.mark.req("EVT-6", "EVT-28")
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
    assert "at most 50000 objects and arrays, got 50001" in refused(holding(50_001))
    parse_event(holding(50_001, "x" * 1_000_000))


@pytest.mark.req("EVT-6", "EVT-29")
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


@pytest.mark.req("EVT-6")
@settings(max_examples=30)
@given(st.binary(max_size=100) | st.text(max_size=50).map(str.encode) | texts().map(str.encode))
def test_any_body_is_read_or_refused(text: bytes) -> None:
    """Nothing that is posted makes the hub fail."""
    refused(text)
