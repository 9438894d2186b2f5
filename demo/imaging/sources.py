"""The example images of pydicom, read and decoded, without a download."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

#: Frames, rows, columns, and three samples for a colour image.
Pixels = NDArray[Any]

_FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"

#: Attributes that are copied: how the image was made. Names of patients, hospitals and devices are left out.
_TECHNICAL = (
    *(
        "SOPClassUID",
        "NumberOfFrames",
        "BodyPartExamined",
        "SliceThickness",
        "KVP",
        "ScanningSequence",
        "SequenceVariant",
    ),
    *("MRAcquisitionType", "RepetitionTime", "EchoTime", "FlipAngle", "MagneticFieldStrength", "PatientPosition"),
    *("FrameTime", "PixelSpacing", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "RescaleIntercept", "RescaleSlope", "LossyImageCompression"),
)


@cache
def header(file: str) -> Dataset:
    """How this image was made, with its pixels as `pixels` returns them. Do not change it."""
    read = pydicom.dcmread(_FOLDER / file, stop_before_pixels=True)
    taken = Dataset()
    for keyword in _TECHNICAL:
        if keyword in read:
            taken[keyword] = read[keyword]
    if read.PhotometricInterpretation not in {"MONOCHROME1", "MONOCHROME2"}:
        taken.PhotometricInterpretation, taken.SamplesPerPixel, taken.PlanarConfiguration = "RGB", 3, 0
        taken.BitsAllocated, taken.BitsStored, taken.HighBit = 8, 8, 7
    return taken


@cache
def pixels(file: str) -> Pixels:
    """All frames, colour as RGB of 8 bits. Takes some tens of milliseconds the first time."""
    read = pydicom.dcmread(_FOLDER / file)
    decoded = read.pixel_array
    if read.PhotometricInterpretation == "PALETTE COLOR":
        decoded = (apply_color_lut(decoded, read) >> 8).astype(np.uint8)
    shape = [int(read.get("NumberOfFrames", 1)), read.Rows, read.Columns]
    if header(file).SamplesPerPixel == 3:
        shape.append(3)
    shaped = decoded.reshape(shape)
    shaped.flags.writeable = False
    return shaped
