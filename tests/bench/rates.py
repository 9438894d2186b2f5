"""Shape R of bench.py: latencies at the same rates for each server, until a server does not keep up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bench.servers import drive

TOPICS, SUBSCRIBERS = 250, 4
#: Events a second.
RATES = (100, 250, 500, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 12_000, 16_000)
QUICK_RATES = (100, 1000)
#: A server keeps up while 99 of 100 deliveries take at most so many milliseconds.
BOUND = 50


def shape_r(
    target: drive.Target, endpoints: Path, *, rates: tuple[int, ...] = RATES, seconds: int = 3
) -> dict[str, Any]:
    """Each rate in turn, up to the first with which the server did not keep up, twice."""
    steps: list[dict[str, Any]] = []
    for rate in rates:
        load = ("--rate", str(rate), "--warmup", "1", "--duration", str(seconds), "--drain", "2")
        step = drive.measure(target, endpoints, TOPICS, SUBSCRIBERS, *load)
        if not drive.good(step):
            step = drive.measure(target, endpoints, TOPICS, SUBSCRIBERS, *load)
        steps.append({"offered": rate, **step})
        if not drive.good(step):
            break
    return {"steps": steps}


def flatten(result: dict[str, Any]) -> dict[str, float]:
    """The latencies by rate, from when an event was due, in microseconds. A loss counts as a fault below the highest rate alone."""
    figures: dict[str, float] = {"dups": 0, "order": 0, "steal": 0}
    for step in result["steps"]:
        if "failed" in step:
            continue
        for share in ("p50", "p99"):
            figures[f"r{step['offered']}_{share}"] = step["e2e_sched_us"][share]
        figures["dups"] += step["duplicates"]
        figures["order"] += step["order_violations"]
        figures["steal"] = max(figures["steal"], step["steal"])
        in_time = step["e2e_sched_us"]["p99"] <= BOUND * 1000 and not step["unsent"]
        figures["lost"] = figures.get("lost", 0) + (step["lost"] if in_time else 0)
    return figures
