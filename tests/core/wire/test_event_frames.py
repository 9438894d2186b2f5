"""A resource comes out of the hub as received, byte for byte."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings

from fhircast_hub.core.wire.event import parse_event
from fhircast_hub.core.wire.frames import with_version
from tests.core.wire.event_world import VERSIONS, changed, raw, refused, texts
from tests.core.world import SPEC, body, patient

VERSION = "b9574cb0-e9e5-4be1-8957-5fcb51ef33c1"


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


@pytest.mark.req("EVT-15", "EVT-30")
def test_the_hubs_version_stands_in_the_event() -> None:
    """It is a member of `event`, beside the context, and the only thing that is added."""
    posted = changed(extra={"a": 1})
    frame, at = with_version(parse_event(body(posted)), VERSION)
    expected = copy.deepcopy(posted)
    expected["event"]["context.versionId"] = VERSION
    assert json.loads(frame) == expected
    assert frame.count(VERSION.encode()) == 1
    assert frame[at:].startswith(b"[")


@pytest.mark.req("EVT-15", "EVT-30")
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
    assert "expected JSON" in refused(b"\xef\xbb\xbf" * 2 + raw("1"))


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
