"""Local ids: whom an event names, as the application itself knows him or her. See clients/identity.md."""

from fhircast_client.identity.fhir import FhirSearch
from fhircast_client.identity.local import Local, Query
from fhircast_client.identity.map import IdentityMap
from fhircast_client.identity.pix import PixManager
from fhircast_client.identity.qido import QidoRs
from fhircast_client.identity.refusals import LookupFailed, Mismatch, NoMatch, SeveralMatches
from fhircast_client.identity.rules import LogicalId, Rule, StudyUid, System, TypeCode
from fhircast_client.identity.table import Table

__all__ = [
    "FhirSearch",
    "IdentityMap",
    "Local",
    "LogicalId",
    "LookupFailed",
    "Mismatch",
    "NoMatch",
    "PixManager",
    "QidoRs",
    "Query",
    "Rule",
    "SeveralMatches",
    "StudyUid",
    "System",
    "Table",
    "TypeCode",
]
