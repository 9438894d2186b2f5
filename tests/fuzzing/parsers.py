"""The parsers that read what anybody may send, where a fuzzer begins with each, and what must hold of what they accept."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fhircast_hub.core.errors import HubError
from fhircast_hub.core.wire.acknowledgement import read_acknowledgement
from fhircast_hub.core.wire.event import parse_event
from fhircast_hub.core.wire.subscription_request import parse_json_subscription_request, parse_subscription_request
from fhircast_hub.ws.frames import end_of_frame, payload

_SPEC = Path(__file__).resolve().parents[1] / "spec"
#: Frames that one read of a socket may bring before it is given up.
_FRAMES_OF_A_READ = 256
#: Bytes of the longest body, form and frame that reach a parser.
BODY, SMALL = 1 << 20, 64 << 10


class Parser(NamedTuple):
    """`read` takes an input of up to `longest` bytes, and fails for nothing; `seeds` are good inputs."""

    name: str
    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    longest: int


def _event(body: bytes) -> None:
    """An event that is accepted has no member twice where the hub looks, and one that is refused for that has one (EVT-6)."""
    reason, frame = "", b""
    try:
        frame = parse_event(body).frame()
    except HubError as error:
        reason = str(error)
    assert "\n" not in reason
    if len(body) >= SMALL:
        return  # its time is what counts
    if not reason:
        assert not _has_twice(body), "a member is there twice"
        json.loads(frame, parse_int=str)
    elif "expected each member once" in reason:
        assert _has_twice(body), "refused for a member that is there once"


def _form(body: bytes) -> None:
    for read in (parse_subscription_request, parse_json_subscription_request):
        with contextlib.suppress(HubError):
            read(body)


def _frames(data: bytes) -> None:
    """A stream is cut into frames, each of which ends behind its beginning."""
    position, left = 0, _FRAMES_OF_A_READ
    while left and (end := end_of_frame(data, position)) is not None and end <= len(data):
        left -= 1
        assert end >= position + 2
        if data[position + 1] & 0x80:
            assert len(payload(data, position, end)) <= end - position
        position = end


class _Pairs(list[tuple[str, Any]]):
    pass


def _has_twice(body: bytes) -> bool:
    """Whether a member is there twice where the hub looks: found by another reader of JSON, the slow and plain way."""
    text = body.removeprefix(b"\xef\xbb\xbf").decode(errors="replace")
    return _twice(json.loads(text, object_pairs_hook=_Pairs, parse_int=str, parse_float=str))


def _twice(envelope: object) -> bool:
    looked_at = [envelope]
    for event in _values(envelope, "event"):
        looked_at.append(event)
        for context in _values(event, "context"):
            for item in context if isinstance(context, list) else []:
                looked_at.append(item)
                for name in ("resource", "reference", "resources"):
                    for value in _values(item, name):
                        looked_at += [value] if isinstance(value, _Pairs) else value if isinstance(value, list) else []
                if _values(item, "key") == ["updates"] and str(_values(event, "hub.event")).lower().endswith(
                    "-update']"
                ):
                    entries = [
                        e
                        for r in _values(item, "resource")
                        for es in _values(r, "entry")
                        if isinstance(es, list)
                        for e in es
                    ]
                    looked_at += [
                        *entries,
                        *(v for e in entries for n in ("request", "resource") for v in _values(e, n)),
                    ]
    objects = [each for each in looked_at if isinstance(each, _Pairs)]
    return any(len({name for name, _ in each}) < len(each) for each in objects)


def _values(of: object, name: str) -> list[Any]:
    return [value for called, value in of if called == name] if isinstance(of, _Pairs) else []


def _read(*names: str) -> tuple[bytes, ...]:
    return tuple((_SPEC / f"{name}.json").read_bytes() for name in names)


_EVENTS = _read(*sorted(path.stem for path in _SPEC.glob("*.json") if b'"hub.event"' in path.read_bytes()))
_UPDATES = (
    *_read("DiagnosticReport-update.request", "DiagnosticReport-update.delete"),
    b'{"timestamp":"2023-04-01T12:00:00Z","id":"1","event":{"hub.topic":"t","hub.event":"Patient-update","context":['
    b'{"key":"patient","reference":{"reference":"Patient/p1"}},{"key":"updates","resource":{"resourceType":"Bundle","entry":['
    b'{"fullUrl":"urn:uuid:1","request":{"method":"PUT"},"resource":{"resourceType":"Patient","id":"p2","x":[1.10,null]}},'
    b'{"request":{"method":"DELETE","url":"Patient/p3"}}]}}]}}',
)
_FORMS = (
    b"hub.channel.type=websocket&hub.mode=subscribe&hub.topic=a%20topic&hub.events=Patient-open%2CPatient-close&hub.lease_seconds=60",
    b"hub.callback=https%3A%2F%2Fexample.com%2Fx&hub.mode=subscribe&hub.topic=t&hub.events=a,b&hub.secret=s&subscriber.name=n",
    b'{"hub.channel.type":"websocket","hub.mode":"subscribe","hub.topic":"t","hub.events":["Patient-open","a"],"hub.lease":null}',
)
_ACKNOWLEDGEMENTS = (
    *_read("acknowledgement"),
    b'{"id":"e","status":409,"reason":"two\nlines, \\ud83d and \xff"}',
    b'\xef\xbb\xbf[{"id":"e","status":"409 Conflict","x":[1.0,{"a":NaN}],}',
)
_FRAMES = (
    b"\x81\x82abcdhi\x89\x80abcd\x8a\x04pong",
    b"\x81\xfe\x01\x00abcd" + b"x" * 256,
    b"\x01\xff" + (70_000).to_bytes(8) + b"abcd" + b"x" * 300,
)

PARSERS: dict[str, Parser] = {
    each.name: each
    for each in (
        Parser("envelope", _event, _EVENTS, BODY),
        Parser("form", _form, _FORMS, SMALL),
        Parser("bundle", _event, _UPDATES, BODY),
        Parser("frames", _frames, _FRAMES, SMALL + 14),
        Parser("acknowledgement", read_acknowledgement, _ACKNOWLEDGEMENTS, SMALL),
    )
}
