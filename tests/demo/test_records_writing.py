"""What is signed is kept by the demo's records: all of it or nothing, by whoever may, and nothing of another patient."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fhir.resources.R4B import get_fhir_model_class
from starlette.applications import Starlette
from starlette.routing import Mount

from demo.records import make_app, writing

READS, WRITES = "user/*.read", "user/DiagnosticReport.cu user/Observation.cu"
PATIENT, STUDY = "Patient/patient-1", "ImagingStudy/study-1"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """One that may read and write: its token is its scopes."""

    async def verify(token: str) -> dict[str, Any]:
        return {"scope": token}

    transport = httpx.ASGITransport(Starlette(routes=[Mount("/fhir", make_app(verify))]))
    headers = {"Authorization": f"Bearer {READS} {WRITES}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://records.example", headers=headers) as http:
        yield http


def report(id_: str = "r1", **members: Any) -> dict[str, Any]:
    return {
        "resourceType": "DiagnosticReport",
        "id": id_,
        "status": "final",
        "code": {"text": "CT head"},
        "subject": {"reference": PATIENT},
        "imagingStudy": [{"reference": STUDY}],
    } | members


def observation(id_: str = "o1", **members: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": id_,
        "status": "final",
        "code": {"text": "Length"},
        "subject": {"reference": PATIENT},
        "derivedFrom": [{"reference": STUDY}],
        "valueQuantity": {"value": 12.5, "unit": "mm"},
    } | members


def put(resource: Any, **request: Any) -> dict[str, Any]:
    """An entry."""
    url = f"{resource['resourceType']}/{resource['id']}"
    return {"fullUrl": f"http://records.example/fhir/{url}", "resource": resource, "request": {"method": "PUT", "url": url} | request}  # fmt: skip


async def save(client: httpx.AsyncClient, *entries: Any, **more: Any) -> httpx.Response:
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}
    headers = {"Content-Type": "application/fhir+json", **more}
    return await client.post("/fhir/", content=json.dumps(bundle), headers=headers)


async def saved(client: httpx.AsyncClient, *entries: Any) -> list[dict[str, Any]]:
    """The responses; the Bundle is valid."""
    answer = await save(client, *entries)
    assert answer.status_code == 200, answer.text
    get_fhir_model_class("Bundle").model_validate_json(answer.content)
    assert answer.json()["type"] == "transaction-response"
    return [entry["response"] for entry in answer.json()["entry"]]


async def refused(client: httpx.AsyncClient, status: int, *entries: Any, **more: Any) -> str:
    """The reason. Nothing is kept."""
    answer = await save(client, *entries, **more)
    assert answer.status_code == status, answer.text
    get_fhir_model_class("OperationOutcome").model_validate_json(answer.content)
    assert (await client.get("/fhir/Observation/o1")).status_code == 404
    (issue,) = answer.json()["issue"]
    return f"{issue['code']}: {issue['diagnostics']}"


async def test_a_report_and_its_measurements_are_kept_and_found(client: httpx.AsyncClient) -> None:
    signed = report(result=[{"reference": "Observation/o1"}], conclusion="Nothing new.")
    responses = await saved(client, put(signed, ifNoneMatch="*"), put(observation()))
    assert [(each["status"], each["etag"]) for each in responses] == [("201 Created", 'W/"1"')] * 2
    answer = await client.get("/fhir/DiagnosticReport/r1")
    assert answer.headers["etag"] == 'W/"1"'
    kept = answer.json()
    assert kept.pop("meta") == {"versionId": "1", "lastUpdated": responses[0]["lastModified"]}
    assert kept == signed
    for query in ("patient=patient-1", f"derived-from={STUDY}", "derived-from=study-1", "_id=o1"):
        found = (await client.get(f"/fhir/Observation?{query}")).json()
        get_fhir_model_class("Bundle").model_validate(found)
        assert [entry["resource"]["id"] for entry in found["entry"]] == ["o1"], query
    assert (await client.get("/fhir/Observation?derived-from=study-2")).json()["total"] == 0


async def test_each_server_has_records_of_its_own(client: httpx.AsyncClient) -> None:
    await saved(client, put(report("report-1")))

    async def verify(_: str) -> dict[str, Any]:
        return {"scope": READS}

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(make_app(verify)), base_url="http://other.example"
    ) as other:
        found = (await other.get("/DiagnosticReport/report-1", headers={"Authorization": "Bearer x"})).json()
    assert found["status"] == "preliminary"


async def test_a_repeat_is_as_good_as_kept(client: httpx.AsyncClient) -> None:
    """Whoever got no answer sends it again, and nothing changes."""
    entries = [put(report(), ifNoneMatch="*"), put(observation(), ifNoneMatch="*")]
    first = await saved(client, *entries)
    again = await saved(client, *entries)
    assert [each["status"] for each in again] == ["200 OK"] * 2
    assert [each["etag"] for each in again] == [each["etag"] for each in first]


async def test_what_is_signed_changes_by_an_amendment_alone(client: httpx.AsyncClient) -> None:
    await saved(client, put(report()))
    for status in ("final", "preliminary"):
        other = report(status=status, conclusion="Something else.")
        assert "signed already" in await refused(client, 409, put(other), put(observation()))
    (response,) = await saved(client, put(report(status="amended", conclusion="More."), ifMatch='W/"1"'))
    assert response["etag"] == 'W/"2"'


async def test_a_version_that_is_not_the_newest_is_refused(client: httpx.AsyncClient) -> None:
    """The demo's own reports have version 1."""
    assert "conflict" in await refused(client, 412, put(report("report-1"), ifMatch='W/"2"'), put(observation()))
    assert "conflict" in await refused(client, 412, put(report("report-1"), ifNoneMatch="*"), put(observation()))
    assert "conflict" in await refused(client, 412, put(observation(), ifMatch='W/"1"'))
    assert "ifMatch" in await refused(client, 400, put(observation(), ifMatch="1"))
    (response,) = await saved(client, put(report("report-1", status="preliminary"), ifMatch='W/"1"'))
    assert response["etag"] == 'W/"2"'


async def test_of_two_who_sign_at_once_one_is_told(client: httpx.AsyncClient) -> None:
    one, other = (put(report("report-1", conclusion=text), ifMatch='W/"1"') for text in ("one", "other"))
    answers = await asyncio.gather(save(client, one), save(client, other))
    assert sorted(answer.status_code for answer in answers) == [200, 409]


@pytest.mark.parametrize(
    ("scopes", "type_"),
    [
        (READS, "DiagnosticReport"),
        ("user/*.rs user/DiagnosticReport.cu", "Observation"),
        ("user/*.read user/Observation.write user/DiagnosticReport.u", "DiagnosticReport"),
        ("user/*.read patient/*.cu", "DiagnosticReport"),
        ("user/*.read", "Observation"),
    ],
)
async def test_only_who_may_write_a_type_writes_it(client: httpx.AsyncClient, scopes: str, type_: str) -> None:
    resource = report() if type_ == "DiagnosticReport" else observation()
    assert type_ in await refused(client, 403, put(resource), Authorization=f"Bearer {scopes}")


@pytest.mark.parametrize("path", ["Patient/patient-1", "Patient", "Patient/$ihe-pix", "Observation"])
async def test_only_who_may_read_a_type_reads_it(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"/fhir/{path}", headers={"Authorization": "Bearer openid user/DiagnosticReport.rs"})
    assert answer.status_code == 403
    assert answer.json()["issue"][0]["code"] == "forbidden"


OTHER = {"reference": "Patient/patient-2"}


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        (report(subject={"reference": "Patient/patient-99"}), "one known patient"),
        (report(subject={"reference": "http://elsewhere.example/Patient/patient-1"}), "one known patient"),
        (report(subject=OTHER), "one known patient"),
        (report(imagingStudy=[{"reference": "ImagingStudy/study-7"}]), "another patient"),
        (report(result=[{"reference": "Observation/o9"}]), "neither here nor"),
        (report(result="Observation/o1"), "must be a list of references"),
        (report(result=[{"display": "a result"}]), "must be a list of references"),
        (report(status="done"), "status"),
        (report(code=None), "code"),
        (report(subject=None), "subject"),
        (report(identifier=["R1"]), "identifier"),
        (report(encounter=[]), "encounter"),
        (report(encounter={"reference": 7}), "a reference must have"),
        (report(encounter={"reference": "Encounter?identifier=7"}), "a reference must have"),
    ],
)
async def test_what_does_not_fit_is_not_kept(client: httpx.AsyncClient, resource: Any, reason: str) -> None:
    """Nor is what comes with it."""
    assert reason in await refused(client, 422, put(observation()), put(resource))


@pytest.mark.parametrize(
    "members",
    [
        {"encounter": {"reference": "Encounter/encounter-3"}},
        {"imagingStudy": [{"reference": "http://records.example/fhir/ImagingStudy/study-7"}]},
        {"imagingStudy": [{"reference": "http://127.0.0.1:8000/fhir/ImagingStudy/study-7"}]},
        {"imagingStudy": [{"reference": "ImagingStudy/study-7/_history/1"}]},
        {"performer": [{"reference": "Patient/patient-2"}]},
        {"basedOn": [{"reference": "DiagnosticReport/report-2"}]},
        {"extension": [{"url": "urn:x", "extension": [{"url": "urn:y", "valueReference": OTHER}]}]},
        {"contained": [{"resourceType": "Media", "id": "m1", "subject": OTHER}]},
    ],
)
async def test_nothing_of_another_patient_gets_in_by_any_reference(
    client: httpx.AsyncClient, members: dict[str, Any]
) -> None:
    """Of whatever member, at whatever depth, and in whichever of its forms."""
    assert "another patient" in await refused(client, 422, put(observation()), put(report(**members)))


async def test_an_observation_that_is_kept_belongs_to_its_patient(client: httpx.AsyncClient) -> None:
    theirs = observation("o2", subject=OTHER, derivedFrom=[{"reference": "ImagingStudy/study-7"}])
    await saved(client, put(theirs))
    panel = observation(hasMember=[{"reference": "Observation/o2"}])
    assert "another patient" in await refused(client, 422, put(panel))


async def test_what_is_of_nobody_and_what_is_elsewhere_may_be_referred_to(client: httpx.AsyncClient) -> None:
    signed = report(
        encounter={"reference": "http://records.example/fhir/Encounter/encounter-1"},
        performer=[{"reference": "Practitioner/practitioner-1"}, {"display": "A department"}],
        resultsInterpreter=[{"reference": "https://elsewhere.example/fhir/Practitioner/p9"}],
        basedOn=[{"identifier": {"value": "A-1"}}],
        specimen=[{"reference": "#s1"}],
        media=[{"link": {"reference": "urn:uuid:c757873d-ec9a-4326-a141-556f43239520"}}],
    )
    await saved(client, put(signed | {"contained": [{"resourceType": "Specimen", "id": "s1"}]}))


async def test_two_patients_are_never_in_one_transaction(client: httpx.AsyncClient) -> None:
    other = observation("o2", subject=OTHER, derivedFrom=[{"reference": "ImagingStudy/study-7"}])
    assert "one known patient" in await refused(client, 422, put(observation()), put(other))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (put(observation(), method="POST"), "only PUT"),
        (put(observation(), url="Observation/o2"), "request.url"),
        (put(observation("o 1")), "request.url"),
        (put({"resourceType": "Patient", "id": "patient-1"}), "can be written"),
        ({"resource": observation()}, "request"),
        ({"request": {"method": "PUT", "url": "Observation/o1"}}, "resource"),
        (7, "request"),
    ],
)
async def test_what_is_no_put_is_refused(client: httpx.AsyncClient, entry: Any, reason: str) -> None:
    assert reason in await refused(client, 400, entry)


async def test_what_is_no_transaction_is_refused(client: httpx.AsyncClient) -> None:
    assert "twice" in await refused(client, 400, put(observation()), put(observation(valueInteger=1)))
    assert "at least one" in await refused(client, 400)
    many = [put(observation(f"o{number}")) for number in range(writing.MAX_ENTRIES + 1)]
    assert "at most" in await refused(client, 413, *many)
    for content in (
        "",
        "[" * 50_000,
        "[]",
        '{"resourceType": "Bundle", "type": "batch"}',
        '{"x": NaN}',
        '{"x": "\\ud800"}',
        b"\xff",
    ):
        answer = await client.post("/fhir/", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, content
    answer = await client.post("/fhir/", content="{}", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    long = await save(client, put(observation(note=[{"text": "x" * writing.MAX_BODY}])))
    assert (long.status_code, long.json()["issue"][0]["code"]) == (413, "too-costly")


async def test_there_is_an_end_to_what_is_kept(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """What replaces its earlier version takes no more room."""
    monkeypatch.setattr(writing, "MAX_KEPT", 1)
    assert "the store is full" in await refused(client, 507, put(report()), put(observation()))
    for text in ("one", "two", "three"):
        await saved(client, put(report(status="preliminary", conclusion=text)))
    assert (await save(client, put(observation()))).status_code == 507


async def test_there_is_an_end_to_its_bytes(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MAX_KEPT_BYTES", 1000)
    for text in ("x" * 600, "y" * 600):
        await saved(client, put(report(status="preliminary", conclusion=text)))
    assert "the store is full" in await refused(client, 507, put(observation(note=[{"text": "z" * 600}])))
    assert "the store is full" in await refused(client, 507, put(report(status="preliminary", conclusion="é" * 600)))


async def test_any_page_may_write_with_a_token_of_its_own(client: httpx.AsyncClient) -> None:
    asked = {"Origin": "http://reporting.example", "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization,content-type"
    preflight = await client.options("/fhir/", headers=asked | {"Authorization": ""})
    assert preflight.status_code == 200
    assert "POST" in preflight.headers["access-control-allow-methods"]


async def test_nothing_changes_its_patient(client: httpx.AsyncClient) -> None:
    """Neither what the demo brought, nor a signed report, nor a result of one."""
    await saved(client, put(report()), put(observation()))
    nothing: dict[str, Any] = {"subject": {"reference": "Patient/patient-2"}, "imagingStudy": [], "derivedFrom": []}
    for resource in (report(status="amended"), observation(status="amended"), report("report-1")):
        answer = await save(client, put({**resource, **nothing}))
        assert (answer.status_code, "has another patient" in answer.text) == (422, True), answer.text


async def test_numbers_and_statuses_that_could_not_be_given_out_again(client: httpx.AsyncClient) -> None:
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [put(observation(valueInteger=1))]}
    odd = json.dumps(bundle).replace('"valueInteger": 1', '"valueInteger": 1e999')
    headers = {"Content-Type": "application/fhir+json"}
    assert (await client.post("/fhir/", content=odd, headers=headers)).status_code == 400
    assert "status" in await refused(client, 422, put(observation(status=["final"])))
