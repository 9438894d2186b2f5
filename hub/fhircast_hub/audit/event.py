"""The audit trail as FHIR has it: AuditEvents (R4B) in the patterns of IHE's Basic Audit Log Patterns (AUD-1).

An entry names who, what, of which patient, how it ended and when. It holds patient references and user names, and so goes to the
audit sink only, never to a log.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from fhircast_hub.core.wire.json import encode
from fhircast_hub.core.wire.timestamps import rfc3339

_TYPES = "http://terminology.hl7.org/CodeSystem/audit-event-type"
_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_REST = "http://hl7.org/fhir/restful-interaction"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_ENTITY_TYPE = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
_NETWORK_IP, _NETWORK_URI = "2", "5"
_FHIRCAST = "urn:fhircast-hub:audit"
_BALP = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."


class Act(enum.Enum):
    """What was done, with the action of AuditEvent, the interaction of FHIR's REST it is like, and BALP's pattern.

    BALP's Delete has no room for what an unsubscription is beyond that (subtype 1..1).
    """

    SUBSCRIBE = "subscribe", "C", "create", "Create"
    UNSUBSCRIBE = "unsubscribe", "D", "delete", ""
    PUBLISH = "publish", "C", "create", "Create"
    READ = "read", "R", "read", "Read"
    SESSION = "session", "U", "update", "Update"
    CONNECT = "connect", "E", "operation", ""
    ELSEWHERE = "socket-from-elsewhere", "E", "operation", ""
    OTHER = "other", "E", "operation", ""

    def __init__(self, code: str, action: str, interaction: str, pattern: str) -> None:
        self.code, self.action, self.interaction, self.pattern = code, action, interaction, pattern


class AuditEntry(msgspec.Struct, frozen=True):
    """One thing that was done, or refused. `at` is in epoch seconds; `status` is the HTTP status (101 of a WebSocket), 0 for the hub's own doing.

    `address` is where the request came from. `topic` is a keyed hash; `event` the event's name; `patients` are references such as Patient/1; `reason` a text of the hub's.
    """

    act: Act
    at: float
    topic: str = ""
    issuer: str = ""
    user: str = ""
    client: str = ""
    address: str = ""
    event: str = ""
    patients: tuple[str, ...] = ()
    status: int = 0
    reason: str = ""


def make_audit_event(entry: AuditEntry, hub_url: str) -> bytes:
    """The AuditEvent, as JSON on one line."""
    act, pattern = entry.act, _pattern(entry)
    resource: dict[str, object] = {
        "resourceType": "AuditEvent",
        **({"meta": {"profile": [_BALP + pattern]}} if pattern else {}),
        "type": {"system": _TYPES, "code": "rest", "display": "RESTful Operation"},
        "subtype": [
            {"system": _REST, "code": act.interaction, "display": act.interaction},
            {"system": _FHIRCAST, "code": act.code},
            *([{"system": "http://fhircast.hl7.org/events", "code": entry.event}] if entry.event else []),
        ],
        "action": act.action,
        "recorded": rfc3339(entry.at),
        "outcome": _outcome(entry.status),
        **({"outcomeDesc": entry.reason} if entry.reason else {}),
        "agent": _agents(entry, hub_url),
        "source": {"observer": {"identifier": {"value": hub_url}}},
        "entity": _entities(entry),
    }
    return encode(resource)


def patients(ref: str, implied: Mapping[str, str]) -> tuple[str, ...]:
    """The patients that a context of this ref, which implies these, is about: none or one."""
    found = ref if ref.startswith("patient/") else implied.get("patient", "")
    return (f"Patient/{found.partition('/')[2]}",) if found else ()


def _pattern(entry: AuditEntry) -> str:
    """BALP's, that of a patient where one is named: its patterns are of what succeeded, by a client that is known."""
    if not (entry.act.pattern and entry.client and entry.address) or _outcome(entry.status) != "0":
        return ""
    return f"{'Patient' if entry.patients else ''}{entry.act.pattern}"


def _outcome(status: int) -> str:
    """AuditEvent.outcome: success, minor failure (the client's fault), serious failure (the hub's)."""
    return "0" if status < 400 else "4" if status < 500 else "8"


def _agents(entry: AuditEntry, hub_url: str) -> list[dict[str, object]]:
    """The hub, then the client and the user as far as they are known. Data goes from source to destination."""
    source, destination = _concept(_DCM, "110153", "Source Role ID"), _concept(_DCM, "110152", "Destination Role ID")
    author = _concept(_PARTICIPATION, "AUT", "author (originator)")
    roles = (destination, source, author)
    if entry.act is Act.READ:
        roles = (source, destination, _concept(_PARTICIPATION, "IRCP", "information recipient"))
    of_hub, of_client, of_user = roles
    asked = bool(entry.user or entry.client or entry.address)
    agents: list[dict[str, object]] = [
        {
            "type": of_hub,
            "who": {"identifier": {"value": hub_url}},
            "requestor": not asked,
            "network": {"address": hub_url, "type": _NETWORK_URI},
        }
    ]
    if entry.client or entry.address:
        agents.append(
            {
                "type": of_client,
                **({"who": _known(entry.issuer, entry.client)} if entry.client else {}),
                "requestor": not entry.user,
                **({"network": {"address": entry.address, "type": _NETWORK_IP}} if entry.address else {}),
            }
        )
    if entry.user:
        agents.append({"type": of_user, "who": _known(entry.issuer, entry.user), "requestor": True})
    return agents


def _known(issuer: str, name: str) -> dict[str, object]:
    return {"identifier": {**({"system": issuer} if issuer else {}), "value": name}}


def _entities(entry: AuditEntry) -> list[dict[str, object]]:
    entities: list[dict[str, object]] = [
        {
            "what": {"reference": patient},
            "type": {"system": _ENTITY_TYPE, "code": "1", "display": "Person"},
            "role": {"system": _ROLE, "code": "1", "display": "Patient"},
        }
        for patient in entry.patients
    ]
    entities.append(
        {
            "what": {"identifier": {"system": "urn:fhircast-hub:topic", "value": entry.topic or "none"}},
            "type": {"system": _ENTITY_TYPE, "code": "2", "display": "System Object"},
            "role": {"system": _ROLE, "code": "4", "display": "Domain Resource"},
        }
    )
    return entities


def _concept(system: str, code: str, display: str) -> dict[str, object]:
    return {"coding": [{"system": system, "code": code, "display": display}]}
