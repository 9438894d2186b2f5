"""The hub beside a bare uvicorn and a bare node server, measured in one run, as a Markdown table with ratios.

    python tests/bench/bench.py                       shapes A, B, C, D, W, N, one run each
    python tests/bench/bench.py --quick               a short look: no search for the highest rate, 1,000 idle sockets
    python tests/bench/bench.py --runs 3 --shapes A,B --stores sqlite,memory --baselines uvicorn-sansio

It starts the servers itself, the hub with an issuer made for the run, and PostgreSQL for shape N. It asserts no time:
README.md says how to read it.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import http.client
import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from tests.bench import nodes  # noqa: E402  # the line above lets Python find them
from tests.bench.servers import LOAD_CPU, SERVER_CPU, STORES, Hub, baseline, drive, issuer  # noqa: E402

# --- webhooks ----------------------------------------------------------------------------------------------------------

CALLBACKS = 200
WEBHOOK_EVENTS = 20  # fewer than a queue holds, and over before anybody has hung for too long


class Callbacks:
    """A server for callbacks, in a thread: /fast/... answers, /slow/... never does. `heard` is for each post to the former."""

    def __init__(self) -> None:
        self.heard, self.agreed = threading.Semaphore(0), threading.Semaphore(0)
        self._listens = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        self._listens.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _run(self) -> None:
        os.sched_setaffinity(0, {LOAD_CPU})
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._listens.set()
        await self._over.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                await reader.readexactly(int(head.lower().partition("content-length: ")[2].partition("\r")[0] or 0))
                method, target, _ = head.split(" ", 2)
                if method == "POST" and target.startswith("/slow"):
                    await reader.read()  # until the hub has had enough
                    return
                challenge = parse_qs(urlsplit(target).query).get("hub.challenge", [""])[0]
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(challenge)}\r\n\r\n{challenge}".encode())
                (self.agreed if challenge else self.heard).release()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()


def shape_w(target: drive.Target, endpoints: Path) -> dict[str, Any]:
    """Half of the callbacks alone, then beside as many that hang; in one run, so that one is to be compared with the other."""
    callbacks, half = Callbacks(), CALLBACKS // 2
    try:
        alone = fan_out(target, callbacks, "alone", half, 0)
        beside = fan_out(target, callbacks, "beside", half, half)
    finally:
        callbacks.stop()
    return {"alone_us": alone, "beside_us": beside, "ratio": beside / alone}


def fan_out(target: drive.Target, callbacks: Callbacks, topic: str, fast: int, slow: int) -> float:
    """Median us from the POST of an event until the last fast callback has it."""
    url = urlsplit(target.publish_url)
    hub = http.client.HTTPConnection(str(url.hostname), url.port, timeout=30)
    headers = dict(line.split(": ", 1) for line in target.headers)

    def post(body: str, media_type: str) -> None:
        hub.request("POST", url.path, body, headers | {"Content-Type": media_type})
        answer = hub.getresponse()
        if (text := answer.read()) and answer.status != http.HTTPStatus.ACCEPTED:
            raise RuntimeError(f"answered with {answer.status} {text[:200]!r}")

    for number in range(fast + slow):
        path = f"{'fast' if number < fast else 'slow'}/{topic}/{number}"
        form = {"hub.channel.type": "webhook", "hub.callback": f"http://127.0.0.1:{callbacks.port}/{path}"}
        form |= {"hub.mode": "subscribe", "hub.topic": topic, "hub.events": "Patient-open", "hub.secret": "bench"}
        post(urlencode(form), "application/x-www-form-urlencoded")
    took(callbacks.agreed, fast + slow)
    time.sleep(1)  # the last yes has been said, and must be taken in
    times = []
    for number in range(WEBHOOK_EVENTS):
        context = [{"key": "patient", "resource": {"resourceType": "Patient", "id": f"p{number}"}}]
        event = {"hub.topic": topic, "hub.event": "Patient-open", "context": context}
        began = time.perf_counter()
        post(
            json.dumps({"timestamp": "2026-01-01T00:00:00Z", "id": f"{topic}-{number}", "event": event}),
            "application/json",
        )
        took(callbacks.heard, fast)
        times.append((time.perf_counter() - began) * 1e6)
        time.sleep(0.05)
    hub.close()
    return statistics.median(times[3:])


def took(semaphore: threading.Semaphore, count: int) -> None:
    for _ in range(count):
        if not semaphore.acquire(timeout=30):
            raise RuntimeError("a callback that answers was not posted to within 30 s")


def flatten(shape: str, result: dict[str, Any]) -> dict[str, Any]:
    """As drive.flatten, which knows nothing of webhooks and nodes."""
    if "failed" in result:
        return {}
    match shape:
        case "W":
            return result
        case "N":
            return nodes.flatten(result)
        case _:
            found: dict[str, Any] = FLATTEN(shape, result)
            return found


FLATTEN, drive.flatten = drive.flatten, flatten
drive.SHAPES |= {"W": shape_w, "N": nodes.shape_n}

# --- shapes of a short look ------------------------------------------------------------------------------------------


def quick_a(target: drive.Target, endpoints: Path) -> dict[str, Any]:
    closed = ["--mode", "closed", "--window", "32", "--warmup", "1", "--duration", "2"]
    return {"closed": drive.measure(target, endpoints, 250, 4, *closed), "best": None, "at500": None}


def quick_b(target: drive.Target, endpoints: Path) -> dict[str, Any]:
    closed = ["--mode", "closed", "--warmup", "1", "--duration", "2", "--window"]
    return {f"w{window}": drive.measure(target, endpoints, 1, 1000, *closed, str(window)) for window in (4, 1)}


def quick_d(target: drive.Target, endpoints: Path) -> dict[str, Any]:
    paced = ["--rate", "100", "--poisson", "--warmup", "1", "--duration", "3"]
    result: dict[str, Any] = drive.measure(target, endpoints, 250, 4, *paced)
    return result


QUICK = {"A": quick_a, "B": quick_b, "C": functools.partial(drive.shape_c, n=1000), "D": quick_d, "N": nodes.quick_n}


# --- the report ------------------------------------------------------------------------------------------------------

MORE, LESS = "more", "less"
SHAPES = {
    "A": "250 topics x 4 subscribers",
    "B": "1 topic x 1,000 subscribers",
    "C": "idle sockets",
    "D": "100 events/s, 250 topics x 4 subscribers",
    "W": f"1 topic x {CALLBACKS} callbacks, of which half hang",
    "N": "one and two nodes, 250 topics x 4 subscribers",
}
#: Of drive.flatten()'s figures those worth comparing: what it is, and what is better.
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
#: Anything but nought here is a fault, not a figure.
FAULTS = ("lost", "dups", "order", "w4_lost", "w4_order", "w1_lost", "w1_order", "dead", *nodes.FAULTS[1:])

Cells = dict[tuple[str, str, str], list[float]]
Pairs = list[tuple[str, str]]  # of servers, whose figures are divided


class Results(NamedTuple):
    """Figures by shape, name and server; and what went wrong."""

    cells: Cells
    remarks: list[str]


def read(lines: Iterable[str]) -> Results:
    cells: Cells = defaultdict(list)
    remarks = []
    for line in lines:
        row = json.loads(line)
        where, result = f"{row['server']}, shape {row['shape']}, run {row['run']}", row["result"]
        failures = [
            part["failed"] for part in (result, *result.values()) if isinstance(part, dict) and "failed" in part
        ]
        remarks += [f"{where}: {failure}" for failure in failures]
        if "failed" in result:
            continue
        figures = drive.flatten(row["shape"], result)
        remarks += [f"{where}: {name} {figures[name]}" for name in FAULTS if figures.get(name)]
        steal = max((value for name, value in figures.items() if name.endswith("steal")), default=0)
        if steal > drive.MAX_STEAL:
            remarks.append(f"{where}: the hypervisor took {steal:.0%} of the CPU")
        for name, value in figures.items():
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


# --- the run ---------------------------------------------------------------------------------------------------------


def some_of(known: Iterable[str]) -> functools.partial[list[str]]:
    """Reads `A,B` as a list; each name must be known, and none is a list too."""
    return functools.partial(chosen, known=list(known))


def chosen(text: str, known: list[str]) -> list[str]:
    names = [name for name in text.split(",") if name]
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(known)}")
    return names


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line, unless words are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=some_of(SHAPES), default="A,B,C,D,W,N", help="all, unless given")
    parser.add_argument("--runs", type=int, default=1, help="medians are taken over the runs")
    parser.add_argument("--quick", action="store_true", help="a short look")
    parser.add_argument(
        "--stores",
        type=some_of(STORES),
        default="sqlite",
        help="a hub for each; empty: only baselines; shape N has its own",
    )
    parser.add_argument("--baselines", type=some_of(drive.SERVERS), default="uvicorn-sansio,node-ws")
    parser.add_argument("--log-level", default="info", help="the hub's; its log goes nowhere")
    parser.add_argument("--out", type=Path, help="keep the raw results in this file, a JSON line each")
    return parser.parse_args(words)


def prepare_machine() -> None:
    if not {SERVER_CPU, LOAD_CPU} <= os.sched_getaffinity(0):
        sys.exit("bench: two CPUs are needed, 0 for the server and 1 for the load")
    if not (HERE / "loadgen" / "loadgen").exists():
        sys.exit("bench: the load generator is not built; `make bench` does it")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a server needs a file for each of 5,000 sockets


def main() -> None:
    args = arguments()
    prepare_machine()
    if args.quick:
        drive.SHAPES.update(QUICK)
    with ExitStack() as stack:
        made = stack.enter_context(issuer())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        hubs = [
            Hub("hub" if store == "sqlite" else f"hub-{store}", store, made, args.log_level) for store in args.stores
        ]
        for hub in hubs:
            hub.check()
        beside = [*hubs, *(baseline(name) for name in args.baselines)]
        targets = {shape: hubs if shape == "W" else beside for shape in args.shapes}
        if "N" in args.shapes:
            database = stack.enter_context(nodes.database())
            targets["N"] = [nodes.Nodes(name, made, args.log_level, database) for name in nodes.LAYOUTS]
        out = args.out or Path(folder) / "results.jsonl"
        out.write_text("")
        for run in range(1, args.runs + 1):
            for shape in args.shapes:
                for target in targets[shape]:  # innermost: what is compared is measured within the same minutes
                    with redirect_stdout(sys.stderr):  # progress; stdout is for the table
                        drive.run(target, [shape], run, out)
        results = read(out.read_text().splitlines())
    print(report(results, args.shapes, [hub.name for hub in hubs], args.baselines))


if __name__ == "__main__":
    main()
