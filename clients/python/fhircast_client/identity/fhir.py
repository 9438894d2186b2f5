"""The application's own ids on a FHIR server, found by identifier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx

from fhircast_client.identity.local import Local, Query, Resource, dicts, text
from fhircast_client.identity.rules import DICOM_UID, bare_uid
from fhircast_client.identity.web import Unanswered, ask, escaped, token

#: What is published of a resource that the server knows. The rest concerns nobody who follows.
_PUBLISHED = {
    "Patient": ("resourceType", "id", "identifier", "name", "gender", "birthDate"),
    "ImagingStudy": ("resourceType", "id", "identifier", "status", "subject", "basedOn", "started"),
}


class FhirSearch:
    """`GET base/Patient?identifier=system|value`.

    The local id is the resource's id or, with `id_system`, the value of its identifier of that system. A resource
    counts only if it carries the identifier that was asked for: some servers leave out a parameter that they do not
    know.
    """

    name = "the FHIR server"

    def __init__(self, base: str, http: httpx.AsyncClient, *, id_system: str = "") -> None:
        self._base, self._http, self._id_system = base.rstrip("/"), http, id_system.strip()

    async def find(self, query: Query) -> list[Local]:
        """The resources with this identifier. Raises Unanswered or httpx.HTTPError."""
        if query.logical:
            return await self._by_id(query.type, query.value) if query.system == self._base else []
        bundle = await self._search(query.type, "identifier", _tokens(query))
        return [local for local in self._locals(bundle, query.type) if _carries(local.resource or {}, query)]

    async def known(self, kind: str, local_id: str) -> list[Local]:
        """The resource of a local id. Raises Unanswered or httpx.HTTPError."""
        if self._id_system:
            return await self.find(Query(kind, local_id, self._id_system))
        return await self._by_id(kind, f"{kind}/{local_id}")

    async def _by_id(self, kind: str, reference: str) -> list[Local]:
        bundle = await self._search(kind, "_id", escaped(reference.partition("/")[2]))
        return [each for each in self._locals(bundle, kind) if _reference(each.resource or {}) == reference]

    async def _search(self, kind: str, parameter: str, value: str) -> Resource:
        parameters = [(parameter, value)]
        if kind == "ImagingStudy":
            parameters.append(("_include", "ImagingStudy:patient"))
        status, bundle = await ask(self._http, f"{self._base}/{kind}", parameters, "application/fhir+json")
        if status != httpx.codes.OK or not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
            raise Unanswered(f"status {status}, or no Bundle")
        if any(_is_error(entry.get("resource")) for entry in dicts(bundle, "entry")):
            raise Unanswered("the Bundle holds an error")
        return bundle

    def _locals(self, bundle: Resource, kind: str) -> list[Local]:
        """Every match of a Bundle. The pages behind it are not read, so more than one match is several."""
        found = [
            resource for resource, mode in _entries(bundle) if mode == "match" and resource["resourceType"] == kind
        ]
        if len(found) <= 1 and any(link.get("relation") == "next" for link in dicts(bundle, "link")):
            raise Unanswered("the Bundle is not complete")
        people = {_reference(resource): resource for resource, _ in _entries(bundle)}
        return [self._local(resource, people) for resource in found]

    def _local(self, resource: Resource, people: dict[str, Resource]) -> Local:
        ids = [text(resource.get("id"))]
        if self._id_system:
            ids = [
                text(each.get("value"))
                for each in dicts(resource, "identifier")
                if text(each.get("system")) == self._id_system and each.get("use") != "old"
            ]
        if len(set(ids)) != 1 or not ids[0]:
            raise Unanswered("a resource without one local id")
        subject = next((text(each.get("reference")) for each in dicts(resource, "subject")), "")
        patient = people.get("/".join(subject.split("/")[-2:])) if resource["resourceType"] != "Patient" else None
        identifiers = tuple(dicts(resource, "identifier"))
        return Local(
            ids[0],
            resource["resourceType"],
            identifiers=identifiers,
            source=self.name,
            resource=_published(resource),
            patient=_published(patient) if patient else None,
        )


def _tokens(query: Query) -> str:
    if query.system != DICOM_UID:
        return token(query.system, query.value)
    return f"{token(DICOM_UID, f'urn:oid:{query.value}')},{token(DICOM_UID, query.value)}"


def _entries(bundle: Resource) -> Iterator[tuple[Resource, str]]:
    """The resources of a Bundle, each with its search mode; a server that gives none means a match."""
    for entry in dicts(bundle, "entry"):
        resource = entry.get("resource")
        if isinstance(resource, dict) and isinstance(resource.get("resourceType"), str):
            yield resource, next((text(each.get("mode")) for each in dicts(entry, "search")), "match")


def _carries(resource: Resource, query: Query) -> bool:
    """Whether the resource has the identifier exactly, as FHIR's search for tokens need not."""
    for identifier in dicts(resource, "identifier"):
        system, value = text(identifier.get("system")), text(identifier.get("value"))
        if (system, bare_uid(value) if system == DICOM_UID else value) == (query.system, query.value):
            return True
    return False


def _is_error(resource: Any) -> bool:
    if not isinstance(resource, dict) or resource.get("resourceType") != "OperationOutcome":
        return False
    return any(issue.get("severity") in ("error", "fatal") for issue in dicts(resource, "issue"))


def _published(resource: Resource) -> Resource:
    members = _PUBLISHED.get(resource["resourceType"])
    return {name: resource[name] for name in members if name in resource} if members else resource


def _reference(resource: Resource) -> str:
    return f"{resource.get('resourceType')}/{text(resource.get('id'))}"
