"""The results of bench.py: figures by shape and server, tables of their medians, and remarks on faults."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from tests.bench import growth, nodes, rates, webhooks
from tests.bench.servers import drive


def flatten(shape: str, result: dict[str, Any]) -> dict[str, Any]:
    """As drive.flatten, which knows only some of the shapes."""
    if "failed" in result:
        return {}
    if shape == "W":
        return result
    others = {"G": growth.flatten, "M": growth.flatten_memory, "N": nodes.flatten, "R": rates.flatten}
    if shape in others:
        return others[shape](result)
    found: dict[str, Any] = FLATTEN(shape, result)
    return found


FLATTEN, drive.flatten = drive.flatten, flatten

MORE, LESS = "more", "less"
SHAPES = {
    "A": "250 topics x 4 subscribers",
    "B": "1 topic x 1,000 subscribers",
    "C": "idle sockets",
    "D": "100 events/s, 250 topics x 4 subscribers",
    "R": f"{rates.TOPICS} topics x {rates.SUBSCRIBERS} subscribers at fixed rates",
    "G": f"{growth.MANY:,} topics x {growth.SUBSCRIBERS} subscribers, and slow readers among them",
    "M": f"memory after many events, {growth.FEW} topics x {growth.SUBSCRIBERS} subscribers",
    "W": f"1 topic x {webhooks.CALLBACKS} callbacks, of which half hang",
    "N": "one and two nodes, 250 topics x 4 subscribers",
}
#: The figures of flatten() that are worth comparing: the text of each, and whether more or less is better.
FIGURES = {
    "A": {
        "closed": ("deliveries/s, 32 events in flight", MORE),
        "closed_per_cpu_s": ("the same per server-CPU-second", MORE),
        "sat": ("deliveries/s, highest rate with p99 <= 50 ms", MORE),
        "sat_p99": ("p99 there, us", LESS),
        "at500_p50": ("at 500 events/s: p50, us", LESS),
        "at500_p99": ("at 500 events/s: p99, us", LESS),
        "at500_http_p50": ("at 500 events/s: POST to 202 p50, us", LESS),
        "at500_scpu": ("at 500 events/s: server CPU", LESS),
    },
    "B": {
        "w4": ("deliveries/s, 4 events in flight", MORE),
        "w4_per_cpu_s": ("the same per server-CPU-second", MORE),
        "w1": ("deliveries/s, 1 event in flight", MORE),
        "w1_fan_p50": ("POST to the last subscriber p50, us, 1 in flight", LESS),
        "w1_http_p50": ("POST to 202 p50, us, 1 in flight", LESS),
    },
    "C": {"kb_per_conn": ("kB per connection", LESS), "base_mb": ("MB of the process without", LESS)},
    "D": {
        "p50": ("p50, us", LESS),
        "p99": ("p99, us", LESS),
        "p999": ("p99.9, us", LESS),
        "http_p50": ("POST to 202 p50, us", LESS),
        "scpu": ("server CPU", LESS),
    },
    "R": {
        f"r{rate}_{share}": (f"at {rate:,} events/s: {share}, us", LESS)
        for rate in rates.RATES
        for share in ("p50", "p99")
    },
    "G": {
        "sockets": ("sockets of many topics", "-"),
        "few_us": (f"CPU us of the server for each event, {growth.FEW} topics", LESS),
        "many_us": ("the same, many topics", LESS),
        "us_ratio": ("many / few", LESS),
        "many_idle": ("CPUs in use by idle sockets, many topics", LESS),
        "many_p99": (f"many topics, {growth.RATE} events/s: p99, us", LESS),
        "without_p99": (f"bodies of {growth.BIG_BODY / 1000:g} kB: p99, us", LESS),
        "slow_p99": ("the same beside slow readers", LESS),
        "p99_ratio": ("beside / without", LESS),
        "queued": ("most frames that waited for slow readers", "-"),
        "closed": ("slow readers that were closed", "-"),
        "carried": ("events/s of many topics, p99 <= 50 ms", MORE),
        "carried_p99": ("p99 there, us", LESS),
    },
    "M": {
        "first": ("events at first", "-"),
        "last": ("events in the end", "-"),
        "first_mb": ("MB at first", LESS),
        "last_mb": ("MB in the end", LESS),
        "mb_ratio": ("end / first", LESS),
    },
    "W": {
        "alone_us": ("POST to the last callback p50, us, without those that hang", LESS),
        "beside_us": ("the same beside those that hang", LESS),
        "ratio": ("beside / alone", LESS),
    },
    "N": {
        "closed": ("deliveries/s, 32 events in flight", MORE),
        "node_us": ("CPU us of the nodes for each delivery", LESS),
        "database_us": ("CPU us of PostgreSQL for each delivery", LESS),
        "load_us": ("CPU us of the load for each delivery", LESS),
        "node_cpu": ("CPUs in use: nodes", "-"),
        "database_cpu": ("CPUs in use: PostgreSQL", "-"),
        "load_cpu": ("CPUs in use: load", "-"),
        "computed": ("computed: deliveries/s, were a CPU for each node the only limit", MORE),
        "at500_p50": ("at 500 events/s: p50, us", LESS),
        "at500_p99": ("at 500 events/s: p99, us", LESS),
        "at500_http_p50": ("at 500 events/s: POST to 202 p50, us", LESS),
        "at100_p50": ("at 100 events/s: p50, us", LESS),
        "at100_p99": ("at 100 events/s: p99, us", LESS),
        "at100_http_p50": ("at 100 events/s: POST to 202 p50, us", LESS),
    },
}
#: Of a remark on a run that was disturbed.
STEAL = "the hypervisor took"
#: Anything but nought here is a fault, not a figure.
FAULTS = ("lost", "dups", "order", "w4_lost", "w4_order", "w1_lost", "w1_order", "dead", *nodes.FAULTS[1:])

#: Goals of the work: of a figure, hub / node must be at least or at most so much.
GOALS = {
    ("A", "closed_per_cpu_s"): 0.70,
    ("A", "sat"): 0.60,
    ("A", "at500_p50"): 2.5,
    ("A", "at500_p99"): 3.0,
    ("B", "w1"): 1.0,
    ("C", "kb_per_conn"): 1.0,
    ("C", "base_mb"): 1.2,
    ("D", "p50"): 1.5,
}

Cells = dict[tuple[str, str, str], list[float]]
Pairs = list[tuple[str, str]]  # of servers, whose figures are divided


class Results(NamedTuple):
    """Figures by shape, name and server; and remarks on faults."""

    cells: Cells
    remarks: list[str]


def parts(result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A result, and the loads that it is made of."""
    yield result
    for value in result.values():
        yield from (part for part in (value if isinstance(value, list) else [value]) if isinstance(part, dict))


def complaints(part: dict[str, Any]) -> Iterator[str]:
    """The faults that one load tells of itself."""
    if (failed := part.get("failed")) is not None:  # results of older versions have None where nothing failed
        yield failed or "failed, and said nothing"
    if part.get("http_errors"):
        yield f"http_errors {part['http_errors']}"
    if part.get("published_per_s") == 0:
        yield "no event in the measured time"


def remarks_on(where: str, figures: dict[str, Any]) -> Iterator[str]:
    """The faults that the figures of one result show."""
    yield from (f"{where}: {name} {figures[name]:g}" for name in FAULTS if figures.get(name))
    steal = max((value for name, value in figures.items() if name.endswith("steal")), default=0)
    if steal > drive.MAX_STEAL:
        yield f"{where}: {STEAL} {steal:.0%} of the CPU"


def read(lines: Iterable[str]) -> Results:
    """The results, a line of JSON each."""
    cells: Cells = defaultdict(list)
    remarks: list[str] = []
    for line in lines:
        row = json.loads(line)
        where, result = f"{row['server']}, shape {row['shape']}, run {row['run']}", row["result"]
        remarks += [f"{where}: {complaint}" for part in parts(result) for complaint in complaints(part)]
        figures = flatten(row["shape"], result)
        remarks += remarks_on(where, figures)
        if row["shape"] == "G":
            remarks += [f"{where}: {complaint}" for complaint in growth.complaints(figures)]
        for name, value in figures.items():
            if value or name not in FIGURES[row["shape"]]:  # a rate or a time of nought was not measured
                cells[row["shape"], name, row["server"]].append(value)
    return Results(cells, remarks)


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(cells: Cells, shape: str, servers: list[str], pairs: Pairs) -> Iterator[str]:
    """One shape's table: a line for each figure, with the ratio of each pair of servers."""
    columns = ["", "better", *servers, *(f"{one} / {other}" for one, other in pairs)]
    yield f"\n### {shape}: {SHAPES[shape]}\n\n| {' | '.join(columns)} |\n|---|---|{'---:|' * (len(columns) - 2)}"
    for name, (what, better) in FIGURES[shape].items():
        median = {s: statistics.median(cells[shape, name, s]) for s in servers if cells.get((shape, name, s))}
        if any(median.values()):
            figures = [number(median[s]) if s in median else "-" for s in servers]
            ratios = [f"{median[h] / median[b]:.2f}" if h in median and median.get(b) else "-" for h, b in pairs]
            yield f"| {' | '.join([what, better, *figures, *ratios])} |"


def report(results: Results, shapes: list[str], hubs: list[str], baselines: list[str]) -> str:
    """The tables: each hub beside each baseline, and the layouts of shape N beside each other."""
    pairs = [(hub, base) for hub in hubs for base in baselines]
    columns = {shape: ([*hubs, *baselines], pairs) for shape in shapes}
    if "N" in columns:
        columns["N"] = (list(nodes.LAYOUTS), nodes.PAIRS)
    out = [line for shape in shapes for line in table(results.cells, shape, *columns[shape])]
    return "\n".join([*out, "", *(f"- {remark}" for remark in dict.fromkeys(results.remarks))])
