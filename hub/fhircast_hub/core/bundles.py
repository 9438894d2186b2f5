"""The `updates` Bundle of a content update (FHIRcast 3.0.0, 2.10), read entry by entry.

A resource stays the bytes that came (EVT-15): of each the hub reads type and id, and of each entry what is to be done.
"""

from __future__ import annotations

import re

import msgspec

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.limits import MAX_ID
from fhircast_hub.core.reading import Stub, decoded, ref_of

#: A reference or URL that ends in Type/id.
_ENDS_IN_REF = re.compile(
    rf"(?:^|[/:])([A-Z][A-Za-z]*)/([^/?#\s\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{MAX_ID}}})\Z", re.ASCII
)


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
    stub = decoded(_STUB, resource, f"{where}.resource")
    # What no DELETE could name would stay for good.
    if stub is None or not stub.id or not _ENDS_IN_REF.fullmatch(f"{stub.resourceType}/{stub.id}"):
        raise BadRequest(f"{where}.resource: expected a resource whose Type/id is one of FHIR, got none")
    ref = ref_of(stub)
    if entry.fullUrl is None:
        return Change(ref, b'{"resource":%b}' % resource)
    if _named(entry.fullUrl) not in ("", ref):
        raise BadRequest(f"{where}: expected fullUrl to end in the Type/id of the resource, got that of another")
    return Change(ref, b'{"fullUrl":%b,"resource":%b}' % (msgspec.json.encode(entry.fullUrl), resource))


def _target(entry: _Entry, where: str) -> str:
    """What a DELETE deletes (CON-13)."""
    targets = {_named(entry.fullUrl or ""), _named(entry.request.url or "")} - {""}
    if len(targets) != 1:
        raise BadRequest(
            f"{where}: expected fullUrl or request.url to end in the Type/id of what is deleted, got"
            f" {'two that differ' if targets else 'neither'}"
        )
    return targets.pop()


def _named(url: str) -> str:
    """The ref of the Type/id in which a URL ends; "" where it does not."""
    found = _ENDS_IN_REF.search(url)
    return f"{found[1].lower()}/{found[2]}" if found else ""
