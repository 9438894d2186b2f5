"""The frames that the hub writes: events with a version, events of the hub's own, confirmations and denials.

A resource is passed on as received (EVT-15), so nothing is encoded twice.
An event without a version is `Event.frame()`. ws/frames.py puts the text into a WebSocket frame.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

import msgspec

from fhircast_hub.core.wire.event import Event
from fhircast_hub.core.wire.json import Members, encode
from fhircast_hub.core.wire.plain_event import CONTEXT_MEMBER

#: The namespace of the ids of derived opens (DER-11): each node makes the same id.
_DERIVED_IDS = uuid.UUID("6f1c2f5e-3f0a-5d0b-9c3c-7a5f4b0e8d21")

_MEMBERS = msgspec.json.Decoder(Members)
_STRING = msgspec.json.Decoder(str)
#: The member of a version, up to its value. A version goes before the member `context`.
_VERSION = b'"context.versionId":"'


def with_version(event: Event, version: str) -> tuple[bytes, int]:
    """The event's frame with the hub's `context.versionId`, and the offset of the context array in the frame."""
    start = b"".join((event.head, _VERSION, version.encode(), b'",'))
    return start + event.tail, len(start) + len(CONTEXT_MEMBER)


def with_versions(event: Event, version: str, prior: str) -> bytes:
    """The frame of an update, with its new version and the version that it was based on."""
    versions = b'%b%b","context.priorVersionId":"%b",' % (_VERSION, version.encode(), prior.encode())
    return b"".join((event.head, versions, event.tail))


def replace_version(frame: bytes, context_at: int, version: str) -> bytes:
    """A frame made by `with_version`, with another version of the same length. All versions of the hub are UUIDs.

    `context_at` is the offset of the context array in the frame.
    """
    end = context_at - len(CONTEXT_MEMBER) - len(b'",')
    return b"".join((frame[: end - len(version)], version.encode(), frame[end:]))


def event_frame(topic: str, name: str, id_: str, timestamp: str, context: bytes) -> bytes:
    """The frame of an event of the hub's own. `context` is a JSON array."""
    return b'{"timestamp":%b,"id":%b,"event":{"hub.topic":%b,"hub.event":%b,"context":%b}}' % (
        encode(timestamp),
        encode(id_),
        encode(topic),
        encode(name),
        context,
    )


def derived_id(source_id: str, name: str) -> str:
    """The id of the open with the event name `name`, derived from the event with the id `source_id` (DER-11)."""
    return str(uuid.uuid5(_DERIVED_IDS, f"{source_id}\n{name}"))


def id_of(frame: bytes) -> str:
    """The id in an event's frame."""
    return _STRING.decode(_MEMBERS.decode(frame)["id"])


def timestamp_of(frame: bytes) -> str:
    """The timestamp in an event's frame."""
    return _STRING.decode(_MEMBERS.decode(frame)["timestamp"])


def confirmation(topic: str, events: Iterable[str], lease: int) -> bytes:
    """The first frame on a socket (2.4 "Subscription Confirmation"). `lease` is the remaining time in whole seconds."""
    return encode(
        {"hub.mode": "subscribe", "hub.topic": topic, "hub.events": ",".join(events), "hub.lease_seconds": lease}
    )


def denial(topic: str, events: Iterable[str], reason: str) -> bytes:
    """The last frame of a subscription that the hub ends (2.4 "Subscription Denial")."""
    return encode({"hub.mode": "denied", "hub.topic": topic, "hub.events": ",".join(events), "hub.reason": reason})
