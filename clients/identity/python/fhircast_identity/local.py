"""Queries and answers: an identifier, and the application's own id for its patient or study."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Resource = dict[str, Any]

_DATE = re.compile(r"([0-9]{4})(?:([-.]?)([0-9]{2})(?:\2([0-9]{2}))?)?")
_GENDERS = {"m": "male", "male": "male", "f": "female", "female": "female"}
_NO_GENDERS = {"", "o", "other", "u", "unknown"}


def iso_date(text: str) -> str | None:
    """A date of FHIR (`1970-05-01`, `1970-05`, `1970`) or DICOM (`19700501`) as FHIR writes it. None for other texts."""
    match = _DATE.fullmatch(text.partition("T")[0].strip())
    return "-".join(part for part in match.group(1, 3, 4) if part) if match else None


@dataclass(frozen=True)
class Query:
    """One identifier to look up.

    `type`: the resource type. `system`: "" where none was sent. `codes`: the identifier's type codes. `logical`: the
    value is a reference such as `Patient/123` on the FHIR server with the base address `system`.
    """

    type: str
    value: str
    system: str = ""
    codes: tuple[str, ...] = ()
    logical: bool = False


@dataclass(frozen=True)
class Local:
    """A patient or study with its id in the application.

    `family`, `birth_date` (1970-05-01, 1970-05, 1970 or 19700501) and `gender` (male, female, M, F; other words of FHIR
    or DICOM count as unknown) are the patient's, also for a study. None: unknown. `identifiers`: FHIR Identifiers.
    `resource` and `patient`: the resource to publish and, for a study, its patient. None: made from the other fields.
    Raises ValueError for an empty id, and for a date or gender that cannot be read: a check must not be skipped by
    mistake.
    """

    id: str
    type: str = "Patient"
    family: str | None = None
    birth_date: str | None = None
    gender: str | None = None
    identifiers: tuple[Resource, ...] = ()
    source: str = ""
    resource: Resource | None = None
    patient: Resource | None = None

    def __post_init__(self) -> None:
        if not text(self.id):
            raise ValueError("the local id must be a string that is not empty")
        if self.birth_date and iso_date(self.birth_date) is None:
            raise ValueError("the birth date must be written as 1970-05-01, 1970-05, 1970 or 19700501")
        if self.gender and self.gender.strip().lower() not in _GENDERS.keys() | _NO_GENDERS:
            raise ValueError("the gender must be male, female, other, unknown, M, F, O or U")


def sex(word: Any) -> str | None:
    """`male` or `female` for a word of FHIR or DICOM. None for other words, which differ from nothing."""
    return _GENDERS.get(word.strip().lower()) if isinstance(word, str) else None


def dicts(resource: Mapping[str, Any], name: str) -> list[Resource]:
    """The objects in a member of a resource: one object, a list, or none."""
    member = resource.get(name)
    return [item for item in (member if isinstance(member, list) else [member]) if isinstance(item, dict)]


def text(value: Any) -> str:
    """A string without blanks around it. "" for other values."""
    return value.strip() if isinstance(value, str) else ""
