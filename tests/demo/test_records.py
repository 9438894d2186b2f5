"""The demo's records: valid FHIR that fits together, and a server that reads it out and says no in order."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fhir.resources.R4B import get_fhir_model_class
from starlette.applications import Starlette
from starlette.routing import Mount

from demo.records import make_app
from demo.records.parameters import PARAMETERS
from demo.records.store import Store, load

MRN = "http://hospital.example/mrn"
NATIONAL = "urn:oid:2.16.578.1.12.4.1.4.1"
BASE = "http://records.example/fhir"
TYPES = sorted(PARAMETERS)
GOOD = "a-good-token"
CHART = Path(__file__).resolve().parents[2] / "demo" / "chart" / "patients.json"


async def verify(token: str) -> dict[str, Any]:
    """Knows one token."""
    if token != GOOD:
        raise ValueError(f"never heard of {token}")
    return {"sub": "somebody", "scope": "openid user/*.read"}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Starlette(routes=[Mount("/fhir", make_app(verify))]))
    headers = {"Authorization": f"Bearer {GOOD}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://records.example", headers=headers) as http:
        yield http


async def found(client: httpx.AsyncClient, url: str, **more: Any) -> list[str]:
    """The ids that a search finds; the Bundle is valid."""
    answer = await client.get(f"/fhir/{url}", **more)
    assert answer.status_code == 200, answer.text
    get_fhir_model_class("Bundle").model_validate_json(answer.content)
    bundle = answer.json()
    assert bundle["type"] == "searchset"
    for entry in bundle.get("entry", []):
        assert entry["fullUrl"] == f"{BASE}/{entry['resource']['resourceType']}/{entry['resource']['id']}"
    return [entry["resource"]["id"] for entry in bundle.get("entry", [])]


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """The reason; the OperationOutcome is valid."""
    assert answer.status_code == status, answer.text
    get_fhir_model_class("OperationOutcome").model_validate_json(answer.content)
    assert answer.headers["content-type"] == "application/fhir+json"
    assert answer.json()["issue"][0]["code"] == code
    return str(answer.json()["issue"][0]["diagnostics"])


def references(value: Any) -> Iterator[dict[str, str]]:
    """All that a resource refers to."""
    if isinstance(value, dict):
        if "reference" in value:
            yield value
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


@pytest.mark.parametrize("type_", TYPES)
def test_the_data_is_valid_and_every_reference_leads_somewhere(type_: str) -> None:
    store = load()
    resources = store.all(type_)
    assert bool(resources) == (type_ != "Observation")
    for resource in resources:
        get_fhir_model_class(type_).model_validate(resource)
        for reference in references(resource):
            assert store.resolve(reference)


def test_what_belongs_together_has_one_patient() -> None:
    store = load()
    for type_ in ("ImagingStudy", "DiagnosticReport"):
        for resource in store.all(type_):
            encounter = store.resolve(resource["encounter"])
            assert encounter["subject"] == resource["subject"], resource["id"]
            for study in resource.get("imagingStudy", []):
                assert store.resolve(study)["subject"] == resource["subject"]


def test_patients_are_twelve_and_each_identifier_is_of_one() -> None:
    patients = load().all("Patient")
    assert len(patients) == 12
    identifiers = [(each["system"], each["value"]) for patient in patients for each in patient["identifier"]]
    assert len(set(identifiers)) == len(identifiers)
    for patient in patients:
        codes = [each["type"]["coding"][0]["code"] for each in patient["identifier"]]
        assert codes.count("MR") == 1
        assert len(codes) > 1
    assert {patient["gender"] for patient in patients} == {"male", "female", "other", "unknown"}


def test_national_numbers_are_nobodys() -> None:
    """Real ones have a month to 12; synthetic ones of the Norwegian registry have 80 more."""
    values = [value for system, value in national_numbers() if system == NATIONAL]
    assert values
    assert all(re.fullmatch(r"\d\d(8[1-9]|9[0-2])\d{2}0{3}\d\d", value) for value in values), values


def national_numbers() -> Iterator[tuple[str, str]]:
    for patient in load().all("Patient"):
        yield from ((each["system"], each["value"]) for each in patient["identifier"])


def test_the_chart_misses_one_patient_and_has_another_birth_date_of_one() -> None:
    rows = {row["mrn"]: row for row in json.loads(CHART.read_text(encoding="utf-8"))}
    assert len({row["local_id"] for row in rows.values()}) == len(rows) == 11
    missing, different = [], []
    for patient in load().all("Patient"):
        mrn = next(each["value"] for each in patient["identifier"] if each["system"] == MRN)
        if mrn not in rows:
            missing.append(patient["id"])
            continue
        assert (rows[mrn]["family"], rows[mrn]["gender"]) == (patient["name"][0]["family"], patient["gender"])
        if rows[mrn]["birth_date"] != patient.get("birthDate", ""):
            different.append(patient["id"])
    assert (missing, different) == (["patient-5"], ["patient-9"])


async def test_metadata_needs_no_token_and_names_what_there_is(client: httpx.AsyncClient) -> None:
    answer = await client.get("/fhir/metadata", headers={"Authorization": ""})
    assert answer.status_code == 200
    get_fhir_model_class("CapabilityStatement").model_validate_json(answer.content)
    (rest,) = answer.json()["rest"]
    assert [each["type"] for each in rest["resource"]] == TYPES == list(load().types)


@pytest.mark.parametrize("path", ["Patient/patient-1", "Patient", "Patient/$ihe-pix", "Nothing", "metadata/x"])
@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic YTpi", f"Bearer x{GOOD}"])
async def test_whoever_has_no_good_token_learns_nothing(
    client: httpx.AsyncClient, path: str, authorization: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    answer = await client.get(f"/fhir/{path}", headers={"Authorization": authorization})
    refused(answer, 401, "login")
    with_token = authorization.endswith(GOOD)
    assert answer.headers["www-authenticate"] == ('Bearer error="invalid_token"' if with_token else "Bearer")
    assert GOOD not in caplog.text + answer.text


@pytest.mark.parametrize("type_", TYPES)
async def test_all_is_read_as_it_is_written(client: httpx.AsyncClient, type_: str) -> None:
    for resource in load().all(type_):
        answer = await client.get(f"/fhir/{type_}/{resource['id']}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/fhir+json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json() == resource


async def test_what_is_not_here_is_not_found(client: httpx.AsyncClient) -> None:
    assert "Patient" in refused(await client.get("/fhir/Patient/patient-99"), 404, "not-found")
    refused(await client.get("/fhir/Observation/o1"), 404, "not-found")
    refused(await client.get("/fhir/Procedure/p1"), 404, "not-supported")
    refused(await client.get("/fhir/Procedure"), 404, "not-supported")
    refused(await client.get("/fhir/Patient/patient-1/history/2"), 404, "not-found")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["Patient", "Patient/patient-1", "metadata"])
async def test_nothing_can_be_written_but_by_a_transaction(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, f"/fhir/{path}", json={"resourceType": "Patient"})
    refused(answer, 405, "not-supported")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        (f"Patient?identifier={MRN}|700103", ["patient-3"]),
        ("Patient?identifier=700103", ["patient-3"]),
        (f"Patient?identifier={NATIONAL}|700103", []),
        ("Patient?identifier=|700103", []),
        ("Patient?identifier=http://hl7.org/fhir/sid/passport-SYR|", ["patient-3"]),
        (f"Patient?identifier={MRN}|700103,{MRN}|700101", ["patient-1", "patient-3"]),
        (f"Patient?identifier={MRN}|700103&identifier={MRN}|700101", []),
        (f"Patient?identifier={MRN}|700103&gender=male", ["patient-3"]),
        ("Patient?_id=patient-7", ["patient-7"]),
        ("Patient?family=haugland", ["patient-7", "patient-8"]),
        ("Patient?family=HAUGLAND&birthdate=2026-11-20", ["patient-7"]),
        ("Patient?birthdate=1958", ["patient-6"]),
        ("Patient?name=márquez", ["patient-9"]),
        ("Patient?name=arquez", []),
        ("Patient?name=odegard", ["patient-12"]),
        ("Patient?name=zolk", []),
        ("Patient?name=szczesniak", ["patient-5"]),
        ("Patient?name=nguyen", ["patient-4"]),
        ("Patient?name=晓", ["patient-6"]),
        ("Patient?name=tveit", ["patient-12"]),
        ("Patient?gender=unknown", ["patient-11"]),
        ("Practitioner?identifier=urn:oid:2.16.578.1.12.4.1.4.4|9144889", ["practitioner-1"]),
        ("Practitioner?name=okafor", ["practitioner-2"]),
        ("ImagingStudy?patient=patient-1", ["study-1", "study-9"]),
        ("ImagingStudy?patient=Patient/patient-1&status=available&modality=CT", ["study-1", "study-9"]),
        (f"ImagingStudy?patient={BASE}/Patient/patient-1", ["study-1", "study-9"]),
        ("ImagingStudy?patient=http://elsewhere.example/fhir/Patient/patient-1", []),
        ("ImagingStudy?status=registered", ["study-10"]),
        ("ImagingStudy?identifier=http://hospital.example/accession|ACC261003", ["study-3"]),
        ("DiagnosticReport?encounter=encounter-4&status=preliminary", ["report-2"]),
        ("Encounter?patient=patient-9", ["encounter-10", "encounter-11"]),
        ("Encounter?patient=", [f"encounter-{number}" for number in range(1, 15)]),
    ],
)
async def test_a_search_finds_these(client: httpx.AsyncClient, query: str, ids: list[str]) -> None:
    assert await found(client, query) == ids


async def test_each_study_is_found_by_its_uid(client: httpx.AsyncClient) -> None:
    for study in load().all("ImagingStudy"):
        uid = study["identifier"][0]["value"]
        assert await found(client, f"ImagingStudy?identifier=urn:dicom:uid|{uid}") == [study["id"]]


async def test_an_unknown_parameter_is_ignored_or_refused_as_the_client_prefers(client: httpx.AsyncClient) -> None:
    query = "Patient?_id=patient-1&shoe-size=43"
    assert await found(client, query) == ["patient-1"]
    bundle = (await client.get(f"/fhir/{query}")).json()
    assert "shoe-size" not in bundle["link"][0]["url"]
    strict = await client.get(f"/fhir/{query}", headers={"Prefer": "return=minimal, handling=strict"})
    assert "shoe-size" in refused(strict, 400, "not-supported")
    assert await found(client, "Patient?_id=patient-1&_format=json", headers={"Prefer": "handling=strict"})


@pytest.mark.parametrize("query", ["family:exact=Haugland", "birthdate=ge1990", "_count=many", "_offset=-1"])
async def test_a_search_that_would_mean_something_else_is_refused(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/fhir/Patient?{query}")
    assert query.partition("=")[0] in refused(answer, 400, answer.json()["issue"][0]["code"])


async def test_the_pages_together_are_all_that_match(client: httpx.AsyncClient) -> None:
    url, ids, pages = "/fhir/Patient?_count=5", [], 0
    while url:
        bundle = (await client.get(url)).json()
        assert bundle["total"] == 12
        ids += [entry["resource"]["id"] for entry in bundle["entry"]]
        pages += 1
        url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), "")
    assert pages == 3
    assert ids == [f"patient-{number}" for number in range(1, 13)]
    assert await found(client, "Patient?_count=0") == []


async def test_no_page_is_longer_than_the_most() -> None:
    many = Store({"resourceType": "Patient", "id": f"p{number}"} for number in range(120))
    headers = {"Authorization": f"Bearer {GOOD}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(make_app(verify, many)), headers=headers) as http:
        bundle = (await http.get("http://records.example/Patient?_count=1000")).json()
    # Not mounted: [base] is the origin.
    assert bundle["entry"][0]["fullUrl"] == "http://records.example/Patient/p0"
    assert (len(bundle["entry"]), bundle["total"]) == (50, 120)


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({"Accept": "application/fhir+xml"}, "", 406),
        ({"Accept": "application/fhir+json"}, "_format=xml", 406),
        ({"Accept": "text/html, */*;q=0.1"}, "", 200),
        ({"Accept": "application/fhir+json; fhirVersion=4.0"}, "", 200),
        ({"Accept": "application/fhir+xml"}, "_format=json", 200),
        ({}, "_format=application/fhir+json", 200),
    ],
)
async def test_there_is_json_only(client: httpx.AsyncClient, headers: dict[str, str], query: str, status: int) -> None:
    answer = await client.get(f"/fhir/Patient/patient-1?{query}", headers=headers)
    assert answer.status_code == status


async def pix(client: httpx.AsyncClient, **asked: Any) -> httpx.Response:
    return await client.get("/fhir/Patient/$ihe-pix", params=asked)


async def test_pix_gives_the_other_identifiers(client: httpx.AsyncClient) -> None:
    answer = await pix(client, sourceIdentifier=f"{MRN}|700104", targetSystem=NATIONAL)
    get_fhir_model_class("Parameters").model_validate_json(answer.content)
    (only,) = answer.json()["parameter"]
    assert (only["name"], only["valueIdentifier"]["value"]) == ("targetIdentifier", "05899200004")

    everything = (await pix(client, sourceIdentifier=f"{MRN}|700104")).json()["parameter"]
    assert [each["name"] for each in everything] == ["targetIdentifier", "targetIdentifier", "targetId"]
    assert MRN not in json.dumps(everything)
    assert everything[-1]["valueReference"] == {"reference": "Patient/patient-4"}

    by_id = await pix(client, sourceIdentifier=f"{BASE}|Patient/patient-4", targetSystem=[MRN, NATIONAL])
    assert [each["valueIdentifier"]["value"] for each in by_id.json()["parameter"]] == ["700104", "05899200004"]


async def test_pix_knows_a_patient_who_has_no_such_identifier(client: httpx.AsyncClient) -> None:
    answer = await pix(client, sourceIdentifier=f"{MRN}|700105", targetSystem=NATIONAL)
    assert answer.status_code == 200
    assert answer.json() == {"resourceType": "Parameters"}


async def test_pix_refuses_in_the_words_of_the_profile(client: httpx.AsyncClient) -> None:
    nobody = refused(await pix(client, sourceIdentifier=f"{MRN}|1"), 404, "not-found")
    assert nobody == "sourceIdentifier Patient Identifier not found"
    source = refused(await pix(client, sourceIdentifier="urn:oid:1.2|700104"), 400, "code-invalid")
    assert source == "sourceIdentifier Assigning Authority not found"
    both = [NATIONAL, "urn:oid:1.2"]
    target = refused(await pix(client, sourceIdentifier=f"{MRN}|700104", targetSystem=both), 403, "code-invalid")
    assert target == "targetSystem not found"
    refused(await pix(client, targetSystem=NATIONAL), 400, "required")
    refused(await pix(client, sourceIdentifier=[f"{MRN}|700104", f"{MRN}|700105"]), 400, "required")
    refused(await pix(client, sourceIdentifier="700104"), 400, "invalid")


async def test_any_page_may_ask_with_a_token_of_its_own_but_no_cookie(client: httpx.AsyncClient) -> None:
    asked = {"Origin": "http://viewer.example", "Access-Control-Request-Method": "GET"}
    asked["Access-Control-Request-Headers"] = "authorization,prefer"
    preflight = await client.options("/fhir/Patient", headers=asked | {"Authorization": ""})
    assert preflight.status_code == 200
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    for headers in ({"Origin": "null"}, {"Origin": "http://viewer.example", "Authorization": ""}):
        answer = await client.get("/fhir/Patient", headers=headers)
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
        assert answer.headers["cache-control"] == "no-store"
