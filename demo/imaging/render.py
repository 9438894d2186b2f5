"""Images for people: a frame through a window of grey values, as PNG or JPEG (PS3.3 C.11.2, PS3.18 8.3.5)."""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

from demo.imaging.archive import Instance, NotHere
from demo.imaging.sources import Pixels

FUNCTIONS = ("linear", "linear-exact", "sigmoid")
#: What center and width can be at most; more than any image has.
MOST = 1_000_000
#: Both sides of a thumbnail at most, in pixels.
THUMBNAIL = 128
_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG"}


class Window(NamedTuple):
    """Centre and width in the image's units (HU for CT), and how what lies between becomes grey."""

    center: float
    width: float
    function: str = "linear"


class Look(NamedTuple):
    """What a picture is to be. `window` None: as the image itself says. `quality` is JPEG's, 1 to 100. `size`: both
    sides at most, in pixels; None: as large as the image.
    """

    media_type: str
    window: Window | None = None
    quality: int = 85
    size: int | None = None


def read_window(text: str) -> Window:
    """`40,400,linear`. Raises ValueError with what is wrong."""
    parts = text.split(",")
    if len(parts) != 3 or parts[2] not in FUNCTIONS:
        raise ValueError(f"window: center,width,function, and that is one of {', '.join(FUNCTIONS)}")
    try:
        center, width = float(parts[0]), float(parts[1])
    except ValueError:
        raise ValueError("window: center and width are numbers") from None
    least = 1 if parts[2] == "linear" else 0.001
    if not (abs(center) <= MOST and least <= width <= MOST):
        raise ValueError(f"window: a {parts[2]} one is at least {least} wide, and no number is above {MOST}")
    return Window(center, width, parts[2])


def render(instance: Instance, frame: int, look: Look) -> bytes:
    """One frame, from 1. A colour image has no window, and is shown as it is. Raises NotHere. Computes for some tens
    of milliseconds.
    """
    if not 1 <= frame <= instance.frame_count:
        raise NotHere("this instance has no such frame")
    stored = instance.frames()[frame - 1]
    image = Image.fromarray(stored if stored.ndim == 3 else grey(instance, stored, look.window))
    if look.size:
        image.thumbnail((look.size, look.size))
    written = BytesIO()
    image.save(written, _FORMATS[look.media_type], quality=look.quality)
    return written.getvalue()


def grey(instance: Instance, stored: Pixels, window: Window | None) -> Pixels:
    """8 bits for the screen, from what is stored."""
    header = instance.header
    values = stored.astype(np.float64) * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))
    shown = through(values, window or Window(float(header.WindowCenter), float(header.WindowWidth)))
    whole: Pixels = np.rint(shown * 255).astype(np.uint8)
    return whole


def through(values: Pixels, window: Window) -> Pixels:
    """0 to 1, by the formulas of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    center, width, function = window
    if function == "sigmoid":
        # Beyond 700 e is no number any more, and the grey has long been black.
        shown: Pixels = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
        return shown
    if function == "linear-exact":
        return np.clip((values - center) / width + 0.5, 0, 1)
    # A window of width 1 is a threshold: below and at its centre less a half black, above it white.
    return np.clip((values - (center - 0.5)) / max(width - 1, 1e-9) + 0.5, 0, 1)
