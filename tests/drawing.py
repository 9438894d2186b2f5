"""Plots as SVG, made by hand: scales, grids and the picture around them. All lengths are in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple


class LogScale(NamedTuple):
    """A logarithmic axis of so many pixels, from the least value to the most; other values are put at its ends."""

    least: float
    most: float
    pixels: float

    def along(self, value: float) -> float:
        """Pixels from the least value."""
        inside = min(max(value, self.least), self.most)
        return self.pixels * math.log(inside / self.least) / math.log(self.most / self.least)

    def down(self, value: float) -> float:
        """Pixels from the most value, which is at the top."""
        return self.pixels - self.along(value)


def rows(scale: LogScale, width: float, ticks: Iterable[tuple[float, str]]) -> str:
    """A line across for each tick, and its text to the left."""
    return "".join(
        f'<line x2="{width:g}" y1="{scale.down(tick):.1f}" y2="{scale.down(tick):.1f}" stroke="#ddd"/>'
        f'<text x="-5" y="{scale.down(tick) + 4:.1f}" text-anchor="end">{text}</text>'
        for tick, text in ticks
    )


def columns(scale: LogScale, height: float, ticks: Iterable[tuple[float, str]]) -> str:
    """A line down for each tick, and its text below."""
    return "".join(
        f'<line x1="{scale.along(tick):.1f}" x2="{scale.along(tick):.1f}" y2="{height:g}" stroke="#ddd"/>'
        f'<text x="{scale.along(tick):.1f}" y="{height + 15:g}" text-anchor="middle">{text}</text>'
        for tick, text in ticks
    )


def bound(y: float, width: float) -> str:
    """A dashed line across, for what must not be exceeded."""
    return f'<line x2="{width:g}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e80" stroke-dasharray="4"/>'


def frame(width: float, height: float) -> str:
    """The border of a plot."""
    return f'<rect width="{width:g}" height="{height:g}" fill="none" stroke="#999"/>'


def picture(width: float, height: float, content: str, font_size: int = 10) -> str:
    """The whole file, on white."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" '
        f'font-family="sans-serif" font-size="{font_size}"><rect width="100%" height="100%" fill="#fff"/>{content}</svg>\n'
    )
