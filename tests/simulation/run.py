"""Run seeds. Print, shrink and repeat the failing ones.

python -m tests.simulation.run --seeds 1000      seeds 0 to 999, on all cores
python -m tests.simulation.run --seed 123        one seed, with the operations that lead to its failure
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
    """A seed that failed: the broken invariant, the findings, and operations that suffice."""

    seed: int
    invariant: str
    found: str
    operations: tuple[Op, ...]


def failure(run: Script) -> Failure | None:
    """The failure of this run; None if all invariants hold."""
    try:
        World(run).run()
    except Violation as violation:
        return Failure(run.seed, violation.invariant, str(violation), run.operations)
    return None


def shrunk(run: Script, failed: Failure) -> Failure:
    """The same failure with fewer operations. Halves are left out, then quarters, and so on to single operations."""
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
    """The text that is printed for a failure."""
    run = script(failed.seed)
    small = shrunk(run, failed)
    lines = [
        f"seed {failed.seed} fails: {failed.found[:1000]}",
        f"  {run.nodes} nodes, policy {run.policy.value}, queue {run.queue_messages}, {run.rules}",
        *(f"  client {number}: {behaviour}" for number, behaviour in enumerate(run.behaviours) if whole),
        f"  shrunk to {len(small.operations)} operations: {small.found[:1000]}",
        *(f"    {op}" for op in small.operations),
        f"  again: make simulate SEED={failed.seed}",
    ]
    return "\n".join(lines)


def run_all(seeds: Iterable[int], total: int) -> list[Failure]:
    """Run the seeds on all cores, and print the progress."""
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
    parser = argparse.ArgumentParser(
        description="Run the hub's core against simulated clients and a simulated network."
    )
    parser.add_argument("--seed", type=int, help="a single seed")
    parser.add_argument("--seeds", type=int, default=1000, help="number of seeds")
    parser.add_argument("--first", type=int, default=0, help="first seed")
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
