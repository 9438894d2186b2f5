"""Run seeds; print, shrink and replay those that fail.

python -m tests.simulation.run --seeds 1000      seeds 0 to 999, on all cores
python -m tests.simulation.run --seed 123        one, with all that led to its failure
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable
from typing import NamedTuple

from tests.simulation.script import Op, Script, script
from tests.simulation.violation import Violation
from tests.simulation.world import World


class Failure(NamedTuple):
    """A seed that failed: which invariant, what was found, and the operations that are enough for it."""

    seed: int
    invariant: str
    found: str
    operations: tuple[Op, ...]


def failure(run: Script) -> Failure | None:
    """What goes wrong in this run, if anything."""
    try:
        World(run).run()
    except Violation as violation:
        return Failure(run.seed, violation.invariant, str(violation), run.operations)
    return None


def shrunk(run: Script, failed: Failure) -> Failure:
    """The same failure with fewer operations: in halves, quarters, ..., one by one, as long as the same invariant fails."""
    size = len(failed.operations) // 2
    while size:
        start = 0
        while start < len(failed.operations):
            fewer = failed.operations[:start] + failed.operations[start + size :]
            again = failure(run._replace(operations=fewer))
            if again is not None and again.invariant == failed.invariant:
                failed = again
            else:
                start += size
        size //= 2
    return failed


def check(seed: int) -> Failure | None:
    """Run one seed."""
    return failure(script(seed))


def report(failed: Failure, *, whole: bool = False) -> str:
    """A failure, for people."""
    run = script(failed.seed)
    small = shrunk(run, failed)
    lines = [
        f"seed {failed.seed} fails: {failed.found[:1000]}",
        f"  {run.nodes} nodes, policy {run.policy.value}, queue {run.queue_messages}, {run.rules}",
        *(f"  client {number}: {temper}" for number, temper in enumerate(run.tempers) if whole),
        f"  shrunk to {len(small.operations)} operations: {small.found[:1000]}",
        *(f"    {op}" for op in small.operations),
        f"  again: make simulate SEED={failed.seed}",
    ]
    return "\n".join(lines)


def run_all(seeds: Iterable[int], total: int) -> list[Failure]:
    """Run them on all cores, saying how far it is."""
    failures: list[Failure] = []
    began = said = time.monotonic()
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for done, failed in enumerate(pool.imap_unordered(check, seeds, chunksize=20), 1):
            if failed is not None:
                failures.append(failed)
            now = time.monotonic()
            if now - said > 5 or done == total:
                said = now
                print(
                    f"{done} of {total} seeds, {done / (now - began):.0f} a second, {len(failures)} failed", flush=True
                )
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the hub's core against clients and a network of all tempers.")
    parser.add_argument("--seed", type=int, help="one seed alone")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    args = parser.parse_args()
    if args.seed is not None:
        failed = check(args.seed)
        print(report(failed, whole=True) if failed else f"seed {args.seed} holds")
        return int(failed is not None)
    failures = run_all(range(args.first, args.first + args.seeds), args.seeds)
    for failed in failures[:5]:
        print(report(failed))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
