"""docs/pictures/rooms.svg: the rooms of the hub, floor by floor, and what each imports. GitHub and the site show the picture."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from tools.architecture import Graph, between_rooms, drawn_arrows, floors

#: Pixels: of a letter, between two rooms, of a room's height, and from one floor to the next.
_LETTER, _GAP, _HEIGHT, _FLOOR = 7.4, 22.0, 26.0, 66.0
_MARGIN = 16.0
#: Of the picture at least.
_WIDTH = 780.0
#: Sweeps that move each room towards the rooms that it is joined to.
_SWEEPS = 12

_STYLE = (
    "text{font:13px system-ui,sans-serif;text-anchor:middle;fill:#1f2328}rect{fill:#fff;stroke:#57606a}"
    ".core{fill:#ddf4ff;stroke:#0969da}path{fill:none;stroke:#57606a;stroke-opacity:.55}#arrow path{stroke-opacity:1}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}rect{fill:#21262d;stroke:#8b949e}"
    ".core{fill:#0c2d6b;stroke:#58a6ff}path{stroke:#8b949e}}"
)


def picture() -> str:
    """The picture, as the text of an SVG file."""
    rooms = between_rooms()
    arrows = drawn_arrows(rooms)
    rows = _ordered([sorted(floor) for floor in reversed(floors(rooms))], arrows)
    width = max(_WIDTH, *(sum(map(_width, row)) + _GAP * (len(row) - 1) + 2 * _MARGIN for row in rows))
    places = {room: place for number, row in enumerate(rows) for room, place in _placed(row, number, width)}
    height = _MARGIN * 2 + _FLOOR * (len(rows) - 1) + _HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="The rooms of the hub, and what each imports">',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0,0 L7,4 L0,8"/></marker></defs>',
        *(_arrow(places[room], places[other]) for row in rows for room in row for other in sorted(arrows[room])),
        *(shape for room, place in places.items() for shape in _box(room, *place)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _width(room: str) -> float:
    return len(_name(room)) * _LETTER + 18


def _name(room: str) -> str:
    return room.partition(".")[2] or room


def _ordered(rows: list[list[str]], arrows: Graph) -> list[list[str]]:
    """The rows, each ordered by the mean place of the rooms that its rooms are joined to. Few arrows then cross."""
    joined: Graph = {room: set(others) for room, others in arrows.items()}
    for room, others in arrows.items():
        for other in others:
            joined[other].add(room)
    for _ in range(_SWEEPS):
        places = {room: (n + 0.5) / len(row) for row in rows for n, room in enumerate(row)}
        rows = [sorted(row, key=lambda room: (_mean(places[room], joined[room], places), room)) for row in rows]
    return rows


def _mean(own: float, others: Iterable[str], places: dict[str, float]) -> float:
    found = [places[other] for other in others]
    return round(sum(found) / len(found), 6) if found else own


def _placed(row: list[str], number: int, width: float) -> list[tuple[str, tuple[float, float]]]:
    """The middle of each room of a row, which stands in the middle of the picture."""
    gap = _GAP
    if len(row) > 1:
        gap = max(_GAP, min(140.0, (width - 2 * _MARGIN - sum(map(_width, row))) / (len(row) - 1)))
    x = (width - sum(map(_width, row)) - gap * (len(row) - 1)) / 2
    found = []
    for room in row:
        found.append((room, (x + _width(room) / 2, _MARGIN + _HEIGHT / 2 + number * _FLOOR)))
        x += _width(room) + gap
    return found


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x, y), (to_x, to_y) = start, end
    y, to_y = y + _HEIGHT / 2, to_y - _HEIGHT / 2
    middle = (to_y - y) / 2
    return (
        f'<path marker-end="url(#arrow)" d="M{x:.0f},{y:.0f} C{x:.0f},{y + middle:.0f} '
        f'{to_x:.0f},{to_y - middle:.0f} {to_x:.0f},{to_y:.0f}"/>'
    )


def _box(room: str, x: float, y: float) -> list[str]:
    width, kind = _width(room), ' class="core"' if room.startswith("core.") else ""
    return [
        f'<rect{kind} x="{x - width / 2:.0f}" y="{y - _HEIGHT / 2:.0f}" width="{width:.0f}" height="{_HEIGHT:.0f}" rx="5"/>',
        f'<text x="{x:.0f}" y="{y + 4.5:.0f}">{escape(_name(room))}</text>',
    ]
