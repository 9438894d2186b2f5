"""Local ids on a FHIR server, found by identifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from fhircast_identity.http_json import UnusableAnswer, ask, escaped, token
from fhircast_identity.local import Local, Query, Resource, dicts, text
from fhircast_identity.rules import DICOM_UID, bare_uid, codes, in_force

#: Members of a server's resource that are published. Other members are not for the session.
_PUBLISHED = {
    "Patient": ("resourceType", "id", "identifier", "name", "gender", "birthDate"),
    "ImagingStudy": ("resourceType", "id", "identifier", "status", "subject", "patient", "basedOn", "started"),
}


class FhirSearch:
    """`GET base/Patient?identifier=system|value`.

    The local id is the resource's id or, with `id_system`, the value of its identifier of that system. Each resource
    must have the identifier: some servers ignore parameters that they do not know.
    """

    name = "the FHIR server"

    def __init__(self, base: str, http: httpx.AsyncClient, *, id_system: str = "") -> None:
        self._base, self._http, self._id_system = base.rstrip("/"), http, id_system.strip()

    async def find(self, query: Query) -> list[Local]:
        """The resources with this identifier. Raises UnusableAnswer or httpx.HTTPError."""
        if query.logical:
            return await self._by_id(query.type, query.value) if query.system == self._base else []
        bundle, now = await self._search(query.type, "identifier", _tokens(query)), datetime.now(UTC)
        return self._locals(bundle, query.type, lambda resource: _carries(resource, query, now))

    async def known(self, kind: str, local_id: str) -> list[Local]:
        """The resource of a local id. Raises UnusableAnswer or httpx.HTTPError."""
        if self._id_system:
            return await self.find(Query(kind, local_id, self._id_system))
        return await self._by_id(kind, f"{kind}/{local_id}")

    async def _by_id(self, kind: str, reference: str) -> list[Local]:
        bundle = await self._search(kind, "_id", escaped(reference.partition("/")[2]))
        return self._locals(bundle, kind, lambda resource: _reference(resource) == reference)

    async def _search(self, kind: str, parameter: str, value: str) -> Resource:
        parameters = [(parameter, value)]
        if kind == "ImagingStudy":
            parameters.append(("_include", "ImagingStudy:patient"))
        answer = await ask(self._http, f"{self._base}/{kind}", parameters, "application/fhir+json")
        bundle: Any = answer.json
        if answer.status != httpx.codes.OK or not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
            raise UnusableAnswer(f"the answer must be status 200 and a Bundle, and this one is status {answer.status}")
        if any(_is_error(entry.get("resource")) for entry in dicts(bundle, "entry")):
            raise UnusableAnswer("the Bundle holds an error")
        return bundle

    def _locals(self, bundle: Resource, kind: str, wanted: Callable[[Resource], bool]) -> list[Local]:
        """The wanted matches of a Bundle. Further pages are not read: a single match on the first page may not be the
        only one."""
        entries = _entries(bundle)
        matches = [each.resource for each in entries if each.is_match and each.resource["resourceType"] == kind]
        found = [resource for resource in matches if wanted(resource) and not _is_void(resource)]
        if len(found) <= 1 and _is_partial(bundle, len(matches)):
            raise UnusableAnswer("the Bundle is not complete")
        people = {name: each.resource for each in entries for name in (_reference(each.resource), each.url)}
        return [self._local(resource, people) for resource in found]

    def _local(self, resource: Resource, people: dict[str, Resource]) -> Local:
        ids, now = {text(resource.get("id"))}, datetime.now(UTC)
        if self._id_system:
            own = [each for each in dicts(resource, "identifier") if text(each.get("system")) == self._id_system]
            ids = {text(each.get("value")) for each in own if in_force(each, now)}
        if len(ids) != 1 or "" in ids:
            raise UnusableAnswer("a resource has no local id, or several")
        patient = _subject(resource, people) if resource["resourceType"] != "Patient" else None
        return Local(
            ids.pop(),
            resource["resourceType"],
            identifiers=tuple(dicts(resource, "identifier")),
            source=self.name,
            resource=_published(resource),
            patient=_published(patient) if patient else None,
        )


def _tokens(query: Query) -> str:
    if query.system != DICOM_UID:
        return token(query.system, query.value)
    return f"{token(DICOM_UID, f'urn:oid:{query.value}')},{token(DICOM_UID, query.value)}"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A resource of a Bundle, its address, and whether it is a match. Entries without a search mode are matches."""

    resource: Resource
    url: str
    is_match: bool


def _entries(bundle: Resource) -> list[_Entry]:
    found = []
    for entry in dicts(bundle, "entry"):
        resource = entry.get("resource")
        if isinstance(resource, dict) and isinstance(resource.get("resourceType"), str):
            mode = "".join(text(each.get("mode")) for each in dicts(entry, "search"))
            found.append(_Entry(resource, text(entry.get("fullUrl")), mode in ("", "match")))
    return found


def _is_partial(bundle: Resource, matches: int) -> bool:
    """Whether there are more matches than these."""
    total = bundle.get("total")
    return any(link.get("relation") == "next" for link in dicts(bundle, "link")) or (
        isinstance(total, int) and total > matches
    )


def _carries(resource: Resource, query: Query, now: datetime) -> bool:
    """Whether the resource has exactly this identifier, still in force. A token search of FHIR does not guarantee that."""
    return any(_is(identifier, query) for identifier in dicts(resource, "identifier") if in_force(identifier, now))


def _is(identifier: Resource, query: Query) -> bool:
    """Whether the identifier matches the query. Numbers without a system match only with the same type."""
    system, value = text(identifier.get("system")), text(identifier.get("value"))
    if (system, bare_uid(value) if system == DICOM_UID else value) != (query.system, query.value):
        return False
    types = set(codes(identifier))
    return bool(system or types & set(query.codes) or not (types or query.codes))


def _is_void(resource: Resource) -> bool:
    """Whether the resource "must no longer be used": merged into another one (in DSTU2 `replace`), or entered in error."""
    links = [link.get("type") for link in dicts(resource, "link")]
    return "replaced-by" in links or "replace" in links or resource.get("status") == "entered-in-error"


def _subject(resource: Resource, people: dict[str, Resource]) -> Resource | None:
    """The patient of a study (in STU3 `patient`), where the Bundle contains the resource."""
    members = [each for name in ("subject", "patient") for each in dicts(resource, name)]
    reference = next((text(each.get("reference")).partition("/_history/")[0] for each in members), "")
    return people.get(reference) or people.get("/".join(reference.split("/")[-2:])) if reference else None


def _is_error(resource: Any) -> bool:
    if not isinstance(resource, dict) or resource.get("resourceType") != "OperationOutcome":
        return False
    return any(issue.get("severity") in ("error", "fatal") for issue in dicts(resource, "issue"))


def _published(resource: Resource) -> Resource:
    members = _PUBLISHED.get(resource["resourceType"])
    return {name: resource[name] for name in members if name in resource} if members else resource


def _reference(resource: Resource) -> str:
    return f"{resource.get('resourceType')}/{text(resource.get('id'))}"
