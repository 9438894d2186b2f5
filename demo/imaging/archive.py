"""An archive: studies, series and instances. Headers are in memory, pixels are made on request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from demo.imaging.catalogue import LOCAL_IDS, RECIPES, Recipe
from demo.imaging.sources import Pixels
from demo.imaging.stacks import frames
from demo.imaging.tags import instance_tags, study_tags
from demo.records.store import Resource, Store, load


class NotHere(LookupError):
    """The archive has no such study, series, instance or frame. `str(error)` says which."""


@dataclass(frozen=True)
class Instance:
    """An image. Do not change `header`."""

    header: Dataset
    recipe: Recipe

    @property
    def frame_count(self) -> int:
        """The number of frames."""
        return int(self.header.get("NumberOfFrames", 1))

    def frames(self) -> Pixels:
        """All frames, as stored. Takes some tens of milliseconds."""
        return frames(self.recipe, int(self.header.InstanceNumber))

    def file(self) -> bytes:
        """The image as a DICOM file, Explicit VR Little Endian. Takes as long as `frames`."""
        whole = Dataset()
        whole.update(self.header)
        whole.file_meta = FileMetaDataset()
        whole.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = self.frames().tobytes()
        whole.PixelData = data + b"\0" * (len(data) % 2)
        whole["PixelData"].VR = "OW" if whole.BitsAllocated > 8 else "OB"
        written = BytesIO()
        whole.save_as(written, enforce_file_format=True)
        return written.getvalue()


@dataclass(frozen=True)
class Series:
    """Its instances by SOP Instance UID, in the order of their numbers, at least one."""

    instances: dict[str, Instance]

    @property
    def header(self) -> Dataset:
        """Of the first instance."""
        return next(iter(self.instances.values())).header

    def instance(self, uid: str) -> Instance:
        """Raises NotHere."""
        if uid not in self.instances:
            raise NotHere("this series has no such instance")
        return self.instances[uid]


@dataclass(frozen=True)
class Study:
    """Its series by Series Instance UID, in the order of their numbers, at least one."""

    series: dict[str, Series]

    @property
    def header(self) -> Dataset:
        """Of the first instance."""
        return next(iter(self.series.values())).header

    def one_series(self, uid: str) -> Series:
        """Raises NotHere."""
        if uid not in self.series:
            raise NotHere("this study has no such series")
        return self.series[uid]


class Archive:
    """Studies by Study Instance UID."""

    def __init__(self, studies: Iterable[Study]) -> None:
        self.studies = {str(study.header.StudyInstanceUID): study for study in studies}

    def study(self, uid: str) -> Study:
        """Raises NotHere."""
        if uid not in self.studies:
            raise NotHere("this archive has no such study")
        return self.studies[uid]


def archive_for(name: str) -> Archive:
    """One of the demo's archives, "pacs" or "second-opinion". Raises KeyError for another name."""
    store = load()
    return Archive(_study(store, id_, local_id) for id_, local_id in LOCAL_IDS[name].items())


def _study(store: Store, id_: str, local_id: str) -> Study:
    study = store.resolve({"reference": f"ImagingStudy/{id_}"})
    common = study_tags(study, store.resolve(study["subject"]), local_id)
    made = (_series(common, series, recipe) for series, recipe in zip(study["series"], RECIPES[id_], strict=True))
    return Study({str(series.header.SeriesInstanceUID): series for series in made})


def _series(common: Dataset, series: Resource, recipe: Recipe) -> Series:
    headers = [instance_tags(common, series, recipe, number) for number in range(1, recipe.slices + 1)]
    return Series({str(header.SOPInstanceUID): Instance(header, recipe) for header in headers})
