"""The image files of each study, and the archives that have the study, with their own ids."""

from __future__ import annotations

from typing import NamedTuple


class Recipe(NamedTuple):
    """A series from one of pydicom's example files.

    A file with a single slice becomes a stack, magnified from `zoom[0]` to `zoom[1]`. `window`: centre and width that a
    viewer shows first (HU for CT), None for colour. `blank`: rows at the top to make black, because a scanner wrote a
    hospital's name there.
    """

    file: str
    slices: int = 1
    zoom: tuple[float, float] = (1.0, 1.0)
    window: tuple[float, float] | None = None
    blank: int = 0


_HEAD, _CHEST = "J2K_pixelrep_mismatch.dcm", "CT_small.dcm"

#: By the id of the ImagingStudy: its series, in order.
RECIPES: dict[str, tuple[Recipe, ...]] = {
    "study-1": (Recipe(_HEAD, 20, (1.0, 0.72), (40, 80)), Recipe(_HEAD, 20, (1.0, 0.72), (500, 2000))),
    "study-2": (Recipe(_CHEST, 16, (1.0, 1.4), (40, 400)),),
    "study-3": (Recipe("examples_overlay.dcm", 20, (1.0, 0.84), (450, 790)),),
    "study-4": (Recipe("examples_ybr_color.dcm"),),
    "study-5": (Recipe("examples_palette.dcm", 10, (1.0, 1.12), blank=60),),
    "study-6": (Recipe("examples_jpeg2k.dcm", 10, (1.0, 1.15), blank=106),),
    "study-7": (Recipe("MR_small.dcm", 14, (1.0, 1.3), (600, 1600)),),
    "study-8": (Recipe(_CHEST, 16, (1.2, 1.7), (500, 2000)),),
    "study-9": (Recipe(_HEAD, 12, (0.92, 0.78), (40, 80)),),
}

#: By archive: its studies, with their local ids. A study in no archive is ordered and not made yet.
LOCAL_IDS: dict[str, dict[str, str]] = {
    "pacs": {
        "study-1": "PACS-100231",
        "study-2": "PACS-100232",
        "study-3": "PACS-100233",
        "study-4": "PACS-100234",
        "study-5": "PACS-100235",
        "study-6": "PACS-100236",
        "study-7": "PACS-100237",
        "study-9": "PACS-084512",
    },
    "second-opinion": {
        "study-1": "SO/1",
        "study-2": "SO/2",
        "study-3": "SO/3",
        "study-4": "SO/4",
        "study-5": "SO/5",
        "study-6": "SO/6",
        "study-7": "SO/7",
        "study-8": "SO/8",
    },
}
