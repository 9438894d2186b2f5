"""Any bytes, JSON or timestamp are an event or a bad request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.wire.event import parse_event
from fhircast_hub.core.wire.timestamps import instant
from tests.core.properties import check_reason, check_strict, settings, texts, values
from tests.core.world import body, message, patient, spec


def check_event_or_refused(text: bytes) -> None:
    """What is accepted can be read by everybody it is sent to; all else is a BadRequest."""
    try:
        event = parse_event(text)
    except BadRequest as error:
        check_reason(error)
        return
    check_strict(text.removeprefix(b"\xef\xbb\xbf"))  # a byte order mark is ignored (EVT-23), and never passed on
    check_strict(event.frame())
    instant(event.timestamp)
    posted, sent = json.loads(text), json.loads(event.frame())
    for of in (posted, posted["event"]):
        of.pop("context.versionId", None)
        of.pop("context.priorVersionId", None)
    assert sent == posted


POSTED = ["Patient-open", "DiagnosticReport-update.request", "DiagnosticReport-update.delete", "SyncError"]
pieces = st.one_of(
    st.binary(max_size=2),
    st.sampled_from(
        [b"\\ud800", b"\\q", b"NaN", b"-Infinity", b"01", b"1.", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x00", b"[[["]
    ),
    st.sampled_from([b'"', b",", b":", b"{", b"}", b"[", b"]", b"\\", b" ", b'"id":"1",', b'"event":{},', b"null"]),
)


@pytest.mark.req("EVT-5", "EVT-6")
@settings(max_examples=100)
@given(values | texts | st.lists(values))
def test_any_json_is_an_event_or_a_bad_request(value: object) -> None:
    """Whatever its type."""
    check_event_or_refused(body(value))


@pytest.mark.req("EVT-6")
@settings(max_examples=100)
@given(st.binary(max_size=30))
def test_any_bytes_are_an_event_or_a_bad_request(text: bytes) -> None:
    """Neither text nor JSON."""
    check_event_or_refused(text)


@pytest.mark.req("EVT-5", "EVT-6", "EVT-15")
@settings(max_examples=250)
@given(st.sampled_from(POSTED), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2), pieces), min_size=1, max_size=2))
def test_a_damaged_event_is_still_good_or_refused(name: str, damages: list[tuple[float, int, bytes]]) -> None:
    """Bytes of the specification's messages put in, taken out or changed, anywhere."""
    text = body(json.loads(spec(name)))
    for place, count, piece in damages:
        start = int(place * len(text))
        text = text[:start] + piece + text[start + count :]
    check_event_or_refused(text)


def places(of: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all values in JSON."""
    inner = of.items() if isinstance(of, dict) else enumerate(of) if isinstance(of, list) else ()
    return [path, *(each for key, value in inner for each in places(value, (*path, key)))]


UPDATE = json.loads(spec("DiagnosticReport-update.delete"))
PLACES = [path for path in places(UPDATE) if path and len(path) < 9]


@pytest.mark.req("EVT-5", "CON-19")
@settings(max_examples=200)
@given(st.sampled_from(PLACES), values)
def test_any_value_anywhere_is_an_event_or_a_bad_request(path: tuple[Any, ...], value: object) -> None:
    """A member of an update replaced by something of any other type."""
    changed = json.loads(json.dumps(UPDATE))
    into = changed
    for step in path[:-1]:
        into = into[step]
    into[path[-1]] = value
    check_event_or_refused(body(changed))


@pytest.mark.req("EVT-5", "EVT-20")
@settings(max_examples=120)
@given(
    st.one_of(
        st.text("0123456789-:.,TZ+ ", max_size=26),
        st.datetimes().map(str),
        st.from_regex(r"\A[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9](Z|[+-][0-2][0-9]:[0-9]{2})?\Z"),
    )
)
@example("0001-01-01T00:00:00+23:59")
@example("9999-12-31T23:59:59.999999-23:59")
def test_any_timestamp_is_an_instant_or_a_bad_request(timestamp: str) -> None:
    """What is accepted can be compared."""
    check_event_or_refused(body(message("Patient-open", patient("p1"), at=timestamp)))
