"""The `updates` Bundle of a content update (FHIRcast 3.0.0, 2.10), read entry by entry.

A resource stays the bytes that came (EVT-15): of each the hub reads type and id, and of each entry what is to be done.
"""

from __future__ import annotations

import re

import msgspec

from fhircast_hub.core.errors import BadRequest, TooLarge
from fhircast_hub.core.limits import MAX_ID, Rules
from fhircast_hub.core.wire.json import (
    NULL,
    Looked,
    Members,
    look_into,
    object_in,
    ref_of,
    stub_of,
    text_in,
    text_or_none,
)

_REF = rf"([A-Z][A-Za-z]*)/([^/?#\s\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{MAX_ID}}})"
_IS_REF = re.compile(_REF, re.ASCII)
#: A reference or URL that ends in Type/id, or in that of one of its versions.
_ENDS_IN_REF = re.compile(rf"(?:^|[/:]){_REF}(?:/_history/[^/?#\s]{{1,{MAX_ID}}})?\Z", re.ASCII)
#: What `entry_of` writes, up to the end of the fullUrl.
_WITH_FULL_URL = re.compile(rb'\{"fullUrl":("(?:[^"\\]|\\.)*")')
_PUT = msgspec.Raw(b'"PUT"')
_METHOD = re.compile(r"[A-Za-z]{1,16}")


class Change(msgspec.Struct, frozen=True):
    """One entry of an updates Bundle: `ref` becomes `resource`, as JSON; None deletes it.

    `full_url` is its fullUrl, "" without one. A DELETE without `ref` deletes what has that fullUrl.
    """

    ref: str
    resource: bytes | None
    full_url: str = ""


#: The members of an entry that are looked into.
_LOOKED_INTO = ("request", "resource")


class _Entry(msgspec.Struct):
    """Of an entry, the resource as it came."""

    resource: msgspec.Raw = msgspec.Raw(b"null")


_ENTRY, _ENTRIES = msgspec.json.Decoder(_Entry), msgspec.json.Decoder(list[_Entry])
_TEXT = msgspec.json.Decoder(str)


def read_changes(item: bytes, what: str, max_entries: int = Rules().max_entries) -> tuple[Change, ...]:
    """The entries of the context item `item`, which holds the Bundle; `what` names the item. Raises as `read_entries` does."""
    ((looked,), _) = look_into(b"[%b]" % item, ("resource",), what, 1, lambda _: TooLarge(what))
    return read_entries(object_in(looked, "resource", what) or {}, f"{what}.resource", max_entries)


def read_entries(bundle: Members, what: str, max_entries: int) -> tuple[Change, ...]:
    """The entries of a Bundle with these members; `what` names it.

    Raises TooLarge for more than `max_entries`, before it reads them. Raises BadRequest naming the entry's index: "No resource
    SHALL appear multiple times in the update Bundle" (2.10), "the bundle can only contain requests of type PUT and DELETE"
    (profile FHIRcastContentUpdateBundle), and "FullUrl must be unique in a bundle" (FHIR's bdl-7).
    """

    def too_many(count: int) -> TooLarge:
        return TooLarge(f"updates: expected at most {max_entries} entries, got {count}")

    array = bundle.get("entry", NULL)
    if array == NULL:
        return ()
    found, entries = look_into(array, _LOOKED_INTO, f"{what}.entry", max_entries, too_many)
    if entries is None:
        resources = [entry.resource for entry in _ENTRIES.decode(array)]
    else:
        resources = [entry.get("resource", NULL) for entry in entries]
    changes: list[Change] = []
    refs: set[str] = set()
    urls: set[str] = set()
    for index, (looked, resource) in enumerate(zip(found, resources, strict=True)):
        where = f"{what}.entry[{index}]"
        change = _change(looked, resource, where)
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


def resource_of(entry: bytes) -> bytes:
    """The resource in what `entry_of` made."""
    return bytes(_ENTRY.decode(entry).resource)


def _change(looked: Looked, resource: msgspec.Raw, where: str) -> Change:
    request, full_url = object_in(looked, "request", where), text_or_none(looked, "fullUrl", where) or ""
    if request is None:
        raise BadRequest(f"{where}.request: expected an object, got none")
    method = "PUT" if request.get("method") == _PUT else text_in(request, "method", f"{where}.request")
    if method == "DELETE":
        url = text_or_none(request, "url", f"{where}.request") or ""
        return Change(_target(full_url, url, where), None, full_url)
    if method != "PUT":
        came = method if _METHOD.fullmatch(method) else f"a method of {len(method)} characters"
        raise BadRequest(
            f"{where}.request.method: expected PUT or DELETE, got {came}; PUT adds and replaces, DELETE removes"
        )
    members = object_in(looked, "resource", where)
    stub = stub_of(members, where) if members is not None else None
    # What no DELETE could name would stay for good.
    if stub is None or not stub.id or not _IS_REF.fullmatch(named := f"{stub.resourceType}/{stub.id}"):
        raise BadRequest(f"{where}.resource: expected a resource whose Type/id is one of FHIR, got none")
    ref = ref_of(stub)
    if full_url and not full_url.endswith(f"/{named}") and _named(full_url) not in ("", ref):
        raise BadRequest(f"{where}: expected fullUrl to end in the Type/id of the resource, got that of another")
    return Change(ref, bytes(resource), full_url)


def _target(full_url: str, url: str, where: str) -> str:
    """The ref that a DELETE names by itself (CON-16); "" where only what is shared can say what has its fullUrl."""
    targets = {_named(full_url), _named(url)} - {""}
    if len(targets) > 1:
        raise BadRequest(f"{where}: expected fullUrl and request.url to name one resource, got two that differ")
    if not targets and not full_url:
        raise BadRequest(
            f"{where}: expected fullUrl, or request.url that ends in the Type/id of what is deleted, got neither"
        )
    return targets.pop() if targets else ""


def _named(url: str) -> str:
    """The ref of the Type/id in which a URL ends; "" where it does not."""
    found = _ENDS_IN_REF.search(url)
    return f"{found[1].lower()}/{found[2]}" if found else ""
