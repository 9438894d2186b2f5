"""The demo's image archives: the patients of the records, real DICOM, pictures that change with the window."""

from __future__ import annotations

import email
import email.policy
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from starlette.applications import Starlette
from starlette.routing import Mount

from demo.imaging import archive_for, make_app, server
from demo.imaging.archive import Instance, Study
from demo.imaging.catalogue import LOCAL_IDS
from demo.imaging.render import Look, read_window
from demo.imaging.tags import identifier, study_uid
from demo.records.store import load

GOOD = "a-good-token"
BASE = "http://images.example/dicomweb"
ARCHIVES = {name: archive_for(name) for name in LOCAL_IDS}
STUDIES = {study["id"]: study for study in load().all("ImagingStudy")}
SEX = {"male": "M", "female": "F", "other": "O", "unknown": ""}


async def verify(token: str) -> dict[str, Any]:
    """Knows one token."""
    if token != GOOD:
        raise ValueError(token)
    return {}


@asynccontextmanager
async def serving(name: str = "pacs") -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Starlette(routes=[Mount("/dicomweb", make_app(ARCHIVES[name], verify))]))
    headers = {"Authorization": f"Bearer {GOOD}"}
    async with httpx.AsyncClient(transport=transport, base_url=BASE, headers=headers) as http:
        yield http


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with serving() as http:
        yield http


def archived(id_: str, name: str = "pacs") -> Study:
    return ARCHIVES[name].study(study_uid(STUDIES[id_]))


def path(id_: str, series: int = 0, instance: int = 0) -> str:
    """Where an instance is, by the id of its ImagingStudy and places from 0."""
    one = list(archived(id_).series.values())[series]
    uid = list(one.instances)[instance]
    return f"/studies/{study_uid(STUDIES[id_])}/series/{one.header.SeriesInstanceUID}/instances/{uid}"


def instances(id_: str) -> list[Instance]:
    return [each for series in archived(id_).series.values() for each in series.instances.values()]


def parsed(answer: httpx.Response) -> list[Dataset]:
    """DICOM JSON, as pydicom reads it."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom+json"
    assert answer.headers["cache-control"] == "no-store"
    return [Dataset.from_json(each) for each in answer.json()]


def opened(answer: httpx.Response, format_: str = "PNG") -> Image.Image:
    assert answer.status_code == 200, answer.text
    image = Image.open(BytesIO(answer.content))
    assert (image.format, answer.headers["content-type"]) == (format_, f"image/{format_.lower()}")
    return image


def refused(answer: httpx.Response, status: int) -> str:
    """The reason, in plain text."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    return answer.text


@pytest.mark.parametrize("name", LOCAL_IDS)
async def test_an_archive_has_the_patients_and_studies_of_the_records(name: str) -> None:
    async with serving(name) as client:
        studies = {study.StudyInstanceUID: study for study in parsed(await client.get("/studies"))}
    assert len(studies) == len(LOCAL_IDS[name])
    for id_, local_id in LOCAL_IDS[name].items():
        recorded = STUDIES[id_]
        patient = load().resolve(recorded["subject"])
        study = studies[study_uid(recorded)]
        assert study.PatientID == identifier(patient, "MR")
        assert study.PatientName.family_name == patient["name"][0]["family"]
        assert study.PatientName.given_name == patient["name"][0]["given"][0]
        assert study.PatientBirthDate == patient["birthDate"].replace("-", "")
        assert study.PatientSex == SEX[patient["gender"]]
        assert (study.AccessionNumber, study.StudyID) == (identifier(recorded, "ACSN"), local_id)
        assert study.RetrieveURL == f"{BASE}/studies/{study.StudyInstanceUID}"
        assert study.StudyDescription == recorded["description"]
        assert study.StudyDate == recorded["started"][:10].replace("-", "")
        assert study.ModalitiesInStudy == recorded["modality"][0]["code"]
        assert study.NumberOfStudyRelatedSeries == recorded["numberOfSeries"]
        assert study.NumberOfStudyRelatedInstances == recorded["numberOfInstances"]


async def test_a_chinese_name_comes_in_both_forms(client: httpx.AsyncClient) -> None:
    (study,) = parsed(await client.get("/studies", params={"PatientID": "700106"}))
    assert (study.PatientName.alphabetic, study.PatientName.ideographic) == ("Wáng^Xiǎodōng", "王^曉東")


def test_each_archive_misses_a_study_that_the_other_has_and_calls_all_by_ids_of_its_own() -> None:
    pacs, second = LOCAL_IDS["pacs"], LOCAL_IDS["second-opinion"]
    assert set(second) - set(pacs) == {"study-8"}
    assert set(pacs) - set(second) == {"study-9"}
    assert set(STUDIES) - set(pacs) - set(second) == {"study-10"}
    ids = [*pacs.values(), *second.values()]
    assert len(set(ids)) == len(ids)


async def test_series_and_instances_are_those_of_the_records(client: httpx.AsyncClient) -> None:
    for id_ in LOCAL_IDS["pacs"]:
        uid = study_uid(STUDIES[id_])
        found = parsed(await client.get(f"/studies/{uid}/series"))
        for series, recorded in zip(found, STUDIES[id_]["series"], strict=True):
            assert series.SeriesInstanceUID == recorded["uid"]
            assert series.SeriesNumber == recorded["number"]
            assert series.SeriesDescription == recorded["description"]
            assert series.Modality == recorded["modality"]["code"]
            assert series.NumberOfSeriesRelatedInstances == recorded["numberOfInstances"]
            listed = parsed(await client.get(series.RetrieveURL + "/instances"))
            assert [each.InstanceNumber for each in listed] == list(range(1, recorded["numberOfInstances"] + 1))
            assert all(each.RetrieveURL.endswith(each.SOPInstanceUID) for each in listed)


async def test_a_viewer_learns_what_it_needs_before_the_first_image(client: httpx.AsyncClient) -> None:
    (ct, *_) = parsed(await client.get(path("study-1").rpartition("/")[0]))
    assert (ct.Rows, ct.Columns, ct.NumberOfFrames) == (512, 512, 1)
    assert (ct.WindowCenter, ct.WindowWidth, ct.PixelSpacing) == (40, 80, [0.431, 0.431])
    assert (ct.Modality, ct.SeriesDescription, ct.PhotometricInterpretation) == ("CT", "Brain", "MONOCHROME2")
    (cine,) = parsed(await client.get(path("study-4").rpartition("/")[0]))
    assert (cine.Rows, cine.Columns, cine.NumberOfFrames) == (240, 320, 30)
    assert cine.PhotometricInterpretation == "RGB"
    assert "WindowCenter" not in cine


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({"AccessionNumber": "ACC261002"}, ["study-2"]),
        ({"00080050": "ACC261002"}, ["study-2"]),
        ({"StudyID": "PACS-100234"}, ["study-4"]),
        ({"PatientID": "700101"}, ["study-1", "study-9"]),
        ({"PatientID": "700101", "limit": "1"}, ["study-1"]),
        ({"PatientID": "700101", "offset": "1", "includefield": "all"}, ["study-9"]),
        ({"PatientID": "700101", "AccessionNumber": "ACC261002"}, []),
        ({"PatientID": "70010"}, []),
        (
            {"StudyInstanceUID": f"{study_uid(STUDIES['study-3'])},{study_uid(STUDIES['study-1'])}"},
            ["study-1", "study-3"],
        ),
        ({"0020000D": study_uid(STUDIES["study-8"])}, []),
        ({"0020000D": study_uid(STUDIES["study-10"])}, []),
    ],
)
async def test_studies_are_found_by(client: httpx.AsyncClient, query: dict[str, str], ids: list[str]) -> None:
    found = parsed(await client.get("/studies", params=query))
    assert [study.StudyInstanceUID for study in found] == [study_uid(STUDIES[id_]) for id_ in ids]


@pytest.mark.parametrize("query", [{"PatientName": "Haugland"}, {"patientid": "700101"}, {"limit": "all"}])
async def test_a_search_that_would_find_other_patients_is_refused(
    client: httpx.AsyncClient, query: dict[str, str]
) -> None:
    assert next(iter(query)) in refused(await client.get("/studies", params=query), 400)


async def test_the_window_changes_the_picture(client: httpx.AsyncClient) -> None:
    where = path("study-1") + "/rendered"
    accept = {"Accept": "image/png"}
    own = opened(await client.get(where, headers=accept))
    assert (own.size, own.mode) == ((512, 512), "L")
    same = opened(await client.get(where + "?window=40,80,linear", headers=accept))
    assert np.array_equal(np.asarray(own), np.asarray(same))
    windows = ("500,2000,linear", "40,80,sigmoid", "40,400,linear-exact")
    answers = [await client.get(f"{where}?window={window}", headers=accept) for window in windows]
    shown = [np.asarray(own), *(np.asarray(opened(answer)) for answer in answers)]
    for number, one in enumerate(shown):
        assert all(not np.array_equal(one, other) for other in shown[number + 1 :])
    stored = instances("study-1")[0].frames()[0]
    assert (shown[0][stored <= 0] == 0).all()
    assert (shown[0][stored >= 80] == 255).all()


@pytest.mark.parametrize(
    "window",
    [
        *("", "40", "40,400", "40,400,cubic", "a,400,linear", "40,0,linear", "40,0.5,linear", "40,0,sigmoid"),
        *("40,-1,linear-exact", "nan,400,linear", "40,inf,linear", "1e300,1,linear", "40,400,linear,1"),
    ],
)
async def test_a_window_that_is_none_is_refused(client: httpx.AsyncClient, window: str) -> None:
    with pytest.raises(ValueError, match="window"):
        read_window(window)
    answer = await client.get(path("study-1") + "/rendered", params={"window": window})
    assert "window" in refused(answer, 400)


async def test_a_jpeg_is_smaller_where_its_quality_is(client: httpx.AsyncClient) -> None:
    where = path("study-6") + "/rendered"
    good = await client.get(where + "?quality=95", headers={"Accept": "image/jpeg"})
    poor = await client.get(where + "?quality=10", headers={"Accept": "image/jpeg"})
    assert opened(good, "JPEG").size == opened(poor, "JPEG").size == (640, 480)
    assert opened(good, "JPEG").mode == "RGB"
    assert len(poor.content) < len(good.content)
    for quality in ("0", "101", "best", "0100000", "-5", ""):
        assert "quality" in refused(await client.get(where, params={"quality": quality}), 400)
    assert "viewport" in refused(await client.get(where + "?viewport=64,64"), 400)


async def test_each_frame_of_a_cine_is_there_and_no_other(client: httpx.AsyncClient) -> None:
    where = path("study-4")
    accept = {"Accept": "image/png"}
    first = opened(await client.get(f"{where}/frames/1/rendered", headers=accept))
    last = opened(await client.get(f"{where}/frames/30/rendered", headers=accept))
    assert first.mode == "RGB"
    assert not np.array_equal(np.asarray(first), np.asarray(last))
    whole = opened(await client.get(f"{where}/rendered", headers=accept))
    assert np.array_equal(np.asarray(first), np.asarray(whole))
    for frame in (0, 31):
        assert "frame" in refused(await client.get(f"{where}/frames/{frame}/rendered", headers=accept), 404)


@pytest.mark.parametrize("id_", LOCAL_IDS["pacs"])
async def test_a_thumbnail_is_small(client: httpx.AsyncClient, id_: str) -> None:
    answer = await client.get(f"/studies/{study_uid(STUDIES[id_])}/thumbnail")
    assert 0 < max(opened(answer, "JPEG").size) <= 128


async def test_an_instance_is_retrieved_as_the_client_likes(client: httpx.AsyncClient) -> None:
    where = path("study-3", instance=5)
    answer = await client.get(where, headers={"Accept": 'multipart/related; type="application/dicom"'})
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    (part,) = email.message_from_bytes(head + answer.content, policy=email.policy.default).iter_parts()
    assert part.get_content_type() == "application/dicom"
    alone = await client.get(where, headers={"Accept": "application/dicom"})
    assert alone.headers["content-type"] == "application/dicom"
    assert alone.content in answer.content
    assert pydicom.dcmread(BytesIO(alone.content)).InstanceNumber == 6
    assert (await client.get(where)).headers["content-type"].startswith("multipart/related")


async def test_metadata_is_the_header_of_the_file(client: httpx.AsyncClient) -> None:
    (said,) = parsed(await client.get(path("study-2") + "/metadata"))
    read = pydicom.dcmread(
        BytesIO((await client.get(path("study-2"), headers={"Accept": "application/dicom"})).content)
    )
    del read.PixelData
    assert json.loads(said.to_json()) == json.loads(read.to_json())


@pytest.mark.parametrize(
    ("end", "accept"),
    [
        ("/rendered", "image/webp"),
        ("/rendered", "image/png;q=0"),
        ("", "application/json"),
        ("", 'multipart/related; type="application/octet-stream"'),
        ("", "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.50"),
        ("/metadata", 'multipart/related; type="application/dicom+xml"'),
    ],
)
async def test_what_cannot_be_given_is_not_acceptable(client: httpx.AsyncClient, end: str, accept: str) -> None:
    assert "Accept must allow" in refused(await client.get(path("study-2") + end, headers={"Accept": accept}), 406)


async def test_what_the_archive_has_not_is_not_found(client: httpx.AsyncClient) -> None:
    unknown = f"/studies/{study_uid(STUDIES['study-8'])}"
    for end in ("/series", "/thumbnail", "/series/1.2/instances", "/series/1.2/instances/1.3/rendered"):
        assert "no such study" in refused(await client.get(unknown + end), 404)
    study = f"/studies/{study_uid(STUDIES['study-1'])}"
    assert "no such series" in refused(await client.get(study + "/series/1.2/instances"), 404)
    one, _, _ = path("study-1").rpartition("/")
    assert "no such instance" in refused(await client.get(one + "/1.3"), 404)
    # Of the same study, but another series.
    other = path("study-1", series=1).rpartition("/")[2]
    assert "no such instance" in refused(await client.get(f"{one}/{other}/rendered"), 404)
    refused(await client.get("/elsewhere"), 404)
    refused(await client.post("/studies"), 405)


@pytest.mark.parametrize("authorization", ["", f"Bearer x{GOOD}"])
@pytest.mark.parametrize("end", ["", "/rendered", "/metadata"])
async def test_whoever_has_no_good_token_sees_nothing(client: httpx.AsyncClient, authorization: str, end: str) -> None:
    for where in ("/studies", path("study-1") + end):
        answer = await client.get(where, headers={"Authorization": authorization, "Origin": "http://viewer.example"})
        refused(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["cache-control"] == "no-store"


async def test_pictures_are_kept_by_their_reader_alone_and_files_by_nobody(client: httpx.AsyncClient) -> None:
    picture = await client.get(path("study-2") + "/rendered")
    assert picture.headers["cache-control"] == "private, max-age=3600"
    assert {"Accept", "Authorization"} <= set(picture.headers["vary"].split(", "))
    assert (await client.get(path("study-2"))).headers["cache-control"] == "no-store"


class Counted:
    """Stands in for `render`: what it was asked, and in which threads."""

    def __init__(self) -> None:
        self.looks: list[Look] = []
        self.threads: set[int] = set()

    def __call__(self, instance: Instance, frame: int, look: Look) -> bytes:
        self.looks.append(look)
        self.threads.add(threading.get_ident())
        return b"picture"


async def test_pictures_are_made_beside_the_event_loop_once_and_not_kept_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = Counted()
    monkeypatch.setattr(server, "render", counted)
    where = path("study-2") + "/rendered?window={},400,linear"
    async with serving() as client:
        for _ in range(3):
            assert (await client.get(where.format(0))).content == b"picture"
        assert len(counted.looks) == 1
        assert threading.get_ident() not in counted.threads
        for center in range(1, server.KEPT_PICTURES + 1):
            await client.get(where.format(center))
        await client.get(where.format(0))
    assert len(counted.looks) == server.KEPT_PICTURES + 2
