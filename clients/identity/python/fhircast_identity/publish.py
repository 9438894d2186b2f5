"""Makes the resources of a published event, with all identifiers (FHIRcast 3.3.1, 3.5.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from fhircast_identity.local import Local, Resource, dicts, iso_date, sex, text
from fhircast_identity.rules import DICOM_UID, bare_uid, in_force


def anchor(locals_: Sequence[Local], now: datetime) -> Resource:
    """One resource of all answers: the first full resource, or made from their fields. Has the identifiers of all."""
    full = next((each.resource for each in locals_ if each.resource), {"resourceType": locals_[0].type})
    resource = full | ({"identifier": merged((of_local(each) for each in locals_), now)})
    if resource["resourceType"] == "Patient":
        resource = demographics(locals_) | resource
    elif resource["resourceType"] == "ImagingStudy":
        resource.setdefault("status", "unknown")
    return with_id(resource, locals_[0].id)


def subject(locals_: Sequence[Local], now: datetime) -> Resource | None:
    """The patient of a study, as far as known."""
    known = [each.patient for each in locals_ if each.patient]
    patient = demographics(locals_)
    for each in reversed(known):
        patient |= each
    identifiers = merged((dicts(each, "identifier") for each in known), now)
    return patient | ({"identifier": identifiers} if identifiers else {}) if len(patient) > 1 else None


def of_local(local: Local) -> list[Resource]:
    """The identifiers in a resolver's answer."""
    return [*local.identifiers, *dicts(local.resource or {}, "identifier")]


def demographics(locals_: Iterable[Local]) -> Resource:
    """A Patient with the known fields."""
    patient: Resource = {"resourceType": "Patient"}
    for local in locals_:
        if local.family:
            patient.setdefault("name", [{"family": local.family}])
        if local.birth_date:
            patient.setdefault("birthDate", iso_date(local.birth_date))
        if gender := sex(local.gender):
            patient.setdefault("gender", gender)
    return patient


def merged(lists: Iterable[Iterable[Resource]], now: datetime) -> list[Resource]:
    """All identifiers in force, once for each system and value."""
    found: dict[tuple[str, str], Resource] = {}
    for identifier in (each for identifiers in lists for each in identifiers):
        system, value = text(identifier.get("system")), text(identifier.get("value"))
        if value and in_force(identifier, now):
            found.setdefault((system, bare_uid(value) if system == DICOM_UID else value), identifier)
    return list(found.values())


def with_id(resource: Resource, local_id: str) -> Resource:
    """The resource with an id: of its server, else made from an identifier with a system.

    "If the resource is not stored in a FHIR server, the Subscriber [...] SHOULD use a mechanism to generate the id such
    that it will be globally unique". A close must have the same id, also after a restart.
    """
    if text(resource.get("id")):
        return resource
    systems = [each for each in dicts(resource, "identifier") if text(each.get("system"))]
    named = min((f"{text(each['system'])}|{text(each.get('value'))}" for each in systems), default=f"local|{local_id}")
    kind = resource["resourceType"]
    return {"resourceType": kind, "id": str(uuid5(NAMESPACE_URL, f"{kind}|{named}"))} | resource
