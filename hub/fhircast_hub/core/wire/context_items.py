"""The items of an event's context (FHIRcast 3.0.0, 2.3): the anchor, what an event cannot be without, what it implies.

Of a resource the hub reads type and id; the rest stays the bytes that came (EVT-15).
"""

from __future__ import annotations

import msgspec

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.limits import MAX_ID, MAX_ITEMS
from fhircast_hub.core.wire.event_names import Kind, anchor_keys
from fhircast_hub.core.wire.json import Looked, Members, Stub, check_controls, object_in, ref_of, stub_of, text_in
from fhircast_hub.core.wire.update_bundle import Change, read_entries

#: The context keys from which opens are derived, by the type they carry.
DERIVED_KEYS = {"patient": "patient", "encounter": "encounter", "study": "imagingstudy", "imagingstudy": "imagingstudy"}
#: The types whose opens are about one patient.
_OF_A_PATIENT = ("encounter", "diagnosticreport")


class Item(msgspec.Struct):
    """An item of a context: its key, what the hub looks at in its resource, and the members of that and of its reference."""

    key: str
    resource: Stub | None = None
    members: Members = {}
    reference: Members | None = None


class _Kept(msgspec.Struct):
    """An item of a context that was accepted."""

    key: str
    resource: Stub | None = None


_KEPT_ITEMS = msgspec.json.Decoder(list[_Kept])
_RAW_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_ARRAY = ord("[")
#: The members of an item that the hub looks into; `resources` is what some write in a select (CON-21).
LOOKED_INTO = ("resource", "reference", "resources")


def raw_items(context: bytes) -> list[tuple[str, str, bytes]]:
    """The items of a context array that was accepted: key, ref of the resource ("" where it has none), bytes."""
    stubs = _KEPT_ITEMS.decode(context)
    return [
        (stub.key, ref_of(stub.resource), bytes(raw))
        for stub, raw in zip(stubs, _RAW_ITEMS.decode(context), strict=True)
    ]


def too_many_items(count: int) -> BadRequest:
    """What refuses a context of more than MAX_ITEMS."""
    return BadRequest(f"event.context: expected at most {MAX_ITEMS} items, got {count}")


def read_items(found: list[Looked], kind: Kind) -> list[Item]:
    """The items of a context. Of a select, `resource` may be an array too, as `reference` may (IHE RAD-149)."""
    items = []
    for at, looked in enumerate(found):
        key, resource, reference = looked.get("key"), looked.get("resource"), looked.get("reference")
        if isinstance(key, str) and isinstance(resource, dict) and reference is None:  # as nearly all are
            items.append(Item(key, stub_of(resource, "event.context", at), resource))
        else:
            items.append(_item(looked, kind, f"event.context[{at}]"))
    return items


def _item(looked: Looked, kind: Kind, what: str) -> Item:
    key, resource, reference = text_in(looked, "key", what), looked.get("resource"), looked.get("reference")
    named = reference if isinstance(reference, dict) else None
    if kind is Kind.SELECT and isinstance(resource, msgspec.Raw) and memoryview(resource)[0] == _ARRAY:
        return Item(key, reference=named)
    members = object_in(looked, "resource", what)
    stub = stub_of(members, what) if members is not None else None
    return Item(key, stub, members or {}, named)


def check_required(items: list[Item], kind: Kind, type_: str, name: str) -> None:
    """The items that an event cannot be without, beside its anchor."""
    if kind is Kind.OPEN and type_ in _OF_A_PATIENT:
        # "patient | 1..1" (3.4.1, 3.6.1): who knows only patients would stay on the one before.
        _check_item(items, "patient", "Patient", of=name)
    elif name.lower() == "syncerror":
        # "operationoutcome | 1..1" (3.2.1): who reads the SyncError finds out there what was not followed.
        _check_item(items, "operationoutcome", "OperationOutcome", of="")


def _check_item(items: list[Item], key: str, type_: str, of: str) -> None:
    """Exactly one item of this key, with a resource of this type; that of an event (`of`) which opens needs an id."""
    found = [item.resource for item in items if item.key == key or (not of and item.key.lower() == key)]
    if len(found) != 1:
        raise BadRequest(f"event.context: expected one item with the key {key}, got {len(found)}")
    if found[0] is None or found[0].resourceType != type_ or (of and not ref_of(found[0])):
        wanted = f"a resource of type {type_}" + (" with an id" if of else "")
        raise BadRequest(f"event.context: expected {wanted} in the item with the key {key}, got none")


def read_anchor(items: list[Item], kind: Kind, type_: str) -> tuple[str, str]:
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


def _reference(item: Item) -> tuple[str, str]:
    """Type and id of the item's reference: its last two segments, whatever server it names."""
    if item.reference is None:
        raise BadRequest(f"event.context: expected a reference in the item with the key {item.key}, got none")
    reference = text_in(item.reference, "reference", f"event.context: the reference of {item.key}")
    type_, _, id_ = reference.rpartition("/")
    return type_.rpartition("/")[2], id_


def read_update(items: list[Item], max_entries: int) -> tuple[Change, ...]:
    """What an update changes: "one named `updates` holding a single `Bundle`" (2.3)."""
    places = [place for place, item in enumerate(items) if item.key == "updates"]
    resource = items[places[0]].resource if len(places) == 1 else None
    if resource is None or resource.resourceType != "Bundle":
        raise BadRequest(
            f"event.context: expected exactly one item with the key updates, a Bundle, got {len(places)} or another resource"
        )
    return read_entries(items[places[0]].members, f"event.context[{places[0]}].resource", max_entries)


def implied_by(items: list[Item], kind: Kind, anchor: str) -> dict[str, str]:
    """The refs of other contexts that this one names, by type; of several studies the first (DER-7)."""
    ref_in = _of_resource if kind is Kind.OPEN else _named
    implied: dict[str, str] = {}
    for item in items:
        type_ = DERIVED_KEYS.get(item.key)
        if type_ and type_ != anchor and type_ not in implied and (ref := ref_in(item)).startswith(type_ + "/"):
            implied[type_] = ref
    return implied


def _of_resource(item: Item) -> str:
    """The ref of the resource in an item: an open is derived from nothing less (DER-7)."""
    return ref_of(item.resource)


def _named(item: Item) -> str:
    """The ref of what an item holds or refers to, if that can be read."""
    if item.resource is not None or item.reference is None:
        return ref_of(item.resource)
    try:
        type_, id_ = _reference(item)
    except BadRequest:
        return ""
    return f"{type_.lower()}/{id_}"
