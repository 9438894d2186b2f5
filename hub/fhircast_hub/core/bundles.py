"""The `updates` Bundle of a content update (FHIRcast 3.0.0, 2.10), read entry by entry.

A resource stays the bytes that came (EVT-15): of each the hub reads type and id, and of each entry what is to be done.
"""

from __future__ import annotations

import re

import msgspec

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.limits import MAX_ID
from fhircast_hub.core.reading import Stub, decoded, ref_of

_REF = rf"([A-Z][A-Za-z]*)/([^/?#\s\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{MAX_ID}}})"
_IS_REF = re.compile(_REF, re.ASCII)
#: A reference or URL that ends in Type/id, or in that of one of its versions.
_ENDS_IN_REF = re.compile(rf"(?:^|[/:]){_REF}(?:/_history/[^/?#\s]{{1,{MAX_ID}}})?\Z", re.ASCII)
#: What `entry_of` writes, up to the end of the fullUrl.
_WITH_FULL_URL = re.compile(rb'\{"fullUrl":("(?:[^"\\]|\\.)*")')
_METHOD = re.compile(r"[A-Za-z]{1,16}")


class Change(msgspec.Struct, frozen=True):
    """One entry of an updates Bundle: `ref` becomes `resource`, as JSON; None deletes it.

    `full_url` is its fullUrl, "" without one. A DELETE without `ref` deletes what has that fullUrl.
    """

    ref: str
    resource: bytes | None
    full_url: str = ""


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
_TEXT = msgspec.json.Decoder(str)


def read_changes(item: bytes, what: str) -> tuple[Change, ...]:
    """The entries of the context item `item`, which holds the Bundle; `what` names the item.

    Raises BadRequest naming the entry's index: "No resource SHALL appear multiple times in the update Bundle" (2.10), "the
    bundle can only contain requests of type PUT and DELETE" (profile FHIRcastContentUpdateBundle), and "FullUrl must be unique
    in a bundle" (FHIR's bdl-7).
    """
    changes: list[Change] = []
    refs: set[str] = set()
    urls: set[str] = set()
    for index, entry in enumerate(decoded(_ITEM, item, what).resource.entry or ()):
        where = f"{what}.resource.entry[{index}]"
        change = _change(entry, where)
        if change.ref and change.ref in refs:
            raise BadRequest(f"{where}: expected each resource once, got one that an entry before has")
        if change.full_url and change.full_url in urls:
            raise BadRequest(f"{where}: expected each fullUrl once, got one that an entry before has")
        refs.add(change.ref)
        urls.add(change.full_url)
        changes.append(change)
    return tuple(changes)


def entry_of(resource: bytes, full_url: str) -> bytes:
    """The entry of a content Bundle, as JSON: the resource as it came, under its fullUrl if it has one."""
    return b'{%b"resource":%b}' % (b'"fullUrl":%b,' % msgspec.json.encode(full_url) if full_url else b"", resource)


def full_url_of(entry: bytes) -> str:
    """The fullUrl of what `entry_of` made; "" without one."""
    found = _WITH_FULL_URL.match(entry)
    return _TEXT.decode(found[1]) if found else ""


def _change(entry: _Entry, where: str) -> Change:
    method = entry.request.method
    if method == "DELETE":
        return Change(_target(entry, where), None, entry.fullUrl or "")
    if method != "PUT":
        came = method if _METHOD.fullmatch(method) else f"a method of {len(method)} characters"
        raise BadRequest(
            f"{where}.request.method: expected PUT or DELETE, got {came}; PUT adds and replaces, DELETE removes"
        )
    resource = bytes(entry.resource)
    stub = decoded(_STUB, resource, f"{where}.resource")
    # What no DELETE could name would stay for good.
    if stub is None or not stub.id or not _IS_REF.fullmatch(f"{stub.resourceType}/{stub.id}"):
        raise BadRequest(f"{where}.resource: expected a resource whose Type/id is one of FHIR, got none")
    ref = ref_of(stub)
    if _named(entry.fullUrl or "") not in ("", ref):
        raise BadRequest(f"{where}: expected fullUrl to end in the Type/id of the resource, got that of another")
    return Change(ref, resource, entry.fullUrl or "")


def _target(entry: _Entry, where: str) -> str:
    """The ref that a DELETE names by itself (CON-16); "" where only what is shared can say what has its fullUrl."""
    targets = {_named(entry.fullUrl or ""), _named(entry.request.url or "")} - {""}
    if len(targets) > 1:
        raise BadRequest(f"{where}: expected fullUrl and request.url to name one resource, got two that differ")
    if not targets and not entry.fullUrl:
        raise BadRequest(
            f"{where}: expected fullUrl, or request.url that ends in the Type/id of what is deleted, got neither"
        )
    return targets.pop() if targets else ""


def _named(url: str) -> str:
    """The ref of the Type/id in which a URL ends; "" where it does not."""
    found = _ENDS_IN_REF.search(url)
    return f"{found[1].lower()}/{found[2]}" if found else ""
