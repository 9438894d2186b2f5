"""POST [base]: keeps signed resources, all of a Bundle or none (FHIR R4, "transaction")."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from demo.records.outcome import FhirError
from demo.records.store import WRITABLE, Resource, Store, size

#: Bytes of a body; entries of a Bundle.
MAX_BODY, MAX_ENTRIES = 1 << 20, 200
#: Resources that are kept beside the demo's own, and their bytes.
MAX_KEPT, MAX_KEPT_BYTES = 5000, 64 << 20

_ID = re.compile(r"[A-Za-z0-9.-]{1,64}", re.ASCII)
#: Type and id of a literal reference (FHIR R4, "Reference"). This server has several names: an absolute URL counts by
#: its end.
_LITERAL = re.compile(
    r"(?:https?://[^\s?#]+/)?([A-Za-z]+/[A-Za-z0-9.-]{1,64})(?:/_history/[A-Za-z0-9.-]{1,64})?", re.ASCII
)
#: References within the Bundle: an entry by its fullUrl, or a contained resource.
_WITHIN = ("urn:", "#")
#: Lists of references, as the demo's pages and searches read them.
_LISTS = ("result", "imagingStudy", "derivedFrom", "partOf")
#: A signed resource may only be changed by an amendment.
_SIGNED = {"final", "amended", "corrected", "appended"}
_AMENDMENTS = _SIGNED - {"final"} | {"entered-in-error", "cancelled"}
_STATUSES = _SIGNED | _AMENDMENTS | {"registered", "partial", "preliminary", "unknown"}


@dataclass(frozen=True)
class Change:
    """One PUT. `expected`: the version that it is based on; 0 for a new resource, None for any."""

    resource: Resource
    expected: int | None

    @property
    def name(self) -> str:
        """Such as "Observation/o1"."""
        return f"{self.resource['resourceType']}/{self.resource['id']}"


def read_json(body: bytes) -> Any:
    """The body. Raises FhirError for a body that could not be returned unchanged."""
    try:
        found = json.loads(body, parse_constant=_no_number)
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()  # 1e999 is read as infinite
    except (ValueError, RecursionError):
        raise FhirError(400, "structure", "the body must be JSON in UTF-8") from None
    return found


def _no_number(text: str) -> None:
    raise ValueError(text)


def read_changes(bundle: Any) -> list[Change]:
    """The changes of a transaction. Raises FhirError for other content."""
    if not isinstance(bundle, dict) or (bundle.get("resourceType"), bundle.get("type")) != ("Bundle", "transaction"):
        raise FhirError(400, "structure", "the body must be a Bundle of type transaction")
    entries = bundle.get("entry")
    if not isinstance(entries, list) or not entries:
        raise FhirError(400, "required", "Bundle.entry must have at least one entry")
    if len(entries) > MAX_ENTRIES:
        raise FhirError(413, "too-costly", f"Bundle.entry must have at most {MAX_ENTRIES} entries")
    changes = [_change(entry, f"Bundle.entry[{index}]") for index, entry in enumerate(entries)]
    if len({change.name for change in changes}) < len(changes):
        raise FhirError(400, "duplicate", "Bundle.entry has a resource twice")
    return changes


def _change(entry: Any, place: str) -> Change:
    request, resource = (_member(entry, name, place) for name in ("request", "resource"))
    if request.get("method") != "PUT":
        raise FhirError(400, "not-supported", f"{place}.request.method: only PUT is supported")
    type_, id_ = resource.get("resourceType"), resource.get("id")
    if type_ not in WRITABLE:
        raise FhirError(400, "not-supported", f"{place}.resource: only {' and '.join(WRITABLE)} can be written")
    if not isinstance(id_, str) or not _ID.fullmatch(id_) or request.get("url") != f"{type_}/{id_}":
        raise FhirError(400, "value", f"{place}.request.url must be {type_}/ and the id of the resource")
    _check(resource, place)
    return Change(resource, _expected(request, place))


def _member(entry: Any, name: str, place: str) -> dict[str, Any]:
    found = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(found, dict):
        raise FhirError(400, "required", f"{place}.{name} must be an object")
    return found


def _check(resource: Resource, place: str) -> None:
    """Members that the demo's pages rely on."""
    if not isinstance(resource.get("status"), str) or resource["status"] not in _STATUSES:
        raise FhirError(422, "value", f"{place}.resource.status must be a status of FHIR R4")
    if not isinstance(resource.get("code"), dict):
        raise FhirError(422, "required", f"{place}.resource.code is missing")
    if not _subject(resource):
        raise FhirError(422, "required", f"{place}.resource.subject is missing")
    identifiers = resource.get("identifier", [])
    if not isinstance(identifiers, list) or not all(isinstance(each, dict) for each in identifiers):
        raise FhirError(422, "structure", f"{place}.resource.identifier must be a list of identifiers")
    if not isinstance(resource.get("encounter", {}), dict):
        raise FhirError(422, "structure", f"{place}.resource.encounter must be a reference")
    for member in _LISTS:
        items = resource.get(member, [])
        if not isinstance(items, list) or not all(isinstance(each, dict) and "reference" in each for each in items):
            raise FhirError(422, "structure", f"{place}.resource.{member} must be a list of references")


def _subject(resource: Resource) -> str:
    subject = resource.get("subject")
    reference = subject.get("reference") if isinstance(subject, dict) else None
    return reference if isinstance(reference, str) else ""


def _expected(request: Mapping[str, Any], place: str) -> int | None:
    if request.get("ifNoneMatch") == "*":
        return 0
    if "ifMatch" not in request:
        return None
    found = re.fullmatch(r'(?:W/)?"([0-9]{1,9})"', str(request["ifMatch"]), re.ASCII)
    if not found:
        raise FhirError(400, "value", f'{place}.request.ifMatch must be W/"version"')
    return int(found[1])


def transaction(store: Store, changes: list[Change], now: datetime | None = None) -> Resource:
    """Keep all changes. Returns the answer. A resource that is here unchanged counts as kept. Raises FhirError, and
    then keeps none."""
    _check_references(store, changes)
    new = [change for change in changes if not _is_here(store, change)]
    for change in new:
        _check_version(store, change)
    updated = (now or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    created = {change.name for change in new if store.find(change.name) is None}
    kept = {change.name: _next(store, change, updated) for change in new}
    written = store.written | {name: size(resource) for name, resource in kept.items()}
    if len(written) > MAX_KEPT or sum(written.values()) > MAX_KEPT_BYTES:
        raise FhirError(507, "no-store", "the store is full")
    for resource in kept.values():
        store.put(resource)
    entries = [_answer(store, change, created) for change in changes]
    return {"resourceType": "Bundle", "type": "transaction-response", "entry": entries}


def _next(store: Store, change: Change, updated: str) -> Resource:
    """The resource as the next version."""
    version = str(_version(store, change) + 1)
    return {**change.resource, "meta": {**_meta(change.resource), "versionId": version, "lastUpdated": updated}}


def _answer(store: Store, change: Change, created: set[str]) -> Resource:
    kept = _meta(store.find(change.name) or {})
    response = {"status": "201 Created" if change.name in created else "200 OK", "etag": etag(kept)}
    return {"response": response | ({"lastModified": kept["lastUpdated"]} if "lastUpdated" in kept else {})}


def etag(meta: Mapping[str, Any]) -> str:
    """The version in this meta. The demo's own resources have version 1 without saying so."""
    return f'W/"{meta.get("versionId", 1)}"'


def _check_references(store: Store, changes: list[Change]) -> None:
    """A transaction is about one known patient, and so are all resources that it refers to."""
    coming = {change.name: change.resource for change in changes}
    subjects = {_subject(change.resource) for change in changes}
    (subject,) = subjects if len(subjects) == 1 else ("",)
    if not subject.startswith("Patient/") or store.find(subject) is None:
        raise FhirError(422, "business-rule", "subject must be one known patient for all resources")
    for change in changes:
        kept = store.find(change.name)
        if kept is not None and _subject(kept) != subject:
            raise FhirError(422, "business-rule", f"{change.name} has another patient")
        for name in _references(change):
            found = coming.get(name) or store.find(name)
            if found is None and name.startswith("Observation/"):
                raise FhirError(422, "business-rule", f"{change.name}: a result is neither here nor in the Bundle")
            if found is not None and _patient(found) not in ("", subject):
                raise FhirError(422, "business-rule", f"{change.name} refers to a resource of another patient")


def _patient(resource: Resource) -> str:
    """The patient of a resource; "" for none, as of a practitioner."""
    return f"Patient/{resource['id']}" if resource["resourceType"] == "Patient" else _subject(resource)


def _references(change: Change) -> Iterator[str]:
    """Type and id of all references, at any depth. Raises FhirError for an invalid reference."""
    rest: list[Any] = [change.resource]
    while rest:
        each = rest.pop()
        if isinstance(each, dict) and not isinstance(each.get("reference", {}), dict):
            name = _literal(each["reference"])
            if name is None:
                raise FhirError(422, "value", f"{change.name}: a reference must have type and id, or be a URL")
            yield name
        rest.extend(each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())


def _literal(reference: Any) -> str | None:
    """Such as "ImagingStudy/study-1"; "" for a reference within the Bundle, None for an invalid reference."""
    if not isinstance(reference, str):
        return None
    if reference.startswith(_WITHIN):
        return ""
    found = _LITERAL.fullmatch(reference)
    return found[1] if found else None


def _is_here(store: Store, change: Change) -> bool:
    """A repeat, such as by a client that got no answer."""
    found = store.find(change.name)
    return found is not None and _bare(found) == _bare(change.resource)


def _bare(resource: Resource) -> Resource:
    return {name: value for name, value in resource.items() if name != "meta"}


def _check_version(store: Store, change: Change) -> None:
    found = store.find(change.name)
    if found and found.get("status") in _SIGNED and change.resource["status"] not in _AMENDMENTS:
        raise FhirError(409, "conflict", f"{change.name} is signed already")
    if change.expected not in (None, _version(store, change)):
        raise FhirError(412, "conflict", f"{change.name} has another version here")


def _version(store: Store, change: Change) -> int:
    found = store.find(change.name)
    return int(_meta(found).get("versionId", 1)) if found else 0


def _meta(resource: Resource) -> dict[str, Any]:
    meta = resource.get("meta")
    return meta if isinstance(meta, dict) else {}
