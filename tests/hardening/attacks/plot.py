"""The victim's latency over time, as SVG: a panel for each attack, with the bound of its p99."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

from tests.drawing import LogScale, bound, frame, picture, rows
from tests.hardening.attacks.range import Result
from tests.hardening.attacks.victim import LATE, PATIENCE

#: Pixels of a panel, and around it; panels side by side.
_WIDTH, _HEIGHT, _LEFT, _TOP, _BESIDE = 360, 130, 60, 34, 3
#: Seconds at the bottom and the top of the axis, which is logarithmic.
_LEAST, _MOST = 0.001, PATIENCE
_TICKS = (0.001, 0.01, 0.1, 1.0, 10.0)
_SECONDS = LogScale(_LEAST, _MOST, _HEIGHT)


def panel(title: str, result: Result) -> str:
    """One attack: a dot for each open; red is late or lost."""
    start = result.samples[0].at
    dots = []
    for sample in result.samples:
        seconds = PATIENCE if sample.seconds is None else sample.seconds
        color = "#c22" if seconds > LATE else "#247"
        x = (sample.at - start) / result.seconds * _WIDTH
        dots.append(f'<circle cx="{x:.1f}" cy="{_SECONDS.down(seconds):.1f}" r="1.3" fill="{color}"/>')
    lines = rows(_SECONDS, _WIDTH, [(tick, f"{tick * 1000:g} ms") for tick in _TICKS])
    inside = f"{lines}{bound(_SECONDS.down(result.bound), _WIDTH)}{frame(_WIDTH, _HEIGHT)}{''.join(dots)}"
    return f'<text y="-8" font-weight="bold">{escape(title)}</text>{inside}'


def plot(results: list[tuple[str, Result]]) -> str:
    """All of them."""
    wide, high = _WIDTH + _LEFT + 20, _HEIGHT + _TOP + 10
    rows_of_panels = math.ceil(len(results) / _BESIDE)
    panels = [
        f'<g transform="translate({number % _BESIDE * wide + _LEFT},{number // _BESIDE * high + _TOP})">{panel(*each)}</g>'
        for number, each in enumerate(results)
    ]
    return picture(wide * _BESIDE, high * rows_of_panels, "".join(panels))
