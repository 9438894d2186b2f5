"""Rendering: a frame through a window of grey values, as PNG or JPEG (PS3.3 C.11.2, PS3.18 8.3.5)."""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

from demo.imaging.archive import Instance, NotHere
from demo.imaging.sources import Pixels

FUNCTIONS = ("linear", "linear-exact", "sigmoid")
#: Largest center and width; more than any image has.
MOST = 1_000_000
#: Both sides of a thumbnail at most, in pixels.
THUMBNAIL = 128
_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG"}


class Window(NamedTuple):
    """Centre and width in the image's units (HU for CT), and the function between them."""

    center: float
    width: float
    function: str = "linear"


class Look(NamedTuple):
    """Rendering options. `window` None: as the image says. `quality`: JPEG's, 1 to 100. `size`: both sides at most, in
    pixels. None: as large as the image.
    """

    media_type: str
    window: Window | None = None
    quality: int = 85
    size: int | None = None


def read_window(text: str) -> Window:
    """Reads `40,400,linear`. Raises ValueError with the fault."""
    parts = text.split(",")
    if len(parts) != 3 or parts[2] not in FUNCTIONS:
        raise ValueError(f"window must be center,width,function, with a function of {', '.join(FUNCTIONS)}")
    try:
        center, width = float(parts[0]), float(parts[1])
    except ValueError:
        raise ValueError("window: center and width must be numbers") from None
    least = 1 if parts[2] == "linear" else 0.001
    if not (abs(center) <= MOST and least <= width <= MOST):
        raise ValueError(f"window: width must be at least {least} for {parts[2]}, and no number may exceed {MOST}")
    return Window(center, width, parts[2])


def render(instance: Instance, frame: int, look: Look) -> bytes:
    """One frame, from 1. A colour image has no window. Raises NotHere. Takes some tens of milliseconds."""
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
    """8 bits for the screen, from the stored values."""
    header = instance.header
    values = stored.astype(np.float64) * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))
    shown = through(values, window or Window(float(header.WindowCenter), float(header.WindowWidth)))
    whole: Pixels = np.rint(shown * 255).astype(np.uint8)
    return whole


def through(values: Pixels, window: Window) -> Pixels:
    """0 to 1, by the formulas of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    center, width, function = window
    if function == "sigmoid":
        # Above 700 the exponential overflows, and the grey is black anyway.
        shown: Pixels = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
        return shown
    if function == "linear-exact":
        return np.clip((values - center) / width + 0.5, 0, 1)
    # A window of width 1 is a threshold: black up to its centre minus a half, white above.
    return np.clip((values - (center - 0.5)) / max(width - 1, 1e-9) + 0.5, 0, 1)
