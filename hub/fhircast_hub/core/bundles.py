"""The `updates` Bundle of a content update (FHIRcast 3.0.0, 2.10), read entry by entry.

A resource stays the bytes that came (EVT-15): of each the hub reads type and id, and of each entry what is to be done.
"""

from __future__ import annotations

import re

import msgspec

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.limits import MAX_ID
from fhircast_hub.core.reading import Stub, check_controls, decoded, ref_of

#: A reference or URL that ends in Type/id.
_ENDS_IN_REF = re.compile(rf"(?:^|[/:])([A-Z][A-Za-z]*)/([^/?#\s]{{1,{MAX_ID}}})\Z", re.ASCII)


class Change(msgspec.Struct, frozen=True):
    """One entry of an updates Bundle: the resource `ref` becomes `entry`, the entry of a content Bundle; None deletes it."""

    ref: str
    entry: bytes | None


class _Request(msgspec.Struct):
    method: str
    url: str | None = None


class _Entry(msgspec.Struct):
    request: _Request
    fullUrl: str | None = None
    resource: msgspec.Raw = msgspec.Raw(b"null")


class _Bundle(msgspec.Struct):
    entry: list[_Entry] | None = None


class _Item(msgspec.Struct):
    resource: _Bundle


_ITEM = msgspec.json.Decoder(_Item)
_STUB = msgspec.json.Decoder(Stub | None)


def read_changes(item: bytes, what: str) -> tuple[Change, ...]:
    """The entries of the context item `item`, which holds the Bundle; `what` names the item.

    Raises BadRequest naming the entry's index: "No resource SHALL appear multiple times in the update Bundle" (2.10), and
    "the bundle can only contain requests of type PUT and DELETE" (profile FHIRcastContentUpdateBundle).
    """
    changes: dict[str, Change] = {}
    for index, entry in enumerate(decoded(_ITEM, item, what).resource.entry or ()):
        where = f"{what}.resource.entry[{index}]"
        change = _change(entry, where)
        if change.ref in changes:
            raise BadRequest(f"{where}: expected each resource once, got one that an entry before has")
        changes[change.ref] = change
    return tuple(changes.values())


def _change(entry: _Entry, where: str) -> Change:
    method = entry.request.method
    if method == "DELETE":
        return Change(_target(entry, where), None)
    if method != "PUT":
        raise BadRequest(
            f"{where}.request.method: expected PUT or DELETE, got another method of {len(method)} characters"
        )
    resource = bytes(entry.resource)
    ref = ref_of(decoded(_STUB, resource, f"{where}.resource"))
    if not ref:
        raise BadRequest(f"{where}.resource: expected a resource with an id of 1 to {MAX_ID} characters, got none")
    check_controls(f"{where}.resource.id", ref)
    full_url = b'"fullUrl":%b,' % msgspec.json.encode(entry.fullUrl) if entry.fullUrl is not None else b""
    return Change(ref, b'{%b"resource":%b}' % (full_url, resource))


def _target(entry: _Entry, where: str) -> str:
    """What a DELETE deletes (CON-13)."""
    urls = entry.fullUrl or "", entry.request.url or ""
    targets = {f"{found[1].lower()}/{found[2]}" for url in urls if (found := _ENDS_IN_REF.search(url))}
    if len(targets) != 1:
        raise BadRequest(
            f"{where}: expected fullUrl or request.url to end in the Type/id of what is deleted, got"
            f" {'two that differ' if targets else 'neither'}"
        )
    return targets.pop()
