"""The posts of the simulation. They are about few resources, so that clients often meet. The tokens allow more or less."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any, NamedTuple

from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.access.scopes import Scopes
from fhircast_hub.core.wire.event import Event, parse_event

REALM = "a-realm"
#: 2023-04-01T12:00:00Z
NOON = 1680350400.0

#: Type in lower case -> resourceType, and the key of its context item.
TYPES = {
    "patient": ("Patient", "patient"),
    "encounter": ("Encounter", "encounter"),
    "imagingstudy": ("ImagingStudy", "study"),
    "diagnosticreport": ("DiagnosticReport", "report"),
}
#: The types of which opens are derived, in the order of sending (DER-7).
DERIVED = ("patient", "encounter", "imagingstudy")
REFS = (
    *("patient/p1", "patient/p2", "patient/p3", "encounter/e1"),
    *("imagingstudy/s1", "imagingstudy/s2", "diagnosticreport/r1", "diagnosticreport/r2"),
)
#: The shared resources, and their fullUrls. A DELETE names its resource by the fullUrl alone.
SHARED = ("observation/o1", "observation/o2", "observation/o3")
FULL_URLS = {ref: f"urn:uuid:{ref[-2:]}" for ref in SHARED}

OPENS = tuple(f"{type_}-open" for type_, _ in TYPES.values())
CLOSES = tuple(f"{type_}-close" for type_, _ in TYPES.values())
UPDATES = ("DiagnosticReport-update", "ImagingStudy-update", "DiagnosticReport-select")
OTHERS = ("SyncError", "Home-open", "UserLogout", "com.example.thing")
#: The events of a viewer, a reporting application, a chart, a watcher, a client of STU2 and others.
INTERESTS = (
    (*OPENS, *CLOSES, *UPDATES, *OTHERS),
    (*OPENS, *CLOSES, "Home-open"),
    ("DiagnosticReport-open", "DiagnosticReport-close", "DiagnosticReport-update", "SyncError"),
    ("Patient-open", "Patient-close", "SyncError"),
    ("Patient-open", "Encounter-open", "ImagingStudy-open"),
    (*OPENS, *CLOSES, *UPDATES, *OTHERS, "heartbeat"),
    ("SyncError", "Patient-open", "DiagnosticReport-open", "Home-open", "DiagnosticReport-opened"),
    ("Patient-open", "Patient-close", "ImagingStudy-open", "ImagingStudy-close", "SyncError"),
    ("Patient-open", "Patient-close", "Encounter-open", "Encounter-close", "ImagingStudy-close"),
)


class Token(NamedTuple):
    """A token as the oracle reads it: user, client, expiry, and the events (lower case, or "*") that it may read and write."""

    user: str
    read: frozenset[str]
    write: frozenset[str]
    expires: float = math.inf
    client: str = "an-app"

    @property
    def app(self) -> tuple[str, str]:
        """The application, to which subscriptions belong."""
        return self.user, self.client

    def reads(self, key: str) -> bool:
        return "*" in self.read or key in self.read

    def writes(self, key: str) -> bool:
        return "*" in self.write or key in self.write

    def principal(self) -> Principal:
        if self not in _PRINCIPALS:
            _PRINCIPALS[self] = self._principal()
            _TOKENS[id(_PRINCIPALS[self])] = self
        return _PRINCIPALS[self]

    def _principal(self) -> Principal:
        scopes = [f"fhircast/{event}.read" for event in self.read] + [f"fhircast/{event}.write" for event in self.write]
        return Principal(REALM, self.user, self.client, Scopes.parse(scopes), self.expires)


_PRINCIPALS: dict[Token, Principal] = {}
_TOKENS: dict[int, Token] = {}


def token_of(command: object) -> Token | None:
    """The token of a command, if it has one."""
    return _TOKENS.get(id(getattr(command, "principal", None)))


_ALL = frozenset(("*",))
_REPORTS = frozenset(
    f"{type_}-{verb}"
    for type_ in ("diagnosticreport", "imagingstudy")
    for verb in ("open", "close", "update", "select")
)
FULL = Token("ann", _ALL, _ALL)
#: The last token is another user's.
TOKENS = (
    *(FULL, FULL, FULL),
    Token("ann", _ALL, frozenset(("patient-open", "home-open"))),
    Token("ann", _REPORTS | {"syncerror"}, _REPORTS),
    Token("ann", frozenset(("patient-open", "patient-close", "syncerror", "heartbeat")), _ALL),
    Token("ann", _ALL, _ALL, NOON + 90),
    Token("ann", _ALL, _ALL, client="another-app"),
    Token("bob", _ALL, _ALL),
)


class Post(NamedTuple):
    """A posted event. `changes` are those of an update: ref, and the new value or None (deleted)."""

    topic: str
    kind: str  # open, close, home, update, select, other
    name: str
    ref: str
    id: str
    at: float
    implied: dict[str, str]
    version: str
    changes: tuple[tuple[str, int | None], ...]
    body: bytes
    event: Event

    @property
    def key(self) -> str:
        return self.name.lower()

    @property
    def stamp(self) -> str:
        return rfc3339(self.at)


def rfc3339(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def post(
    topic: str,
    kind: str,
    ref: str,
    id_: str,
    at: float,
    *,
    implied: tuple[str, ...] = (),
    version: str = "",
    changes: tuple[tuple[str, int | None], ...] = (),
    name: str = "",
) -> Post:
    """An event of this kind for the context `ref`, which also names the contexts `implied`. Without `ref`: the event `name`."""
    type_, _, _ = ref.partition("/")
    if ref:
        name = f"{TYPES[type_][0]}-{kind}"
    event: dict[str, Any] = {"hub.topic": topic, "hub.event": name}
    if version:
        event["context.versionId"] = version
    event["context"] = _context(kind, name, ref, implied, changes)
    at = round(at, 3)
    body = json.dumps({"timestamp": rfc3339(at), "id": id_, "event": event}).encode()
    others = {other.partition("/")[0]: other for other in implied}
    others = {other: others[other] for other in DERIVED if other in others and other != type_}
    return Post(topic, kind, name, ref, id_, at, others, version, changes, body, parse_event(body))


#: The item that every SyncError must have.
_OUTCOME = {"key": "operationoutcome", "resource": {"resourceType": "OperationOutcome"}}


def _context(
    kind: str, name: str, ref: str, implied: tuple[str, ...], changes: tuple[tuple[str, int | None], ...]
) -> list[dict[str, Any]]:
    if not ref:
        return [_OUTCOME] if name.lower() == "syncerror" else []
    type_, _, id_ = ref.partition("/")
    resource_type, key = TYPES[type_]
    if kind in ("open", "close"):
        return [_item(ref), *(_item(other) for other in implied if not other.startswith(type_ + "/"))]
    anchor = {"key": key, "reference": {"reference": f"{resource_type}/{id_}"}}
    if kind == "select":
        return [anchor, {"key": "select", "reference": []}]
    entries = [_entry(other, value) for other, value in changes]
    return [anchor, {"key": "updates", "resource": {"resourceType": "Bundle", "type": "transaction", "entry": entries}}]


def _item(ref: str) -> dict[str, Any]:
    type_, _, id_ = ref.partition("/")
    resource_type, key = TYPES[type_]
    return {"key": key, "resource": {"resourceType": resource_type, "id": id_}}


def _entry(ref: str, value: int | None) -> dict[str, Any]:
    type_, _, id_ = ref.partition("/")
    resource_type = TYPES[type_][0] if type_ in TYPES else "Observation"
    full_url = FULL_URLS.get(ref, f"{resource_type}/{id_}")
    if value is None:
        return {"fullUrl": full_url, "request": {"method": "DELETE", "url": "http://example.org/hub/topic/fhir"}}
    resource = {"resourceType": resource_type, "id": id_, "value": value}
    return {"fullUrl": full_url, "request": {"method": "PUT", "url": full_url}, "resource": resource}
