"""The frames that the hub writes: events with a version, events of the hub's own, confirmations and denials.

A resource is kept as the bytes that came (EVT-15). So nothing is encoded twice."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

import msgspec

from fhircast_hub.core.wire.event import CONTEXT_MEMBER, Event
from fhircast_hub.core.wire.json import Members, encode

#: Namespace of the ids of derived opens (DER-7), so that each node makes the same id.
_DERIVED_IDS = uuid.UUID("6f1c2f5e-3f0a-5d0b-9c3c-7a5f4b0e8d21")


_MEMBERS = msgspec.json.Decoder(Members)
_TEXT = msgspec.json.Decoder(str)
#: How a version stands before the member `context`.
_VERSION = b'"context.versionId":"'


def with_version(event: Event, version: str) -> tuple[bytes, int]:
    """The event's frame with the hub's `context.versionId`, and where in it the context array begins."""
    start = b"".join((event.head, _VERSION, version.encode(), b'",'))
    return start + event.tail, len(start) + len(CONTEXT_MEMBER)


def with_versions(event: Event, version: str, prior: str) -> bytes:
    """The frame of an update, with the version that it made and the one it was made on."""
    versions = b'%b%b","context.priorVersionId":"%b",' % (_VERSION, version.encode(), prior.encode())
    return b"".join((event.head, versions, event.tail))


def replace_version(frame: bytes, context_at: int, version: str) -> bytes:
    """A frame made by `with_version`, with another version of the same length (all of the hub's are UUIDs)."""
    end = context_at - len(CONTEXT_MEMBER) - len(b'",')
    return b"".join((frame[: end - len(version)], version.encode(), frame[end:]))


def event_frame(topic: str, name: str, id_: str, timestamp: str, context: bytes) -> bytes:
    """The frame of an event that the hub makes; `context` is a JSON array."""
    return b'{"timestamp":%b,"id":%b,"event":{"hub.topic":%b,"hub.event":%b,"context":%b}}' % (
        encode(timestamp),
        encode(id_),
        encode(topic),
        encode(name),
        context,
    )


def derived_id(source: str, name: str) -> str:
    """The id of the open called `name` that is derived from the event whose id is `source` (DER-7)."""
    return str(uuid.uuid5(_DERIVED_IDS, f"{source}\n{name}"))


def id_of(frame: bytes) -> str:
    """The id of an event that was accepted."""
    return _TEXT.decode(_MEMBERS.decode(frame)["id"])


def timestamp_of(frame: bytes) -> str:
    """The timestamp of an event that was accepted."""
    return _TEXT.decode(_MEMBERS.decode(frame)["timestamp"])


def confirmation(topic: str, events: Iterable[str], lease: int) -> bytes:
    """The first frame on a socket (2.4 "Subscription Confirmation"); `lease` is in whole seconds remaining."""
    return encode(
        {"hub.mode": "subscribe", "hub.topic": topic, "hub.events": ",".join(events), "hub.lease_seconds": lease}
    )


def denial(topic: str, events: Iterable[str], reason: str) -> bytes:
    """The last frame of a subscription that ends (2.4 "Subscription Denial")."""
    return encode({"hub.mode": "denied", "hub.topic": topic, "hub.events": ",".join(events), "hub.reason": reason})
