"""Draws the hub's rooms and what each imports, from the code: `make architecture` writes the picture into CONTRIBUTING.md.

    python -m tools.architecture            prints the picture, as Mermaid
    python -m tools.architecture --write    puts the picture between its two marks in CONTRIBUTING.md

A room is a folder of the package, or a module that stands alone. The picture leaves out arrows that others imply:
where a room imports a second one, and that a third one, no arrow goes from the first to the third.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hub" / "fhircast_hub"
PAGE = ROOT / "CONTRIBUTING.md"
#: Marks before and after the picture in CONTRIBUTING.md.
BEGIN, END = "<!-- architecture: made by `make architecture` -->\n", "<!-- end of architecture -->\n"
#: Folders whose modules are rooms of their own, beside the folders in them.
_HOUSES = ("", "core")

Graph = dict[str, set[str]]


@cache
def modules() -> dict[str, Path]:
    """The modules of the package by name: core.decide for hub/fhircast_hub/core/decide.py. An `__init__` is none."""
    paths = (path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py")
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in paths}


def room_of(module: str) -> str:
    """The room of a module: core.wire of core.wire.event, and app of app."""
    folder = module.rpartition(".")[0]
    return module if folder in _HOUSES else folder


@cache
def tree(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of each import. `from a.b import c` is a.b, or a.b.c where that is a module of ours.

    Raises ValueError for a relative import.
    """
    known = {f"fhircast_hub.{name}" for name in modules()}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level or not node.module:
                raise ValueError(f"{path}:{node.lineno}: imports are absolute here")
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & known
            yield from ((node.lineno, name) for name in sorted(inside) or [node.module])


def imports_of_ours(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of what a module imports of the package: core.decide for `fhircast_hub.core.decide`."""
    for line, name in imports(path):
        package, _, module = name.partition(".")
        if package == "fhircast_hub" and module:
            yield line, module


def between_modules() -> Graph:
    """By module, the modules that it imports."""
    known = modules()
    return {name: {other for _, other in imports_of_ours(path) if other in known} for name, path in known.items()}


def between_rooms() -> Graph:
    """By room, the rooms that it imports."""
    rooms: Graph = {}
    for module, others in between_modules().items():
        rooms.setdefault(room_of(module), set()).update(map(room_of, others))
    return {room: others - {room} for room, others in rooms.items()}


def floors(rooms: Graph) -> list[list[str]]:
    """The rooms, lowest floor first: each imports from lower floors only. Raises graphlib.CycleError where that cannot be."""
    levels: dict[str, int] = {}
    for room in TopologicalSorter(rooms).static_order():
        levels[room] = 1 + max((levels[other] for other in rooms[room]), default=-1)
    return [sorted(room for room in levels if levels[room] == level) for level in range(max(levels.values()) + 1)]


def drawn_arrows(rooms: Graph) -> Graph:
    """The arrows that no others imply."""
    reached: Graph = {}
    for room in TopologicalSorter(rooms).static_order():
        reached[room] = rooms[room].union(*(reached[other] for other in rooms[room]))
    return {
        room: {o for o in others if not any(o in reached[p] for p in others - {o})} for room, others in rooms.items()
    }


def picture() -> str:
    """The rooms as a Mermaid flowchart, in a code block."""
    rooms = between_rooms()
    arrows = drawn_arrows(rooms)
    order = [room for floor in reversed(floors(rooms)) for room in floor]
    core = [room for room in order if room.startswith("core.")]
    lines = ["```mermaid", "flowchart TD"]
    lines += [f"  {room}" for room in order if room not in core]
    lines += [
        '  subgraph core ["core: pure"]',
        *(f"    {_id(room)}[{room.partition('.')[2]}]" for room in core),
        "  end",
    ]
    lines += [f"  {_id(room)} --> {_id(other)}" for room in order for other in order if other in arrows[room]]
    return "\n".join([*lines, "```", ""])


def _id(room: str) -> str:
    return room.replace(".", "_")


def with_picture(page: str) -> str:
    """The page with the picture of today between its marks. Raises ValueError where the marks are missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE.name} has no lines {BEGIN!r} and {END!r}")
    return f"{before}{begin}{picture()}{end}{after}"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the picture into CONTRIBUTING.md")
    if parser.parse_args().write:
        PAGE.write_text(with_picture(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(picture(), end="")


if __name__ == "__main__":
    main()
