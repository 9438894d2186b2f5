"""FHIRcast messages and the FHIR resources in them, as far as the applications of the demo understand them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Resource = dict[str, Any]

#: The specification's examples.
MESSAGES = Path(__file__).parent / "messages"


def example(name: str) -> Message:
    """The specification's message for this event."""
    message: Message = json.loads((MESSAGES / f"{name}.json").read_text(encoding="utf-8"))
    return message


def event_name(message: Message) -> str:
    """`Patient-open`."""
    return str(message["event"]["hub.event"])


def opens(message: Message) -> bool:
    """Whether it is an open; names are compared in any case."""
    return event_name(message).lower().endswith("-open")


def resource(message: Message, type_: str) -> Resource | None:
    """The context's first resource of this type."""
    resources = (item.get("resource", {}) for item in message["event"]["context"])
    return next((found for found in resources if found.get("resourceType", "").lower() == type_.lower()), None)


def anchor(message: Message) -> Resource:
    """What the event is about: the patient of Patient-open."""
    return resource(message, event_name(message).partition("-")[0]) or {}


def describe(about: Resource) -> str:
    """A resource as a person would name it."""
    match about.get("resourceType"):
        case "Patient":
            return ", ".join(filter(None, [_name(about), f"MRN {_identifier(about, 'MR')}"]))
        case "ImagingStudy":
            return f"study accession {_identifier(about, 'ACSN')}"
        case other:
            return f"{str(other).lower()} {_identifier(about, None)}"


def _name(patient: Resource) -> str:
    """`Smith, John Jr. M.D.`, or nothing: a close says no more than which patient."""
    for name in patient.get("name", []):
        return f"{name.get('family')}, {' '.join([*name.get('given', []), *name.get('suffix', [])])}"
    return ""


def _identifier(about: Resource, code: str | None) -> str:
    """The identifier whose type has this code, or has none."""
    for identifier in about.get("identifier", []):
        codes = [coding.get("code") for coding in identifier.get("type", {}).get("coding", [])]
        if code in (codes or [None]):
            return str(identifier.get("value"))
    return "unknown"
