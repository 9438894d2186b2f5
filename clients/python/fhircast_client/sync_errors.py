"""SyncErrors (FHIRcast 3.0.0, 3.2.1): which subscriber did not follow which event, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fhircast_client.events import Event, make_event

_SYSTEM = "https://fhircast.hl7.org/events/syncerror/"
UNNAMED = "unnamed"


@dataclass(frozen=True, slots=True)
class SyncError:
    """One issue of a SyncError: the event, the subscriber that did not follow, and the reason as text."""

    event_id: str
    event_name: str
    subscriber: str
    why: str


@dataclass(frozen=True, slots=True)
class Reported:
    """Consequences of a SyncError: own opens to resend, and ids of events that this client is not subscribed to."""

    resend: tuple[Event, ...] = ()
    unsubscribed: tuple[str, ...] = ()


def make_sync_error(topic: str, about: Event, subscriber: str, reason: str) -> Event:
    """The SyncError of a subscriber that answered an event with 202 and does not follow."""
    named = subscriber or UNNAMED
    codes = {"eventid": about.id, "eventname": about.name, "subscribername": named, "subscriber": named}
    issue = {
        "severity": "warning",
        "code": "processing",
        "diagnostics": f"{named} did not follow {about.name}: {reason}",
        "details": {"coding": [{"system": _SYSTEM + system, "code": code} for system, code in codes.items()]},
    }
    outcome = {"resourceType": "OperationOutcome", "issue": [issue]}
    return make_event(topic, "SyncError", [{"key": "operationoutcome", "resource": outcome}])


def read_sync_errors(event: Event) -> list[SyncError]:
    """The issues of a SyncError, as far as they can be read."""
    resource = event.resource("operationoutcome") or {}
    issues = resource.get("issue")
    return [_read(issue) for issue in issues if isinstance(issue, dict)] if isinstance(issues, list) else []


def _read(issue: dict[str, Any]) -> SyncError:
    codes, why = _codes(issue), issue.get("diagnostics")
    subscriber = codes.get("subscribername") or codes.get("subscriber") or UNNAMED
    name = codes.get("eventname", "")
    return SyncError(
        event_id=codes.get("eventid", ""),
        event_name=name,
        subscriber=subscriber,
        why=why if isinstance(why, str) and why else f"{subscriber} did not follow {name}".strip(),
    )


def _codes(issue: dict[str, Any]) -> dict[str, str]:
    """The codings of an issue, by the last part of their system."""
    details = issue.get("details")
    codings = details.get("coding") if isinstance(details, dict) else None
    found: dict[str, str] = {}
    for coding in codings if isinstance(codings, list) else ():
        system, code = (coding.get("system"), coding.get("code")) if isinstance(coding, dict) else (None, None)
        if isinstance(system, str) and isinstance(code, str) and code and system.startswith(_SYSTEM):
            found.setdefault(system.removeprefix(_SYSTEM), code)
    return found
