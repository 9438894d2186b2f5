"""The items of an event's context (FHIRcast 3.0.0, 2.3): its anchor, its other required items, the contexts that it implies.

The hub reads identifying members of a resource only. The resource itself is passed on as received (EVT-15).
"""

from __future__ import annotations

import msgspec

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.limits import MAX_ID, MAX_ITEMS
from fhircast_hub.core.wire.event_names import Kind, anchor_keys
from fhircast_hub.core.wire.json import (
    ItemLimit,
    Members,
    PartlyDecoded,
    TypeAndId,
    object_in,
    ref_of,
    reject_control_characters,
    string_in,
    type_and_id_of,
)
from fhircast_hub.core.wire.update_bundle import Change, read_entries

#: The context keys from which opens are derived, and the type that each has (DER-7).
DERIVED_KEYS = {"patient": "patient", "encounter": "encounter", "study": "imagingstudy", "imagingstudy": "imagingstudy"}
#: The types whose opens need a patient.
_OF_A_PATIENT = ("encounter", "diagnosticreport")
#: The members of an item that are split into their own members. Some clients write `resources` in a select (CON-21).
SPLIT_MEMBERS = ("resource", "reference", "resources")
_ARRAY = ord("[")


class Item(msgspec.Struct):
    """An item of a posted context."""

    key: str
    #: None: the item has no resource, or an array of them.
    resource: TypeAndId | None = None
    #: The members of the resource.
    members: Members = {}
    #: The members of the reference. None: the item has no reference, or an array of them.
    reference: Members | None = None


class _AcceptedItem(msgspec.Struct):
    """An item of a context that the hub has accepted before."""

    key: str
    resource: TypeAndId | None = None


_ACCEPTED_ITEMS = msgspec.json.Decoder(list[_AcceptedItem])
_RAW_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])


def _too_many_items(count: int) -> BadRequest:
    return BadRequest(f"event.context may have at most {MAX_ITEMS} items, and this one has {count}")


#: The limit of the items of a context.
ITEM_LIMIT = ItemLimit(MAX_ITEMS, _too_many_items)


def raw_items(context: bytes) -> list[tuple[str, str, bytes]]:
    """The items of an accepted context array, as key, ref and bytes. The ref is "" for an item without a resource."""
    items = zip(_ACCEPTED_ITEMS.decode(context), _RAW_ITEMS.decode(context), strict=True)
    return [(item.key, ref_of(item.resource), bytes(raw)) for item, raw in items]


def read_items(objects: list[PartlyDecoded], kind: Kind) -> list[Item]:
    """The items of a posted context. In a select, `resource` may be an array, as `reference` may (IHE IRA, its example of a select).

    Raises BadRequest that names the item.
    """
    items = []
    for index, members in enumerate(objects):
        key, resource, reference = members.get("key"), members.get("resource"), members.get("reference")
        if isinstance(key, str) and isinstance(resource, dict) and reference is None:  # nearly every item
            items.append(Item(key, type_and_id_of(resource, "event.context", index), resource))
        else:
            items.append(_read_item(members, kind, f"event.context[{index}]"))
    return items


def _read_item(item: PartlyDecoded, kind: Kind, path: str) -> Item:
    key, resource, reference = string_in(item, "key", path), item.get("resource"), item.get("reference")
    reference_members = reference if isinstance(reference, dict) else None
    if kind is Kind.SELECT and isinstance(resource, msgspec.Raw) and memoryview(resource)[0] == _ARRAY:
        return Item(key, reference=reference_members)
    members = object_in(item, "resource", path)
    type_and_id = type_and_id_of(members, path) if members is not None else None
    return Item(key, type_and_id, members or {}, reference_members)


def check_required(items: list[Item], kind: Kind, type_: str, name: str) -> None:
    """Check the items that an event needs beside its anchor. Raises BadRequest."""
    if kind is Kind.OPEN and type_ in _OF_A_PATIENT:
        # "patient | 1..1" (3.4.1, 3.6.1): a subscriber that knows only patients would stay on the one before.
        _check_item(items, "patient", "Patient", of=name)
    elif name.lower() == "syncerror":
        # "operationoutcome | 1..1" (3.2.1): its text says which event was not followed.
        _check_item(items, "operationoutcome", "OperationOutcome", of="")


def _check_item(items: list[Item], key: str, type_: str, of: str) -> None:
    """Check for exactly one item with this key and a resource of this type. With an `of`, the event's name, it needs an id."""
    found = [item.resource for item in items if item.key == key or (not of and item.key.lower() == key)]
    if len(found) != 1:
        raise BadRequest(f"event.context must have one item with the key {key}, not {len(found)}")
    if found[0] is None or found[0].resourceType != type_ or (of and not ref_of(found[0])):
        wanted = f"a resource of type {type_}" + (" with an id" if of else "")
        raise BadRequest(f"event.context must have {wanted} in the item with the key {key}, and this one has none")


def read_anchor(items: list[Item], kind: Kind, type_: str) -> tuple[str, str]:
    """The anchor's resourceType and id. "Context change events SHALL include the resource the context change relates to" (2.3).

    `type_` is the type in the event's name, in lower case. Raises BadRequest.
    """
    item = _anchor_item(items, anchor_keys(type_))
    if kind in (Kind.UPDATE, Kind.SELECT) and item.resource is None:
        found = _type_and_id_of_reference(item)
    elif item.resource is not None:
        found = item.resource.resourceType, item.resource.id or ""
    else:
        raise BadRequest("event.context must have a resource in the item with the key …", quoted=item.key)
    if found[0].lower() != type_ or not found[0].isascii():
        actual = f"another of {len(found[0])} characters"
        raise BadRequest(f"event.context: the anchor's type must be that of the event's name, not {actual}")
    if not 0 < len(found[1]) <= MAX_ID:
        raise BadRequest(f"event.context: the anchor's id must have 1 to {MAX_ID} characters, not {len(found[1])}")
    reject_control_characters("event.context: the anchor's id", found[1])
    return found


def _anchor_item(items: list[Item], keys: tuple[str, str]) -> Item:
    anchors = [item for item in items if item.key in keys]
    if len(anchors) != 1:
        # Of two anchors, the hub and a subscriber could each take another one.
        count = len(anchors)
        text = f"event.context must have one item with the key …, this event's anchor, not {count}"
        raise BadRequest(text, quoted=keys[0])
    return anchors[0]


def _type_and_id_of_reference(item: Item) -> tuple[str, str]:
    """The type and id in the item's reference: its last two segments, whatever server it names. Raises BadRequest."""
    if item.reference is None:
        raise BadRequest("event.context must have a reference in the item with the key …", quoted=item.key)
    reference = string_in(item.reference, "reference", "event.context: the reference of the anchor")
    type_, _, id_ = reference.rpartition("/")
    return type_.rpartition("/")[2], id_


def read_update(items: list[Item], max_entries: int) -> tuple[Change, ...]:
    """The changes of an update, from the item "named `updates` holding a single `Bundle`" (2.3).

    Raises BadRequest, and TooLarge for more than `max_entries`.
    """
    indexes = [index for index, item in enumerate(items) if item.key == "updates"]
    resource = items[indexes[0]].resource if len(indexes) == 1 else None
    if resource is None or resource.resourceType != "Bundle":
        actual = "another resource" if len(indexes) == 1 else str(len(indexes))
        raise BadRequest(f"event.context must have exactly one item with the key updates, a Bundle, not {actual}")
    return read_entries(items[indexes[0]].members, f"event.context[{indexes[0]}].resource", max_entries)


def implied_by(items: list[Item], kind: Kind, anchor: str) -> dict[str, str]:
    """The refs of the other contexts that this one names, by type (DER-7). Of several studies the first counts.

    `anchor` is the anchor's type in lower case.
    """
    ref_in = _ref_of_resource if kind is Kind.OPEN else _ref_of_resource_or_reference
    implied: dict[str, str] = {}
    for item in items:
        type_ = DERIVED_KEYS.get(item.key)
        if type_ and type_ != anchor and type_ not in implied and (ref := ref_in(item)).startswith(type_ + "/"):
            implied[type_] = ref
    return implied


def _ref_of_resource(item: Item) -> str:
    """The ref of the item's resource. An open is derived from resources only, not from references (DER-7)."""
    return ref_of(item.resource)


def _ref_of_resource_or_reference(item: Item) -> str:
    """The ref of the item's resource, else of its reference. "": neither can be read."""
    if item.resource is not None or item.reference is None:
        return ref_of(item.resource)
    try:
        type_, id_ = _type_and_id_of_reference(item)
    except BadRequest:
        return ""
    return f"{type_.lower()}/{id_}"
