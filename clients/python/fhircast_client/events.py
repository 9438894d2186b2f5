"""Events (FHIRcast 3.0.0, 2.3 and 2.5): read from messages, made from resources, and the names of things in them."""

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
#: The Type/id in which a URL ends, or that of the version in which it ends.
_NAMED = re.compile(r"(?:^|[/:])([A-Z][A-Za-z]*/[^/?#\s]+?)(?:/_history/[^/?#\s]+)?\Z", re.ASCII)


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
    def opens(self) -> bool:
        """Whether it says what is current from now on: an open, or Home-open."""
        return self in (Kind.OPEN, Kind.HOME)

    @property
    def changes_context(self) -> bool:
        """Whether it makes another context the current one."""
        return self in (Kind.OPEN, Kind.CLOSE, Kind.HOME)


def kind_of(name: str) -> Kind:
    """The kind of an event; "Subscribers SHALL be case insensitive for event-names" (2.6)."""
    lower = name.lower()
    if lower in ("home-open", "syncerror", "heartbeat"):
        return Kind(lower)
    found = _RESOURCE_EVENT.fullmatch(lower)
    return Kind(found[2]) if found else Kind.OTHER


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

    @property
    def at(self) -> int | None:
        """When it happened, as an instant; None where the timestamp is none."""
        return instant(self.timestamp)

    @property
    def announces(self) -> bool:
        """Whether the others must be told, though the hub cannot be reached at once: of another context, or that the user leaves."""
        return self.kind.changes_context or self.name.lower() in ("userlogout", "userhibernate")

    @property
    def matters(self) -> bool:
        """Whether the others are told when it is not followed.

        "SyncError is not used when a Subscriber responds to an *-update or *-select event" (3.2.1).
        """
        return self.kind.changes_context or self.kind is Kind.OTHER

    def resource(self, key_or_type: str) -> dict[str, Any] | None:
        """The first resource with this context key ("patient", "study"), else of this resourceType; None where there is none.

        Of a study and a report both keys count, whichever is asked for: `study` and `imagingstudy`, `report` and
        `diagnosticreport`.
        """
        wanted = key_or_type.lower()
        names = {wanted, key_of(wanted), _TYPES.get(wanted, wanted)}
        found = _item(self.context, names)
        return found["resource"] if found else None

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
    return parse_event(json.loads(encode(body)) if own else body, own=own)


def decode(frame: str | bytes) -> Any:
    """What a JSON text says; integers of any size are read, if not exactly. Raises ValueError or RecursionError for what is none."""
    return json.loads(frame, parse_int=_number, parse_constant=_no_json)


def _number(digits: str) -> float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _no_json(name: str) -> None:
    raise ValueError(f"expected JSON, got {name}")


def encode(body: Mapping[str, Any]) -> bytes:
    """A message as JSON in UTF-8; what is no character, such as half an emoji, is replaced. Raises ValueError or TypeError for what
    is no JSON."""
    text = json.dumps(body, ensure_ascii=False, allow_nan=False)
    return (
        text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
        if _has_halves(text)
        else text.encode()
    )


def _has_halves(text: str) -> bool:
    return _SURROGATES.search(text) is not None


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


def reference_in(url: str) -> str:
    """`Observation/o1` of a reference or a URL that ends in one; "" of another: one to which requests go, say."""
    found = _NAMED.search(url)
    return found[1] if found else ""


def anchor_of(name: str, context: Sequence[Mapping[str, Any]]) -> str:
    """`Patient/p1` of what an event's context is about, "" for events without an anchor."""
    found = _RESOURCE_EVENT.fullmatch(name)
    if found is None or kind_of(name) is Kind.HOME:
        return ""
    type_ = found[1].lower()
    keys = (key_of(type_), type_)
    item = next((item for item in context if _lower(item.get("key")) in keys), None) or _item(context, {type_})
    return named(item) if item else ""


def named(item: Mapping[str, Any]) -> str:
    """`Patient/p1` of what a context item holds or refers to; "" for neither."""
    resource, reference = item.get("resource"), item.get("reference")
    if isinstance(resource, dict):
        type_, id_ = _text(resource.get("resourceType")), _text(resource.get("id"))
        if type_ and id_:
            return f"{type_}/{id_}"
    if isinstance(reference, dict):
        reference = reference.get("reference")
    return reference_in(reference) if isinstance(reference, str) else ""


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON, members in any order."""
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
        raise ValueError("expected a FHIR resource, with the member resourceType")
    return type_


def _lower(value: Any) -> str:
    return value.lower() if isinstance(value, str) else ""


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
