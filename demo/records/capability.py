"""GET [base]/metadata: the server's abilities."""

from __future__ import annotations

from demo.records.parameters import PARAMETERS
from demo.records.store import WRITABLE, Resource

_PIX = {"name": "ihe-pix", "definition": "https://profiles.ihe.net/ITI/PIXm/OperationDefinition/IHE.PIXm.pix"}
_SMART = {"system": "http://terminology.hl7.org/CodeSystem/restful-security-service", "code": "SMART-on-FHIR"}


def capability(base: str) -> Resource:
    """The CapabilityStatement."""
    security = {"cors": True, "service": [{"coding": [_SMART]}]}
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": "2026-11-24",
        "kind": "instance",
        "software": {"name": "Records of the FHIRcast demo"},
        "implementation": {"description": "Invented patients of a hospital that does not exist", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json"],
        "rest": [
            {
                "mode": "server",
                "security": security,
                "resource": [_type(each) for each in sorted(PARAMETERS)],
                "interaction": [{"code": "transaction"}],
            }
        ],
    }


def _type(type_: str) -> Resource:
    said: Resource = {
        "type": type_,
        "interaction": [{"code": "read"}, {"code": "search-type"}],
        "searchParam": [{"name": name, "type": known.kind} for name, known in PARAMETERS[type_].items()],
    }
    if type_ in WRITABLE:
        said["interaction"].append({"code": "update"})
        said |= {"versioning": "versioned-update", "updateCreate": True}
    if type_ == "Patient":
        said["operation"] = [_PIX]
    return said
