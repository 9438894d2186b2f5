"""The hub beside a bare uvicorn and a bare node server, measured in one run, as a Markdown table with ratios.

    python tests/bench/bench.py                       all shapes, one run each
    python tests/bench/bench.py --quick               a short look: no search for the highest rate, 1,000 idle sockets
    python tests/bench/bench.py --runs 3 --page       writes docs/benchmarks.md
    python tests/bench/bench.py --runs 3 --shapes A,B --stores sqlite,memory --baselines uvicorn-sansio

It starts the servers itself, the hub with an issuer made for the run, and PostgreSQL for shape N. No time is asserted:
README.md says how to read the tables. The raw results, the page and its picture are then in build/bench.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from tests.bench import growth, machine, nodes, page, quick, rates, webhooks  # noqa: E402  # the line above lets Python find them
from tests.bench.results import SHAPES, read, report  # noqa: E402
from tests.bench.servers import (  # noqa: E402
    LOAD_CPU,
    ROOT,
    SERVER_CPU,
    STORES,
    THIS,
    Hub,
    Interpreter,
    Issuer,
    baseline,
    drive,
    interpreter,
    issuer,
)

#: Shapes of the hub alone.
HUB_ONLY = ("G", "M", "W")
#: Shapes that are measured in the first run alone: memory varies little, and the events take minutes.
ONCE = ("M",)
FOLDER = ROOT / "build" / "bench"


class Folder(NamedTuple):
    """The folder of a run's results."""

    path: Path

    @property
    def results(self) -> Path:
        return self.path / "results.jsonl"

    @property
    def facts(self) -> Path:
        return self.path / "facts.json"


# --- the command line ------------------------------------------------------------------------------------------------


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
    option = parser.add_argument
    option("--shapes", type=some_of(SHAPES), default=",".join(SHAPES), help="all, unless given")
    option("--runs", type=int, default=1, help="medians are taken over the runs")
    option("--quick", action="store_true", help="a short look")
    option(
        "--events",
        type=int,
        help=f"of shape M: {growth.EVENTS:,}, and {page.MEMORY_EVENTS:,} with --page, unless given",
    )
    option(
        "--stores", type=some_of(STORES), default="sqlite", help="a hub for each; empty: only baselines; not of shape N"
    )
    option("--baselines", type=some_of(drive.SERVERS), default=",".join(page.BASELINES))
    option("--python", help="runs hub and baselines, with the packages of this one; its version must be the same")
    option("--log-level", default="info", help="the hub's; its log goes nowhere")
    option("--folder", type=Path, default=FOLDER, help="where results, page and picture go, instead of build/bench")
    option("--add", action="store_true", help="keep the results of other shapes, of the same versions and machine")
    option("--page", action="store_true", help="write docs/benchmarks.md, and README's sentence")
    option(
        "--show", action="store_true", help="measure nothing: show the results that are there; with --page, write them"
    )
    args = parser.parse_args(words)
    if args.quick and args.page:
        parser.error("--page needs a whole run, and --quick is none")
    args.events = args.events or (page.MEMORY_EVENTS if args.page else growth.EVENTS)
    return args


# --- the run ---------------------------------------------------------------------------------------------------------


def prepare_machine() -> None:
    if not {SERVER_CPU, LOAD_CPU} <= os.sched_getaffinity(0):
        sys.exit("bench: two CPUs are needed, 0 for the server and 1 for the load")
    if not (HERE / "loadgen" / "loadgen").exists():
        sys.exit("bench: the load generator is not built; `make bench` builds it")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a server needs a file for each of 10,000 sockets
    if most < (wanted := growth.MANY * growth.SUBSCRIBERS + 500):
        say(f"bench: shape G needs {wanted:,} files open at once, and `ulimit -n` allows {most:,}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def prepare_shapes(args: argparse.Namespace) -> None:
    """Gives drive.py the shapes of this folder, or short ones."""
    memory = functools.partial(growth.shape_m, events=args.events)
    drive.SHAPES |= {"R": rates.shape_r, "G": growth.shape_g, "M": memory, "W": webhooks.shape_w, "N": nodes.shape_n}
    if args.quick:
        drive.SHAPES |= quick.SHAPES


def prepare_results(folder: Folder, args: argparse.Namespace, python: Interpreter) -> None:
    """An empty file, or with --add the results of other shapes; and the machine and versions behind them."""
    folder.path.mkdir(parents=True, exist_ok=True)
    facts, kept = machine.facts(python, args.shapes), []
    if args.add and folder.results.exists():
        old = json.loads(folder.facts.read_text(encoding="utf-8"))
        machine.refuse_others(old, facts)
        facts = old | facts
        lines = folder.results.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["shape"] not in args.shapes]
    folder.results.write_text("".join(kept), encoding="utf-8")
    facts["quick"] = "yes" if args.quick or facts.get("quick") else ""
    folder.facts.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def targets(args: argparse.Namespace, made: Issuer, python: Interpreter, stack: ExitStack) -> dict[str, list[Any]]:
    """The servers of each shape."""
    hubs = [
        Hub("hub" if store == "sqlite" else f"hub-{store}", store, made, args.log_level, python=python)
        for store in args.stores
    ]
    for hub in hubs:
        hub.check()
    beside = [*hubs, *(baseline(name, python) for name in args.baselines)]
    found = {shape: hubs if shape in HUB_ONLY else beside for shape in args.shapes}
    if "N" in args.shapes:
        database = stack.enter_context(nodes.database())
        found["N"] = [nodes.Nodes(name, made, args.log_level, database, python) for name in nodes.LAYOUTS]
    return found


def measure(args: argparse.Namespace, folder: Folder, python: Interpreter) -> None:
    """All runs; the results are in the folder, a line each as soon as it is measured."""
    prepare_machine()
    prepare_shapes(args)
    prepare_results(folder, args, python)
    with ExitStack() as stack:
        servers = targets(args, stack.enter_context(issuer()), python, stack)
        turns = [
            functools.partial(drive.run, target, [shape], run, folder.results)
            for run in range(1, args.runs + 1)
            for shape in args.shapes
            if run == 1 or shape not in ONCE
            for target in servers[shape]  # innermost: what is compared is measured within the same minutes
        ]
        in_turn(turns)


def in_turn(turns: Sequence[Callable[[], object]]) -> None:
    """Each after the other; progress, and when all will be done, go to stderr: stdout is for the table."""
    began = time.monotonic()
    for done, turn in enumerate(turns, 1):
        with redirect_stdout(sys.stderr):
            turn()
        spent = time.monotonic() - began
        say(
            f"{done} of {len(turns)}; {spent / 60:.0f} min so far, about {spent / done * (len(turns) - done) / 60:.0f} min left"
        )


def main() -> None:
    args = arguments()
    folder = Folder(args.folder)
    if not args.show:
        measure(args, folder, interpreter(args.python) if args.python else THIS)
    lines = folder.results.read_text(encoding="utf-8").splitlines()
    results, facts = read(lines), json.loads(folder.facts.read_text(encoding="utf-8"))
    shapes = [shape for shape in SHAPES if any(json.loads(line)["shape"] == shape for line in lines)]
    servers = dict.fromkeys(json.loads(line)["server"] for line in lines if json.loads(line)["shape"] != "N")
    hubs = [name for name in servers if name.startswith("hub")]
    print(report(results, shapes, hubs, [name for name in servers if name not in hubs]))
    made = page.make(results, facts)
    made.write(folder.path / "benchmarks.md", folder.path / "latency.svg")
    if args.page and (lacking := page.lacking(results, facts)):
        sys.exit(f"bench: no page was written: {'; '.join(lacking)}")
    if args.page:
        made.publish(ROOT)
        say("bench: docs/benchmarks.md, docs/pictures/latency.svg and README.md were written")


if __name__ == "__main__":
    main()
