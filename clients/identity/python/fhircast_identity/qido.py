"""An image archive over DICOMweb: QIDO-RS, DICOM PS3.18 section 10.6."""

from __future__ import annotations

from typing import Any

import httpx

from fhircast_identity.http_json import UnusableAnswer, ask
from fhircast_identity.local import Local, Query, Resource, iso_date, sex
from fhircast_identity.rules import DICOM_UID, bare_uid, fhir_identifier

#: Warnings of an archive that leaves out studies: "There are <remaining> additional results that can be requested"
#: (PS3.18 8.3.4.4), and before 2021 "The number of results exceeded the maximum supported by the server".
_MORE = ("additional results", "exceeded")
_STUDY_UID, _ACCESSION = "0020000D", "00080050"
_PATIENT_NAME, _PATIENT_ID, _BIRTH_DATE, _SEX = "00100010", "00100020", "00100030", "00100040"


class QidoRs:
    """`GET base/studies?StudyInstanceUID=...` or `AccessionNumber=...`; the local id is the Study Instance UID.

    A study must have exactly the requested value: archives read `*` and `?` as wildcards, and some ignore case.
    Published identifiers get the systems that are given here.
    """

    name = "the image archive"

    def __init__(
        self, base: str, http: httpx.AsyncClient, *, patient_system: str = "", accession_system: str = ""
    ) -> None:
        self._base, self._http = base.rstrip("/"), http
        self._patient_system, self._accession_system = patient_system, accession_system

    async def find(self, query: Query) -> list[Local]:
        """The studies with this Study Instance UID or accession number. Raises UnusableAnswer or httpx.HTTPError."""
        if query.type != "ImagingStudy" or query.logical:
            return []
        if query.system == DICOM_UID:
            return await self._search("StudyInstanceUID", _STUDY_UID, query.value)
        if "ACSN" in query.codes and self._accession_system in ("", query.system):
            return await self._search("AccessionNumber", _ACCESSION, query.value)
        return []

    async def known(self, kind: str, local_id: str) -> list[Local]:
        """The study of a Study Instance UID. Raises UnusableAnswer or httpx.HTTPError."""
        if kind != "ImagingStudy" or not bare_uid(local_id):
            return []
        return await self._search("StudyInstanceUID", _STUDY_UID, local_id)

    async def _search(self, parameter: str, tag: str, value: str) -> list[Local]:
        answer = await ask(self._http, f"{self._base}/studies", [(parameter, value)], "application/dicom+json")
        if answer.status == httpx.codes.NO_CONTENT:
            return []
        if answer.status != httpx.codes.OK or not isinstance(answer.json, list):
            raise UnusableAnswer(
                f"the answer must be status 200 and a list of studies, and this one is status {answer.status}"
            )
        studies = [study for study in answer.json if isinstance(study, dict) and _first(study, tag) == value]
        if len(studies) <= 1 and any(words in answer.warning.lower() for words in _MORE):
            raise UnusableAnswer("the list is not complete")
        return [self._local(study) for study in studies]

    def _local(self, study: Resource) -> Local:
        uid = bare_uid(_first(study, _STUDY_UID))
        if not uid:
            raise UnusableAnswer("a study has no Study Instance UID")
        patient = self._patient(study)
        resource = {"resourceType": "ImagingStudy", "identifier": self._identifiers(study, uid), "status": "unknown"}
        identifiers = tuple(resource["identifier"])
        return Local(uid, "ImagingStudy", source=self.name, identifiers=identifiers, resource=resource, patient=patient)

    def _identifiers(self, study: Resource, uid: str) -> Any:
        identifiers = [fhir_identifier(uid, DICOM_UID)]
        if accession := _first(study, _ACCESSION):
            identifiers.append(fhir_identifier(accession, self._accession_system, "ACSN"))
        return identifiers

    def _patient(self, study: Resource) -> Resource:
        patient: Resource = {"resourceType": "Patient"}
        if number := _first(study, _PATIENT_ID):
            patient["identifier"] = [fhir_identifier(number, self._patient_system, "MR")]
        family, *others = [part.strip() for part in _first(study, _PATIENT_NAME).split("=")[0].split("^")]
        given = [part for part in others[:2] if part]
        if family or given:
            patient["name"] = [({"family": family} if family else {}) | ({"given": given} if given else {})]
        if gender := sex(_first(study, _SEX)):
            patient["gender"] = gender
        if birth_date := iso_date(_first(study, _BIRTH_DATE)):
            patient["birthDate"] = birth_date
        return patient


def _first(study: Resource, tag: str) -> str:
    """The first value of an attribute, for a name its alphabetic form. "" where there is none."""
    attribute = study.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    value = values[0] if isinstance(values, list) and values else ""
    if isinstance(value, dict):
        value = value.get("Alphabetic")
    return value.strip(" \0") if isinstance(value, str) else ""
