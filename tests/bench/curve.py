"""Latency over the offered rate, as SVG: a colour for each server, p50 dashed and p99 solid."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape

from tests import drawing
from tests.bench import rates
from tests.bench.results import Cells

_WIDTH, _HEIGHT = 620, 360
_LEFT, _TOP, _RIGHT, _BELOW = 70, 50, 30, 50
_RATES = drawing.LogScale(80, 20_000, _WIDTH)
_MICROSECONDS = drawing.LogScale(100, 3_000_000, _HEIGHT)
_RATE_TICKS = (100, 250, 500, 1000, 2000, 4000, 8000, 16_000)
_TIME_TICKS = ((100, "0.1 ms"), (1_000, "1 ms"), (10_000, "10 ms"), (100_000, "100 ms"), (1_000_000, "1 s"))
#: Colours that stay apart for all eyes (Okabe and Ito), in the order of the servers.
_COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00")
_SHARES = {"p99": "", "p50": ' stroke-dasharray="5 3"'}


def medians(cells: Cells, server: str, share: str) -> list[tuple[int, float]]:
    """The offered rates in events/s, and the median latency at each in microseconds."""
    found = ((rate, cells.get(("R", f"r{rate}_{share}", server))) for rate in rates.RATES)
    return [(rate, statistics.median(values)) for rate, values in found if values]


def line(points: list[tuple[int, float]], color: str, dashes: str) -> str:
    """A line through the points, and a dot on each."""
    places = [(_RATES.along(rate), _MICROSECONDS.down(latency)) for rate, latency in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in places)
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8"{dashes}/>{dots}'


def legend(servers: Iterable[str]) -> Iterator[str]:
    """The servers' names in their colours, above the plot."""
    for number, name in enumerate(servers):
        x = number * 120
        yield f'<line x1="{x}" x2="{x + 18}" y1="-18" y2="-18" stroke="{_COLORS[number % len(_COLORS)]}" stroke-width="3"/>'
        yield f'<text x="{x + 23}" y="-14">{escape(name)}</text>'
    yield f'<text x="{_WIDTH}" y="-14" text-anchor="end">solid: p99; dashed: p50</text>'


def curve(cells: Cells, servers: dict[str, str]) -> str:
    """The picture. `servers` has the name of each server in the legend."""
    lines = [
        line(points, _COLORS[number % len(_COLORS)], dashes)
        for number, server in enumerate(servers)
        for share, dashes in _SHARES.items()
        if (points := medians(cells, server, share))
    ]
    limit = _MICROSECONDS.down(rates.BOUND * 1000)
    inside = [
        drawing.rows(_MICROSECONDS, _WIDTH, _TIME_TICKS),
        drawing.columns(_RATES, _HEIGHT, [(tick, f"{tick:,}") for tick in _RATE_TICKS]),
        drawing.bound(limit, _WIDTH),
        f'<text x="4" y="{limit - 4:.1f}" fill="#b50">{rates.BOUND} ms</text>',
        drawing.frame(_WIDTH, _HEIGHT),
        *lines,
        *legend(servers.values()),
        f'<text x="{_WIDTH / 2:g}" y="{_HEIGHT + 36}" text-anchor="middle">events/s, each to {rates.SUBSCRIBERS} subscribers</text>',
    ]
    moved = f'<g transform="translate({_LEFT},{_TOP})">{"".join(inside)}</g>'
    return drawing.picture(_LEFT + _WIDTH + _RIGHT, _TOP + _HEIGHT + _BELOW, moved, font_size=12)
