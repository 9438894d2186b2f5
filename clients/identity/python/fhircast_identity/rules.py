"""Rules: select the identifiers to look up. The first rule that selects any decides.

FHIRcast 3.5.1: the Study Instance UID has the system `urn:dicom:uid` and the prefix `urn:oid:`, the accession number
the type ACSN. Other versions of FHIR have other members: `uid` and `accession` (DSTU2, STU3), `basedOn` (R5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from fhircast_identity.local import Query, Resource, dicts, text

DICOM_UID = "urn:dicom:uid"
#: The code system of identifier types.
_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_LABELS = {
    "MR": "medical record number",
    "PI": "patient number",
    "NI": "national identity number",
    "ACSN": "accession number",
}


class Rule(Protocol):
    """Selects identifiers. `label`: their name for clinicians."""

    @property
    def label(self) -> str: ...

    def select(self, resource: Resource, url: str, now: datetime) -> list[Query]:
        """The identifiers of a resource. `url`: its absolute address, "" where unknown."""
        ...


def codes(identifier: Resource) -> tuple[str, ...]:
    """The type codes of an identifier, of any code system."""
    return tuple(
        coding["code"]
        for kind in dicts(identifier, "type")
        for coding in dicts(kind, "coding")
        if isinstance(coding.get("code"), str)
    )


def in_force(item: Resource, now: datetime) -> bool:
    """Whether an identifier or a name is in force: not of use `old`, and within its period."""
    if item.get("use") == "old":
        return False
    end = next((text(period.get("end")) for period in dicts(item, "period")), "")
    if len(end) <= len("2026-11-24"):
        return not end or end >= now.strftime("%Y-%m-%d")[: len(end)]
    try:
        over = datetime.fromisoformat(end)
    except ValueError:
        return True
    return (over if over.tzinfo else over.replace(tzinfo=UTC)) >= now


def identifiers(resource: Resource, now: datetime) -> list[Resource]:
    """The identifiers in force with a value, in the members of all versions of FHIR."""
    found = dicts(resource, "identifier")
    if resource.get("resourceType") == "ImagingStudy":
        accession = {"type": {"coding": [{"code": "ACSN"}]}}
        found += [identifier | accession for identifier in dicts(resource, "accession")]
        found += [identifier for order in dicts(resource, "basedOn") for identifier in dicts(order, "identifier")]
    return [identifier for identifier in found if text(identifier.get("value")) and in_force(identifier, now)]


def bare_uid(value: str) -> str:
    """A UID without `urn:oid:` and padding. "" for other texts."""
    uid = value.strip(" \0").removeprefix("urn:oid:")
    return uid if _UID.fullmatch(uid) else ""


def fhir_identifier(value: str, system: str = "", code: str = "") -> Resource:
    """An Identifier of FHIR. `value` is without `urn:oid:`, `code` is a type such as MR."""
    coded: Resource = {"type": {"coding": [{"system": _TYPES, "code": code}]}} if code else {}
    written = f"urn:oid:{value}" if system == DICOM_UID else value
    return coded | ({"system": system} if system else {}) | {"value": written}


def distinct(queries: Iterable[Query]) -> list[Query]:
    """Each query once, in the order of first occurrence."""
    return list(dict.fromkeys(queries))


def _query(resource: Resource, identifier: Resource) -> Query:
    system, value = text(identifier.get("system")), text(identifier.get("value"))
    return Query(resource["resourceType"], value, system, codes(identifier))


class System:
    """The identifiers of one system, such as `urn:oid:2.16.578.1.12.4.1.4.1`, compared exactly.

    `label`: the name for clinicians, such as "national identity number".
    """

    code = ""

    def __init__(self, system: str, label: str = "") -> None:
        self.system = system.strip()
        self.label = label or f"identifier of the system {self.system}"

    def select(self, resource: Resource, url: str, now: datetime) -> list[Query]:
        found = identifiers(resource, now)
        return distinct(_query(resource, each) for each in found if text(each.get("system")) == self.system)


class TypeCode:
    """The identifiers of a type (MR, PI, ACSN, ...), with `system` only those of that system.

    Another hospital may use the same number for another patient. Give the system wherever it is known.
    """

    def __init__(self, code: str, system: str = "", label: str = "") -> None:
        self.code, self.system = code, system.strip()
        self.label = label or _LABELS.get(code, f"identifier of type {code}")

    def select(self, resource: Resource, url: str, now: datetime) -> list[Query]:
        found = [each for each in identifiers(resource, now) if self.code in codes(each)]
        return distinct(_query(resource, each) for each in found if self.system in ("", text(each.get("system"))))


class StudyUid:
    """The Study Instance UID, with or without `urn:oid:`, from the identifiers or from the older `uid`."""

    code, system = "", DICOM_UID

    def __init__(self, label: str = "Study Instance UID") -> None:
        self.label = label

    def select(self, resource: Resource, url: str, now: datetime) -> list[Query]:
        found = [each["value"] for each in identifiers(resource, now) if text(each.get("system")) == DICOM_UID]
        uids = (bare_uid(value) for value in [*found, text(resource.get("uid"))])
        return distinct(Query(resource["resourceType"], uid, DICOM_UID) for uid in uids if uid)


class LogicalId:
    """The resource's id on the FHIR server at `base`, looked up as `Patient/123` of the system `base` (as in ITI-83).

    An id is valid only on its own server. The rule selects ids of events that give the absolute address (a reference or
    fullUrl) on that server. With `assumed=True`, it also selects ids without an address. Use that only where all
    applications of the session take their resources from this server.
    """

    def __init__(self, base: str, *, assumed: bool = False, label: str = "") -> None:
        self.base, self.assumed = base.rstrip("/"), assumed
        self.label = label or f"record of the server {self.base}"

    def select(self, resource: Resource, url: str, now: datetime) -> list[Query]:
        reference = f"{resource['resourceType']}/{text(resource.get('id'))}"
        known = url.partition("/_history/")[0] == f"{self.base}/{reference}" if url else self.assumed
        if not known or reference.endswith("/"):
            return []
        return [Query(resource["resourceType"], reference, self.base, logical=True)]


def choose(rules: Sequence[Rule], resource: Resource, url: str, now: datetime) -> tuple[Rule, list[Query]] | None:
    """The first rule that selects any identifiers, and these identifiers."""
    for rule in rules:
        if queries := rule.select(resource, url, now):
            return rule, queries
    return None
