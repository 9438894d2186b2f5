"""Local ids found over HTTP: a FHIR server and a PIX manager, and their faults."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from fhircast_identity import (
    FhirSearch,
    IdentityMap,
    LogicalId,
    LookupFailed,
    Mismatch,
    NoMatch,
    PixManager,
    QidoRs,
    Query,
    Rule,
    SeveralMatches,
    StudyUid,
    System,
    Table,
)
from tests.clients.identity_cases import MRN, NIN, patient, study
from tests.clients.identity_server import Hospital, hospital, outcome
from tests.ports import free_port

RULES: dict[str, list[Rule]] = {"Patient": [System(MRN, "number")], "ImagingStudy": [StudyUid()]}
OWN = "urn:oid:2.999.1"


@pytest.fixture
async def server() -> AsyncIterator[Hospital]:
    async with hospital() as server:
        yield server


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as http:
        yield http


@pytest.fixture
def fhir(server: Hospital, http: httpx.AsyncClient) -> IdentityMap:
    return IdentityMap(RULES, [FhirSearch(server.base + "/", http)])


@pytest.fixture
def pix(server: Hospital, http: httpx.AsyncClient) -> IdentityMap:
    return IdentityMap(RULES, [PixManager(server.base, http, target_system=OWN)])


def identifier(system: str, value: str) -> dict[str, Any]:
    return {"name": "targetIdentifier", "valueIdentifier": {"system": system, "value": value}}


def target(reference: str) -> dict[str, Any]:
    return {"name": "targetId", "valueReference": {"reference": reference}}


@pytest.mark.req("IDM-2", "IDM-3")
async def test_fhir_search(server: Hospital, fhir: IdentityMap) -> None:
    server.resources = [
        patient() | {"id": "17", "name": [{"family": "Østby"}], "birthDate": "1970-05-13"},
        patient("4438002") | {"id": "18"},
    ]
    local = await fhir.find_resource(patient(name=[{"family": "OESTBY"}]))
    assert (local.id, local.source) == ("17", "the FHIR server")
    assert server.asked == [("/fhir/Patient", [("identifier", f"{MRN}|4438001")])]
    with pytest.raises(Mismatch, match=r"^Birth date differs"):
        await fhir.find_resource(patient(birthDate="1971"))
    with pytest.raises(NoMatch):
        await fhir.find_resource(patient("4438003"))


@pytest.mark.req("IDM-2")
@pytest.mark.parametrize("value", ["a|b", "a,b", "a$b", "a\\b", "a&b=c+d e%20", "ø"])
async def test_a_value_reaches_the_server_as_it_is(server: Hospital, fhir: IdentityMap, value: str) -> None:
    server.resources = [patient(value) | {"id": "17"}]
    assert (await fhir.find_resource(patient(value))).id == "17"


@pytest.mark.req("IDM-2", "IDM-4")
async def test_fhir_search_with_two_matches(server: Hospital, fhir: IdentityMap) -> None:
    server.resources = [patient() | {"id": "17"}, patient() | {"id": "18"}]
    with pytest.raises(SeveralMatches):
        await fhir.find_resource(patient())


@pytest.mark.req("IDM-2", "IDM-4")
async def test_what_does_not_carry_the_identifier_is_no_match(server: Hospital, fhir: IdentityMap) -> None:
    """A server that ignores the parameter, or the case, must not choose the patient."""
    server.resources = [patient("AB") | {"id": "17"}]
    with pytest.raises(NoMatch):
        await fhir.find_resource(patient("ab"))
    stranger = patient("4438002") | {"id": "18"}
    server.instead = 200, {"resourceType": "Bundle", "entry": [{"resource": stranger}]}
    with pytest.raises(NoMatch):
        await fhir.find_resource(patient())


@pytest.mark.req("IDM-2")
async def test_only_matches_count(server: Hospital, fhir: IdentityMap) -> None:
    entries = [
        {"resource": patient() | {"id": "17"}, "search": {"mode": "match"}},
        {"resource": patient() | {"id": "18"}, "search": {"mode": "include"}},
        {
            "resource": {"resourceType": "OperationOutcome", "issue": [{"severity": "warning"}]},
            "search": {"mode": "outcome"},
        },
    ]
    server.instead = 200, {"resourceType": "Bundle", "entry": entries}
    assert (await fhir.find_resource(patient())).id == "17"


@pytest.mark.req("IDM-2", "IDM-4")
async def test_a_page_of_many_is_no_answer(server: Hospital, fhir: IdentityMap) -> None:
    server.resources = [patient() | {"id": "17"}]
    server.more = {"link": [{"relation": "next", "url": server.base + "?page=2"}]}
    with pytest.raises(LookupFailed):
        await fhir.find_resource(patient())


@pytest.mark.req("IDM-2")
async def test_the_local_id_may_be_an_identifier(server: Hospital, http: httpx.AsyncClient) -> None:
    ids = IdentityMap(RULES, [FhirSearch(server.base, http, id_system=OWN)])
    old = {"system": OWN, "value": "local-16", "use": "old"}
    all_of_them = [{"system": MRN, "value": "4438001"}, old, {"system": OWN, "value": "local-17"}]
    server.resources = [patient() | {"id": "17", "identifier": all_of_them}]
    assert (await ids.find_resource(patient())).id == "local-17"
    (published,) = await ids.publishable("Patient", "local-17")
    assert published["id"] == "17"
    server.resources = [patient() | {"id": "17"}]
    with pytest.raises(LookupFailed):
        await IdentityMap(RULES, [FhirSearch(server.base, http, id_system=OWN)]).find_resource(patient())


@pytest.mark.req("IDM-1", "IDM-2")
async def test_a_logical_id_is_asked_for_on_its_server_only(server: Hospital, http: httpx.AsyncClient) -> None:
    server.resources = [patient() | {"id": "17"}]
    search = FhirSearch(server.base, http)
    ids = IdentityMap({"Patient": [LogicalId(server.base), LogicalId("https://other.example/fhir")]}, [search])
    assert (
        await ids.find_resource({"resourceType": "Patient", "id": "17"}, url=f"{server.base}/Patient/17")
    ).id == "17"
    assert server.asked == [("/fhir/Patient", [("_id", "17")])]
    with pytest.raises(NoMatch):
        await ids.find_resource({"resourceType": "Patient", "id": "17"}, url="https://other.example/fhir/Patient/17")
    assert len(server.asked) == 1
    server.instead = 200, server.search("Patient", {"_id": "17"})
    with pytest.raises(NoMatch):
        await ids.find_resource({"resourceType": "Patient", "id": "18"}, url=f"{server.base}/Patient/18")


@pytest.mark.req("IDM-2", "IDM-3")
@pytest.mark.parametrize("stored", ["urn:oid:1.2.3", "1.2.3"])
async def test_a_study_is_checked_against_its_subject(server: Hospital, fhir: IdentityMap, stored: str) -> None:
    identifiers = [{"system": "urn:dicom:uid", "value": stored}]
    here = study("") | {"id": "st7", "identifier": identifiers, "subject": {"reference": "Patient/17"}}
    server.resources = [here, patient() | {"id": "17", "gender": "male"}]
    assert (await fhir.find_resource(study("1.2.3"), {"resourceType": "Patient", "gender": "male"})).id == "st7"
    with pytest.raises(Mismatch, match=r"^Gender differs .* the patient of the study found here\.$"):
        await fhir.find_resource(study("1.2.3"), {"resourceType": "Patient", "gender": "female"})


FAULTS: list[Any] = [
    (500, outcome("exception")),
    (503, "busy"),
    (404, "<html>no such page</html>"),
    (401, outcome("login")),
    (302, ""),
    (200, "<html>please log in</html>"),
    (200, '{"resourceType": "Bundle", "entry": ['),
    (200, "[]"),
    (200, {"resourceType": "Patient", "id": "17"}),
    (200, {"resourceType": "Bundle", "entry": [{"resource": outcome("timeout"), "search": {"mode": "outcome"}}]}),
]


@pytest.mark.req("IDM-2", "IDM-4")
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fhir_server_that_fails_is_not_one_that_knows_nobody(
    server: Hospital, http: httpx.AsyncClient, fault: Any
) -> None:
    table = Table({"4438001": "somebody else"})
    ids = IdentityMap(RULES, [FhirSearch(server.base, http), table])
    server.instead = fault
    with pytest.raises(
        LookupFailed, match=r"^The patient could not be looked up: the FHIR server gave no usable answer"
    ):
        await ids.find_resource(patient())
    server.instead, server.resources = None, [patient() | {"id": "17"}]
    assert (await ids.find_resource(patient())).id == "17"


@pytest.mark.req("IDM-2", "IDM-4")
@pytest.mark.parametrize("fault", [*FAULTS[:-1], (403, outcome("code-invalid")), (400, outcome("invalid"))])
async def test_a_pix_manager_that_fails_is_not_one_that_knows_nobody(
    server: Hospital, pix: IdentityMap, fault: Any
) -> None:
    server.instead = fault
    with pytest.raises(LookupFailed, match="the patient index gave no usable answer"):
        await pix.find_resource(patient())
    server.instead, server.links = None, {f"{MRN}|4438001": [identifier(OWN, "17")]}
    assert (await pix.find_resource(patient())).id == "17"


@pytest.mark.req("IDM-2", "IDM-4")
@pytest.mark.parametrize("fault", [(500, ""), (200, "garbage"), (200, {"00100010": {}}), (404, "")])
async def test_an_archive_that_fails_is_not_one_that_has_no_study(
    server: Hospital, http: httpx.AsyncClient, fault: Any
) -> None:
    ids = IdentityMap(RULES, [QidoRs(server.base, http)])
    server.instead = fault
    with pytest.raises(
        LookupFailed, match=r"^The study could not be looked up: the image archive gave no usable answer"
    ):
        await ids.find_resource(study("1.2.3"))
    empty: Any
    for empty in ((204, ""), (200, [])):
        server.instead = empty
        with pytest.raises(NoMatch):
            await ids.find_resource(study(f"1.2.{empty[0]}"))


@pytest.mark.req("IDM-2")
async def test_an_archive_is_asked_for_uids_and_its_own_accession_numbers(
    server: Hospital, http: httpx.AsyncClient
) -> None:
    server.instead = 200, [{"0020000D": {"Value": ["1.2.3"]}, "00080050": {"Value": ["ACC1"]}}]
    own = QidoRs(server.base, http, accession_system=OWN)
    for query in (
        Query("ImagingStudy", "ACC1", "urn:other", ("ACSN",)),
        Query("ImagingStudy", "ACC1", OWN, ("FILL",)),
        Query("ImagingStudy", "ACC1", OWN),
        Query("Patient", "1.2.3", "urn:dicom:uid"),
    ):
        assert await own.find(query) == []
    assert server.asked == []
    (local,) = await own.find(Query("ImagingStudy", "ACC1", OWN, ("FILL", "ACSN")))
    assert local.id == "1.2.3"


@pytest.mark.req("IDM-2", "IDM-4")
async def test_a_server_that_says_nothing(server: Hospital, http: httpx.AsyncClient) -> None:
    server.silent = True
    ids = IdentityMap(RULES, [FhirSearch(server.base, http)], ask_seconds=0.5)
    with pytest.raises(LookupFailed):
        await ids.find_resource(patient())


@pytest.mark.req("IDM-2", "IDM-4")
async def test_a_server_that_is_not_there(http: httpx.AsyncClient) -> None:
    ids = IdentityMap(RULES, [FhirSearch(f"http://127.0.0.1:{free_port()}/fhir", http)])
    with pytest.raises(LookupFailed):
        await ids.find_resource(patient())


@pytest.mark.req("IDM-2")
async def test_no_number_reaches_a_log(
    server: Hospital, fhir: IdentityMap, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """httpx logs each address; the application's own requests it still may."""
    caplog.set_level(logging.DEBUG)
    server.resources = [patient() | {"id": "17"}]
    await fhir.find_resource(patient())
    assert server.asked
    assert "4438001" not in caplog.text
    await http.get(f"{server.base}/Patient?identifier=x%7Cown-request")
    assert "own-request" in caplog.text


@pytest.mark.req("IDM-2")
async def test_pix(server: Hospital, pix: IdentityMap) -> None:
    old = {"name": "targetIdentifier", "valueIdentifier": {"system": OWN, "value": "16", "use": "old"}}
    found = [identifier("urn:else", "9"), old, identifier(OWN, "17"), target("https://x/Patient/1")]
    server.links = {f"{MRN}|4438001": found}
    assert (await pix.find_resource(patient())).id == "17"
    asked = [("sourceIdentifier", f"{MRN}|4438001"), ("targetSystem", OWN)]
    assert server.asked == [("/fhir/Patient/$ihe-pix", asked)]


@pytest.mark.req("IDM-2", "IDM-4")
@pytest.mark.parametrize("answer", [(404, outcome("not-found")), (400, outcome("code-invalid"))])
async def test_pix_that_does_not_know(server: Hospital, http: httpx.AsyncClient, answer: Any) -> None:
    """2:3.83.4.2.2: an unknown patient and an unknown source system. The next resolver is asked."""
    server.instead = answer
    manager = PixManager(server.base, http, target_system=OWN)
    with pytest.raises(NoMatch):
        await IdentityMap(RULES, [manager]).find_resource(patient())
    assert (await IdentityMap(RULES, [manager, Table({"4438001": "17"})]).find_resource(patient())).id == "17"


@pytest.mark.req("IDM-2", "IDM-4")
async def test_pix_with_nobody_and_with_several_in_the_target_system(server: Hospital, pix: IdentityMap) -> None:
    server.links = {
        f"{MRN}|1": [identifier("urn:else", "9")],
        f"{MRN}|2": [identifier(OWN, "17"), identifier(OWN, "18")],
    }
    with pytest.raises(NoMatch):
        await pix.find_resource(patient("1"))
    with pytest.raises(SeveralMatches):
        await pix.find_resource(patient("2"))


@pytest.mark.req("IDM-2")
async def test_pix_that_names_a_patient_resource(server: Hospital, http: httpx.AsyncClient) -> None:
    own, other = "https://own.example/fhir", "https://other.example/fhir"
    server.links = {
        f"{MRN}|4438001": [target(f"{other}/Patient/1"), target(f"{own}/Patient/17")],
        f"{MRN}|4438002": [target("Patient/18")],
    }
    ids = IdentityMap(RULES, [PixManager(server.base, http, target_system=own)])
    assert (await ids.find_resource(patient())).id == "17"
    ids = IdentityMap(RULES, [PixManager(server.base, http)])
    assert (await ids.find_resource(patient("4438002"))).id == "18"
    with pytest.raises(SeveralMatches):
        await ids.find_resource(patient())


@pytest.mark.req("IDM-2")
async def test_pix_asked_with_an_identifier_of_its_own_target(server: Hospital, http: httpx.AsyncClient) -> None:
    """ "The identifier value given in the sourceIdentifier parameter shall not be included in the response"."""
    server.links = {f"{MRN}|4438001": [identifier(NIN, "13057000001")]}
    ids = IdentityMap(RULES, [PixManager(server.base, http, target_system=MRN)])
    assert (await ids.find_resource(patient())).id == "4438001"
    with pytest.raises(NoMatch):
        await ids.find_resource(patient("4438002"))


@pytest.mark.req("IDM-2")
async def test_pix_is_not_asked_for_studies_nor_without_a_system(server: Hospital, http: httpx.AsyncClient) -> None:
    manager = PixManager(server.base, http)
    assert await manager.find(Query("ImagingStudy", "1.2.3", "urn:dicom:uid")) == []
    assert await manager.find(Query("Patient", "4438001")) == []
    assert server.asked == []


@pytest.mark.req("IDM-5")
async def test_publishing_with_the_identifiers_of_all(server: Hospital, http: httpx.AsyncClient) -> None:
    """The FHIR server's own resource, no more of it than others need, and what the patient index knows besides."""
    server.resources = [patient() | {"id": "17", "name": [{"family": "Østby"}], "telecom": [{"value": "secret"}]}]
    server.links = {f"{OWN}|17": [identifier(NIN, "13057000001"), identifier(MRN, "4438001")]}
    ids = IdentityMap(RULES, [FhirSearch(server.base, http), PixManager(server.base, http, target_system=OWN)])
    (resource,) = await ids.publishable("Patient", "17")
    assert {"resourceType", "id", "name", "identifier"} == set(resource)
    assert resource["id"] == "17"
    assert [(each["system"], each["value"]) for each in resource["identifier"]] == [
        (MRN, "4438001"),
        (OWN, "17"),
        (NIN, "13057000001"),
    ]
    server.instead = 500, ""
    with pytest.raises(LookupFailed):
        await ids.publishable("Patient", "17")


@pytest.mark.req("IDM-5")
async def test_publishing_a_study_of_the_fhir_server(server: Hospital, fhir: IdentityMap) -> None:
    here = study("1.2.3") | {"id": "st7", "subject": {"reference": "Patient/17"}, "status": "available"}
    server.resources = [here, patient() | {"id": "17"}]
    assert await fhir.publishable("ImagingStudy", "st7") == [here, patient() | {"id": "17"}]
