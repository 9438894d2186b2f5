"""The check: does the patient in the event match the patient that was found?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fhircast_identity.family_names import spellings
from fhircast_identity.local import Local, Resource, dicts, iso_date, sex, text
from fhircast_identity.rules import in_force

#: Uses of a person's current names. A name without a use may have any of them.
_USES = (None, "official", "usual")


@dataclass(frozen=True)
class Person:
    """The compared data: spellings of all family names, the birth date as in FHIR, `male` or `female`."""

    families: frozenset[str] = frozenset()
    birth_date: str = ""
    gender: str = ""


def person(patient: Mapping[str, Any], now: datetime) -> Person:
    """The person in a Patient resource."""
    names = [name for name in dicts(patient, "name") if name.get("use") in _USES and in_force(name, now)]
    families = frozenset().union(*(spellings(family(name)) for name in names))
    return Person(families, iso_date(text(patient.get("birthDate"))) or "", sex(patient.get("gender")) or "")


def family(name: Resource) -> str:
    """The family name. In DSTU2 it is a list of parts."""
    parts = name.get("family")
    return " ".join(text(part) for part in parts) if isinstance(parts, list) else text(parts)


def local_person(local: Local, now: datetime) -> Person:
    """The person in a resolver's answer: for a study, its patient."""
    patient = local.patient or (local.resource if local.type == "Patient" else None)
    whole = person(patient, now) if patient else Person()
    return Person(
        whole.families | spellings(local.family or ""),
        iso_date(local.birth_date or "") or whole.birth_date,
        sex(local.gender) or whole.gender,
    )


def differences(one: Person, other: Person) -> tuple[str, ...]:
    """Differences in data that both have: `family name`, `birth date`, `gender`. Dates are compared to the shorter
    precision."""
    days = min(len(one.birth_date), len(other.birth_date))
    found = {
        "family name": bool(one.families and other.families) and not one.families & other.families,
        "birth date": one.birth_date[:days] != other.birth_date[:days],
        "gender": bool(one.gender and other.gender) and one.gender != other.gender,
    }
    return tuple(what for what, differs in found.items() if differs)
