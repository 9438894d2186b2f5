"""What is shared in a context (FHIRcast 3.0.0, 2.10): changes, selections, and the answer to "Get Current Context" (2.9)."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from fhircast_client.events import Event, Resource, anchor_of, key_of, make_event, named, reference_of, short_reference

#: A resource is added or replaced, the reference of one is removed.
Change = Resource | str
#: What is shared, by reference.
Content = dict[str, dict[str, Any]]


def update_context(anchor: str, changes: Iterable[Change], patient: str = "") -> list[dict[str, Any]]:
    """The context of an update: "one named `updates` holding a single `Bundle`" (2.3). `anchor`, `patient`: references.

    Raises ValueError for a change that is neither a resource with an id nor a reference.
    """
    bundle = {
        "resourceType": "Bundle",
        "id": str(uuid.uuid4()),
        "type": "transaction",
        "entry": [_entry(change) for change in changes],
    }
    return [*_about(anchor, patient), {"key": "updates", "resource": bundle}]


def select_context(anchor: str, items: Iterable[Change], patient: str = "") -> list[dict[str, Any]]:
    """The context of a select; no items: nothing is selected any more."""
    selected = [{"key": "select", "reference": {"reference": reference(item)}} for item in items]
    return [*_about(anchor, patient), *selected]


def reference(thing: Change) -> str:
    """`Observation/o1` of a resource or a reference. Raises ValueError for what is neither."""
    if not isinstance(thing, str):
        return reference_of(thing)
    found = short_reference(thing)
    if not found:
        raise ValueError("expected a reference such as Observation/o1, got a text that is none")
    return found


def changed(content: Content, update: Event) -> Content:
    """The content after an update; what in it cannot be read changes nothing."""
    after = dict(content)
    for entry in _entries(update.resource("updates")):
        request, resource = entry.get("request"), entry.get("resource")
        method = request.get("method") if isinstance(request, dict) else None
        if method == "DELETE":
            after.pop(_target(entry), None)
        elif isinstance(resource, dict) and (ref := named(entry)):
            after[ref] = resource
    return after


def read_current(answer: Any, topic: str) -> tuple[Event | None, str | None, Content | None]:
    """The answer to GET hub.url/{topic}: the open event that it amounts to, its version, and the content.

    The event is None where nothing is open; its id and timestamp are made up, for the answer has none. The content is None where
    the hub says nothing of it. Raises ValueError for an answer that cannot be read.
    """
    type_ = answer.get("context.type") if isinstance(answer, dict) else None
    items = answer.get("context") if isinstance(answer, dict) else None
    if not isinstance(type_, str) or not isinstance(items, list):
        raise ValueError("expected context.type and context")
    items = [item for item in items if isinstance(item, dict)]
    version = answer.get("context.versionId")
    version = version if isinstance(version, str) and version else None
    if not type_ or not items:
        return None, version, None
    context = [item for item in items if item.get("key") != "content"]
    name = f"{type_}-open"
    if not anchor_of(name, context):
        raise ValueError("expected the resource that the context is about")
    bundles = [item.get("resource") for item in items if item.get("key") == "content"]
    content = {ref: entry["resource"] for entry in _entries(bundles[0]) if (ref := named(entry))} if bundles else None
    return make_event(topic, name, context, version=version, own=False), version, content


def _about(anchor: str, patient: str) -> list[dict[str, Any]]:
    items = [{"key": key_of(anchor.partition("/")[0]), "reference": {"reference": anchor}}]
    if patient and patient != anchor:
        items.append({"key": "patient", "reference": {"reference": patient}})
    return items


def _entry(change: Change) -> dict[str, Any]:
    ref = reference(change)
    if isinstance(change, str):
        return {"fullUrl": ref, "request": {"method": "DELETE", "url": ref}}
    return {"fullUrl": ref, "request": {"method": "PUT", "url": ref}, "resource": change}


def _entries(bundle: Any) -> list[Mapping[str, Any]]:
    entries = bundle.get("entry") if isinstance(bundle, dict) else None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _target(entry: Mapping[str, Any]) -> str:
    """What a DELETE deletes: fullUrl says, else request.url."""
    for url in (entry.get("fullUrl"), entry["request"].get("url")):
        if isinstance(url, str) and (found := short_reference(url)):
            return found
    return ""
