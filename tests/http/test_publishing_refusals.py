"""The hub refuses an event that makes no sense or is no JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.running import RunningHub, event, running_hub


async def status(hub: RunningHub, body: bytes) -> int:
    """What the hub answers to a body."""
    return (await hub.publish(body)).status_code


def without(path: str) -> Any:
    """An event without one of its members."""
    message: dict[str, Any] = event("Patient-open")
    inner = message
    *parents, last = path.split(" ")
    for name in parents:
        inner = inner[name]
    del inner[last]
    return message


def of(items: Any, name: str = "Patient-open") -> Any:
    """An event with this context."""
    message = event(name)
    message["event"]["context"] = items
    return message


PATIENT = {"resourceType": "Patient", "id": "p1"}
#: Envelopes that make no sense, one for each clause of EVT-5.
WRONG: list[Any] = [
    *([], "text", 1, None, True, {}),
    *map(without, ("timestamp", "id", "event", "event hub.topic", "event hub.event", "event context")),
    *(
        event("Patient-open", timestamp=stamp)
        for stamp in ("now", "2026-11-22", "10:00:00Z", "2026-13-01T00:00:00Z", "")
    ),
    *({**event("Patient-open"), "timestamp": stamp} for stamp in (1, None)),
    *({**event("Patient-open"), "id": id_} for id_ in ("", 1, None, "i" * 257, ["x"])),
    *({**event("Patient-open"), "event": inner} for inner in ("x", 1, None)),
    {**event("Patient-open"), "event": []},
    *(event("Patient-open", topic=topic) for topic in ("", "t" * 1025, "ws", "a\0b")),
    *map(of, ([1], ["x"], [None], [[]], [{}], [{"resource": PATIENT}], [{"key": 1, "resource": PATIENT}])),
    *map(of, ([], [{"key": "patient"}], [{"key": "other", "resource": PATIENT}])),
    of([{"key": "patient", "resource": {"resourceType": "Patient"}}]),
    of([{"key": "patient", "resource": {"resourceType": "Patient", "id": ""}}]),
    of([{"key": "patient", "resource": {"resourceType": "Encounter", "id": "e1"}}]),
    of([{"key": "patient", "resource": {"id": "p1"}}]),
    of([{"key": "patient", "reference": {"reference": "Patient/p1"}}]),
    of([{"key": "patient", "resource": PATIENT}, {"key": "x", "resource": {"id": "1"}}]),
    {**event("Patient-open"), "event": {**event("Patient-open")["event"], "context": {"key": "patient"}}},
    *(event(name) for name in ("open-patient-chart", "Patient-opened", "Patient", "heartbeat", "", "a b", "com.x-y.z")),
    event("DiagnosticReport-update"),
    event("DiagnosticReport-update", also=[{"key": "updates", "resource": {"resourceType": "List", "id": "b"}}]),
    event("DiagnosticReport-update", also=[{"key": "updates", "resource": {"resourceType": "Bundle"}}] * 2),
    of([{"key": "report", "reference": {"reference": "Patient/p1"}}], "DiagnosticReport-select"),
]


@pytest.mark.req("EVT-5")
async def test_an_envelope_that_makes_no_sense_is_refused_in_one_line() -> None:
    """400 with one line of reason; nobody is told, and nothing is created."""
    async with running_hub() as hub, hub.follow(await hub.subscribe("Patient-open")) as follower:
        for wrong in WRONG:
            answer = await hub.publish(json.dumps(wrong).encode())
            assert answer.status_code == 400, wrong
            assert len(answer.text.splitlines()) == 1
        assert await follower.silent()
        assert (await hub.context()).json()["context.versionId"] == "0"


#: What must not stand for a value, whatever a lenient reader makes of it.
NO_JSON = [
    *(
        b"NaN",
        b"-Infinity",
        b"Infinity",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"-",
        b"1e",
        b"0x10",
        b"1_0",
        b"tru",
        b"undefined",
    ),
    *(
        b'"\\x41"',
        b'"\\u12"',
        b'"a\nb"',
        b'"a\x00b"',
        b"'a'",
        b'"a',
        b"{a:1}",
        b'{"a":1,}',
        b"[1,]",
        b"//\n1",
        b"/**/1",
    ),
    *(
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
        b'"\xf5\x80\x80\x80"',
        b'"\\ud800"',
        b"",
        b"[",
        b"}",
        b"\xef\xbb\xbf1",
    ),
]


@pytest.mark.req("EVT-6")
async def test_what_is_no_json_is_refused_wherever_it_stands() -> None:
    """In a resource, an item, the event, the envelope, or around it: 400, or every subscriber would choke on it."""
    whole = (
        b'{"timestamp":"2026-11-22T10:00:00Z","id":"1","w":%b,"event":{"hub.topic":"t","hub.event":"Patient-open","v":%b,'
        b'"context":[{"key":"patient","resource":{"resourceType":"Patient","id":"p","x":%b},"y":%b}]}}'
    )
    async with running_hub() as hub:
        assert await status(hub, whole % (b"1", b"1", b"1", b"1")) == 202
        for value in NO_JSON:
            for place in range(4):
                body = whole % tuple(value if place == here else b"1" for here in range(4))
                assert await status(hub, body) == 400, (value, place)
        good = whole % (b"1", b"1", b"1", b"1")
        for body in (
            good + b"x",
            good + good,
            good[:-1],
            b"\xef\xbb\xbf" * 2 + good,
            good.decode().encode("utf-16"),
            b"",
            b" ",
        ):
            assert await status(hub, body) == 400, body[:9]


@pytest.mark.req("EVT-6")
async def test_nesting_is_bounded() -> None:
    """64 levels are taken, 65 are not, in arrays and in objects; brackets in strings are no levels; a hundred thousand: 400."""
    whole = json.dumps(event("Patient-open")).replace('"id": "1"}', '"id": "1", "x": %s}')
    async with running_hub() as hub:
        outside = 5  # body, event, context, item, resource
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            for depth, expected in ((64, 202), (65, 400), (100_000, 400)):
                levels = depth - outside
                body = whole % (opening * levels + "1" + closing * levels)
                assert await status(hub, body.encode()) == expected, depth
        assert await status(hub, (whole % json.dumps("[{" * 500 + '"' * 50 + "\\")).encode()) == 202
        assert await status(hub, (whole % ("[" * 900_000)).encode()) == 400


@pytest.mark.req("EVT-6", "EVT-28")
async def test_a_member_of_the_envelope_twice_is_refused() -> None:
    """Also where an escape hides it: the hub and a subscriber could read different ones. Further in a resource it is theirs."""
    good = json.dumps(event("Patient-open"), separators=(",", ":")).encode()
    twice = [
        good.replace(b'"id":"Patient-open-1"', b'"id":"a","id":"b"'),
        good.replace(b'{"timestamp"', b'{"id":"a","timestamp"'),
        good.replace(b'{"timestamp"', b'{"\\u0069d":"a","timestamp"'),
        good.replace(b'"hub.event"', b'"hub.topic":"other","hub.event"'),
        good.replace(b'"context":', b'"context":[],"context":'),
        good.replace(b'"event":{', b'"event":{},"event":{'),
        good[:-1] + b',"unknown":1,"unknown":1}',
        good.replace(b'"resourceType"', b'"x":1,"x":2,"resourceType"'),
    ]
    async with running_hub() as hub:
        for body in twice:
            assert body != good
            assert await status(hub, body) == 400, body
        assert await status(hub, good.replace(b'"resourceType"', b'"x":{"y":1,"y":2},"resourceType"')) == 202
