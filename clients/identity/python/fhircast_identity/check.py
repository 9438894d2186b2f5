"""The check: does the one who was sent look like the one who was found?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fhircast_identity.local import Local, Resource, dicts, iso_date, sex, text
from fhircast_identity.names import spellings
from fhircast_identity.rules import in_force

#: Uses of a name that say who somebody is. A name without a use may be any of them.
_USES = (None, "official", "usual")


@dataclass(frozen=True)
class Person:
    """What is compared: the spellings of every family name, the birth date as FHIR writes it, `male` or `female`."""

    families: frozenset[str] = frozenset()
    birth_date: str = ""
    gender: str = ""


def person(patient: Mapping[str, Any], now: datetime) -> Person:
    """The person of a Patient resource."""
    names = [name for name in dicts(patient, "name") if name.get("use") in _USES and in_force(name, now)]
    families = frozenset().union(*(spellings(family(name)) for name in names))
    return Person(families, iso_date(text(patient.get("birthDate"))) or "", sex(patient.get("gender")) or "")


def family(name: Resource) -> str:
    """The family name; DSTU2 had a list of its parts."""
    parts = name.get("family")
    return " ".join(text(part) for part in parts) if isinstance(parts, list) else text(parts)


def local_person(local: Local, now: datetime) -> Person:
    """The person that a resolver told of, for a study its patient."""
    patient = local.patient or (local.resource if local.type == "Patient" else None)
    whole = person(patient, now) if patient else Person()
    return Person(
        whole.families | spellings(local.family or ""),
        iso_date(local.birth_date or "") or whole.birth_date,
        sex(local.gender) or whole.gender,
    )


def differences(one: Person, other: Person) -> tuple[str, ...]:
    """What both have and differs: of `family name`, `birth date`, `gender`. Dates are compared as far as both go."""
    days = min(len(one.birth_date), len(other.birth_date))
    found = {
        "family name": bool(one.families and other.families) and not one.families & other.families,
        "birth date": one.birth_date[:days] != other.birth_date[:days],
        "gender": bool(one.gender and other.gender) and one.gender != other.gender,
    }
    return tuple(what for what, differs in found.items() if differs)
