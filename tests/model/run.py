"""Search the scenarios of the model, or walk by chance.

python -m tests.model.run                      each scenario of four events, to its last state
python -m tests.model.run --only posts         those whose names have the word
python -m tests.model.run --most 100000        the first states of each scenario
python -m tests.model.run --seeds 1000         walks of the seeds 0 to 999: more nodes, more events, more faults
python -m tests.model.run --seed 123           the walk of one seed
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable

from tests.model.scenarios import Scenario
from tests.model.search import search
from tests.model.seeds import scenario, walk
from tests.model.suite import WHOLE
from tests.model.words import report


def searched(job: tuple[Scenario, int]) -> tuple[str, bool]:
    """One line about a scenario, or the path to its failure. And whether it failed."""
    began = time.monotonic()
    found = search(*job)
    if found.failure is not None:
        return report(job[0], found.failure), True
    end = "all" if found.whole else "the first"
    seconds = time.monotonic() - began
    text = f"{end} {found.states:,} states, {found.steps:,} steps, {found.depth} deep, {seconds:.0f} s"
    return f"{job[0].name}: {text}", False


def walked(seed: int) -> str:
    """The failure of a seed as text. "": there is none."""
    failed = walk(scenario(seed), seed)
    return report(scenario(seed), failed) if failed is not None else ""


def search_all(scenarios: Iterable[Scenario], most: int, processes: int) -> int:
    """Search these scenarios, and print each. Returns how many failed."""
    jobs = [(each, most) for each in scenarios]
    failures = 0
    with multiprocessing.Pool(processes, maxtasksperchild=1) as pool:
        for text, failed in pool.imap_unordered(searched, jobs):
            print(text, flush=True)
            failures += failed
    return failures


def walk_all(seeds: Iterable[int], processes: int) -> int:
    """Walk these seeds, and print the failures. Returns how many failed."""
    with multiprocessing.Pool(processes) as pool:
        failures = [text for text in pool.imap_unordered(walked, seeds, chunksize=20) if text]
    print(*failures[:5], f"{len(failures)} failed", sep="\n")
    return len(failures)


def main() -> int:
    parser = argparse.ArgumentParser(description="Search the model of many nodes for a state that must not be.")
    parser.add_argument("--only", default="", help="scenarios whose names have this word")
    parser.add_argument("--most", type=int, default=0, help="states of a scenario, at most; 0: all")
    parser.add_argument("--seed", type=int, help="a single seed")
    parser.add_argument("--seeds", type=int, help="number of seeds")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="processes at once")
    args = parser.parse_args()
    if args.seed is not None:
        print(text := walked(args.seed) or f"seed {args.seed} holds")
        return int(not text.endswith("holds"))
    if args.seeds is not None:
        return int(walk_all(range(args.first, args.first + args.seeds), args.processes) > 0)
    return int(search_all((each for each in WHOLE if args.only in each.name), args.most, args.processes) > 0)


if __name__ == "__main__":
    sys.exit(main())
