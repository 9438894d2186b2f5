"""Search parameters of each type, and their matching (FHIR R4, "Search")."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple

from demo.records.outcome import FhirError
from demo.records.store import Resource

#: Whether this resource has this value.
Matches = Callable[[Resource, str], bool]


class Parameter(NamedTuple):
    """Its kind in the CapabilityStatement, and its matching."""

    kind: str
    matches: Matches


#: Letters that Unicode does not split into a letter and an accent.
_PLAIN = str.maketrans({"ø": "o", "æ": "ae", "đ": "d", "ł": "l", "ŋ": "n", "ʿ": ""})


def plain(text: str) -> str:
    """Without case and accents: "Usually ... the search is case and accent insensitive"."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in apart if not unicodedata.combining(char)).translate(_PLAIN)


def has_identifier(resource: Resource, token: str) -> bool:
    """`value`, `system|value`, `|value` (without a system) or `system|` (any value)."""
    system, bar, value = token.rpartition("|")
    return any(
        (not value or identifier.get("value") == value) and (not bar or identifier.get("system", "") == system)
        for identifier in resource.get("identifier", [])
    )


def has_birth_date(resource: Resource, value: str) -> bool:
    """The day, or all days of a month or a year. Raises FhirError for other texts."""
    if not re.fullmatch(r"(eq)?\d{4}(-\d\d(-\d\d)?)?", value):
        raise FhirError(400, "value", "birthdate must be YYYY, YYYY-MM or YYYY-MM-DD; ranges are not supported")
    return str(resource.get("birthDate", "")).startswith(value.removeprefix("eq"))


def name_starts(*parts: str) -> Matches:
    """Whether one of these parts of a name, or a word in it, begins with the value."""

    def starts(resource: Resource, value: str) -> bool:
        wanted = plain(value)
        written = (plain(text) for name in resource.get("name", []) for text in _texts(name, parts))
        return any(text.startswith(wanted) or f" {wanted}" in text for text in written)

    return starts


def _texts(name: Resource, parts: tuple[str, ...]) -> Iterator[str]:
    for part in parts:
        value = name.get(part, [])
        yield from [value] if isinstance(value, str) else value


def refers(element: str, type_: str) -> Matches:
    """`patient-1` or `Patient/patient-1`."""

    def matches(resource: Resource, value: str) -> bool:
        wanted = value if "/" in value else f"{type_}/{value}"
        return bool(resource.get(element, {}).get("reference") == wanted)

    return matches


def refers_among(element: str, type_: str) -> Matches:
    """The same, for several references."""

    def matches(resource: Resource, value: str) -> bool:
        wanted = value if "/" in value else f"{type_}/{value}"
        return any(each["reference"] == wanted for each in resource.get(element, []))

    return matches


def is_code(element: str) -> Matches:
    """The code alone, or after its system."""
    return lambda resource, token: resource.get(element) == token.rpartition("|")[2]


def has_modality(resource: Resource, token: str) -> bool:
    """One of the study's identifiers."""
    return any(coding["code"] == token.rpartition("|")[2] for coding in resource.get("modality", []))


_COMMON = {
    "_id": Parameter("token", lambda resource, value: resource["id"] == value),
    "identifier": Parameter("token", has_identifier),
}
_PERSON = {
    "name": Parameter("string", name_starts("text", "family", "given", "prefix", "suffix")),
    "family": Parameter("string", name_starts("family")),
    "given": Parameter("string", name_starts("given")),
    "gender": Parameter("token", is_code("gender")),
}
_ABOUT_PATIENT = {
    "patient": Parameter("reference", refers("subject", "Patient")),
    "subject": Parameter("reference", refers("subject", "Patient")),
    "status": Parameter("token", is_code("status")),
}
_IN_ENCOUNTER = {"encounter": Parameter("reference", refers("encounter", "Encounter"))}

PARAMETERS: dict[str, dict[str, Parameter]] = {
    "Patient": _COMMON | _PERSON | {"birthdate": Parameter("date", has_birth_date)},
    "Practitioner": _COMMON | _PERSON,
    "Encounter": _COMMON | _ABOUT_PATIENT,
    "ImagingStudy": _COMMON | _ABOUT_PATIENT | _IN_ENCOUNTER | {"modality": Parameter("token", has_modality)},
    "DiagnosticReport": _COMMON | _ABOUT_PATIENT | _IN_ENCOUNTER,
    "Observation": _COMMON
    | _ABOUT_PATIENT
    | {"derived-from": Parameter("reference", refers_among("derivedFrom", "ImagingStudy"))},
}
