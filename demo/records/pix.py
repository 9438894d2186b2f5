"""GET [base]/Patient/$ihe-pix: a patient's other identifiers (IHE PIXm, ITI-83)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from demo.records.outcome import FhirError
from demo.records.store import Resource, Store


def cross_reference(store: Store, base: str, source: str, targets: Sequence[str]) -> Resource:
    """The Parameters for `sourceIdentifier` and any number of `targetSystem`. Without a target, all are returned.

    The logical id is an identifier too, with this server's base as system: `http://.../fhir|Patient/patient-1`. Raises
    FhirError with the status, code and words of ITI-83 for unknown identifiers and systems.
    """
    system, _, value = source.partition("|")
    known = [(patient, _identities(patient, base)) for patient in store.all("Patient")]
    systems = {each for _, identities in known for each, _ in identities}
    if not value:
        raise FhirError(400, "invalid", "sourceIdentifier must be system|value")
    if system not in systems:
        raise FhirError(400, "code-invalid", "sourceIdentifier Assigning Authority not found")
    if not systems.issuperset(targets):
        raise FhirError(403, "code-invalid", "targetSystem not found")
    found = [patient for patient, identities in known if (system, value) in identities]
    if not found:
        raise FhirError(404, "not-found", "sourceIdentifier Patient Identifier not found")
    wanted = set(targets) or systems
    return _parameters([each for patient in found for each in _targets(patient, base, wanted, (system, value))])


def _identities(patient: Resource, base: str) -> set[tuple[str, str]]:
    return {(base, f"Patient/{patient['id']}")} | {(each["system"], each["value"]) for each in patient["identifier"]}


def _targets(patient: Resource, base: str, wanted: set[str], source: tuple[str, str]) -> list[Resource]:
    """ "The identifier value given in the sourceIdentifier parameter in the query shall not be included"."""
    found: list[dict[str, Any]] = [
        {"name": "targetIdentifier", "valueIdentifier": identifier}
        for identifier in patient["identifier"]
        if identifier["system"] in wanted and (identifier["system"], identifier["value"]) != source
    ]
    reference = f"Patient/{patient['id']}"
    if base in wanted and source != (base, reference):
        found.append({"name": "targetId", "valueReference": {"reference": reference}})
    return found


def _parameters(found: list[Resource]) -> Resource:
    # FHIR has no empty arrays.
    return {"resourceType": "Parameters", **({"parameter": found} if found else {})}
