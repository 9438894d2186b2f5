"""Local ids: the application's own ids of the patients and studies in events. See README.md."""

from fhircast_identity.fhir import FhirSearch
from fhircast_identity.local import Local, Query
from fhircast_identity.map import IdentityMap
from fhircast_identity.pix import PixManager
from fhircast_identity.qido import QidoRs
from fhircast_identity.refusals import LookupFailed, Mismatch, NoMatch, SeveralMatches
from fhircast_identity.rules import LogicalId, Rule, StudyUid, System, TypeCode
from fhircast_identity.table import Table

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
