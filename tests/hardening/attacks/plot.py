"""The victim's latency over time, as SVG: a panel for each attack, with the bound of its p99."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

from tests.hardening.attacks.range import Result
from tests.hardening.attacks.victim import LATE, PATIENCE

#: Pixels of a panel, and around it; panels side by side.
_WIDTH, _HEIGHT, _LEFT, _TOP, _BESIDE = 360, 130, 60, 34, 3
#: Seconds at the bottom and the top of the axis, which is logarithmic.
_LEAST, _MOST = 0.001, PATIENCE
_TICKS = (0.001, 0.01, 0.1, 1.0, 10.0)


def _height(seconds: float) -> float:
    """Pixels from the top of a panel."""
    part = math.log(max(seconds, _LEAST) / _LEAST) / math.log(_MOST / _LEAST)
    return _HEIGHT * (1 - min(part, 1.0))


def panel(title: str, result: Result) -> str:
    """One attack: a dot for each open; red is late or lost."""
    start = result.samples[0].at
    dots = []
    for sample in result.samples:
        seconds = PATIENCE if sample.seconds is None else sample.seconds
        color = "#c22" if seconds > LATE else "#247"
        x = (sample.at - start) / result.seconds * _WIDTH
        dots.append(f'<circle cx="{x:.1f}" cy="{_height(seconds):.1f}" r="1.3" fill="{color}"/>')
    lines = [
        f'<line x2="{_WIDTH}" y1="{_height(tick):.1f}" y2="{_height(tick):.1f}" stroke="#ddd"/>'
        f'<text x="-5" y="{_height(tick) + 4:.1f}" text-anchor="end">{tick * 1000:g} ms</text>'
        for tick in _TICKS
    ]
    bound = f'<line x2="{_WIDTH}" y1="{_height(result.bound):.1f}" y2="{_height(result.bound):.1f}" stroke="#e80" stroke-dasharray="4"/>'
    frame = f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#999"/>'
    return f'<text y="-8" font-weight="bold">{escape(title)}</text>{"".join(lines)}{bound}{frame}{"".join(dots)}'


def plot(results: list[tuple[str, Result]]) -> str:
    """All of them."""
    wide, high = _WIDTH + _LEFT + 20, _HEIGHT + _TOP + 10
    rows = math.ceil(len(results) / _BESIDE)
    panels = [
        f'<g transform="translate({number % _BESIDE * wide + _LEFT},{number // _BESIDE * high + _TOP})">{panel(*each)}</g>'
        for number, each in enumerate(results)
    ]
    size = f'width="{wide * _BESIDE}" height="{high * rows}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="10">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(panels)}</svg>\n'
    )
