"""Messages: a posted event read without being decoded, and the frames that the hub writes.

A resource is kept as the bytes that came (EVT-15): the hub looks for its resourceType, id and references and passes the rest
on. So the member order, `1.10`, integers of any size and every escape survive, and nothing is encoded twice.
"""

from __future__ import annotations

import hashlib
from itertools import accumulate

import msgspec

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.limits import MAX_DEPTH, MAX_ID, MAX_ITEMS, MAX_MEMBERS, MAX_NODES, MAX_TOPIC, NODE_BYTES, Rules
from fhircast_hub.core.wire.context_items import (
    LOOKED_INTO,
    check_required,
    implied_by,
    read_anchor,
    read_items,
    read_update,
    too_many_items,
)
from fhircast_hub.core.wire.event_names import Kind, classify
from fhircast_hub.core.wire.json import (
    SMALL,
    Looked,
    Members,
    check_controls,
    decoded,
    encode,
    look_into,
    members_of,
    strip_bom,
    text_in,
    usual,
)
from fhircast_hub.core.wire.timestamps import instant
from fhircast_hub.core.wire.update_bundle import Change

#: First path segments under hub.url that cannot be topics (SUB-5).
RESERVED_TOPICS = frozenset((".well-known", "metadata", "ws"))

#: All but brackets and quotes; and the steps that brackets are, in or out, as signed bytes.
_NO_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


class Event(msgspec.Struct, frozen=True):
    """A posted event. `head` + `tail` are its frame; a version goes between them.

    `name` is as sent, `key` in lower case; `type` is the anchor's resourceType and `ref` its `type/id`, type in lower case
    ("" without an anchor); `context` is the context array's bytes; `implied` the refs of the other contexts it names, by type.
    `at` is its timestamp in epoch seconds. `fingerprint` is the same for a repeat (id, timestamp and body, EVT-17) and differs
    for everything else. Of an update, `versions` are those that the sender says it was made on (one, unless it gives several
    names), and `changes` are the entries of its Bundle.
    """

    topic: str
    name: str
    key: str
    kind: Kind
    id: str
    timestamp: str
    at: float
    type: str
    ref: str
    head: bytes
    tail: bytes
    context: bytes
    implied: dict[str, str]
    fingerprint: bytes
    versions: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()

    def frame(self) -> bytes:
        """The message as it is broadcast, without a version."""
        return self.head + self.tail


_MEMBERS = msgspec.json.Decoder(Members)
_TEXT = msgspec.json.Decoder(str)
_VERSION_ID = msgspec.json.Decoder(str | None)


def parse_event(body: bytes, max_entries: int = Rules().max_entries) -> Event:
    """Read a posted event (FHIRcast 3.0.0, 2.6 "Request Context Change body") from its JSON text.

    Raises BadRequest with one line that names the member, what was expected and what came (EVT-5, EVT-6); TooLarge for an update
    of more than `max_entries`, of which none is read (CON-15).
    """
    body = strip_bom(body)
    envelope, event, found = _look_into(body)
    _check_text(body)
    context = bytes(event["context"])
    name = text_in(event, "hub.event", "event")
    kind, type_ = classify(name)
    items = read_items(found, kind)

    id_ = text_in(envelope, "id", "")
    if not 0 < len(id_) <= MAX_ID:
        raise BadRequest(f"id: expected 1 to {MAX_ID} characters, got {len(id_)}")
    timestamp = text_in(envelope, "timestamp", "")
    at = instant(timestamp)
    topic = check_topic(text_in(event, "hub.topic", "event"))
    anchor = read_anchor(items, kind, type_) if type_ else None
    check_required(items, kind, type_, name)
    changes = read_update(items, max_entries) if kind is Kind.UPDATE else ()
    head, tail = _split(envelope, event, kind)
    return Event(
        topic=topic,
        name=name,
        key=name.lower(),
        kind=kind,
        id=id_,
        timestamp=timestamp,
        at=at,
        type=anchor[0] if anchor else "",
        ref=f"{type_}/{anchor[1]}" if anchor else "",
        head=head,
        tail=tail,
        context=context,
        implied=implied_by(items, kind, type_) if type_ else {},
        fingerprint=hashlib.sha256(body).digest()[:16],
        versions=_versions(event) if kind is Kind.UPDATE else (),
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


def _look_into(body: bytes) -> tuple[Members, Members, list[Looked]]:
    """The members of the envelope, of its event, and those of the context's items that the hub looks into."""
    if len(body) <= SMALL and (usual_ := _usual_event(body)):
        _check_text(body)
        return usual_
    envelope = members_of(body, "the body")
    _check_text(body)
    event = members_of(_required(envelope, "event", "event"), "event")
    context = _required(event, "context", "event.context")
    items, _ = look_into(context, LOOKED_INTO, "event.context", MAX_ITEMS, too_many_items)
    return envelope, event, items


def _usual_event(body: bytes) -> tuple[Members, Members, list[Looked]] | None:
    """The same of a small body, in a quarter of the time, if quotes show that no member is there twice."""
    try:
        envelope = _MEMBERS.decode(body)
        event = _MEMBERS.decode(envelope["event"])
        items = usual(event["context"])
    except (KeyError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if items is None or len(envelope) > MAX_MEMBERS or len(event) > MAX_MEMBERS or len(items[0]) > MAX_ITEMS:
        return None
    # Each member has the two quotes of its name and those of its value. There are more where one has the name of another.
    values = [raw for name, raw in envelope.items() if name != "event"]
    values += [raw for name, raw in event.items() if name != "context"]
    quotes = 2 * (len(envelope) + len(event)) + b"".join(values).count(b'"') + items[1]
    return (envelope, event, items[0]) if body.count(b'"') == quotes else None


def _required(members: Members, name: str, what: str) -> msgspec.Raw:
    try:
        return members[name]
    except KeyError:
        raise BadRequest(f"{what}: expected it, and it is missing") from None


def _check_text(body: bytes) -> None:
    """What msgspec lets pass in a value it does not decode. The body is JSON by now: all its strings have an end."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"the body: expected UTF-8, got a byte that is not at {error.start}") from None
    # Counting is exact enough to pass nearly every small body at once.
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return
    brackets = _brackets(body)
    allowed = max(MAX_NODES, len(body) // NODE_BYTES)
    if len(brackets) > 2 * allowed:
        raise BadRequest(f"the body: expected at most {allowed} objects and arrays, got {len(brackets) // 2}")
    steps = brackets.translate(_STEPS).replace(b"\x01\xff", b"")  # without the innermost, which are most
    if 1 + max(accumulate(memoryview(steps).cast("b")), default=0) > MAX_DEPTH:
        raise BadRequest(f"the body: expected JSON nested at most {MAX_DEPTH} deep, got more")


def _brackets(body: bytes) -> bytes:
    """The brackets outside of strings, without a loop over them in Python: a Bundle has tens of thousands."""
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    # An even number of quotes before a bracket is outside; of two neighbours none is missed.
    return b"".join(body.translate(None, _NO_STRUCTURE).replace(b'""', b"").split(b'"')[::2])


def _versions(event: Members) -> tuple[str, ...]:
    """The versions that an update says it was made on.

    2.10 calls the member `context.versionId`; the table of 2.3 has `versionId` and `priorVersionId`, which count where that one
    is absent.
    """
    for names in (("context.versionId",), ("versionId", "priorVersionId")):
        found = [decoded(_VERSION_ID, event[name], f"event.{name}") for name in names if name in event]
        if versions := tuple(version for version in found if version):
            return versions
    return ()


#: How the second part of a frame begins.
CONTEXT_MEMBER = b'"context":'
#: The sender's own versions are taken out of every broadcast (EVT-15): only the hub's count. Where the hub puts a version in,
#: those of the other names would be read for it (CON-20).
_SENDERS_VERSIONS = frozenset(("context.versionId", "context.priorVersionId"))
_ALL_VERSIONS = _SENDERS_VERSIONS | {"versionId", "priorVersionId"}


def _split(envelope: Members, event: Members, kind: Kind) -> tuple[bytes, bytes]:
    """The frame in two parts: a version goes before the member `context`, which starts the second."""
    outer_before, outer_after = _around("event", envelope, _SENDERS_VERSIONS)
    before, after = _around("context", event, _ALL_VERSIONS if kind in _VERSIONED else _SENDERS_VERSIONS)
    head = b"".join((b"{", outer_before, b'"event":{', before))
    return head, b"".join((CONTEXT_MEMBER, event["context"], after, b"}", outer_after, b"}"))


def _around(middle: str, members: Members, without: frozenset[str]) -> tuple[bytes, bytes]:
    """The members before and after `middle`, as they came, with the commas that part them from it."""
    before: list[bytes | msgspec.Raw] = []
    after: list[bytes | msgspec.Raw] = []
    into = before
    for name, raw in members.items():
        if name == middle:
            into = after
        elif name not in without:
            into += (_key(name), raw, b",") if into is before else (b",", _key(name), raw)
    return b"".join(before), b"".join(after)


_VERSIONED = (Kind.OPEN, Kind.UPDATE)
_KEYS = {name: encode(name) + b":" for name in ("timestamp", "id", "hub.topic", "hub.event")}


def _key(name: str) -> bytes:
    return _KEYS.get(name) or encode(name) + b":"
