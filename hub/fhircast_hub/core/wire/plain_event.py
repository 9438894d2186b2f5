"""A plain event: a posted event in the form that most clients send, read in one step.

A plain event has the members that the specification names, and an item has a key and a resource. There is no white space
between members, no escape in the strings that the hub reads, and no member of a version.

The hub adds the lengths of the values that were read, of their names, and of the marks between. A text of exactly this length
has these properties. White space, an escape, a further member and a dropped duplicate each make the text longer.
All other events are read in `event.py`, and more slowly.
"""

from __future__ import annotations

import re

import msgspec

from fhircast_hub.core.limits import MAX_ITEMS, MAX_MEMBERS
from fhircast_hub.core.wire.context_items import Item
from fhircast_hub.core.wire.json import SMALL_BYTES, Members, decode_type_and_id

#: How the second part of a frame begins.
CONTEXT_MEMBER = b'"context":'
#: How a plain event begins. Most texts with white space are told by their beginning.
_START = re.compile(rb'\{"[a-z]+":["{]')
#: Bytes of an event without its strings and items.
_EVENT_SIZE = len('{"timestamp":"","id":"","event":{"hub.topic":"","hub.event":"","context":}}')
#: Bytes of an item without its key and the members of its resource. The last of these members has no comma.
_ITEM_SIZE = len('{"key":"","resource":{}}') - len(",")
#: Bytes of a member without its name and value.
_MEMBER_SIZE = len('"":,')


class Posted(msgspec.Struct):
    """The parts of a posted event, as received and not checked yet."""

    id: str
    timestamp: str
    #: hub.topic.
    topic: str
    #: hub.event.
    name: str
    items: list[Item]
    #: The context array.
    context: bytes
    #: The frame up to the member `context`.
    head: bytes
    #: The frame from the member `context` on.
    tail: bytes
    #: Of an update: versions that the sender gives as its base.
    versions: tuple[str, ...] = ()


class _Item(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    resource: Members


class _Event(msgspec.Struct, forbid_unknown_fields=True):
    topic: str = msgspec.field(name="hub.topic")
    name: str = msgspec.field(name="hub.event")
    context: list[_Item]


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    timestamp: str
    id: str
    event: _Event


_ENVELOPE = msgspec.json.Decoder(_Envelope)


def read_plain(body: bytes) -> Posted | None:
    """The parts of a plain event. None: the event is not plain, or is no event at all."""
    if len(body) > SMALL_BYTES or not _START.match(body):
        return None
    try:
        envelope = _ENVELOPE.decode(body)
        items = [Item(item.key, decode_type_and_id(item.resource), item.resource) for item in envelope.event.context]
    except (KeyError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    id_, timestamp, event = envelope.id, envelope.timestamp, envelope.event
    context_size = _size_of_array(items)
    size = _EVENT_SIZE + len(timestamp) + len(id_) + len(event.topic) + len(event.name) + context_size
    if len(body) != size or len(items) > MAX_ITEMS:
        return None
    member_at = body.index(CONTEXT_MEMBER)  # no string has a quotation mark in it, so this is the member
    context_at = member_at + len(CONTEXT_MEMBER)
    return Posted(
        id=id_,
        timestamp=timestamp,
        topic=event.topic,
        name=event.name,
        items=items,
        context=body[context_at : context_at + context_size],
        head=body[:member_at],
        tail=body[member_at:],
    )


def _size_of_array(items: list[Item]) -> int:
    """Bytes of the plain text of these items. 0: a resource has too many members. A text that is not plain has more bytes."""
    size = 1 + len(items)  # brackets and commas
    for item in items:
        members = item.members
        if len(members) > MAX_MEMBERS:
            return 0
        names, values = "".join(members), b"".join(members.values())
        size += _ITEM_SIZE + len(item.key) + _MEMBER_SIZE * len(members) + len(names) + len(values)
    return size
