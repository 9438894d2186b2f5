"""The tracker reads an acknowledgement in any shape, and ignores other frames."""

from __future__ import annotations

import json
import time

import pytest

from fhircast_hub.core.state.commands import Acknowledged, Rejected
from fhircast_hub.core.wire.acknowledgement import MAX_REASON, read_acknowledgement
from tests.acknowledgements.tracker_world import Node, event_ref, reply


@pytest.mark.req("SYN-1", "SYN-18")
@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((status, None) for status in ("200", "202", "204", "299", '"200"', '"202"', '"200 OK"', '"200: fine"')),
        *(("409", 409), ("400", 400), ("404", 404), ("500", 500), ("503", 503), ("599", 599)),
        *(("100", 100), ("199", 199), ("300", 300), ("302", 302)),
        *(('"409"', 409), ('"409 Conflict"', 409), ('"500 Internal Server Error"', 500), ('" 409 "', 409)),
        *(("409.0", 409), ('"409.5"', 409), (" \n409 ", 409), ("200.0", None)),
        *((status, None) for status in ("null", "true", "false", "[409]", '{"code": 409}', "[]", '""', '"Conflict"')),
        *((status, None) for status in ("0", "-409", "99", "600", "1000", "4090", "40", "4", "2000", '"4090"')),
        ('"409۹"', 409),  # only ASCII digits count, and 409 has no fourth digit
        *((status, None) for status in ('"٤٠٩"', '"HTTP/1.1 409 Conflict"', "1e400", '"\\u0034"')),
        ('"\\u0034\\u0030\\u0039"', 409),
    ],
)
def test_a_status_of_any_shape_is_an_acknowledgement(status: str, code: int | None) -> None:
    """A readable status other than 2xx refuses. Any other status acknowledges."""
    node = Node("a")
    node.tells(event_ref(), "a")
    told = [Acknowledged("a", followed=code is None)]
    refused = [] if code is None else [Rejected("a", "a'", event_ref(), code)]
    assert node.says("a", b'{"id": "e", "status": %b}' % status.encode()) == told + refused


@pytest.mark.req("SYN-1", "SYN-18")
@pytest.mark.parametrize(
    "message",
    [
        b'{"id":"e"}',
        b'{"id":"e","timestamp":"2023-04-01T12:00:00Z"}',
        b' {"status" :200 , "id" : "e"} ',
        b'{"hub.topic":"here","id":"e","event":{"status":409},"status":"200"}',
        b'{"id":"\\u0065"}',
    ],
)
def test_the_id_alone_acknowledges(message: bytes) -> None:
    """The status may be missing. The id may stand among other members, in any order."""
    node = Node("a")
    node.tells(event_ref(), "a")
    assert node.says("a", message) == [Acknowledged("a")]


@pytest.mark.req("SYN-15", "SYN-28")
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"e",
        b"not json",
        b"null",
        b'"e"',
        b"[]",
        b'["e"]',
        b"{}",
        b'{"status":409}',
        b'{"id":1,"status":409}',
        b'{"id":null,"status":409}',
        b'{"id":["e"],"status":409}',
        b'{"ID":"e","status":409}',
        b'{"id":"unknown","status":409}',
        b'{"id":"E","status":409}',
        b'{"id":"","status":409}',
        b'{"hub.channel.endpoint":"wss://hub.example/ws/x"}',
        b'{"id":"e","status":"',
        b'{"id":"e","status":',
        b'{"reason":"he said "status":409 so", "id":"e","status":200}',
        b'{"event":{"id":"e","status":409},"id":"f","status":200,',
        b'{"id":5,"status":409,}',
        b'"id":"e","status":409',
        b'{"event":{"id":"e","status":409}}',
        b'{"id":"\xff","status":409}',
        b'{"id":"\\ud800","status":409}',
        b'{"id":"e","x":' + b"[" * 4000,
        b'{"x":' * 800,
        b'{"id":"e","x":' + b"[" * 65000,
        b"\x00" * 65536,
    ],
)
def test_an_odd_text_acknowledges_nothing(message: bytes) -> None:
    """An odd text raises no error, and its sender's next acknowledgement counts."""
    node = Node("a")
    node.tells(event_ref(), "a")
    assert node.says("a", message) is None
    assert node.says("a", reply()) == [Acknowledged("a")]


@pytest.mark.req("SYN-15", "SYN-27")
@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b'{"id":"e","status":409,"reason":"cut \xf0\x9f\x98"}', "cut \ufffd"),
        (b'{"id":"e","status":409,"reason":"cut \\ud83d"}', "cut \ufffd"),
        (b'{"id":"e","status":409,"reason":"cut \\ud83d and on"}', "cut \ufffd and on"),
        (b'{"id":"e","status":409,"reason":"Latin-1: M\xfcller"}', "Latin-1: M\ufffdller"),
        (b'{"id":"e","status":409,"reason":"two\nlines\tand a tab"}', "two lines and a tab"),
        (b'\xef\xbb\xbf{"id":"e","status":409,"reason":"behind a mark"}', "behind a mark"),
        (b'{"id":"e","status":409,"reason":{"text":"x"}}', ""),
        (b'{"id":"e","status":409,"other":"\xff\xfe"}', ""),
        (b'{"id":"e","status":409,"took":NaN,"of":Infinity}', ""),
        (b'{"id":"e","status":409,"n":' + b"9" * 5000 + b"}", ""),
        (b'{"id":"e","status":409,}', ""),
        (b'{"id":"e","status":409', ""),
        (b'{"id":"e","status":409}}', ""),
        (b'{"id":"e","status":409}\n{"id":"f","status":200}', ""),
        (b'{"id":"e","status":"409 Conflict","reason":"patient "X" is unknown"}', "patient"),
        (b'{"event":{"id":"f","status":200},"id":"e","status":409', ""),
        (b'{"id":"\\u0065","status":409,', ""),
        (b'{"id":"e","status":409,"id":"f","status":200,}', ""),
        (b'{"id": "e", "status": "409", "reason": "cut off in the mid', ""),
        (b'{"id":"e","status":409,"x":' + b"[" * 4000, ""),
        (b'[{"id":"e","status":409}]', ""),
    ],
)
def test_a_refusal_counts_whatever_else_the_frame_holds(message: bytes, reason: str) -> None:
    """Id and status suffice. Bytes of the reason that are not UTF-8 are replaced."""
    node = Node("a")
    node.tells(event_ref(), "a")
    refused = Rejected("a", "a'", event_ref(), 409, reason)
    assert node.says("a", message) == [Acknowledged("a", followed=False), refused]


@pytest.mark.req("SYN-15", "SYN-27")
@pytest.mark.parametrize(("before", "counts"), [(62, True), (63, False)])
def test_of_what_is_no_json_the_first_64_members_count(before: int, counts: bool) -> None:
    """Later members are not searched for id and status."""
    odd = b"{" + b'"x":0,' * before + b'"id":"e","status":409,'
    assert (read_acknowledgement(odd) is not None) is counts
    assert read_acknowledgement(odd[:-1] + b"}") is not None


@pytest.mark.req("SYN-15", "SYN-27")
def test_of_what_is_no_json_the_first_24_kib_count() -> None:
    """At most 24 KiB may stand before id and status."""
    for size, counts in ((24_000, True), (25_000, False)):
        odd = b'{"x":NaN,"reason":"%b","id":"e","status":409}' % (b"x" * size)
        assert (read_acknowledgement(odd) is not None) is counts


@pytest.mark.req("SYN-15", "SYN-1", "SYN-18")
@pytest.mark.parametrize(
    "message", [b'{"id":"e","status":NaN}', b'{"id":"e","status":null,"x":"\xff"}', b'{"id":"e","status":[],"x":NaN}']
)
def test_a_status_that_cannot_be_read_counts_as_received(message: bytes) -> None:
    """An unreadable status is read as a missing one."""
    node = Node("a")
    node.tells(event_ref(), "a")
    assert node.says("a", message) == [Acknowledged("a")]


@pytest.mark.req("SYN-15")
@pytest.mark.parametrize(
    "message",
    [
        b'{"id":"e","status":' + b" " * 65000 + b"x",
        b'{"status"' + b" " * 65000 + b'"id"',
        b"{" + b"," * 65000 + b'"id" "status"',
        b'{"id" "status":' * 4000,
        b'{"status":"' + b"\\" * 65000 + b'"id"',
        b'{"status":' + b"[" * 65000 + b'"id"',
        b'{"a":' * 13000 + b'"id" "status"',
    ],
)
def test_no_frame_takes_long_to_read(message: bytes) -> None:
    """Reading the longest frame takes less time than reading a hundred good ones, so no client blocks the hub."""
    good = b'{"id":"e","status":409,"reason":"' + b"x" * 65000 + b'"}'
    started = time.perf_counter()
    for _ in range(100):
        read_acknowledgement(good)
    limit = time.perf_counter() - started
    started = time.perf_counter()
    assert read_acknowledgement(message) is None
    assert time.perf_counter() - started < limit + 1


def test_the_longest_acknowledgement_is_heard() -> None:
    """The id has 256 characters outside the basic plane, all of them escaped."""
    node, id_ = Node("a"), "\U0001f600" * 256
    node.tells(event_ref(id_), "a")
    message = json.dumps({"id": id_, "status": "409 Conflict", "timestamp": "2023-04-01T12:00:00.000Z"}).encode()
    assert len(message) > 3000
    assert node.says("a", message) == [Acknowledged("a", followed=False), Rejected("a", "a'", event_ref(id_), 409)]


@pytest.mark.req("SYN-1", "SYN-15", "SYN-22", "SYN-29")
@pytest.mark.parametrize("size", [4096, 65_400])
def test_a_refusal_with_a_long_reason_is_heard(size: int) -> None:
    """The reason may be a long stack trace. The other subscribers still get the refusal, with the reason's start."""
    node = Node("a")
    node.tells(event_ref(), "a")
    message = json.dumps({"id": "e", "status": 500, "reason": "Traceback:\n" + "x" * size}).encode()
    refused = Rejected("a", "a'", event_ref(), 500, "Traceback: " + "x" * (MAX_REASON - 11))
    assert node.says("a", message) == [Acknowledged("a", followed=False), refused]
