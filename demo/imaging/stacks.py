"""Makes a stack from a single slice, so that users can scroll."""

from __future__ import annotations

import numpy as np
from PIL import Image

from demo.imaging.catalogue import Recipe
from demo.imaging.sources import Pixels, pixels


def frames(recipe: Recipe, number: int) -> Pixels:
    """The frames of slice `number`, from 1: the file's own, magnified about their middle."""
    source = pixels(recipe.file)
    if recipe.blank:
        source = source.copy()
        source[:, : recipe.blank] = 0
    if (zoom := zoom_of(recipe, number)) == 1.0:
        return source
    return np.stack([magnified(frame, zoom) for frame in source])


def zoom_of(recipe: Recipe, number: int) -> float:
    """From the recipe's first to its last zoom, in even steps."""
    first, last = recipe.zoom
    return first + (last - first) * (number - 1) / max(recipe.slices - 1, 1)


def magnified(frame: Pixels, zoom: float) -> Pixels:
    """The frame magnified about its middle, bilinear. The outside gets the frame's least value."""
    rows, columns = frame.shape[:2]
    outside: float | tuple[int, ...] = (0, 0, 0)
    if frame.ndim == 2:
        outside = float(frame.min())
    image = Image.fromarray(frame if frame.ndim == 3 else frame.astype(np.float32))
    back = 1 / zoom
    affine = (back, 0.0, columns / 2 * (1 - back), 0.0, back, rows / 2 * (1 - back))
    moved = image.transform(
        (columns, rows), Image.Transform.AFFINE, affine, resample=Image.Resampling.BILINEAR, fillcolor=outside
    )
    whole: Pixels = np.rint(np.asarray(moved)).astype(frame.dtype)
    return whole
