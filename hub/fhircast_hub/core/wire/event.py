"""A posted event, read from its bytes.

The hub reads identifying members of a resource only. The resource itself is passed on as received (EVT-15). So the
member order, `1.10`, integers of any size and every escape survive, and nothing is encoded twice.
"""

from __future__ import annotations

import hashlib
from itertools import accumulate

import msgspec

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.limits import MAX_DEPTH, MAX_ID, MAX_ITEMS, MAX_MEMBERS, MAX_NODES, MAX_TOPIC, NODE_BYTES, Rules
from fhircast_hub.core.wire.context_items import (
    ITEM_LIMIT,
    SPLIT_MEMBERS,
    Item,
    check_required,
    implied_by,
    read_anchor,
    read_items,
    read_update,
)
from fhircast_hub.core.wire.event_names import Kind, classify
from fhircast_hub.core.wire.json import (
    SMALL_BYTES,
    Members,
    PartlyDecoded,
    decode,
    decode_simple_objects,
    encode,
    members_of,
    members_of_each,
    reject_control_characters,
    string_in,
    strip_bom,
)
from fhircast_hub.core.wire.plain_event import CONTEXT_MEMBER, Posted, read_plain
from fhircast_hub.core.wire.timestamps import instant
from fhircast_hub.core.wire.update_bundle import Change

#: First path segments under hub.url that cannot be topics (SUB-5).
RESERVED_TOPICS = frozenset((".well-known", "metadata", "ws"))

#: All bytes but brackets and quotation marks.
_NO_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
#: Brackets as steps of the depth: 1 in, -1 out, as signed bytes.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")

#: Members that are taken out of every broadcast (EVT-30): the sender's own versions do not count, only the hub's.
_SENDERS_VERSIONS = frozenset(("context.versionId", "context.priorVersionId"))
#: Members that are taken out where the hub puts a version in: a subscriber could take them for the hub's (CON-20).
_ALL_VERSIONS = _SENDERS_VERSIONS | {"versionId", "priorVersionId"}
#: The kinds of events whose frames have a version of the hub.
_VERSIONED = (Kind.OPEN, Kind.UPDATE)

#: The usual names of members, encoded as they begin a member.
_KEYS = {name: encode(name) + b":" for name in ("timestamp", "id", "hub.topic", "hub.event")}

_MEMBERS = msgspec.json.Decoder(Members)
_VERSION_ID = msgspec.json.Decoder(str | None)


class Event(msgspec.Struct, frozen=True):
    """A posted event."""

    #: hub.topic.
    topic: str
    #: The event name as sent.
    name: str
    #: The event name in lower case.
    key: str
    #: Kind of event.
    kind: Kind
    #: The event's id as sent.
    id: str
    #: The timestamp as sent.
    timestamp: str
    #: The timestamp in epoch seconds.
    at: float
    #: The anchor's resourceType as sent. "": the event has no anchor.
    type: str
    #: The anchor's `type/id`, the type in lower case. "": the event has no anchor.
    ref: str
    #: The frame up to the member `context`. The hub appends its versions here.
    head: bytes
    #: The frame from the member `context` on.
    tail: bytes
    #: The context array as received.
    context: bytes
    #: The refs of the other contexts that the event names, by their types in lower case (DER-7).
    implied: dict[str, str]
    #: Digest of the body. Equal only for a repeat (EVT-17).
    fingerprint: bytes
    #: Of an update: versions that the sender gives as its base. Two where versionId and priorVersionId are both given.
    versions: tuple[str, ...] = ()
    #: Of an update, the entries of its Bundle.
    changes: tuple[Change, ...] = ()

    def frame(self) -> bytes:
        """The broadcast frame, without a version."""
        return self.head + self.tail


def parse_event(body: bytes, max_entries: int = Rules().max_entries) -> Event:
    """Read a posted event from JSON text (FHIRcast 3.0.0, 2.6 "Request Context Change body").

    Raises BadRequest that names the member (EVT-5, EVT-6), and TooLarge for an update of more than `max_entries` (CON-15).
    """
    body = strip_bom(body)
    if (posted := read_plain(body)) is None:
        posted = _read(body)
    else:
        _check_text(body)
    name = posted.name
    kind, type_ = classify(name)
    at = _check_header(posted)
    type_as_sent, ref = _read_anchor(posted.items, kind, type_, name)
    return Event(
        topic=posted.topic,
        name=name,
        key=name.lower(),
        kind=kind,
        id=posted.id,
        timestamp=posted.timestamp,
        at=at,
        type=type_as_sent,
        ref=ref,
        head=posted.head,
        tail=posted.tail,
        context=posted.context,
        implied=implied_by(posted.items, kind, type_) if type_ else {},
        fingerprint=hashlib.sha256(body).digest()[:16],
        changes=read_update(posted.items, max_entries) if kind is Kind.UPDATE else (),
        versions=posted.versions,
    )


def check_topic(topic: str) -> str:
    """Return `topic`. Raises BadRequest for a text that cannot be a topic (SUB-5)."""
    if not 0 < len(topic) <= MAX_TOPIC:
        raise BadRequest(f"hub.topic must have 1 to {MAX_TOPIC} characters, not {len(topic)}")
    reject_control_characters("hub.topic", topic)
    if topic in RESERVED_TOPICS:
        raise BadRequest(f"hub.topic must not be {topic}, which is a path of the hub")
    return topic


def _check_header(posted: Posted) -> float:
    """Check the event's id, timestamp and topic. Returns the timestamp in epoch seconds."""
    if not 0 < len(posted.id) <= MAX_ID:
        raise BadRequest(f"id must have 1 to {MAX_ID} characters, not {len(posted.id)}")
    at = instant(posted.timestamp)
    check_topic(posted.topic)
    return at


def _read_anchor(items: list[Item], kind: Kind, type_: str, name: str) -> tuple[str, str]:
    """The anchor's resourceType as sent and its ref; both "" without an anchor. Checks the other required items, too."""
    anchor = read_anchor(items, kind, type_) if type_ else None
    check_required(items, kind, type_, name)
    return (anchor[0], f"{type_}/{anchor[1]}") if anchor else ("", "")


def _read(body: bytes) -> Posted:
    """The parts of any event. Raises BadRequest that names the member."""
    envelope, event, objects = _members_of_event(body)
    kind, _ = classify(name := string_in(event, "hub.event", "event"))
    items = read_items(objects, kind)
    head, tail = _frame_parts(envelope, event, kind)
    return Posted(
        id=string_in(envelope, "id", ""),
        timestamp=string_in(envelope, "timestamp", ""),
        topic=string_in(event, "hub.topic", "event"),
        name=name,
        items=items,
        context=bytes(event["context"]),
        head=head,
        tail=tail,
        versions=_versions(event) if kind is Kind.UPDATE else (),
    )


def _members_of_event(body: bytes) -> tuple[Members, Members, list[PartlyDecoded]]:
    """The members of the envelope, of its event, and of each item of the context."""
    if len(body) <= SMALL_BYTES and (simple := _members_of_simple_event(body)):
        _check_text(body)
        return simple
    envelope = members_of(body, "the body")
    _check_text(body)
    event = members_of(_required(envelope, "event", "event"), "event")
    context = _required(event, "context", "event.context")
    items, _ = members_of_each(context, SPLIT_MEMBERS, "event.context", ITEM_LIMIT)
    return envelope, event, items


def _members_of_simple_event(body: bytes) -> tuple[Members, Members, list[PartlyDecoded]] | None:
    """As `_members_of_event`, in a quarter of the time. None: an unusual event, or its quotes do not rule out duplicates."""
    try:
        envelope = _MEMBERS.decode(body)
        event = _MEMBERS.decode(envelope["event"])
        items = decode_simple_objects(event["context"])
    except (KeyError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if items is None or len(envelope) > MAX_MEMBERS or len(event) > MAX_MEMBERS or len(items[0]) > MAX_ITEMS:
        return None
    # A member has two quotation marks around its name, and those of its value. A dropped duplicate leaves more in the text.
    values = [raw for name, raw in envelope.items() if name != "event"]
    values += [raw for name, raw in event.items() if name != "context"]
    quotes = 2 * (len(envelope) + len(event)) + b"".join(values).count(b'"') + items[1]
    return (envelope, event, items[0]) if body.count(b'"') == quotes else None


def _required(members: Members, name: str, path: str) -> msgspec.Raw:
    try:
        return members[name]
    except KeyError:
        raise BadRequest(f"{path} is required") from None


def _check_text(body: bytes) -> None:
    """Check what msgspec does not check in a value that is not decoded: UTF-8, depth, number of objects and arrays.

    The body is known to be JSON, so all its strings have an end.
    """
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"the body must be UTF-8, and the byte at {error.start} is not") from None
    # Nearly every small body has too few brackets to be nested too deeply.
    if len(body) - len(body.translate(None, b"[{")) <= MAX_DEPTH:
        return
    brackets = _structural_brackets(body)
    allowed = max(MAX_NODES, len(body) // NODE_BYTES)
    if len(brackets) > 2 * allowed:
        nodes = len(brackets) // 2
        raise BadRequest(f"the body may have at most {allowed} objects and arrays, and this one has {nodes}")
    steps = brackets.translate(_STEPS).replace(b"\x01\xff", b"")  # without the innermost pairs, which are most
    if 1 + max(accumulate(memoryview(steps).cast("b")), default=0) > MAX_DEPTH:
        raise BadRequest(f"the body may be nested at most {MAX_DEPTH} deep, and this one is nested deeper")


def _structural_brackets(body: bytes) -> bytes:
    """The brackets outside of strings. Without a loop in Python: a Bundle has tens of thousands of them."""
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    # A bracket is outside of strings if the number of quotation marks before it is even. Adjacent pairs can be left out.
    return b"".join(body.translate(None, _NO_STRUCTURE).replace(b'""', b"").split(b'"')[::2])


def _versions(event: Members) -> tuple[str, ...]:
    """The versions that the sender bases an update on.

    2.10 calls the member `context.versionId`. The table of 2.3 has `versionId` and `priorVersionId`. These two count where the
    first is absent.
    """
    for names in (("context.versionId",), ("versionId", "priorVersionId")):
        found = [decode(_VERSION_ID, event[name], f"event.{name}") for name in names if name in event]
        if versions := tuple(version for version in found if version):
            return versions
    return ()


def _frame_parts(envelope: Members, event: Members, kind: Kind) -> tuple[bytes, bytes]:
    """The frame in two parts. A version goes between them, before the member `context`."""
    envelope_before, envelope_after = _members_around("event", envelope, _SENDERS_VERSIONS)
    without = _ALL_VERSIONS if kind in _VERSIONED else _SENDERS_VERSIONS
    before, after = _members_around("context", event, without)
    head = b"".join((b"{", envelope_before, b'"event":{', before))
    return head, b"".join((CONTEXT_MEMBER, event["context"], after, b"}", envelope_after, b"}"))


def _members_around(middle: str, members: Members, without: frozenset[str]) -> tuple[bytes, bytes]:
    """The members before and after `middle`, as received, with the commas between them and `middle`."""
    before: list[bytes | msgspec.Raw] = []
    after: list[bytes | msgspec.Raw] = []
    side = before
    for name, raw in members.items():
        if name == middle:
            side = after
        elif name not in without:
            side += (_key(name), raw, b",") if side is before else (b",", _key(name), raw)
    return b"".join(before), b"".join(after)


def _key(name: str) -> bytes:
    return _KEYS.get(name) or encode(name) + b":"
