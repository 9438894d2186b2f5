"""The resource of an event that is looked up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fhircast_identity import refusals
from fhircast_identity.local import Resource, text


def named_in(context: Iterable[Any], kind: str) -> tuple[Resource | None, str]:
    """The resource of a type in an event's context, with its absolute address ("" without one).

    For an item with only a reference, the resource has only type and id. None where the context has no resource of the
    type. Raises SeveralMatches where there are several: ids of two servers may be the same by chance.
    """
    found = [_resource(item) for item in context if isinstance(item, dict)]
    found = [(resource, url) for resource, url in found if resource.get("resourceType") == kind]
    full = [resource for resource, _ in found if len(resource) > len(("resourceType", "id"))]
    named = full or [resource for resource, _ in found]
    ids, urls = {text(resource.get("id")) for resource, _ in found}, {url for _, url in found if url}
    if any(other != named[0] for other in named) or len(ids) > 1 or len(urls) > 1:
        raise refusals.several_named(kind)
    return (named[0] if named else None), next(iter(urls), "")


def _resource(item: Resource) -> tuple[Resource, str]:
    """An item's resource, and its absolute address from `fullUrl` or `reference`."""
    reference = item.get("reference")
    address = text(reference.get("reference") if isinstance(reference, dict) else reference) or text(
        item.get("fullUrl")
    )
    address = address.partition("/_history/")[0]
    url = address if "://" in address else ""
    resource = item.get("resource")
    if isinstance(resource, dict):
        return resource, url
    kind, _, identity = "/".join(address.split("/")[-2:]).partition("/")
    return ({"resourceType": kind, "id": identity} if kind and identity else {}), url
