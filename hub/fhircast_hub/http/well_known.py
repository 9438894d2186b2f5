"""The hub's declarations about itself (FHIRcast 3.0.0, 2.7 Conformance). They list only working features."""

from __future__ import annotations

import datetime

import msgspec

from fhircast_hub.core.wire.event_names import CATALOGUE

_FHIR_VERSIONS = {
    "DSTU1": "0.0.82", "DSTU2": "1.0.2", "STU3": "3.0.2", "R4": "4.0.1", "R4B": "4.3.0", "R5": "5.0.0",
}  # fmt: skip
_EXTENSION = "http://fhircast.hl7.org/StructureDefinition/fhircast-configuration-extension"


def configuration(fhir_version: str | None, *, webhooks: bool) -> bytes:
    """The JSON of `GET hub.url/.well-known/fhircast-configuration` (CFG-1)."""
    declared: dict[str, object] = {
        "eventsSupported": CATALOGUE,
        "websocketSupport": True,
        "webhookSupport": webhooks,
        "fhircastVersion": "3.0.0",
        "getCurrentSupport": True,
        # ordersEvents is not in the specification: subscribers get events in the order of acceptance, not of timestamps (CFG-4).
        "capabilities": {
            "supportsGetCurrentContext": True,
            "supportsNonCurrentContextUpdates": True,
            "ordersEvents": True,
        },
    }
    if fhir_version:
        declared["fhirVersion"] = fhir_version
    return msgspec.json.encode(declared)


def capability_statement(hub_url: str, fhir_version: str | None, now: datetime.date) -> bytes:
    """The FHIR+JSON of `GET hub.url/metadata`: a CapabilityStatement with an extension for hub.url (CFG-3)."""
    return msgspec.json.encode(
        {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": now.isoformat(),
            "kind": "instance",
            "software": {"name": "fhircast-hub"},
            "implementation": {"description": "FHIRcast hub", "url": hub_url},
            "fhirVersion": _FHIR_VERSIONS.get(fhir_version or "R4"),
            "format": ["json"],
            "implementationGuide": ["http://fhircast.hl7.org/ImplementationGuide/hl7.fhir.uv.fhircast|3.0.0"],
            "rest": [
                {
                    "extension": [{"url": _EXTENSION, "extension": [{"url": "hub.url", "valueUrl": hub_url}]}],
                    "mode": "server",
                }
            ],
        }
    )
