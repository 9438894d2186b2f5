"""Messages: a posted event read without being decoded, and the frames that the hub writes.

A resource is kept as the bytes that came (EVT-15): the hub looks for its resourceType, id and references and passes the rest
on. So the member order, `1.10`, integers of any size and every escape survive, and nothing is encoded twice.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterable

import msgspec

from fhircast_hub.core.bundles import Change, read_changes
from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.limits import MAX_DEPTH, MAX_ID, MAX_ITEMS, MAX_TOPIC
from fhircast_hub.core.names import Kind, anchor_keys, classify
from fhircast_hub.core.reading import Stub, check_controls, decoded, ref_of

#: First path segments under hub.url that cannot be topics (SUB-5).
RESERVED_TOPICS = frozenset((".well-known", "metadata", "ws"))
#: Namespace of the ids of derived opens (DER-1), so that each node makes the same id.
_DERIVED_IDS = uuid.UUID("6f1c2f5e-3f0a-5d0b-9c3c-7a5f4b0e8d21")

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?", re.ASCII)
#: Leave of a text without strings its brackets, all of one kind.
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")


class _Reference(msgspec.Struct):
    reference: str


class _Item(msgspec.Struct):
    key: str
    resource: Stub | None = None
    reference: msgspec.Raw = msgspec.Raw(b"")


class Event(msgspec.Struct, frozen=True):
    """A posted event. `head` + `tail` are its frame; a version goes between them.

    `name` is as sent, `key` in lower case; `type` is the anchor's resourceType and `ref` its `type/id`, type in lower case
    ("" without an anchor); `context` is the context array's bytes; `implied` the refs of the other contexts it names, by type.
    `fingerprint` is the same for a repeat (id, timestamp and body, EVT-17) and differs for everything else. Of an update,
    `version` is the sender's context.versionId ("" without one) and `changes` are the entries of its Bundle.
    """

    topic: str
    name: str
    key: str
    kind: Kind
    id: str
    timestamp: str
    type: str
    ref: str
    head: bytes
    tail: bytes
    context: bytes
    implied: dict[str, str]
    fingerprint: bytes
    version: str = ""
    changes: tuple[Change, ...] = ()

    def frame(self) -> bytes:
        """The message as it is broadcast, without a version."""
        return self.head + self.tail


_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS = msgspec.json.Decoder(list[_Item])
_RAW_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)
_REFERENCE = msgspec.json.Decoder(_Reference)
_VERSION_ID = msgspec.json.Decoder(str | None)


class JsonObject(list[tuple[str, object]]):
    """A JSON object as its members, so that one given twice is seen."""


#: Decodes objects as JsonObject. Numbers stay text: Python refuses to make an int of more than 4,300 digits.
PAIRS = json.JSONDecoder(object_pairs_hook=JsonObject, parse_int=str, parse_float=str)
encode = msgspec.json.Encoder().encode


def parse_event(body: bytes) -> Event:
    """Read a posted event (FHIRcast 3.0.0, 2.6 "Request Context Change body") from its JSON text.

    Raises BadRequest with one line that names the member, what was expected and what came (EVT-5, EVT-6).
    """
    envelope = decoded(_MEMBERS, body, "the body")
    _check_text(body)
    event_raw = _required(envelope, "event", "event")
    event = decoded(_MEMBERS, event_raw, "event")
    _check_once(body, event_raw, envelope, "the body")
    context = _required(event, "context", "event.context")
    items = decoded(_ITEMS, context, "event.context")
    if len(items) > MAX_ITEMS:
        raise BadRequest(f"event.context: expected at most {MAX_ITEMS} items, got {len(items)}")
    _check_once(event_raw, context, event, "event")

    id_ = _text(envelope, "id", "id")
    if not 0 < len(id_) <= MAX_ID:
        raise BadRequest(f"id: expected 1 to {MAX_ID} characters, got {len(id_)}")
    timestamp = _text(envelope, "timestamp", "timestamp")
    _check_timestamp(timestamp)
    topic = check_topic(_text(event, "hub.topic", "event.hub.topic"))
    name = _text(event, "hub.event", "event.hub.event")
    kind, type_ = classify(name)
    anchor = _anchor(items, kind, type_) if type_ else None
    version, changes = _update(event, items, context) if kind is Kind.UPDATE else ("", ())
    head, tail = _split(envelope, event)
    return Event(
        topic=topic,
        name=name,
        key=name.lower(),
        kind=kind,
        id=id_,
        timestamp=timestamp,
        type=anchor[0] if anchor else "",
        ref=f"{type_}/{anchor[1]}" if anchor else "",
        head=head,
        tail=tail,
        context=context,
        implied=_implied(items, type_, _of_resource if kind is Kind.OPEN else _named) if type_ else {},
        fingerprint=hashlib.blake2b(body, digest_size=16).digest(),
        version=version,
        changes=changes,
    )


def check_topic(topic: str) -> str:
    """`topic`, if it can be one (SUB-5); else BadRequest."""
    if not 0 < len(topic) <= MAX_TOPIC:
        raise BadRequest(f"hub.topic: expected 1 to {MAX_TOPIC} characters, got {len(topic)}")
    check_controls("hub.topic", topic)
    if topic in RESERVED_TOPICS:
        raise BadRequest(f"hub.topic: {topic} is a path of the hub's own")
    return topic


def with_version(event: Event, version: str) -> tuple[bytes, int]:
    """The event's frame with the hub's `context.versionId`, and where in it the context array begins."""
    start = b"".join((event.head, _VERSION, version.encode(), b'",'))
    return start + event.tail, len(start) + len(_CONTEXT)


def with_versions(event: Event, version: str, prior: str) -> bytes:
    """The frame of an update, with the version that it made and the one it was made on."""
    versions = b'%b%b","context.priorVersionId":"%b",' % (_VERSION, version.encode(), prior.encode())
    return b"".join((event.head, versions, event.tail))


def at_version(frame: bytes, context_at: int, version: str) -> bytes:
    """A frame made by `with_version`, with another version of the same length (all of the hub's are UUIDs)."""
    end = context_at - len(_CONTEXT) - len(b'",')
    return b"".join((frame[: end - len(version)], version.encode(), frame[end:]))


def made_event(topic: str, name: str, id_: str, timestamp: str, context: bytes) -> bytes:
    """The frame of an event that the hub makes; `context` is a JSON array."""
    return b'{"timestamp":%b,"id":%b,"event":{"hub.topic":%b,"hub.event":%b,"context":%b}}' % (
        encode(timestamp),
        encode(id_),
        encode(topic),
        encode(name),
        context,
    )


def derived_id(source: str, name: str) -> str:
    """The id of the open called `name` that is derived from the event whose id is `source` (DER-1)."""
    return str(uuid.uuid5(_DERIVED_IDS, f"{source}\n{name}"))


def id_of(frame: bytes) -> str:
    """The id of an event that was accepted."""
    return _TEXT.decode(_MEMBERS.decode(frame)["id"])


def timestamp_of(frame: bytes) -> str:
    """The timestamp of an event that was accepted."""
    return _TEXT.decode(_MEMBERS.decode(frame)["timestamp"])


def instant(timestamp: str) -> float:
    """A timestamp that was accepted, in epoch seconds; without a zone it is UTC."""
    moment = datetime.datetime.fromisoformat(timestamp)
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def rfc3339(now: float) -> str:
    """An instant (epoch seconds) as the hub writes it: UTC, milliseconds, Z."""
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def raw_items(context: bytes) -> list[tuple[str, str, bytes]]:
    """The items of a context array that was accepted: key, ref of the resource ("" where it has none), bytes."""
    stubs = _ITEMS.decode(context)
    return [
        (stub.key, ref_of(stub.resource), bytes(raw))
        for stub, raw in zip(stubs, _RAW_ITEMS.decode(context), strict=True)
    ]


def confirmation(topic: str, events: Iterable[str], lease: int) -> bytes:
    """The first frame on a socket (2.4 "Subscription Confirmation"); `lease` is in whole seconds remaining."""
    return encode(
        {"hub.mode": "subscribe", "hub.topic": topic, "hub.events": ",".join(events), "hub.lease_seconds": lease}
    )


def denial(topic: str, events: Iterable[str], reason: str) -> bytes:
    """The last frame of a subscription that ends (2.4 "Subscription Denial")."""
    return encode({"hub.mode": "denied", "hub.topic": topic, "hub.events": ",".join(events), "hub.reason": reason})


def _check_text(body: bytes) -> None:
    """What msgspec lets pass in a value it does not decode. The body is JSON by now: all its strings have an end."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body: expected UTF-8, got a byte that is not at {error.start}") from None
    # Counting is exact enough to pass nearly every small body at once.
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _is_too_deep(body):
        raise BadRequest(f"the body: expected JSON nested at most {MAX_DEPTH} deep, got more")


def _is_too_deep(body: bytes) -> bool:
    """Each turn takes the innermost brackets away, without a loop over them in Python: a Bundle has tens of thousands."""
    quotes = body.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in body else body
    brackets = b"".join(quotes.split(b'"')[::2]).translate(_ONE_KIND, _NO_BRACKET)  # those outside of strings
    for _ in range(MAX_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _required(members: dict[str, msgspec.Raw], name: str, what: str) -> bytes:
    try:
        return bytes(members[name])
    except KeyError:
        raise BadRequest(f"{what}: expected it, and it is missing") from None


def _text(members: dict[str, msgspec.Raw], name: str, what: str) -> str:
    return decoded(_TEXT, _required(members, name, what), what)


def _check_once(text: bytes, inner: bytes, members: dict[str, msgspec.Raw], what: str) -> None:
    """Refuse a member given twice (EVT-6): the hub and a subscriber could each read another one of them."""
    # Each member has the two quotes of its name and those of its value. Only where there are more, is it looked at closely.
    if text.count(b'"') == 2 * len(members) + sum(bytes(raw).count(b'"') for raw in members.values()):
        return
    if len(PAIRS.decode(text.replace(inner, b"0", 1).decode())) != len(members):
        raise BadRequest(f"{what}: expected each member once, got one twice")


def _check_timestamp(timestamp: str) -> None:
    """ISO 8601 date and time; without a zone it is UTC, which is what the specification asks for."""
    try:
        if not _TIMESTAMP.fullmatch(timestamp):
            raise ValueError
        datetime.datetime.fromisoformat(timestamp)
    except ValueError:
        raise BadRequest(
            f"timestamp: expected an ISO 8601 date and time such as 2026-01-31T09:30:00.000Z, got {len(timestamp)} characters that are not"
        ) from None


def _anchor(items: list[_Item], kind: Kind, type_: str) -> tuple[str, str]:
    """The anchor's resourceType and id. "Context change events SHALL include the resource the context change relates to" (2.3)."""
    keys = anchor_keys(type_)
    anchors = [item for item in items if item.key in keys]
    if len(anchors) != 1:
        # Of two, the hub and a subscriber could each take another one for the anchor.
        raise BadRequest(
            f"event.context: expected one item with the key {keys[0]}, the anchor of this event, got {len(anchors)}"
        )
    item = anchors[0]
    if kind in (Kind.UPDATE, Kind.SELECT) and item.resource is None:
        found = _reference(item)
    elif item.resource is not None:
        found = item.resource.resourceType, item.resource.id or ""
    else:
        raise BadRequest(f"event.context: expected a resource in the item with the key {item.key}, got none")
    if found[0].lower() != type_ or not found[0].isascii():
        raise BadRequest(
            f"event.context: expected the anchor's type to be that of the event's name, got another of {len(found[0])} characters"
        )
    if not 0 < len(found[1]) <= MAX_ID:
        raise BadRequest(
            f"event.context: expected the anchor's id to have 1 to {MAX_ID} characters, got {len(found[1])}"
        )
    check_controls("event.context: the anchor's id", found[1])
    return found


def _reference(item: _Item) -> tuple[str, str]:
    """Type and id of the item's reference: its last two segments, whatever server it names."""
    if not bytes(item.reference):
        raise BadRequest(f"event.context: expected a reference in the item with the key {item.key}, got none")
    reference = decoded(_REFERENCE, bytes(item.reference), f"event.context: the reference of {item.key}").reference
    type_, _, id_ = reference.rpartition("/")
    return type_.rpartition("/")[2], id_


def _update(event: dict[str, msgspec.Raw], items: list[_Item], context: bytes) -> tuple[str, tuple[Change, ...]]:
    """The version an update was made on, and what it changes: "one named `updates` holding a single `Bundle`" (2.3)."""
    version = decoded(_VERSION_ID, bytes(event.get("context.versionId", b"null")), "event.context.versionId") or ""
    places = [place for place, item in enumerate(items) if item.key == "updates"]
    resource = items[places[0]].resource if len(places) == 1 else None
    if resource is None or resource.resourceType != "Bundle":
        raise BadRequest(
            f"event.context: expected exactly one item with the key updates, a Bundle, got {len(places)} or another resource"
        )
    raw = bytes(_RAW_ITEMS.decode(context)[places[0]])
    return version, read_changes(raw, f"event.context[{places[0]}]")


#: The context keys from which opens are derived, by the type they carry.
DERIVED_KEYS = {"patient": "patient", "encounter": "encounter", "study": "imagingstudy"}


def _implied(items: list[_Item], anchor: str, ref_in: Callable[[_Item], str]) -> dict[str, str]:
    """The refs of other contexts that this one names, by type; of several studies the first (DER-1)."""
    implied: dict[str, str] = {}
    for item in items:
        type_ = DERIVED_KEYS.get(item.key)
        if type_ and type_ != anchor and type_ not in implied and (ref := ref_in(item)).startswith(type_ + "/"):
            implied[type_] = ref
    return implied


def _of_resource(item: _Item) -> str:
    """The ref of the resource in an item: an open is derived from nothing less (DER-1)."""
    return ref_of(item.resource)


def _named(item: _Item) -> str:
    """The ref of what an item holds or refers to, if that can be read."""
    if item.resource is not None or not bytes(item.reference):
        return ref_of(item.resource)
    try:
        type_, id_ = _reference(item)
    except BadRequest:
        return ""
    return f"{type_.lower()}/{id_}"


#: How the second part of a frame begins, and how what goes before it.
_CONTEXT = b'"context":'
_VERSION = b'"context.versionId":"'
#: The sender's own versions are taken out of every broadcast (EVT-15): only the hub's count.
_SENDERS_VERSIONS = frozenset(("context.versionId", "context.priorVersionId"))


def _split(envelope: dict[str, msgspec.Raw], event: dict[str, msgspec.Raw]) -> tuple[bytes, bytes]:
    """The frame in two parts: a version goes before the member `context`, which starts the second."""
    outer_before, outer_after = _around("event", envelope)
    before, after = _around("context", event)
    head = b"".join((b"{", outer_before, b'"event":{', before))
    return head, b"".join((_CONTEXT, event["context"], after, b"}", outer_after, b"}"))


def _around(middle: str, members: dict[str, msgspec.Raw]) -> tuple[bytes, bytes]:
    """The members before and after `middle`, as they came, with the commas that part them from it."""
    before: list[bytes | msgspec.Raw] = []
    after: list[bytes | msgspec.Raw] = []
    into = before
    for name, raw in members.items():
        if name == middle:
            into = after
        elif name not in _SENDERS_VERSIONS:
            into += (_key(name), raw, b",") if into is before else (b",", _key(name), raw)
    return b"".join(before), b"".join(after)


_KEYS = {name: encode(name) + b":" for name in ("timestamp", "id", "hub.topic", "hub.event")}


def _key(name: str) -> bytes:
    return _KEYS.get(name) or encode(name) + b":"
