"""Makes the AuditEvents (FHIR R4B) of the audit trail, in IHE's Basic Audit Log Patterns (AUD-1). audit/sink.py writes them.

An entry names the act, its user, client, patients and topic, its outcome and time. Patient references, user names and topics go
to the audit sink only, never to a log.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

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
#: System of a topic, and type of the detail with the topic's hash (AUD-8).
TOPIC, TOPIC_HASH = "urn:fhircast-hub:topic", "urn:fhircast-hub:topic-hash"
_BALP = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."


class Act(enum.Enum):
    """The kinds of acts. The values of a member: its code, AuditEvent.action, FHIR's REST interaction closest to it, BALP's pattern.

    "": no pattern fits. BALP's Delete allows one subtype only, and an unsubscription has two.
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
    """One act that was done or refused. A text is "" where the act has none."""

    act: Act
    #: Epoch seconds.
    at: float
    #: hub.topic in the clear. "": the request was refused before its topic was read.
    topic: str = ""
    issuer: str = ""
    user: str = ""
    client: str = ""
    #: The client's IP address.
    address: str = ""
    #: The event name.
    event: str = ""
    #: References such as Patient/1.
    patients: tuple[str, ...] = ()
    #: The HTTP status, 101 for a WebSocket. 0: an act of the hub itself.
    status: int = 0
    #: A text of the hub's own.
    reason: str = ""


def make_audit_event(entry: AuditEntry, hub_url: str, log_hash: Callable[[str], str]) -> bytes:
    """The AuditEvent of an entry, as JSON on one line. `hub_url` identifies the hub.

    `log_hash` makes the hash by which log lines name a topic.
    """
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
        "entity": [*map(_patient, entry.patients), _session(entry.topic, log_hash)],
    }
    return encode(resource)


def patients(ref: str, implied: Mapping[str, str]) -> tuple[str, ...]:
    """The reference to the patient of a context, from its ref and its implied refs. Empty: none is known."""
    found = ref if ref.startswith("patient/") else implied.get("patient", "")
    return (f"Patient/{found.partition('/')[2]}",) if found else ()


def _pattern(entry: AuditEntry) -> str:
    """BALP's pattern, with Patient before it for an entry with a patient. "": BALP has patterns for successful acts of known clients only."""
    if not (entry.act.pattern and entry.client and entry.address) or _outcome(entry.status) != "0":
        return ""
    return f"{'Patient' if entry.patients else ''}{entry.act.pattern}"


def _outcome(status: int) -> str:
    """AuditEvent.outcome: success, minor failure (4xx), serious failure (5xx)."""
    return "0" if status < 400 else "4" if status < 500 else "8"


def _agents(entry: AuditEntry, hub_url: str) -> list[dict[str, object]]:
    """The hub, then the client and the user if they are known."""
    of_hub, of_client, of_user = _roles(entry.act)
    hub: dict[str, object] = {
        "type": of_hub,
        "who": {"identifier": {"value": hub_url}},
        "requestor": not (entry.user or entry.client or entry.address),
        "network": {"address": hub_url, "type": _NETWORK_URI},
    }
    client: dict[str, object] = {
        "type": of_client,
        **({"who": _who(entry.issuer, entry.client)} if entry.client else {}),
        "requestor": not entry.user,
        **({"network": {"address": entry.address, "type": _NETWORK_IP}} if entry.address else {}),
    }
    user: dict[str, object] = {"type": of_user, "who": _who(entry.issuer, entry.user), "requestor": True}
    return [hub, *([client] if entry.client or entry.address else []), *([user] if entry.user else [])]


def _roles(act: Act) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
    """The roles of hub, client and user. Data goes from source to destination."""
    source, destination = _concept(_DCM, "110153", "Source Role ID"), _concept(_DCM, "110152", "Destination Role ID")
    if act is Act.READ:
        return source, destination, _concept(_PARTICIPATION, "IRCP", "information recipient")
    return destination, source, _concept(_PARTICIPATION, "AUT", "author (originator)")


def _who(issuer: str, name: str) -> dict[str, object]:
    return {"identifier": {**({"system": issuer} if issuer else {}), "value": name}}


def _patient(reference: str) -> dict[str, object]:
    return {
        "what": {"reference": reference},
        "type": {"system": _ENTITY_TYPE, "code": "1", "display": "Person"},
        "role": {"system": _ROLE, "code": "1", "display": "Patient"},
    }


def _session(topic: str, log_hash: Callable[[str], str]) -> dict[str, object]:
    """The entity of a session. A Reference has one identifier, so the hash is a detail. "": no topic was read."""
    session: dict[str, object] = {"what": {"display": "no topic was read"}}
    if topic:
        session = {
            "what": {"identifier": {"system": TOPIC, "value": topic}},
            "detail": [{"type": TOPIC_HASH, "valueString": log_hash(topic)}],
        }
    return {
        **session,
        "type": {"system": _ENTITY_TYPE, "code": "2", "display": "System Object"},
        "role": {"system": _ROLE, "code": "4", "display": "Domain Resource"},
    }


def _concept(system: str, code: str, display: str) -> dict[str, object]:
    return {"coding": [{"system": system, "code": code, "display": display}]}
