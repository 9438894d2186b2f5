"""GET [base]/Patient?identifier=...: a page of the matches, as a searchset Bundle."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from demo.records.outcome import FhirError
from demo.records.parameters import PARAMETERS
from demo.records.store import Resource, Store

#: Resources of one page, at most.
MAX_PAGE = 50
#: Parameters that do not search; `_offset` is the server's own, for the link to the next page.
_ABOUT_THE_ANSWER = {"_count", "_offset", "_format"}


@dataclass(frozen=True)
class Query:
    """The search: all parameters must match, each with at least one of its values. And the page of the result."""

    type: str
    criteria: tuple[tuple[str, str], ...]
    count: int = MAX_PAGE
    offset: int = 0

    def url(self, base: str, offset: int) -> str:
        """The page that begins there, for the parameters that were used."""
        pairs = [*self.criteria, ("_count", str(self.count)), ("_offset", str(offset))]
        return f"{base}/{self.type}?{urlencode(pairs)}"


def read_query(type_: str, pairs: Iterable[tuple[str, str]], *, strict: bool) -> Query:
    """The query of a URL. Unknown parameters, and those without a value, are ignored; with `strict` they are refused.

    Raises FhirError also for a modifier: "Servers SHALL reject any search request that contains a search parameter
    modifier that the server does not support for that parameter".
    """
    known = PARAMETERS[type_]
    criteria, page = [], {"_count": MAX_PAGE, "_offset": 0}
    for name, value in pairs:
        plain, colon, _ = name.partition(":")
        if colon and plain in known:
            raise FhirError(400, "not-supported", f"{name}: no modifier is supported")
        if name in known and value:
            criteria.append((name, value))
        elif name in page:
            page[name] = _number(name, value)
        elif strict and name not in _ABOUT_THE_ANSWER:
            raise FhirError(400, "not-supported", f"{type_} cannot be searched by {name!r} with this value")
    return Query(type_, tuple(criteria), min(page["_count"], MAX_PAGE), page["_offset"])


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 7):
        raise FhirError(400, "value", f"{name} must be a number of resources")
    return int(value)


def matching(store: Store, query: Query, base: str) -> list[Resource]:
    """All matches. `base` is this server's: references to it may be absolute."""
    known = PARAMETERS[query.type]
    asked = [
        (known[name].matches, [each.removeprefix(f"{base}/") for each in value.split(",")])
        for name, value in query.criteria
    ]
    return [
        resource
        for resource in store.all(query.type)
        if all(any(matches(resource, value) for value in values) for matches, values in asked)
    ]


def search(store: Store, query: Query, base: str) -> Resource:
    """The Bundle: the page, the total, and the link to the next page."""
    found = matching(store, query, base)
    end = query.offset + query.count
    links = [{"relation": "self", "url": query.url(base, query.offset)}]
    if query.count and end < len(found):
        links.append({"relation": "next", "url": query.url(base, end)})
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset", "total": len(found), "link": links}
    if entries := [_entry(resource, base) for resource in found[query.offset : end]]:
        bundle["entry"] = entries
    return bundle


def _entry(resource: Resource, base: str) -> Resource:
    url = f"{base}/{resource['resourceType']}/{resource['id']}"
    return {"fullUrl": url, "resource": resource, "search": {"mode": "match"}}
