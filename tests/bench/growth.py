"""Shapes G and M of bench.py: what a hub costs with more topics, with subscribers that read nothing, and after many events."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.bench.servers import drive

SUBSCRIBERS = 4
FEW, MANY = 250, 2_500  # topics
SLOW = 1_000  # of the subscribers of many topics
RATE = 500  # events/s
#: Shares of the highest throughput, from the highest on; the first at which all is well is what one core carries.
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
#: All sockets are pinged once in this many seconds, so a window of this length has each ping once.
PING_SECONDS = 15
EVENTS = 200_000
MOST_SECONDS = 3_000  # of shape M

# --- more topics, and slow readers -------------------------------------------------------------------------------------


def once(target: drive.Target, endpoints: Path, topics: int, *load: str) -> dict[str, Any]:
    """One load on a new server."""
    target.stop()
    target.start()
    target.subscribe(topics, SUBSCRIBERS, endpoints)
    result: dict[str, Any] = target.loadgen(endpoints, "--confirm-wait", "20", "--warmup", "1", *load)
    return result


def shape_g(
    target: drive.Target,
    endpoints: Path,
    *,
    many: int = MANY,
    slow: int = SLOW,
    seconds: int = PING_SECONDS,
    shares: tuple[float, ...] = SHARES,
) -> dict[str, Any]:
    """Few topics and many, at one rate; many with slow readers; and the rate that many topics may have."""
    measure = functools.partial(once, target, endpoints)
    paced = ("--rate", str(RATE), "--duration", str(seconds))
    return {
        "topics": many,
        "few": measure(FEW, *paced, "--settle", str(seconds)),
        "many": measure(many, *paced, "--settle", str(seconds)),
        "slow": measure(many, *paced, "--slow", str(slow)),
        "carried": carried(measure, many, shares),
    }


def carried(
    measure: functools.partial[dict[str, Any]], topics: int, shares: tuple[float, ...]
) -> dict[str, Any] | None:
    """The load at the highest of these shares of the throughput at which nothing is lost, and p99 is at most 50 ms."""
    closed = measure(topics, "--mode", "closed", "--window", "32", "--duration", "4")
    for share in shares:
        rate = share * float(closed.get("published_per_s", 0))
        if rate and drive.good(found := measure(topics, "--rate", f"{rate:.0f}", "--duration", "5")):
            return found
    return None


def cost(load: dict[str, Any]) -> float:
    """CPU us of the server for each event, without what its idle sockets cost."""
    return 1e6 * (float(load["server_cpu"]) - float(load["settle_cpu"])) / max(float(load["published_per_s"]), 1)


FAULTS = {"lost": "lost", "duplicates": "dups", "order_violations": "order", "dead_connections": "dead"}


def flatten(result: dict[str, Any]) -> dict[str, float]:
    """The figures of a result of shape G. Latencies are in microseconds from when an event was due."""
    loads = {name: result[name] for name in ("few", "many", "slow", "carried") if "failed" not in (result[name] or {})}
    figures: dict[str, float] = {"topics": result["topics"], "sockets": result["topics"] * SUBSCRIBERS}
    for name in {"few", "many"} & loads.keys():
        figures |= {f"{name}_us": cost(loads[name]), f"{name}_idle": loads[name]["settle_cpu"]}
    for name in {"many", "slow"} & loads.keys():
        figures[f"{name}_p99"] = loads[name]["e2e_sched_us"]["p99"]
    if {"few", "many"} <= loads.keys():
        figures["us_ratio"] = figures["many_us"] / figures["few_us"]
    if {"slow", "many"} <= loads.keys():
        figures["p99_ratio"] = figures["slow_p99"] / figures["many_p99"]
        figures["slow"] = loads["slow"]["slow"]
    if load := loads.get("carried"):
        figures |= {"carried": load["rate"], "carried_p99": load["e2e_sched_us"]["p99"]}
    for load in filter(None, loads.values()):
        for fault, name in FAULTS.items():
            figures[name] = figures.get(name, 0) + load[fault]
    return figures | {"steal": max((load["steal"] for load in loads.values() if load), default=0)}


# --- memory after many events -----------------------------------------------------------------------------------------


def shape_m(target: drive.Target, endpoints: Path, *, events: int = EVENTS) -> dict[str, Any]:
    """As fast as it goes, until there were so many events; the server's memory after each tenth of them."""
    target.subscribe(FEW, SUBSCRIBERS, endpoints)
    load = ["--mode", "closed", "--window", "32", "--duration", str(MOST_SECONDS), "--mark", str(events // 10)]
    marks: list[dict[str, int]] = []
    command = target.command(endpoints, *load, "--max-events", str(events))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = ""
        for line in process.stdout:
            if line.startswith("mark "):
                marks.append({"events": int(line.split()[1]), "rss_kb": drive.rss_kb(target.pids())})
    return {**json.loads(line), "marks": marks}


def flatten_memory(result: dict[str, Any]) -> dict[str, float]:
    """The figures of a result of shape M. Memory is in MB."""
    first, last = result["marks"][0], result["marks"][-1]
    figures = {"first_mb": first["rss_kb"] / 1024, "last_mb": last["rss_kb"] / 1024}
    figures |= {"mb_ratio": last["rss_kb"] / first["rss_kb"], "first": first["events"], "last": last["events"]}
    return figures | {name: result[fault] for fault, name in FAULTS.items()} | {"steal": result["steal"]}
