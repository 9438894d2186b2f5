"""QIDO-RS: searches for studies, series and instances (PS3.18 10.6), and the headers of WADO-RS metadata."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from demo.imaging.archive import Archive, Instance, Series, Study

Json = dict[str, Any]

#: Attributes that studies can be searched by, as in PS3.18: by keyword or tag.
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
#: Parameters that do not search. All attributes are returned anyway, and matching is never fuzzy.
_ABOUT_THE_ANSWER = {"limit", "offset", "includefield", "fuzzymatching"}


def find_studies(archive: Archive, pairs: Iterable[tuple[str, str]], base: str) -> list[Json]:
    """The matching studies. `base`: the service's URL, for RetrieveURL.

    Raises ValueError for other attributes: ignoring one would find other patients' studies.
    """
    keywords = {name: name for name in MATCHED} | {f"{tag_for_keyword(name):08X}": name for name in MATCHED}
    wanted, page = [], {"limit": len(archive.studies), "offset": 0}
    for name, value in pairs:
        if name in page:
            page[name] = _number(name, value)
        elif name in keywords:
            # Several UIDs may come with commas. No other value contains a comma.
            wanted.append((keywords[name], set(value.split(","))))
        elif name not in _ABOUT_THE_ANSWER:
            raise ValueError(f"studies can be searched by {', '.join(MATCHED)}, not by {name!r}")
    found = [
        study
        for study in archive.studies.values()
        if all(str(study.header.get(keyword)) in values for keyword, values in wanted)
    ]
    return [study_json(study, base) for study in found[page["offset"] :][: page["limit"]]]


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 7):
        raise ValueError(f"{name} must be a number of studies")
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
    """One instance, with the attributes that a viewer needs before the first image."""
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
    """A dataset with these attributes, where they exist."""
    said = Dataset()
    for keyword in keywords:
        if keyword in header:
            said[keyword] = header[keyword]
    return said


def _url(header: Dataset, base: str) -> str:
    return f"{base}/studies/{header.StudyInstanceUID}"
