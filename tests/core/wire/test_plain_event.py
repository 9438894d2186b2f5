"""A plain event is read in one step, and all others in several: both ways find the same event."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.wire.event import Event, parse_event
from fhircast_hub.core.wire.plain_event import read_plain
from tests.core.properties import settings
from tests.core.wire.event_world import texts
from tests.core.world import encounter, item, message, study


def compact(posted: object) -> bytes:
    """As most clients write JSON: without white space."""
    return json.dumps(posted, separators=(",", ":"), ensure_ascii=False).encode()


def parsed(text: bytes) -> Event | None:
    """The event without its fingerprint; None for a bad request."""
    try:
        return replace(parse_event(text), fingerprint=b"")
    except BadRequest:
        return None


STUDY = compact(message("ImagingStudy-open", study("s1"), item("patient", "Patient", "p1", name=[{"family": "Ö"}])))


@pytest.mark.req("EVT-15")
@given(texts(), st.permutations(["timestamp", "id", "event"]), st.permutations(["hub.topic", "hub.event", "context"]))
def test_a_plain_event_is_the_same_event_with_white_space(value: str, outer: list[str], inner: list[str]) -> None:
    """Whatever is in a resource, and in whatever order the members stand. White space behind the text is not passed on."""
    posted = message("Patient-open", item("patient", "Patient", "p1", x=0), encounter("e1"))
    posted["event"] = {name: posted["event"][name] for name in inner}
    text = compact({name: posted[name] for name in outer}).replace(b'"x":0', b'"x":' + value.encode())
    event = parse_event(text)
    assert read_plain(text) is not None
    assert event.frame() == text
    assert event.context.startswith(b'[{"key":"patient"')
    assert event.context.endswith(compact(encounter("e1")) + b"]")
    assert replace(event, fingerprint=b"") == parsed(text + b"\n")


pieces = st.sampled_from(
    [b'"', b",", b":", b"{", b"}", b"[", b"]", b"\\", b" ", b"\xff", b'"id":"1",', b'"context":[],']
)


@pytest.mark.req("EVT-5", "EVT-6", "EVT-15")
@settings(max_examples=300)
@given(st.integers(0, len(STUDY)), st.integers(0, 2), pieces)
def test_a_damaged_plain_event_is_the_same_event_or_refused(start: int, count: int, piece: bytes) -> None:
    """Bytes put in, taken out or changed, anywhere."""
    text = STUDY[:start] + piece + STUDY[start + count :]
    assert parsed(text) == parsed(text + b"\n")


@pytest.mark.req("EVT-6")
@pytest.mark.parametrize(
    ("text", "by"),
    [
        pytest.param('"id":"an-id"', '"id":"an-id","id":"an-id"', id="a member of the envelope twice"),
        pytest.param('"hub.topic":', '"hub.topic":"x","hub.topic":', id="a member of the event twice"),
        pytest.param('"context":', '"context":[],"context":', id="the context twice"),
        pytest.param('"key":"study"', '"key":"study","key":"study"', id="a member of an item twice"),
        pytest.param('"id":"p1"', '"id":"p1","id":"p1"', id="a member of a resource twice"),
        pytest.param('"id":"p1"', '"id":"p1","i\\u0064":"p1"', id="a member of a resource twice, once escaped"),
        pytest.param('"id":"p1"', ",".join(f'"{n}":0' for n in range(128)), id="129 members"),
        pytest.param(
            '{"key":"study"', '{"key":"x","resource":{"resourceType":"X"}},' * 255 + '{"key":"study"', id="257"
        ),
    ],
)
def test_what_is_refused_is_refused_in_a_plain_event(text: str, by: str) -> None:
    """Duplicates, too many members and too many items."""
    assert read_plain(STUDY) is not None
    assert STUDY.count(text.encode()) == 1
    changed = STUDY.replace(text.encode(), by.encode())
    json.loads(changed)
    assert parsed(changed) is None


@pytest.mark.req("EVT-15", "EVT-30")
@pytest.mark.parametrize(
    ("text", "by"),
    [
        pytest.param('":"an-id"', '": "an-id"', id="white space"),
        pytest.param('"an-id"', '"an\\u002did"', id="an escape"),
        pytest.param('"an-id"', '"an-ïd"', id="another character than ASCII"),
        pytest.param('"id":"an-id"', '"id":"an-id","x":1', id="a further member"),
        pytest.param('"hub.topic"', '"context.versionId":"v","hub.topic"', id="the sender's version"),
        pytest.param('"key":"study"', '"key":"study","reference":{"reference":"X/1"}', id="a reference"),
    ],
)
def test_other_events_are_no_plain_ones(text: str, by: str) -> None:
    """These are accepted, too. The frame leaves out nothing but the sender's version."""
    changed = STUDY.replace(text.encode(), by.encode())
    event = parse_event(changed)
    sent: dict[str, Any] = json.loads(changed)
    sent["event"].pop("context.versionId", None)
    assert json.loads(event.frame()) == sent
    assert read_plain(changed) is None
