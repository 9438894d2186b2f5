"""QIDO-RS: which studies, series and instances there are (PS3.18 10.6), and the headers of WADO-RS metadata."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from demo.imaging.archive import Archive, Instance, Series, Study

Json = dict[str, Any]

#: What studies are looked for by, as in PS3.18: by keyword or tag.
MATCHED = ("StudyInstanceUID", "AccessionNumber", "PatientID", "StudyID")
_PATIENT_AND_STUDY = (
    *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "TimezoneOffsetFromUTC"),
    *("StudyDescription", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID"),
)
_SERIES = ("Modality", "SeriesDescription", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber")
_INSTANCE = (
    *("ImageType", "SOPClassUID", "SOPInstanceUID", "InstanceNumber", "FrameTime", "SliceLocation"),
    *("PixelSpacing", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "WindowCenter", "WindowWidth", "RescaleIntercept", "RescaleSlope"),
)
#: How to answer, not what to look for. All attributes that there are come anyway, and nothing is matched fuzzily.
_ABOUT_THE_ANSWER = {"limit", "offset", "includefield", "fuzzymatching"}


def find_studies(archive: Archive, pairs: Iterable[tuple[str, str]], base: str) -> list[Json]:
    """The studies that match all of it. `base` is the service's URL, for RetrieveURL.

    Raises ValueError for what studies are not looked for by: to leave it out would find other patients' studies.
    """
    keywords = {name: name for name in MATCHED} | {f"{tag_for_keyword(name):08X}": name for name in MATCHED}
    wanted, page = [], {"limit": len(archive.studies), "offset": 0}
    for name, value in pairs:
        if name in page:
            page[name] = _number(name, value)
        elif name in keywords:
            # Several UIDs may be asked for at once; no other value has a comma in it.
            wanted.append((keywords[name], set(value.split(","))))
        elif name not in _ABOUT_THE_ANSWER:
            raise ValueError(f"studies are looked for by {', '.join(MATCHED)}, not by {name!r}")
    found = [
        study
        for study in archive.studies.values()
        if all(str(study.header.get(keyword)) in values for keyword, values in wanted)
    ]
    return [study_json(study, base) for study in found[page["offset"] :][: page["limit"]]]


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 7):
        raise ValueError(f"{name}: a number of studies")
    return int(value)


def study_json(study: Study, base: str) -> Json:
    """One study."""
    said = taken(study.header, _PATIENT_AND_STUDY)
    said.InstanceAvailability = "ONLINE"
    said.ModalitiesInStudy = sorted({str(series.header.Modality) for series in study.series.values()})
    said.NumberOfStudyRelatedSeries = len(study.series)
    said.NumberOfStudyRelatedInstances = sum(len(series.instances) for series in study.series.values())
    said.RetrieveURL = _url(study.header, base)
    return said.to_json_dict()


def series_json(series: Series, base: str) -> Json:
    """One series."""
    said = taken(series.header, _SERIES)
    said.NumberOfSeriesRelatedInstances = len(series.instances)
    said.RetrieveURL = f"{_url(series.header, base)}/series/{series.header.SeriesInstanceUID}"
    return said.to_json_dict()


def instance_json(instance: Instance, base: str) -> Json:
    """One instance, with what a viewer needs before it fetches the first image."""
    header = instance.header
    said = taken(header, _SERIES + _INSTANCE)
    said.NumberOfFrames = instance.frame_count
    series = f"{_url(header, base)}/series/{header.SeriesInstanceUID}"
    said.RetrieveURL = f"{series}/instances/{header.SOPInstanceUID}"
    return said.to_json_dict()


def metadata_json(instance: Instance) -> Json:
    """The whole header, without file meta information and pixels."""
    return instance.header.to_json_dict()


def taken(header: Dataset, keywords: Iterable[str]) -> Dataset:
    """A dataset with these attributes, as far as there are such."""
    said = Dataset()
    for keyword in keywords:
        if keyword in header:
            said[keyword] = header[keyword]
    return said


def _url(header: Dataset, base: str) -> str:
    return f"{base}/studies/{header.StudyInstanceUID}"
