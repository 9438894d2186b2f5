"""Update bundles, selects, and the answer to "Get Current Context" (FHIRcast 3.0.0, 2.9 and 2.10)."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from fhircast_client.events import Event, Resource, anchor_of, key_of, make_event, named, reference_in, reference_of

#: A resource to add or replace, or the reference of a resource to remove.
Change = Resource | str
#: Shared resources, by reference.
Content = dict[str, dict[str, Any]]
#: Version of a session without any open yet (GET-1). "Each time the context changes, a different versionId is
#: generated" (2.9), so no later session has this version.
NOTHING_OPENED = "0"


class Entries(Content):
    """Shared resources by reference, with their fullUrls in `urls`. "The `fullUrl` attribute ... enables Subscribers to
    consistently identify content" (4.4), so other applications may use fullUrls."""

    def __init__(self, content: Mapping[str, dict[str, Any]] | None = None) -> None:
        super().__init__(content or {})
        self.urls: dict[str, str] = dict(content.urls) if isinstance(content, Entries) else {}
        self._owners = {url: ref for ref, url in self.urls.items()}

    def put(self, ref: str, resource: dict[str, Any], url: str) -> None:
        """Add or replace a resource. `url` becomes its fullUrl. Where `url` is "", the resource keeps its fullUrl."""
        self[ref] = resource
        if url:
            self._forget(ref)
            self.urls[ref], self._owners[url] = url, ref

    def drop(self, ref: str) -> None:
        """Remove a resource, if it is there."""
        self._forget(ref)
        self.pop(ref, None)

    def owner(self, url: str) -> str:
        """Reference of the resource with this fullUrl, "" where there is none."""
        return self._owners.get(url, "")

    def _forget(self, ref: str) -> None:
        url = self.urls.pop(ref, "")
        if self._owners.get(url) == ref:
            del self._owners[url]


def update_context(
    anchor: str, changes: Iterable[Change], patient: str = "", urls: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The context of an update: "one named `updates` holding a single `Bundle`" (2.3). `anchor` and `patient` are
    references. `urls`: fullUrls of resources that are shared already, by reference.

    Raises ValueError for a change that is neither a resource with an id nor a reference.
    """
    known = urls or {}
    bundle = {
        "resourceType": "Bundle",
        "id": str(uuid.uuid4()),
        "type": "transaction",
        "entry": [_entry(change, known) for change in changes],
    }
    return [*_about(anchor, patient), {"key": "updates", "resource": bundle}]


def select_context(anchor: str, items: Iterable[Change], patient: str = "") -> list[dict[str, Any]]:
    """The context of a select. Without items, the selection is cleared."""
    selected = [{"key": "select", "reference": {"reference": reference(item)}} for item in items]
    return [*_about(anchor, patient), *selected]


def reference(thing: Change) -> str:
    """`Observation/o1` of a resource or a reference. Raises ValueError for any other value."""
    if not isinstance(thing, str):
        return reference_of(thing)
    found = reference_in(thing)
    if not found:
        raise ValueError("the text is not a reference such as Observation/o1")
    return found


def changed(content: Entries, update: Event) -> Entries:
    """The content after an update. Entries that cannot be read are ignored."""
    after = Entries(content)
    for entry in _entries(update.resource("updates")):
        request, resource = entry.get("request"), entry.get("resource")
        method = request.get("method") if isinstance(request, dict) else None
        if method == "DELETE":
            after.drop(_target(entry, after))
        elif isinstance(resource, dict) and (ref := named(entry)):
            after.put(ref, resource, _url(entry))
    return after


def read_current(answer: Any, topic: str) -> tuple[Event | None, str | None, Entries | None]:
    """The answer to GET hub.url/{topic} as an open event, with its version and content.

    The event is None where no context is open. Its id and timestamp are made up, because the answer has none. The
    content is None where the hub does not tell it. Raises ValueError for an answer that cannot be read.
    """
    type_ = answer.get("context.type") if isinstance(answer, dict) else None
    items = answer.get("context") if isinstance(answer, dict) else None
    if not isinstance(type_, str) or not isinstance(items, list):
        raise ValueError("context.type and context are required")
    items = [item for item in items if isinstance(item, dict)]
    version = answer.get("context.versionId")
    version = version if isinstance(version, str) and version else None
    if not type_ or not items:
        return None, version, None
    context = [item for item in items if item.get("key") != "content"]
    name = f"{type_}-open"
    if not anchor_of(name, context):
        raise ValueError("the resource of the context is missing")
    bundles = [item.get("resource") for item in items if item.get("key") == "content"]
    content = _shared(bundles[0]) if bundles else None
    return make_event(topic, name, context, version=version, own=False), version, content


def _about(anchor: str, patient: str) -> list[dict[str, Any]]:
    items = [{"key": key_of(anchor.partition("/")[0]), "reference": {"reference": anchor}}]
    if patient and patient != anchor:
        items.append({"key": "patient", "reference": {"reference": patient}})
    return items


def _entry(change: Change, urls: Mapping[str, str]) -> dict[str, Any]:
    """Keeps the resource's fullUrl, so that applications that use fullUrls change the same resource."""
    ref = reference(change)
    url = urls.get(ref, ref)
    if isinstance(change, str):
        return {"fullUrl": url, "request": {"method": "DELETE", "url": ref}}
    return {"fullUrl": url, "request": {"method": "PUT", "url": ref}, "resource": change}


def _shared(bundle: Any) -> Entries:
    content = Entries()
    for entry in _entries(bundle):
        if ref := named(entry):
            content.put(ref, entry["resource"], _url(entry))
    return content


def _entries(bundle: Any) -> list[Mapping[str, Any]]:
    entries = bundle.get("entry") if isinstance(bundle, dict) else None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _target(entry: Mapping[str, Any], content: Entries) -> str:
    """The reference that a DELETE removes. fullUrl decides: by the resource shared under it, or by its end. Else
    request.url decides, by its end."""
    full_url, url = _url(entry), entry["request"].get("url")
    return content.owner(full_url) or reference_in(full_url) or (reference_in(url) if isinstance(url, str) else "")


def _url(entry: Mapping[str, Any]) -> str:
    url = entry.get("fullUrl")
    return url if isinstance(url, str) else ""
