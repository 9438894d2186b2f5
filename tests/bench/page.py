"""docs/benchmarks.md: the results of bench.py as a page; its picture; and the sentence of README.md."""

from __future__ import annotations

import math
import os
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench import growth, nodes, rates
from tests.bench.curve import curve
from tests.bench.machine import Facts
from tests.bench.results import FIGURES, GOALS, MORE, SHAPES, STEAL, Cells, Results, number, table
from tests.bench.servers import ROOT

HUB, BASELINES = "hub", ("uvicorn-sansio", "node-ws")
UVICORN, NODE = BASELINES
NAMES = {HUB: "hub", UVICORN: "uvicorn", NODE: "node"}
#: Shapes that a page must have: of all servers, and of the hub.
COMPARED, ALONE = "ABCDR", "GM"
#: Of shape M, for a page. A page says that the memory stays level, and fewer events would not show a slow growth.
MEMORY_EVENTS = 1_000_000
PAGE, PICTURE = "docs/benchmarks.md", "docs/pictures/latency.svg"
#: Written by hand, for the page: the reasons of missed goals. Its links are relative to its own folder.
WHY = Path(__file__).resolve().with_name("why.md")
#: Ratios that show growth, and the most that each may be.
GROWN = {("G", "us_ratio"): 1.1, ("G", "p99_ratio"): 2.0, ("M", "mb_ratio"): 1.05}
BEGIN, END = "<!-- benchmark: made by `make bench` -->", "<!-- end of benchmark -->"

INTRODUCTION = """\
# Benchmarks
<!-- `make bench ARGS='--runs 3 --page'` writes this page. Change tests/bench/page.py, and not this file. -->

The hub stands beside two servers that only fan out: a bare `uvicorn` with Starlette, and a bare `node` with `ws`. Both have
no rules, no store and no tokens. The hub verifies tokens and envelopes, orders each session's events, and writes each to SQLite
before the answer. A ratio is the cost of that work.

All servers ran on the same core of the same machine, in turns, within the same minutes. Compare ratios, and no figures of two machines.
[tests/bench](../tests/bench/README.md) explains the shapes, and how to measure on another machine.
"""
TABLE = """
## Beside servers that only fan out
Cells are medians of the runs; the least and the most are in brackets. A goal bounds the ratio hub / node.

| shape | figure | hub | uvicorn | node | hub / uvicorn | hub / node | goal |
|---|---|---:|---:|---:|---:|---:|---|
"""
LATENCY = f"""
## Latency over the rate
Shape R: the time from when an event was due to the subscriber's read. A line ends at the first rate that was too high,
or at the highest rate offered, {rates.RATES[-1]:,} events/s. A rate is too high where p99 is over {rates.BOUND} ms, or deliveries are missing.

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
    """The reasons why the page may not be published; none: publish."""
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
        missing += unproven(results)
    return [*(["a short look is no measurement"] if facts.get("quick") else []), *missing]


def unproven(results: Results) -> Iterator[str]:
    """The claims of the page about growth that these results do not prove."""
    if (last := min(results.cells.get(("M", "last", HUB), [0]))) < MEMORY_EVENTS:
        yield f"M of hub ended after {last:,.0f} events, and the page needs {MEMORY_EVENTS:,}"
    yield from dict.fromkeys(growth.NEVER_SLOW for remark in results.remarks if remark.endswith(growth.NEVER_SLOW))


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
        ("G", "p99_ratio"): (f"p99 beside {slow:,.0f} slow readers / without", "slow_p99", "without_p99", "us"),
        ("M", "mb_ratio"): ("memory in the end / after a tenth of the events", "last_mb", "first_mb", "MB"),
    }
    for (shape, name), (question, over, under, unit) in figures.items():
        if (measured := middle(cells, shape, name)) is not None:
            bound = GROWN[shape, name]
            texts = f"{spread(cells, shape, name)}: {spread(cells, shape, over)} / {spread(cells, shape, under)} {unit}"
            yield f"| {question} | at most {bound:.2f} | {texts} | {'yes' if measured <= bound else 'no'} |\n"


def growth_notes(cells: Cells) -> str:
    """The loads behind the table of growth."""
    sockets, first, last = middle(cells, "G", "sockets"), middle(cells, "M", "first"), middle(cells, "M", "last")
    notes = ""
    if sockets is not None:
        notes += (
            f"\nThe first two lines are at {growth.RATE} events/s, with {sockets:,.0f} sockets where topics are many. "
        )
        notes += f"Bodies of the second line have {growth.BIG_BODY / 1000:g} kB.\n"
        notes += of_slow_readers(cells)
        idle = middle(cells, "G", "many_idle") or 0
        notes += "The CPU of an event is without that of idle sockets, which the hub pings. "
        notes += f"At {sockets:,.0f} sockets the pings took {idle:.0%} of the core.\n"
    if first is not None and last is not None:
        notes += f"\nMemory is the resident set after {first:,.0f} and after {last:,.0f} events.\n"
    return notes


def of_slow_readers(cells: Cells) -> str:
    """The definition of a slow reader, and the proof that the hub had to wait for them."""
    queued, closed = (middle(cells, "G", name) or 0 for name in ("queued", "closed"))
    return (
        "A slow reader opens its socket and reads nothing, and the kernel holds little for it. "
        f"Up to {queued:,.0f} frames waited in the hub for slow readers, and {closed:,.0f} slow readers were closed.\n"
    )


def sentence(cells: Cells, facts: Facts) -> str:
    """The load that one core carries; "" where nobody measured this load well. The rate is rounded down to two digits."""
    carried, topics = middle(cells, "G", "carried"), middle(cells, "G", "topics")
    if not carried or topics is None or facts.get("quick"):
        return ""
    unit = 10 ** max(math.floor(math.log10(carried)) - 1, 0)
    core = facts["processor"].partition(",")[0]
    return (
        f"One core ({core}) carries {topics:,.0f} sessions with {topics * growth.SUBSCRIBERS:,.0f} sockets, "
        f"and {carried // unit * unit:,.0f} events a second."
    )


def conclusion(results: Results, facts: Facts) -> str:
    """The sentence, the meaning of its words, and the number of its runs that the hypervisor disturbed."""
    if not (words := sentence(results.cells, facts)):
        return ""
    p99 = (middle(results.cells, "G", "carried_p99") or 0) / 1000
    text = f"\n**{words}** Each event goes to {growth.SUBSCRIBERS} subscribers; 99 of 100 deliveries arrived within {p99:.0f} ms.\n"
    disturbed = sum(remark.startswith(f"{HUB}, shape G") and STEAL in remark for remark in set(results.remarks))
    if disturbed:
        text += f"The hypervisor took CPU from {disturbed} of the runs behind this sentence, as the [remarks](#remarks) say.\n"
    return text


def of_nodes(cells: Cells) -> str:
    """The table of shape N, where it was measured."""
    if not any(shape == "N" for shape, *_ in cells):
        return ""
    lines = "\n".join(table(cells, "N", list(nodes.LAYOUTS), nodes.PAIRS))
    return NODES + lines.partition("\n\n")[2].join(["\n", "\n"])


def reasons(file: Path) -> str:
    """The section that is written by hand, with links as seen from the page; "" where there is no such file."""
    if not file.is_file():
        return ""

    def seen_from_page(link: re.Match[str]) -> str:
        target = os.path.normpath(file.parent / link[1])
        return f"]({Path(os.path.relpath(target, ROOT / Path(PAGE).parent)).as_posix()}{link[2] or ''})"

    text = re.sub(r"\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)", seen_from_page, file.read_text(encoding="utf-8"))
    return f"\n{text.strip()}\n"


def of_machine(facts: Facts, runs: int) -> str:
    """Machine, versions and date."""
    lines = [f"| {name} | {fact} |\n" for name, fact in facts.items() if name != "quick"]
    return f"\n## Machine and versions\n\n| | |\n|---|---|\n{''.join(lines)}| runs | {runs} |\n"


def of_remarks(remarks: list[str]) -> str:
    """The section of remarks on faults."""
    lines = (
        "".join(f"- {remark}\n" for remark in dict.fromkeys(remarks)) or "Nothing was lost, doubled or out of order.\n"
    )
    return f"\n## Remarks\n{lines}"


def shapes() -> str:
    """The meaning of the letters in the table."""
    return "\n" + "".join(f"- {shape}: {SHAPES[shape]}\n" for shape in COMPARED.replace("R", ""))


def make(results: Results, facts: Facts, why: Path = WHY) -> Page:
    """The page of all that was measured, with the section of the file `why`; nothing is written."""
    cells, short = results.cells, "\n**This was a short look: its figures say little.**\n" if facts.get("quick") else ""
    runs = max((len(values) for (shape, *_), values in cells.items() if shape in COMPARED), default=0)
    text = [
        INTRODUCTION,
        short,
        conclusion(results, facts),
        TABLE,
        *compared(cells),
        shapes(),
        LATENCY,
        GROWTH,
        *grown(cells),
        growth_notes(cells),
        reasons(why),
        of_nodes(cells),
        of_machine(facts, runs),
        of_remarks(results.remarks),
    ]
    return Page("".join(text), curve(cells, NAMES), sentence(cells, facts))
