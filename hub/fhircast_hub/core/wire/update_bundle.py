"""The `updates` Bundle of a content update (FHIRcast 3.0.0, 2.10), entry by entry: PUT adds or replaces a resource, DELETE removes.

The hub reads the type and id of a resource. The resource itself is passed on as received (EVT-15).
"""

from __future__ import annotations

import re

import msgspec

from fhircast_hub.core.errors import BadRequest, TooLarge
from fhircast_hub.core.limits import MAX_ID, Rules
from fhircast_hub.core.wire.json import (
    NULL,
    ItemLimit,
    Members,
    PartlyDecoded,
    encode,
    members_of_each,
    object_in,
    ref_of,
    string_in,
    string_or_none,
    type_and_id_of,
)

_REF = rf"([A-Z][A-Za-z]*)/([^/?#\s\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{MAX_ID}}})"
_IS_REF = re.compile(_REF, re.ASCII)
#: A reference or URL that ends in Type/id, with or without one of its versions behind.
_ENDS_IN_REF = re.compile(rf"(?:^|[/:]){_REF}(?:/_history/[^/?#\s]{{1,{MAX_ID}}})?\Z", re.ASCII)
#: An entry made by `entry_of`, up to the end of its fullUrl.
_WITH_FULL_URL = re.compile(rb'\{"fullUrl":("(?:[^"\\]|\\.)*")')
_PUT = msgspec.Raw(b'"PUT"')
#: A method that an error may quote.
_METHOD = re.compile(r"[A-Za-z]{1,16}")
#: The members of an entry that are split into their own members.
_SPLIT_MEMBERS = ("request", "resource")


class Change(msgspec.Struct, frozen=True):
    """One entry of an updates Bundle."""

    #: The resource's `type/id`, the type in lower case. "": a DELETE of the resource that has `full_url`.
    ref: str
    #: The resource as JSON. None: the resource is deleted.
    resource: bytes | None
    #: The entry's fullUrl. "": the entry has none.
    full_url: str = ""


class _Entry(msgspec.Struct):
    """An entry of which only the resource is read."""

    resource: msgspec.Raw = msgspec.Raw(b"null")


_ENTRY, _ENTRIES = msgspec.json.Decoder(_Entry), msgspec.json.Decoder(list[_Entry])
_STRING = msgspec.json.Decoder(str)


def read_changes(item: bytes, path: str, max_entries: int = Rules().max_entries) -> tuple[Change, ...]:
    """The entries of the Bundle in the context item `item`, which stands at `path`. Raises as `read_entries` does."""
    ((members,), _) = members_of_each(b"[%b]" % item, ("resource",), path, ItemLimit(1, lambda _: TooLarge(path)))
    return read_entries(object_in(members, "resource", path) or {}, f"{path}.resource", max_entries)


def read_entries(bundle: Members, path: str, max_entries: int) -> tuple[Change, ...]:
    """The entries of the Bundle at `path` that has these members.

    Raises TooLarge for more than `max_entries`, before any entry is read. Raises BadRequest that names the entry's index for:
    - a resource twice: "No resource SHALL appear multiple times in the update Bundle" (2.10);
    - a fullUrl twice: "FullUrl must be unique in a bundle" (FHIR's bdl-7);
    - another method: "the bundle can only contain requests of type PUT and DELETE" (profile FHIRcastContentUpdateBundle).
    """
    changes: list[Change] = []
    refs: set[str] = set()
    urls: set[str] = set()
    for index, (entry, resource) in enumerate(_split_entries(bundle, path, max_entries)):
        where = f"{path}.entry[{index}]"
        change = _read_change(entry, resource, where)
        if change.ref and change.ref in refs:
            raise BadRequest(f"{where}: each resource may be there once, and an entry before has this one")
        if change.full_url and change.full_url in urls:
            raise BadRequest(f"{where}: each fullUrl may be there once, and an entry before has this one")
        refs.add(change.ref)
        urls.add(change.full_url)
        changes.append(change)
    return tuple(changes)


def _split_entries(bundle: Members, path: str, max_entries: int) -> list[tuple[PartlyDecoded, msgspec.Raw]]:
    """The members of each entry, and its resource as received."""
    array = bundle.get("entry", NULL)
    if array == NULL:
        return []

    def too_many(count: int) -> TooLarge:
        return TooLarge(f"updates may have at most {max_entries} entries, and this one has {count}")

    entries, undecoded = members_of_each(array, _SPLIT_MEMBERS, f"{path}.entry", ItemLimit(max_entries, too_many))
    if undecoded is None:
        resources = [entry.resource for entry in _ENTRIES.decode(array)]
    else:
        resources = [entry.get("resource", NULL) for entry in undecoded]
    return list(zip(entries, resources, strict=True))


def entry_of(resource: bytes, full_url: str) -> bytes:
    """The JSON of a content Bundle's entry: the resource as received, and its fullUrl unless that is ""."""
    return b'{%b"resource":%b}' % (b'"fullUrl":%b,' % encode(full_url) if full_url else b"", resource)


def full_url_of(entry: bytes) -> str:
    """The fullUrl of an entry made by `entry_of`. "": the entry has none."""
    found = _WITH_FULL_URL.match(entry)
    return _STRING.decode(found[1]) if found else ""


def resource_of(entry: bytes) -> bytes:
    """The resource of an entry made by `entry_of`."""
    return bytes(_ENTRY.decode(entry).resource)


def _read_change(entry: PartlyDecoded, resource: msgspec.Raw, path: str) -> Change:
    request, full_url = object_in(entry, "request", path), string_or_none(entry, "fullUrl", path) or ""
    if request is None:
        raise BadRequest(f"{path}.request is required")
    method = "PUT" if request.get("method") == _PUT else string_in(request, "method", f"{path}.request")
    if method == "DELETE":
        url = string_or_none(request, "url", f"{path}.request") or ""
        return Change(_deleted_ref(full_url, url, path), None, full_url)
    if method != "PUT":
        actual = method if _METHOD.fullmatch(method) else f"a method of {len(method)} characters"
        raise BadRequest(
            f"{path}.request.method must be PUT or DELETE, not …; PUT adds and replaces, DELETE removes", quoted=actual
        )
    return Change(_put_ref(object_in(entry, "resource", path), full_url, path), bytes(resource), full_url)


def _put_ref(resource: Members | None, full_url: str, path: str) -> str:
    """The ref of the resource that a PUT adds or replaces."""
    found = type_and_id_of(resource, path) if resource is not None else None
    # A resource that no DELETE could name would stay for good.
    if found is None or not found.id or not _IS_REF.fullmatch(type_and_id := f"{found.resourceType}/{found.id}"):
        raise BadRequest(f"{path}.resource must be a resource with a valid Type/id")
    ref = ref_of(found)
    if full_url and not full_url.endswith(f"/{type_and_id}") and _ref_at_end(full_url) not in ("", ref):
        raise BadRequest(f"{path}.fullUrl must end in the Type/id of the resource, not in that of another")
    return ref


def _deleted_ref(full_url: str, url: str, path: str) -> str:
    """The ref that a DELETE itself names (CON-24). "": only the shared content can tell which resource has its fullUrl."""
    refs = {_ref_at_end(full_url), _ref_at_end(url)} - {""}
    if len(refs) > 1:
        raise BadRequest(f"{path}: fullUrl and request.url must name one resource, and these two differ")
    if not refs and not full_url:
        raise BadRequest(
            f"{path} must have a fullUrl, or a request.url that ends in the Type/id of the deleted resource, and has neither"
        )
    return refs.pop() if refs else ""


def _ref_at_end(url: str) -> str:
    """The ref of the Type/id in which a URL ends. "": the URL ends in no Type/id."""
    found = _ENDS_IN_REF.search(url)
    return f"{found[1].lower()}/{found[2]}" if found else ""
