"""Shapes G and M of bench.py: the costs of a hub with more topics, beside subscribers that read nothing, and after many events."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from tests.bench.servers import drive

HERE = Path(__file__).resolve().parent
SUBSCRIBERS = 4
FEW, MANY = 250, 2_500  # topics
SLOW = 1_000  # of the subscribers of many topics
RATE = 500  # events/s
#: Shares of the highest throughput, from the highest on; the first at which all is well is what one core carries.
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
#: All sockets are pinged once in this many seconds, so a window of this length has each ping once.
PING_SECONDS = 15
#: Bytes of a body beside slow readers: two of them are more than the kernel takes for a slow reader.
BIG_BODY = 12_000
#: Of /metrics: frames that wait now, and slow readers that were closed.
QUEUED, CLOSED = "fhircast_queue_messages", "fhircast_slow_readers_closed_total"
NEVER_SLOW = "the slow readers were never slow: no frame waited for them, and none was closed"
EVENTS = 200_000
MOST_SECONDS = 3_000  # of shape M

# --- more topics, and slow readers -------------------------------------------------------------------------------------


def begin_anew(target: drive.Target, endpoints: Path, topics: int) -> None:
    """A new server, whose subscribers' endpoints are in the file."""
    target.stop()
    target.start()
    target.subscribe(topics, SUBSCRIBERS, endpoints)


def once(target: drive.Target, endpoints: Path, topics: int, *load: str) -> dict[str, Any]:
    """One load on a new server."""
    begin_anew(target, endpoints, topics)
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
    """Few topics and many, at one rate; big bodies without and with slow readers; and the rate that many topics may have."""
    measure = functools.partial(once, target, endpoints)
    beside = functools.partial(observed, target, endpoints, many, seconds)
    paced = ("--rate", str(RATE), "--duration", str(seconds))
    return {
        "topics": many,
        "few": measure(FEW, *paced, "--settle", str(seconds)),
        "many": measure(many, *paced, "--settle", str(seconds)),
        "without": beside(0),
        "slow": beside(slow),
        "carried": carried(measure, many, shares),
    }


def observed(target: drive.Target, endpoints: Path, topics: int, seconds: int, slow: int) -> dict[str, Any]:
    """One load of big bodies on a new server; `looks` has the hub's queues in the middle and near the end."""
    begin_anew(target, endpoints, topics)
    body = endpoints.with_name("body.json")
    body.write_text(big_body(), encoding="utf-8")
    events = RATE * (seconds + 1)
    # At 45 % and 90 % of the events: a look takes time, and must be over when the load ends.
    looks = ("--mark", str(events * 9 // 20))
    load = ("--rate", str(RATE), "--duration", str(seconds), "--warmup", "1", "--confirm-wait", "20", *looks)
    command = target.command(endpoints, "--body", str(body), *load, "--slow", str(slow))
    return watched(command, functools.partial(queues, target))


def big_body() -> str:
    """The event of all shapes, whose patient has a narrative that makes the body BIG_BODY bytes long."""
    template = (HERE / "loadgen" / "body.json").read_text(encoding="utf-8").strip()
    patient, narrative = '"resourceType":"Patient",', '"text":{"status":"generated","div":"<div>%s</div>"},'
    missing = BIG_BODY - len(template.encode()) - len(narrative % "")
    return template.replace(patient, patient + narrative % ("." * missing), 1)


def queues(target: drive.Target) -> dict[str, float]:
    """The frames that wait for sockets now, and the slow readers that were closed so far."""
    with urllib.request.urlopen(urljoin(target.subscribe_url, "/metrics"), timeout=30) as answer:
        text = answer.read().decode()
    found = {name: re.search(rf"^{name} (\S+)$", text, flags=re.MULTILINE) for name in (QUEUED, CLOSED)}
    return {name: float(match[1]) for name, match in found.items() if match}


def watched(command: list[str], look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run the load generator. Returns its result, with `looks`: for each mark the events by then, and the output of `look`.

    A look may fail where the server is busy. Then there is none for this mark.
    """
    looks: list[dict[str, Any]] = []
    line = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        for line in process.stdout:
            if line.startswith("mark "):
                with contextlib.suppress(OSError):
                    looks.append({"events": int(line.split()[1]), **look()})
        complaint = process.stderr.read().strip()[-300:]
    if process.returncode or not line.startswith("{"):
        return {"failed": complaint or f"loadgen ended with {process.returncode}"}
    return {**json.loads(line), "looks": looks}


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


LOADS = ("few", "many", "without", "slow", "carried")
FAULTS = {"lost": "lost", "duplicates": "dups", "order_violations": "order", "dead_connections": "dead"}


def flatten(result: dict[str, Any]) -> dict[str, float]:
    """The figures of a result of shape G. Latencies are in microseconds from when an event was due."""
    loads = {name: result[name] for name in LOADS if "failed" not in (result[name] or {})}
    figures: dict[str, float] = {"topics": result["topics"], "sockets": result["topics"] * SUBSCRIBERS}
    for name in {"few", "many"} & loads.keys():
        figures |= {f"{name}_us": cost(loads[name]), f"{name}_idle": loads[name]["settle_cpu"]}
    for name in {"many", "without", "slow"} & loads.keys():
        figures[f"{name}_p99"] = loads[name]["e2e_sched_us"]["p99"]
    if {"few", "many"} <= loads.keys():
        figures["us_ratio"] = figures["many_us"] / figures["few_us"]
    if {"slow", "without"} <= loads.keys():
        figures["p99_ratio"] = figures["slow_p99"] / figures["without_p99"]
        queued, closed = (most(loads["slow"], name) - most(loads["without"], name) for name in (QUEUED, CLOSED))
        figures |= {"slow": loads["slow"]["slow"], "queued": max(queued, 0), "closed": closed}
    if load := loads.get("carried"):
        figures |= {"carried": load["rate"], "carried_p99": load["e2e_sched_us"]["p99"]}
    for load in filter(None, loads.values()):
        for fault, name in FAULTS.items():
            figures[name] = figures.get(name, 0) + load[fault]
    return figures | {"steal": max((load["steal"] for load in loads.values() if load), default=0)}


def most(load: dict[str, Any], name: str) -> float:
    """The highest value of a number at the looks of a load. Normal readers may be late too, so loads are compared."""
    return max((float(look.get(name, 0)) for look in load["looks"]), default=0.0)


def complaints(figures: dict[str, float]) -> Iterator[str]:
    """The fault of a load with slow readers that held nothing up: its comparison proves nothing."""
    if figures.get("slow") and not figures["queued"] and not figures["closed"]:
        yield NEVER_SLOW


# --- memory after many events -----------------------------------------------------------------------------------------


def shape_m(target: drive.Target, endpoints: Path, *, events: int = EVENTS) -> dict[str, Any]:
    """So many events, of which 32 are in flight; the server's memory after each tenth of them."""
    target.subscribe(FEW, SUBSCRIBERS, endpoints)
    load = ["--mode", "closed", "--window", "32", "--duration", str(MOST_SECONDS), "--mark", str(events // 10)]
    command = target.command(endpoints, *load, "--max-events", str(events))
    return watched(command, lambda: {"rss_kb": drive.rss_kb(target.pids())})


def flatten_memory(result: dict[str, Any]) -> dict[str, float]:
    """The figures of a result of shape M. Memory is in MB."""
    first, last = result["looks"][0], result["looks"][-1]
    figures = {"first_mb": first["rss_kb"] / 1024, "last_mb": last["rss_kb"] / 1024}
    figures |= {"mb_ratio": last["rss_kb"] / first["rss_kb"], "first": first["events"], "last": last["events"]}
    return figures | {name: result[fault] for fault, name in FAULTS.items()} | {"steal": result["steal"]}
