"""docs/benchmarks.md: what bench.py has measured, as a page; its picture; and the sentence of README.md."""

from __future__ import annotations

import math
import os
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench import growth, nodes
from tests.bench.curve import curve
from tests.bench.machine import Facts
from tests.bench.results import FIGURES, GOALS, MORE, SHAPES, Cells, Results, number, table

HUB, BASELINES = "hub", ("uvicorn-sansio", "node-ws")
UVICORN, NODE = BASELINES
NAMES = {HUB: "hub", UVICORN: "uvicorn", NODE: "node"}
#: What the page cannot be without, by server.
COMPARED, ALONE = "ABCDR", "GM"
PAGE, PICTURE = "docs/benchmarks.md", "docs/pictures/latency.svg"
#: What must not grow, and the most that it may.
GROWN = {("G", "us_ratio"): 1.1, ("G", "p99_ratio"): 2.0, ("M", "mb_ratio"): 1.05}
BEGIN, END = "<!-- benchmark: made by `make bench` -->", "<!-- end of benchmark -->"

INTRODUCTION = """\
# Benchmarks
<!-- `make bench ARGS='--runs 3 --page'` writes this page. Change tests/bench/page.py, and not this file. -->

The hub stands beside two servers that only fan out: a bare `uvicorn` with Starlette, and a bare `node` with `ws`. Both have
no rules, no store and no tokens. The hub verifies tokens and envelopes, orders each session's events, and writes each to SQLite
before the answer. A ratio says what that work costs.

All servers ran on the same core of the same machine, in turns, within the same minutes. Compare ratios, and no figures of two machines.
[tests/bench](../tests/bench/README.md) explains the shapes, and how to measure on another machine.
"""
TABLE = """
## Beside servers that only fan out
Cells are medians of the runs; the least and the most are in brackets. A goal bounds the ratio hub / node.

| shape | figure | hub | uvicorn | node | hub / uvicorn | hub / node | goal |
|---|---|---:|---:|---:|---:|---:|---|
"""
LATENCY = """
## Latency over the rate
Shape R: the time from when an event was due to the subscriber's read. The last dot of a line is the first rate that was too high:
p99 over 50 ms, or missing deliveries.

![Latency of the hub, uvicorn and node over the offered rate; all axes are logarithmic](pictures/latency.svg)
"""
GROWTH = """
## Growth
The hub alone, on one core.

| question | bound | measured | holds |
|---|---:|---|---|
"""
NODES = """
## One and two nodes
Two nodes, PostgreSQL and the load share two CPUs. [tests/bench](../tests/bench/README.md#one-and-two-nodes) says how to read this table.
"""


class Page(NamedTuple):
    """The texts that belong together."""

    text: str
    picture: str
    sentence: str

    def write(self, page: Path, picture: Path) -> None:
        """Each file is whole, or as before."""
        for path, text in ((picture, self.picture), (page, self.text)):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace(path, text)

    def publish(self, root: Path) -> None:
        """Write the page, its picture, and the sentence of the README. Raises ValueError where the README has no place for it."""
        readme = root / "README.md"
        changed = with_sentence(readme.read_text(encoding="utf-8"), self.sentence)
        self.write(root / PAGE, root / PICTURE)
        replace(readme, changed)


def replace(path: Path, text: str) -> None:
    """Write the file at once."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def with_sentence(readme: str, sentence: str) -> str:
    """The README with this sentence in its place. Raises ValueError where there is no such place."""
    found = re.subn(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", lambda _: in_readme(sentence), readme, flags=re.DOTALL)
    if found[1] != 1:
        raise ValueError(f"README.md must have {BEGIN} and {END}, once")
    return found[0]


def in_readme(sentence: str) -> str:
    """The sentence, its link, and the marks around both."""
    text = f"{sentence} [docs/benchmarks.md]({PAGE}) has the measurements.".strip()
    return f"{BEGIN}\n{text}\n{END}"


# --- the parts of the page -------------------------------------------------------------------------------------------


def lacking(results: Results, facts: Facts) -> list[str]:
    """What must be measured before the page may be published."""
    wanted = [(shape, server) for shape in COMPARED for server in (HUB, *BASELINES)] + [(shape, HUB) for shape in ALONE]
    measured = {(shape, server) for shape, _, server in results.cells}
    missing = [f"shape {shape} of {server} is missing" for shape, server in wanted if (shape, server) not in measured]
    if not missing:
        needed = [(*figure, server) for figure in GOALS for server in (HUB, NODE)]
        needed += [(shape, name, HUB) for shape, name in (*GROWN, ("G", "carried"))]
        missing = [
            f"{shape} of {server} has no {name}"
            for shape, name, server in needed
            if not results.cells.get((shape, name, server))
        ]
    return [*(["a short look is no measurement"] if facts.get("quick") else []), *missing]


def middle(cells: Cells, shape: str, name: str, server: str = HUB) -> float | None:
    """The median of a figure. None: nobody measured it."""
    values = cells.get((shape, name, server))
    return statistics.median(values) if values else None


def spread(cells: Cells, shape: str, name: str, server: str = HUB) -> str:
    """The median of a figure, and its least and most where these differ."""
    values = cells.get((shape, name, server))
    if not values:
        return "-"
    texts = [number(value) for value in (statistics.median(values), min(values), max(values))]
    return texts[0] if texts[1] == texts[2] else f"{texts[0]} ({texts[1]}-{texts[2]})"


def ratio(cells: Cells, shape: str, name: str, other: str) -> float | None:
    """The hub's median, divided by the other server's."""
    ours, theirs = middle(cells, shape, name), middle(cells, shape, name, other)
    return ours / theirs if ours is not None and theirs else None


def goal(shape: str, name: str, measured: float | None) -> str:
    """A goal in words, and whether the ratio reaches it."""
    if (wanted := GOALS.get((shape, name))) is None:
        return ""
    more = FIGURES[shape][name][1] == MORE
    text = f"at {'least' if more else 'most'} {wanted:.2f}"
    if measured is None:
        return text
    return f"{text}: {'met' if (measured >= wanted if more else measured <= wanted) else 'missed'}"


def compared(cells: Cells) -> Iterator[str]:
    """The lines of the table: each figure of each shape that a baseline has too."""
    for shape in COMPARED.replace("R", ""):
        for name, (what, _) in FIGURES[shape].items():
            ratios = [ratio(cells, shape, name, other) for other in BASELINES]
            figures = [spread(cells, shape, name, server) for server in NAMES]
            if any(figure != "-" for figure in figures):
                texts = ["-" if each is None else f"{each:.2f}" for each in ratios]
                yield f"| {' | '.join([shape, what, *figures, *texts, goal(shape, name, ratios[1])])} |\n"


def grown(cells: Cells) -> Iterator[str]:
    """The lines of the table of growth."""
    many, slow = (middle(cells, "G", name) or 0 for name in ("topics", "slow"))
    figures = {
        ("G", "us_ratio"): (f"CPU of an event, {many:,.0f} topics / {growth.FEW} topics", "many_us", "few_us", "us"),
        ("G", "p99_ratio"): (f"p99 beside {slow:,.0f} slow readers / without", "slow_p99", "many_p99", "us"),
        ("M", "mb_ratio"): ("memory in the end / after a tenth of the events", "last_mb", "first_mb", "MB"),
    }
    for (shape, name), (question, over, under, unit) in figures.items():
        if (measured := middle(cells, shape, name)) is not None:
            bound = GROWN[shape, name]
            texts = f"{spread(cells, shape, name)}: {spread(cells, shape, over)} / {spread(cells, shape, under)} {unit}"
            yield f"| {question} | at most {bound:.2f} | {texts} | {'yes' if measured <= bound else 'no'} |\n"


def growth_notes(cells: Cells) -> str:
    """What the table of growth was measured with."""
    sockets, first, last = middle(cells, "G", "sockets"), middle(cells, "M", "first"), middle(cells, "M", "last")
    notes = ""
    if sockets is not None:
        notes += (
            f"\nThe first two lines are at {growth.RATE} events/s, with {sockets:,.0f} sockets where topics are many. "
        )
        notes += "A slow reader opens its socket and reads nothing.\n"
        notes += "The CPU of an event is without that of idle sockets, which the hub pings.\n"
    if first is not None and last is not None:
        notes += f"\nMemory is the resident set after {first:,.0f} and after {last:,.0f} events.\n"
    return notes


def sentence(cells: Cells, facts: Facts) -> str:
    """What one core carries; "" where nobody measured it well. The rate is rounded down to two digits."""
    carried, topics = middle(cells, "G", "carried"), middle(cells, "G", "topics")
    if not carried or topics is None or facts.get("quick"):
        return ""
    unit = 10 ** max(math.floor(math.log10(carried)) - 1, 0)
    core = facts["processor"].partition(",")[0]
    return (
        f"One core ({core}) carries {topics:,.0f} sessions with {topics * growth.SUBSCRIBERS:,.0f} sockets, "
        f"and {carried // unit * unit:,.0f} events a second."
    )


def conclusion(cells: Cells, facts: Facts) -> str:
    """The sentence, and what is meant by it."""
    if not (words := sentence(cells, facts)):
        return ""
    p99 = (middle(cells, "G", "carried_p99") or 0) / 1000
    return f"\n**{words}** Each event goes to {growth.SUBSCRIBERS} subscribers; 99 of 100 deliveries arrived within {p99:.0f} ms.\n"


def of_nodes(cells: Cells) -> str:
    """The table of shape N, where it was measured."""
    if not any(shape == "N" for shape, *_ in cells):
        return ""
    lines = "\n".join(table(cells, "N", list(nodes.LAYOUTS), nodes.PAIRS))
    return NODES + lines.partition("\n\n")[2].join(["\n", "\n"])


def of_machine(facts: Facts, runs: int) -> str:
    """Machine, versions and date."""
    lines = [f"| {name} | {fact} |\n" for name, fact in facts.items() if name != "quick"]
    return f"\n## Machine and versions\n\n| | |\n|---|---|\n{''.join(lines)}| runs | {runs} |\n"


def of_remarks(remarks: list[str]) -> str:
    """What went wrong."""
    lines = (
        "".join(f"- {remark}\n" for remark in dict.fromkeys(remarks)) or "Nothing was lost, doubled or out of order.\n"
    )
    return f"\n## Remarks\n{lines}"


def shapes() -> str:
    """What the letters of the table stand for."""
    return "\n" + "".join(f"- {shape}: {SHAPES[shape]}\n" for shape in COMPARED.replace("R", ""))


def make(results: Results, facts: Facts) -> Page:
    """The page of all that was measured; nothing is written."""
    cells, short = results.cells, "\n**This was a short look: its figures say little.**\n" if facts.get("quick") else ""
    runs = max((len(values) for (shape, *_), values in cells.items() if shape in COMPARED), default=0)
    text = [
        INTRODUCTION,
        short,
        conclusion(cells, facts),
        TABLE,
        *compared(cells),
        shapes(),
        LATENCY,
        GROWTH,
        *grown(cells),
        growth_notes(cells),
        of_nodes(cells),
        of_machine(facts, runs),
        of_remarks(results.remarks),
    ]
    return Page("".join(text), curve(cells, NAMES), sentence(cells, facts))
