"""Events, contexts and states on one line each, for a terminal."""

from __future__ import annotations

from typing import Any

from fhircast_client.contexts import Context
from fhircast_client.events import Event
from fhircast_client.status import Status


def event_line(event: Event) -> str:
    """`09:30:00 Patient-open  Patient/p1  Nygård, Ingrid`, with the event's timestamp."""
    parts = [event.timestamp, f"{event.name:<22}", event.anchor]
    parts += [text for item in event.context if (text := _described(item))]
    return _plain("  ".join(part for part in parts if part))


def context_line(context: Context | None) -> str:
    """The current context, or a sentence without one. The hub tells nothing of other open contexts."""
    if context is None:
        return "no current context (others may be open)"
    described = [text for item in context.event.context if (text := _described(item))]
    shared = [] if not context.content else ["shared: " + ", ".join(context.content)]
    version = [f"version {context.version}"] if context.version else []
    return _plain("  ".join([context.anchor, *described, *version, *shared]))


def status_line(status: Status) -> str:
    """`connected, in sync`, or the reason for being out of sync."""
    return _plain(f"-- {status.connection}, " + ("in sync" if status.in_sync else f"out of sync: {status.why}"))


def _described(item: dict[str, Any]) -> str:
    """The name or description of a resource, for users."""
    resource = item.get("resource")
    if not isinstance(resource, dict):
        return ""
    for name in _objects(resource.get("name")):
        given = name.get("given")
        parts = [name.get("family"), " ".join(map(str, given)) if isinstance(given, list) else None]
        return str(name.get("text") or ", ".join(str(part) for part in parts if part))
    for issue in _objects(resource.get("issue")):
        return str(issue.get("diagnostics") or "")
    return str(resource.get("description") or "")


def _objects(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _plain(text: str) -> str:
    """Without control characters: the text comes from another application."""
    return "".join(character if character.isprintable() else " " for character in text)
