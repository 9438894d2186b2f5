"""Draws a sequence diagram as SVG, from the part of Mermaid's language that the pages use.

GitHub draws Mermaid itself. The site must load nothing from other hosts, and Mermaid is a script of three megabytes.
`tools/site.py` therefore draws the diagrams while it builds the site. The pictures take their colours from the page.

    sequenceDiagram
      participant EHR as EHR, of Ingrid
      EHR->>Hub: POST hub.url
      Hub-->>EHR: 202
      Note over EHR,Hub: both are in step
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import escape

#: Pixels: between two participants at least, of a line of text, of a message, and of a letter.
GAP, LINE, STEP, LETTER = 150, 18, 44, 6.6
_MARGIN = 16
_ARROW = re.compile(r"(\w+)(--?>>)(\w+): (.+)")
_NOTE = re.compile(r"Note over (\w+)(?:,(\w+))?: (.+)")
_PARTICIPANT = re.compile(r"(?:participant|actor) (\w+)(?: as (.+))?")


@dataclass
class Step:
    """A message, or a note over some participants. `dashed` is an answer's arrow."""

    first: str
    last: str
    text: list[str]
    note: bool = False
    dashed: bool = False


@dataclass
class Diagram:
    """The participants' names by id, in their order from the left, and the steps in their order from above."""

    names: dict[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)


def parse(source: str) -> Diagram:
    """Read a diagram. Raises ValueError, with the line, for what this module cannot draw."""
    diagram = Diagram()
    for line in (each.strip() for each in source.splitlines()):
        if line in ("", "sequenceDiagram", "autonumber") or line.startswith("%%"):
            continue
        if match := _PARTICIPANT.fullmatch(line):
            diagram.names[match[1]] = match[2] or match[1]
        elif match := _ARROW.fullmatch(line):
            diagram.steps.append(Step(match[1], match[3], _lines(match[4]), dashed=match[2] == "-->>"))
        elif match := _NOTE.fullmatch(line):
            diagram.steps.append(Step(match[1], match[2] or match[1], _lines(match[3]), note=True))
        else:
            raise ValueError(f"a sequence diagram has a line that cannot be drawn: {line}")
    for step in diagram.steps:
        for name in (step.first, step.last):
            diagram.names.setdefault(name, name)
    return diagram


def _lines(text: str) -> list[str]:
    return re.split(r"<br ?/?>", text)


def _width(lines: list[str]) -> float:
    return max(len(line) for line in lines) * LETTER


def columns(diagram: Diagram) -> dict[str, float]:
    """The x of each participant. Neighbours have room for what goes between them."""
    ids = list(diagram.names)
    places: dict[str, float] = {}
    for number, name in enumerate(ids):
        own = _width([diagram.names[name]]) / 2 + _MARGIN
        if not number:
            notes = [_width(s.text) / 2 + _MARGIN for s in diagram.steps if s.note and s.first == s.last == name]
            places[name] = max([own + _MARGIN, *(width + _MARGIN for width in notes)])
            continue
        before = ids[number - 1]
        least = [places[before] + GAP, places[before] + _width([diagram.names[before]]) / 2 + own + _MARGIN]
        for step in diagram.steps:
            ends = sorted((ids.index(step.first), ids.index(step.last)))
            if ends[1] == number and ends[0] < number:
                least.append(places[ids[ends[0]]] + _width(step.text) + 2 * _MARGIN)
            elif ends[0] == ends[1] and ends[0] in (number, number - 1):
                least.append(places[before] + _width(step.text) / (2 if step.note else 1) + 2 * _MARGIN)
        places[name] = max(least)
    return places


def drawn(source: str) -> str:
    """The diagram as one SVG element. Raises ValueError for what this module cannot draw."""
    diagram = parse(source)
    x = columns(diagram)
    top, y, shapes = LINE * 2 + _MARGIN, float(LINE * 2 + _MARGIN), list[str]()
    for step in diagram.steps:
        y += STEP + (len(step.text) - 1) * LINE
        shapes += _note(step, x, y) if step.note else _message(step, x, y)
    bottom = y + LINE * 2
    last = list(diagram.names)[-1]
    tail = [_width(s.text) for s in diagram.steps if s.first == s.last == last]
    right = max([x[last] + _width([diagram.names[last]]) / 2 + 2 * _MARGIN, *(x[last] + w + 2 * _MARGIN for w in tail)])
    heads = [shape for name, label in diagram.names.items() for shape in _head(label, x[name], top, bottom)]
    style = 'font-family="inherit" font-size="13" fill="currentColor" stroke="currentColor"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="Sequence diagram" viewBox="0 0 {right:.0f} '
            f'{bottom + _MARGIN:.0f}" style="max-width:{right:.0f}px;width:100%" {style}>',
            '<defs><marker id="sequence-arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
            'orient="auto"><path d="M0,0 L8,4 L0,8" fill="none"/></marker></defs>',
            *heads,
            *shapes,
            "</svg>",
        ]
    )


def _text(lines: list[str], x: float, y: float) -> list[str]:
    """Centred lines; the last stands at `y`."""
    start = y - (len(lines) - 1) * LINE
    return [
        f'<text x="{x:.0f}" y="{start + number * LINE:.0f}" text-anchor="middle" stroke="none">{escape(line)}</text>'
        for number, line in enumerate(lines)
    ]


def _head(label: str, x: float, top: float, bottom: float) -> list[str]:
    width = _width([label]) + _MARGIN
    return [
        f'<rect x="{x - width / 2:.0f}" y="{_MARGIN}" width="{width:.0f}" height="{LINE * 2 - 6}" rx="4" fill="none"/>',
        *_text([label], x, _MARGIN + LINE + 2),
        f'<line x1="{x:.0f}" y1="{top - 6:.0f}" x2="{x:.0f}" y2="{bottom:.0f}" stroke-opacity="0.35"/>',
    ]


def _message(step: Step, x: dict[str, float], y: float) -> list[str]:
    start, end = x[step.first], x[step.last]
    dashes = ' stroke-dasharray="5 4"' if step.dashed else ""
    if start == end:
        path = f"M{start:.0f},{y - 8:.0f} h24 v12 h-22"
        shape = f'<path d="{path}" fill="none" marker-end="url(#sequence-arrow)"{dashes}/>'
        return [*_text(step.text, start + 12 + _width(step.text) / 2, y - 14), shape]
    line = (
        f'<line x1="{start:.0f}" y1="{y:.0f}" x2="{end:.0f}" y2="{y:.0f}" marker-end="url(#sequence-arrow)"{dashes}/>'
    )
    return [*_text(step.text, (start + end) / 2, y - 7), line]


def _note(step: Step, x: dict[str, float], y: float) -> list[str]:
    left, right = sorted((x[step.first], x[step.last]))
    width = max(right - left + 2 * _MARGIN, _width(step.text) + _MARGIN)
    middle, height = (left + right) / 2, len(step.text) * LINE + 8
    top = y - height + 8
    box = f'<rect x="{middle - width / 2:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height}" rx="3" '
    return [box + 'fill="currentColor" fill-opacity="0.08" stroke-opacity="0.4"/>', *_text(step.text, middle, y)]
