"""Shape N of bench.py: one hub on SQLite beside one and two nodes on a real PostgreSQL with fsync, under the load of shape A."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.servers import THIS, Hub, Interpreter, Issuer, drive
from tests.postgresql.programs import server_folder
from tests.postgresql.server import PostgresServer

TOPICS, SUBSCRIBERS = 250, 4
BOTH_CPUS = "0,1"


class Layout(NamedTuple):
    """Where the nodes run, which of them take subscribers, and which take events. A node is its number, from 0 on."""

    shared: bool  # on PostgreSQL, else on SQLite
    cpus: tuple[str, ...]  # of each node
    others: str  # the CPUs of PostgreSQL and of the load
    subscribe: tuple[int, ...]  # the subscribers of a topic, in turns
    publish: tuple[int, ...]  # the topics, in turns
    apart: bool = False  # all subscribers of a topic at the node to which the topic is published


SQLITE, ONE, APART, TWO, ELSEWHERE = "sqlite x1", "postgresql x1", "x2 apart", "x2 mixed", "told at another"
LAYOUTS = {
    SQLITE: Layout(False, ("0",), "1", (0,), (0,)),
    ONE: Layout(True, ("0",), "1", (0,), (0,)),
    APART: Layout(True, (BOTH_CPUS, BOTH_CPUS), BOTH_CPUS, (0, 1), (0, 1), apart=True),
    TWO: Layout(True, (BOTH_CPUS, BOTH_CPUS), BOTH_CPUS, (0, 1), (0, 1)),
    ELSEWHERE: Layout(True, (BOTH_CPUS, BOTH_CPUS), BOTH_CPUS, (1,), (0,)),
}
#: Of the table: whose figures are divided by whose.
PAIRS = [(ONE, SQLITE), (APART, ONE), (TWO, ONE), (ELSEWHERE, SQLITE)]


class Nodes(drive.Target):  # type: ignore[misc]  # drive.py has no types
    """The nodes of a layout, started anew on an empty store for each run."""

    def __init__(
        self, name: str, issuer: Issuer, log_level: str, database: Database, python: Interpreter = THIS
    ) -> None:
        super().__init__(name, headers=[f"Authorization: Bearer {issuer.token}"])
        self._python = python
        self.layout, self._issuer, self._log_level, self._database = LAYOUTS[name], issuer, log_level, database
        self.load_cpus = self.layout.others
        self.hubs: list[Hub] = []

    def start(self) -> Nodes:
        store = self._database.empty(self.layout.others) if self.layout.shared else "sqlite"
        for cpus in self.layout.cpus:
            hub = Hub(self.name, store, self._issuer, self._log_level, cpus, self._python)
            self.hubs.append(hub)
            hub.start()
        self.subscribe_url, self.publish_url = self.subscribe_urls()[0], self.publish_urls()[0]
        return self

    def stop(self) -> None:
        for hub in self.hubs:
            hub.stop()
        self.hubs.clear()

    def pids(self) -> list[int]:
        return [pid for hub in self.hubs for pid in hub.pids()]

    def other_pids(self) -> list[int]:
        return self._database.pids() if self.layout.shared else []

    def subscribe_urls(self) -> list[str]:
        return [self.hubs[node].subscribe_url for node in self.layout.subscribe]

    def place(self, t: int, s: int) -> int:
        return t if self.layout.apart else s

    def publish_urls(self) -> list[str]:
        return [self.hubs[node].publish_url for node in self.layout.publish]


class Database:
    """A running PostgreSQL, of which each run gets an empty database."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    def empty(self, cpus: str) -> str:
        """The URL of an empty database, whose server runs on these CPUs from now on."""
        for pid in self.pids():
            with suppress(ProcessLookupError):  # a worker of PostgreSQL may have ended
                os.sched_setaffinity(pid, map(int, cpus.split(",")))
        self._server.drop_database("bench")
        return self._server.create_database("bench")

    def pids(self) -> list[int]:
        """The server's processes, one for each connection among them."""
        found: list[int] = drive.children(self._server.pid)
        return found


@contextmanager
def database() -> Iterator[Database]:
    """A PostgreSQL with the defaults of its settings: commits survive a crash."""
    with server_folder() as folder, PostgresServer.make(folder, fsync=True, shared_buffers="128MB") as server:
        yield Database(server)


# --- measurements ----------------------------------------------------------------------------------------------------

RATES = (500, 100)
#: Anything but nought here is a fault, not a figure.
FAULTS = ("lost", "duplicates", "order_violations", "http_errors", "dead_connections")


def shape_n(target: Nodes, endpoints: Path, *, seconds: int = 4, rates: tuple[int, ...] = RATES) -> dict[str, Any]:
    """32 events in flight, then each rate in turn. Each load has new nodes and an empty store."""
    times = ("--warmup", "1", "--duration", str(seconds))
    result: dict[str, Any] = {"nodes": len(target.layout.cpus)}
    loads: dict[str, tuple[str, ...]] = {f"at{rate}": ("--rate", str(rate)) for rate in rates}
    if target.name != ELSEWHERE:  # of which only the latency says something
        loads = {"closed": ("--mode", "closed", "--window", "32"), **loads}
    for name, load in loads.items():
        if len(result) > 1:
            target.stop()
            target.start()
        result[name] = drive.measure(target, endpoints, TOPICS, SUBSCRIBERS, *load, *times)
    return result


def quick_n(target: Nodes, endpoints: Path) -> dict[str, Any]:
    """Shape N in less time: without the low rate, and of two nodes either the capacity or the latency."""
    return shape_n(target, endpoints, seconds=2, rates=() if target.name in (APART, TWO) else RATES[:1])


def flatten(result: dict[str, Any]) -> dict[str, float]:
    """The figures of a result of shape N, as those of drive.flatten."""
    loads = {name: each for name, each in result.items() if name != "nodes" and "failed" not in each}
    figures: dict[str, float] = {}
    for name, load in loads.items():
        figures |= {f"{name}_{share}": load["e2e_us"][share] for share in ("p50", "p99")}
        figures[f"{name}_http_p50"] = load["http_us"]["p50"]
        for fault in FAULTS:
            figures[fault] = figures.get(fault, 0) + load[fault]
    if "closed" in loads:
        figures |= of_closed(loads["closed"], result["nodes"])
    return figures | {"steal": max((each["steal"] for each in loads.values()), default=0)}


def of_closed(load: dict[str, Any], nodes: int) -> dict[str, float]:
    """The cost of each part; and the deliveries of these nodes if each had a processor, and nothing else were short."""
    delivered = load["delivered_per_s"]
    cpu = {"node": load["server_cpu"], "database": load["other_cpu"], "load": load["loadgen_cpu"]}
    figures = {f"{part}_us": 1e6 * used / max(delivered, 1) for part, used in cpu.items()}
    figures |= {f"{part}_cpu": used for part, used in cpu.items()}
    return {"closed": delivered, **figures, "computed": nodes * delivered / max(load["server_cpu"], 0.01)}
