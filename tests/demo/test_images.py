"""The demo's images: files that are DICOM and name nobody, stacks to scroll through, windows as the standard has them."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian

from demo.imaging import archive_for
from demo.imaging.accept import best
from demo.imaging.archive import Series
from demo.imaging.catalogue import LOCAL_IDS, RECIPES
from demo.imaging.render import Look, Window, render, through
from demo.imaging.sources import pixels
from demo.imaging.tags import study_uid
from demo.records.store import load

ARCHIVES = {name: archive_for(name) for name in LOCAL_IDS}


def archived(id_: str) -> list[Series]:
    """The series of an ImagingStudy, in the first archive that has it."""
    name = next(name for name in LOCAL_IDS if id_ in LOCAL_IDS[name])
    study = load().resolve({"reference": f"ImagingStudy/{id_}"})
    return list(ARCHIVES[name].study(study_uid(study)).series.values())


@pytest.mark.parametrize("id_", RECIPES)
def test_a_file_is_dicom_and_names_nobody_but_the_invented_patient(id_: str) -> None:
    for series in archived(id_):
        first = next(iter(series.instances.values()))
        read = pydicom.dcmread(BytesIO(first.file()))
        assert read.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID
        assert np.array_equal(read.pixel_array.reshape(first.frames().shape), first.frames())
        assert read.ImageType == ["DERIVED", "SECONDARY"]
        assert not any(element.tag.is_private for element in read)
        for keyword in ("InstitutionName", "InstitutionAddress", "StationName", "OperatorsName", "DeviceSerialNumber"):
            assert keyword not in read
        uids = [read.StudyInstanceUID, read.SeriesInstanceUID, *series.instances]
        assert all(len(uid) <= 64 and UID(uid).is_valid for uid in uids)


@pytest.mark.parametrize(("id_", "rows"), [("study-5", 60), ("study-6", 106)])
def test_what_a_scanner_burned_in_about_a_hospital_is_black(id_: str, rows: int) -> None:
    first = next(iter(archived(id_)[0].instances.values())).frames()
    assert not first[:, :rows].any()
    assert first[:, rows:].any()


@pytest.mark.parametrize("id_", [id_ for id_ in RECIPES if id_ != "study-4"])
def test_scrolling_shows_something_else_at_each_step(id_: str) -> None:
    for series in archived(id_):
        shown = [render(each, 1, Look("image/png")) for each in series.instances.values()]
        assert len(shown) >= 10
        assert all(one != other for one, other in pairwise(shown))


def test_a_cine_moves() -> None:
    """A frame of the example may repeat the one before."""
    (cine,) = archived("study-4")[0].instances.values()
    assert cine.frame_count == 30
    assert len({render(cine, frame, Look("image/png")) for frame in range(1, 31)}) > 15


def test_windows_are_those_of_the_standard() -> None:
    """PS3.3 C.11.2.1.2: center 2048 and width 4096 map 0..4095 to the whole range; width 1 is a threshold."""
    whole = through(np.array([-5, 0, 4095, 5000]), Window(2048, 4096))
    assert whole.tolist() == [0, 0, 1, 1]
    assert through(np.array([99, 100]), Window(100, 1)).tolist() == [0, 1]
    assert through(np.array([0, 50, 100]), Window(50, 100, "linear-exact")).tolist() == [0, 0.5, 1]
    sigmoid = through(np.array([-1e6, 0, 50, 100, 1e6]), Window(50, 0.001, "sigmoid"))
    assert sigmoid[2] == 0.5
    assert sigmoid[[0, 1]].max() < 1e-9
    assert sigmoid[[3, 4]].min() > 1 - 1e-9


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("*/*", "image/jpeg"),
        ("", "image/jpeg"),
        ("image/*", "image/jpeg"),
        ("image/avif,image/webp,image/png,image/*;q=0.8,*/*;q=0.5", "image/png"),
        ("IMAGE/PNG;q=0.5, image/jpeg;q=0.4", "image/png"),
        ('x/y;note="a,image/png", image/jpeg', "image/jpeg"),
        ("image/png;q=much", None),
        ("text/*", None),
    ],
)
def test_the_media_type_is_what_the_client_likes_best(accept: str, chosen: str | None) -> None:
    assert best(accept, ("image/jpeg", "image/png")) == chosen


def test_starting_decodes_nothing() -> None:
    pixels.cache_clear()
    for name in LOCAL_IDS:
        archive_for(name)
    assert pixels.cache_info().misses == 0
    next(iter(archived("study-1")[0].instances.values())).frames()
    assert pixels.cache_info().misses == 1


def test_there_are_two_archives() -> None:
    with pytest.raises(KeyError):
        archive_for("elsewhere")
