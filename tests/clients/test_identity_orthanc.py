"""Local ids of studies, found in a real image archive over QIDO-RS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from fhircast_identity import (
    IdentityMap,
    Mismatch,
    NoMatch,
    QidoRs,
    SeveralMatches,
    StudyUid,
    System,
    Table,
    TypeCode,
)
from tests.clients.identity_cases import MRN, NIN, accession, study
from tests.clients.orthanc import Archive, archive

OSTBY = {"PatientName": "Østby^Kari", "PatientID": "4438001", "PatientBirthDate": "19700513", "PatientSex": "F"}
HAAS = {"PatientName": "HAAS^Ola", "PatientID": "4438002", "PatientBirthDate": "19810102", "PatientSex": "M"}
NOBODY = {"PatientName": "", "PatientID": "", "PatientBirthDate": "", "PatientSex": ""}


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with archive(tmp_path_factory.mktemp("orthanc")) as orthanc:
        orthanc.store(OSTBY, "1.2.840.99.1", "ACC1")
        orthanc.store(HAAS, "1.2.840.99.2", "ACC2")
        orthanc.store(HAAS, "1.2.840.99.3", "ACC2")
        orthanc.store(NOBODY, "1.2.840.99.4", "")
        yield orthanc


@pytest.fixture
async def ids(orthanc: Archive) -> AsyncIterator[IdentityMap]:
    async with httpx.AsyncClient(trust_env=False) as http:
        archive = QidoRs(orthanc.base, http, patient_system=MRN)
        # A test may wait for a busy machine; how long a question may take is proven elsewhere.
        yield IdentityMap({"ImagingStudy": [StudyUid(), TypeCode("ACSN")]}, [archive], ask_seconds=20)


@pytest.mark.req("IDM-1", "IDM-2")
async def test_by_study_instance_uid(ids: IdentityMap) -> None:
    local = await ids.find_resource(study("1.2.840.99.1"))
    assert (local.id, local.type, local.source) == ("1.2.840.99.1", "ImagingStudy", "the image archive")
    assert local.patient is not None
    assert local.patient["name"] == [{"family": "Østby", "given": ["Kari"]}]
    assert (local.patient["birthDate"], local.patient["gender"]) == ("1970-05-13", "female")


@pytest.mark.req("IDM-1", "IDM-2", "IDM-4")
async def test_by_accession_number(ids: IdentityMap) -> None:
    assert (await ids.find_resource(accession("ACC1"))).id == "1.2.840.99.1"
    with pytest.raises(SeveralMatches, match=r"^Several studies here have the accession number that was sent\."):
        await ids.find_resource(accession("ACC2"))


@pytest.mark.req("IDM-2", "IDM-4")
@pytest.mark.parametrize("number", ["*", "?CC1", "ACC?", "ACC1*", "acc1", "ACC1\\ACC2", "ACC9", "A&StudyDate=*"])
async def test_what_is_not_exactly_there_is_not_found(ids: IdentityMap, number: str) -> None:
    """Orthanc takes `*` and `?` for wildcards and compares without regard to case."""
    with pytest.raises(NoMatch):
        await ids.find_resource(accession(number))


@pytest.mark.req("IDM-2", "IDM-4")
async def test_a_study_that_is_not_there(ids: IdentityMap) -> None:
    with pytest.raises(NoMatch, match=r"^No study here has the Study Instance UID that was sent\.$"):
        await ids.find_resource(study("1.2.840.99.9"))


@pytest.mark.req("IDM-3")
async def test_the_patient_that_was_sent_is_compared(ids: IdentityMap) -> None:
    same = {"resourceType": "Patient", "name": [{"family": "OESTBY"}], "birthDate": "1970-05-13", "gender": "female"}
    assert (await ids.find_resource(study("1.2.840.99.1"), same)).id == "1.2.840.99.1"
    with pytest.raises(Mismatch) as refused:
        await ids.find_resource(study("1.2.840.99.2"), same)
    assert refused.value.differing == ("family name", "birth date", "gender")
    assert (await ids.find_resource(study("1.2.840.99.4"), same)).id == "1.2.840.99.4"


@pytest.mark.req("IDM-5")
async def test_publishing_a_study(ids: IdentityMap) -> None:
    resource, patient = await ids.publishable("ImagingStudy", "1.2.840.99.1")
    assert resource["identifier"][0] == {"system": "urn:dicom:uid", "value": "urn:oid:1.2.840.99.1"}
    assert [each["value"] for each in resource["identifier"]] == ["urn:oid:1.2.840.99.1", "ACC1"]
    assert resource["identifier"][1]["type"]["coding"][0]["code"] == "ACSN"
    assert resource["subject"] == {"reference": f"Patient/{patient['id']}"}
    assert [(each["system"], each["value"]) for each in patient["identifier"]] == [(MRN, "4438001")]
    assert (await ids.find_resource(resource, patient)).id == "1.2.840.99.1"
    again, _ = await ids.publishable("ImagingStudy", "1.2.840.99.1")
    assert again["id"] == resource["id"]


@pytest.mark.req("IDM-5")
async def test_publishing_a_study_whose_patient_is_known_elsewhere(orthanc: Archive) -> None:
    table = Table({(MRN, "4438001"): "l17", (NIN, "13057000001"): "l17"})
    async with httpx.AsyncClient(trust_env=False) as http:
        archive = QidoRs(orthanc.base, http, patient_system=MRN)
        ids = IdentityMap({"Patient": [System(MRN)]}, [table, archive], ask_seconds=20)
        _, patient = await ids.publishable("ImagingStudy", "1.2.840.99.1")
    assert [each["value"] for each in patient["identifier"]] == ["4438001", "13057000001"]
