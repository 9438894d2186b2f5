"""Events (FHIRcast 3.0.0, 2.3 and 2.5): reading, making, and the names in them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Literal

from fhircast_client.timestamps import instant, timestamp_now

Resource = Mapping[str, Any]

#: Context keys that differ from the lower-case type ("due to legacy reasons", 2.3).
_KEYS = {"imagingstudy": "study", "diagnosticreport": "report"}
_TYPES = {key: type_ for type_, key in _KEYS.items()}
#: "EventName ::= FHIRresource '-' ( 'open' | 'close' | 'update' | 'select' )" (2.3).
_RESOURCE_EVENT = re.compile(r"([a-z]+)-(open|close|update|select)", re.ASCII | re.IGNORECASE)
#: Python reads longer integers only as floats.
_MOST_DIGITS = 4300
_SURROGATES = re.compile("[\ud800-\udfff]")
#: The Type/id at the end of a URL, also of a versioned one.
_NAMED = re.compile(r"(?:^|[/:])([A-Z][A-Za-z]*/[^/?#\s]+?)(?:/_history/[^/?#\s]+)?\Z", re.ASCII)


class Kind(Enum):
    """The kind of an event, by its name."""

    OPEN = "open"
    CLOSE = "close"
    UPDATE = "update"
    SELECT = "select"
    HOME = "home-open"
    SYNC_ERROR = "syncerror"
    HEARTBEAT = "heartbeat"
    OTHER = "other"

    @property
    def opens(self) -> bool:
        """Whether the event makes a context current: an open, or Home-open."""
        return self in (Kind.OPEN, Kind.HOME)

    @property
    def changes_context(self) -> bool:
        """Whether the event may change the current context."""
        return self in (Kind.OPEN, Kind.CLOSE, Kind.HOME)


def kind_of(name: str) -> Kind:
    """The kind of an event name. "Subscribers SHALL be case insensitive for event-names" (2.6)."""
    lower = name.lower()
    if lower in ("home-open", "syncerror", "heartbeat"):
        return Kind(lower)
    found = _RESOURCE_EVENT.fullmatch(lower)
    return Kind(found[2]) if found else Kind.OTHER


@dataclass(frozen=True, eq=False, slots=True)
class Event:
    """An event. Do not change `body` and `context`."""

    id: str
    #: As sent, also the timestamp.
    name: str
    timestamp: str
    topic: str
    context: list[dict[str, Any]]
    #: The hub's context.versionId and context.priorVersionId, None where it sends none.
    version: str | None
    prior_version: str | None
    #: `Patient/p1`, "" where the event has none.
    anchor: str
    #: Whether this client published the event.
    own: bool
    #: The whole message.
    body: dict[str, Any]
    #: The result of the handler's `ids`, None without `ids`.
    local: Any = None

    @property
    def kind(self) -> Kind:
        """The kind of the event."""
        return kind_of(self.name)

    @property
    def at(self) -> int | None:
        """The timestamp as an instant, None where it cannot be read."""
        return instant(self.timestamp)

    @property
    def announces(self) -> bool:
        """Whether the event is retried while the hub cannot be reached: a change of context, or a logout."""
        return self.kind.changes_context or self.name.lower() in ("userlogout", "userhibernate")

    @property
    def matters(self) -> bool:
        """Whether a SyncError tells the other applications when the event is not followed.

        "SyncError is not used when a Subscriber responds to an *-update or *-select event" (3.2.1).
        """
        return self.kind.changes_context or self.kind is Kind.OTHER

    def resource(self, key_or_type: str) -> dict[str, Any] | None:
        """The first resource with this context key ("patient", "study"), else of this resourceType. None where there is
        none.

        Studies and reports have two keys, which are the same here: `study` and `imagingstudy`, `report` and
        `diagnosticreport`.
        """
        wanted = key_or_type.lower()
        names = {wanted, key_of(wanted), _TYPES.get(wanted, wanted)}
        found = _item(self.context, names)
        return found["resource"] if found else None

    def with_local(self, local: Any) -> Event:
        """A copy of the event with `local`."""
        return replace(self, local=local)


@dataclass(frozen=True, slots=True)
class WireMessage:
    """A message on the wire, without tokens and endpoints. `status`: the status of an HTTP answer or an
    acknowledgement."""

    direction: Literal["in", "out"]
    kind: str
    body: dict[str, Any]
    status: int | None = None


def parse_event(body: Any, *, own: bool = False) -> Event:
    """Read an event from its message. Raises ValueError for any other message."""
    inner = body.get("event") if isinstance(body, dict) else None
    if not isinstance(inner, dict):
        raise ValueError("the member event is required")
    id_, name, items = body.get("id"), inner.get("hub.event"), inner.get("context")
    if not isinstance(id_, str) or not id_ or not isinstance(name, str) or not name:
        raise ValueError("id and event.hub.event are required")
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
    """Make an event to publish. Defaults: a new UUID as id, now as timestamp. Raises ValueError or TypeError for a
    context that cannot be JSON."""
    inner: dict[str, Any] = {"hub.topic": topic, "hub.event": name}
    if version is not None:
        inner["context.versionId"] = version
    inner["context"] = [dict(item) for item in context]
    body = {"timestamp": timestamp or timestamp_now(), "id": id or str(uuid.uuid4()), "event": inner}
    # A copy: later changes of the application's resources must not change the event.
    return parse_event(json.loads(encode(body)) if own else body, own=own)


def decode(frame: str | bytes) -> Any:
    """Decode JSON. Integers of any size are read, large ones as floats. Raises ValueError or RecursionError for invalid
    JSON."""
    return json.loads(frame, parse_int=_number, parse_constant=_no_json)


def _number(digits: str) -> float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def encode(body: Mapping[str, Any]) -> bytes:
    """Encode a message as JSON in UTF-8. Invalid characters, such as half an emoji, are replaced. Raises ValueError or
    TypeError for a value that cannot be JSON."""
    text = json.dumps(body, ensure_ascii=False, allow_nan=False)
    return (
        text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
        if _has_halves(text)
        else text.encode()
    )


def _has_halves(text: str) -> bool:
    return _SURROGATES.search(text) is not None


def context_of(resources: Iterable[Resource]) -> list[dict[str, Any]]:
    """The context array of an open or close: each resource under its key. Raises ValueError for a resource without
    type."""
    return [{"key": key_of(_type_of(resource)), "resource": resource} for resource in resources]


def key_of(type_: str) -> str:
    """The context key of a resourceType: study, report, else the type in lower case."""
    return _KEYS.get(type_.lower(), type_.lower())


def reference_of(resource: Resource) -> str:
    """`Patient/p1` of a resource. Raises ValueError for a resource without id."""
    id_ = resource.get("id")
    if not isinstance(id_, str) or not id_:
        raise ValueError(f"the {_type_of(resource)} has no id")
    return f"{_type_of(resource)}/{id_}"


def reference_in(url: str) -> str:
    """`Observation/o1` of a reference, or of a URL that ends in one. "" for other URLs."""
    found = _NAMED.search(url)
    return found[1] if found else ""


def anchor_of(name: str, context: Sequence[Mapping[str, Any]]) -> str:
    """`Patient/p1`, the anchor of an event. "" for events without an anchor."""
    found = _RESOURCE_EVENT.fullmatch(name)
    if found is None or kind_of(name) is Kind.HOME:
        return ""
    type_ = found[1].lower()
    keys = (key_of(type_), type_)
    item = next((item for item in context if _lower(item.get("key")) in keys), None) or _item(context, {type_})
    return named(item) if item else ""


def named(item: Mapping[str, Any]) -> str:
    """`Patient/p1`, the resource or reference in a context item. "" for neither."""
    resource, reference = item.get("resource"), item.get("reference")
    if isinstance(resource, dict):
        type_, id_ = _text(resource.get("resourceType")), _text(resource.get("id"))
        if type_ and id_:
            return f"{type_}/{id_}"
    if isinstance(reference, dict):
        reference = reference.get("reference")
    return reference_in(reference) if isinstance(reference, str) else ""


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON. The order of members does not matter."""
    pairs = [(one, other)]
    while pairs:
        left, right = pairs.pop()
        if isinstance(left, dict) and isinstance(right, dict):
            if left.keys() != right.keys():
                return False
            pairs += [(value, right[name]) for name, value in left.items()]
        elif isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return False
            pairs += zip(left, right, strict=True)
        elif isinstance(left, bool) is not isinstance(right, bool) or left != right:
            return False
    return True


def _item(context: Sequence[Mapping[str, Any]], names: Collection[str]) -> Mapping[str, Any] | None:
    """The first item with a resource under one of these keys, else of one of these types, in lower case."""
    items = [item for item in context if isinstance(item.get("resource"), dict)]
    by_key = (item for item in items if _lower(item.get("key")) in names)
    by_type = (item for item in items if _lower(item["resource"].get("resourceType")) in names)
    return next(by_key, None) or next(by_type, None)


def _type_of(resource: Resource) -> str:
    type_ = resource.get("resourceType")
    if not isinstance(type_, str) or not type_:
        raise ValueError("the resource has no resourceType")
    return type_


def _lower(value: Any) -> str:
    return value.lower() if isinstance(value, str) else ""


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
