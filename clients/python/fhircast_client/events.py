"""Events (FHIRcast 3.0.0, 2.3 and 2.5): read from messages, made from resources, and the names of things in them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Literal

from fhircast_client.timing import timestamp_now

Resource = Mapping[str, Any]

#: Context keys that differ from the lower-case type ("due to legacy reasons", 2.3).
_KEYS = {"imagingstudy": "study", "diagnosticreport": "report"}
_TYPES = {key: type_ for type_, key in _KEYS.items()}


class Kind(Enum):
    """What an event is about, by its name."""

    OPEN = "open"
    CLOSE = "close"
    UPDATE = "update"
    SELECT = "select"
    HOME = "home-open"
    SYNC_ERROR = "syncerror"
    HEARTBEAT = "heartbeat"
    OTHER = "other"

    @property
    def changes_context(self) -> bool:
        """Whether it makes another context the current one."""
        return self in (Kind.OPEN, Kind.CLOSE, Kind.HOME)


def kind_of(name: str) -> Kind:
    """The kind of an event; "Subscribers SHALL be case insensitive for event-names" (2.6)."""
    lower = name.lower()
    if lower in ("home-open", "syncerror", "heartbeat"):
        return Kind(lower)
    _, dash, verb = lower.rpartition("-")
    return Kind(verb) if dash and verb in ("open", "close", "update", "select") else Kind.OTHER


@dataclass(frozen=True, eq=False, slots=True)
class Event:
    """An event. `name` and `timestamp` are as sent, `anchor` is `Patient/p1` ("" where it has none), `version` and
    `prior_version` are the hub's (None where it gives none), `own` is True for what this client published, `local` is what an
    identity map found. `body` is the whole message; neither it nor `context` is to be changed."""

    id: str
    name: str
    timestamp: str
    topic: str
    context: list[dict[str, Any]]
    version: str | None
    prior_version: str | None
    anchor: str
    own: bool
    body: dict[str, Any]
    local: Any = None

    @property
    def kind(self) -> Kind:
        """What it is about."""
        return kind_of(self.name)

    def resource(self, key_or_type: str) -> dict[str, Any] | None:
        """The first resource with this context key ("patient", "study") or resourceType; None where there is none.

        Of a study and a report both keys count, whichever is asked for: `study` and `imagingstudy`, `report` and
        `diagnosticreport`.
        """
        wanted = key_or_type.lower()
        names = {wanted, key_of(wanted), _TYPES.get(wanted, wanted)}
        for item in self.context:
            resource = item.get("resource")
            if isinstance(resource, dict) and names & {_lower(item.get("key")), _lower(resource.get("resourceType"))}:
                return resource
        return None

    def with_local(self, local: Any) -> Event:
        """The event with what was found of whom it is about."""
        return replace(self, local=local)


@dataclass(frozen=True, slots=True)
class WireMessage:
    """A message as it went over the wire, without tokens and endpoints. `status` is that of an HTTP answer or an acknowledgement."""

    direction: Literal["in", "out"]
    kind: str
    body: dict[str, Any]
    status: int | None = None


def parse_event(body: Any, *, own: bool = False) -> Event:
    """An event from its message. Raises ValueError for what is none."""
    inner = body.get("event") if isinstance(body, dict) else None
    if not isinstance(inner, dict):
        raise ValueError("expected an object with the member event")
    id_, name, items = body.get("id"), inner.get("hub.event"), inner.get("context")
    if not isinstance(id_, str) or not id_ or not isinstance(name, str) or not name:
        raise ValueError("expected the members id and event.hub.event, texts that are not empty")
    context = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return Event(
        id=id_,
        name=name,
        timestamp=_text(body.get("timestamp")) or "",
        topic=_text(inner.get("hub.topic")) or "",
        context=context,
        version=_text(inner.get("context.versionId")),
        prior_version=_text(inner.get("context.priorVersionId")),
        anchor=anchor_of(name, context),
        own=own,
        body=body,
    )


def make_event(
    topic: str,
    name: str,
    context: Iterable[Mapping[str, Any]],
    *,
    id: str | None = None,
    timestamp: str | None = None,
    version: str | None = None,
    own: bool = True,
) -> Event:
    """An event to publish: id defaults to a new UUID, timestamp to now. Raises ValueError or TypeError for what is no JSON."""
    inner: dict[str, Any] = {"hub.topic": topic, "hub.event": name}
    if version is not None:
        inner["context.versionId"] = version
    inner["context"] = [dict(item) for item in context]
    body = {"timestamp": timestamp or timestamp_now(), "id": id or str(uuid.uuid4()), "event": inner}
    # A copy: what the application changes in its resources later must not change what was sent.
    return parse_event(json.loads(encode(body)), own=own)


def encode(body: Mapping[str, Any]) -> bytes:
    """A message as JSON in UTF-8. Raises ValueError or TypeError for what is no JSON."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()


def context_of(resources: Iterable[Resource]) -> list[dict[str, Any]]:
    """The context array of an open or close: each resource under its key. Raises ValueError for what is no FHIR resource."""
    return [{"key": key_of(_type_of(resource)), "resource": resource} for resource in resources]


def key_of(type_: str) -> str:
    """The context key of a resourceType: study, report, else the type in lower case."""
    return _KEYS.get(type_.lower(), type_.lower())


def reference_of(resource: Resource) -> str:
    """`Patient/p1` of a resource. Raises ValueError for one without id."""
    id_ = resource.get("id")
    if not isinstance(id_, str) or not id_:
        raise ValueError(f"expected a {_type_of(resource)} with an id")
    return f"{_type_of(resource)}/{id_}"


def short_reference(reference: str) -> str:
    """The last two segments of a reference or URL, "" where it has not that many: how references are compared."""
    segments = [segment for segment in reference.split("/") if segment]
    return "/".join(segments[-2:]) if len(segments) > 1 else ""


def anchor_of(name: str, context: Iterable[Mapping[str, Any]]) -> str:
    """`Patient/p1` of what an event's context is about, "" for events without an anchor."""
    if kind_of(name) not in (Kind.OPEN, Kind.CLOSE, Kind.UPDATE, Kind.SELECT):
        return ""
    type_ = name.rpartition("-")[0].lower()
    for item in context:
        if _lower(item.get("key")) in (key_of(type_), type_):
            return named(item)
    return ""


def named(item: Mapping[str, Any]) -> str:
    """`Patient/p1` of what a context item holds or refers to; "" for neither."""
    resource, reference = item.get("resource"), item.get("reference")
    if isinstance(resource, dict):
        type_, id_ = resource.get("resourceType"), resource.get("id")
        return f"{type_}/{id_}" if isinstance(type_, str) and isinstance(id_, str) and type_ and id_ else ""
    if isinstance(reference, dict):
        reference = reference.get("reference")
    return short_reference(reference) if isinstance(reference, str) else ""


def _type_of(resource: Resource) -> str:
    type_ = resource.get("resourceType")
    if not isinstance(type_, str) or not type_:
        raise ValueError("expected a FHIR resource, with the member resourceType")
    return type_


def _lower(value: Any) -> str:
    return value.lower() if isinstance(value, str) else ""


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
