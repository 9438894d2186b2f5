"""`make chaos`: clients of a hub of several nodes, whose nodes are killed and put to sleep, and whose database fails.

python -m tests.nodes.run --kills 100          a hundred SIGKILLs of nodes, with other faults between them
python -m tests.nodes.run --kills 9 --seed 7   other choices

The last line is the count of violations. The histories stay in build/chaos.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.nodes.cluster import cluster
from tests.nodes.faults import Faults
from tests.nodes.load import Run

FOLDER = Path("build/chaos")
#: Width of the bar, in characters.
WIDTH = 40
#: Violations to print, at most.
MOST = 20


class Chaos:
    """A plan: one kill after the other, and other faults between them."""

    def __init__(self, kills: int, nodes: int, seed: int) -> None:
        self._kills, self._nodes = kills, nodes
        self._chance = random.Random(seed)
        self._began = time.monotonic()

    async def play(self, faults: Faults) -> None:
        """Carry out the plan."""
        for done in range(self._kills):
            self._show(done)
            await asyncio.sleep(self._chance.uniform(0.5, 2))
            await faults.kill(self._chance.randrange(self._nodes), self._chance.uniform(0.1, 3))
            await asyncio.sleep(self._chance.uniform(0, 1))
            await self._other(faults)
        self._show(self._kills)

    async def _other(self, faults: Faults) -> None:
        """Some other fault, or none; of one node or of all. Long sleeps are rare, for they take long."""
        some = [self._chance.randrange(self._nodes)] if self._chance.random() < 0.5 else []
        one = self._chance.randrange(self._nodes)
        seconds = self._chance.uniform(0.2, 3)
        others: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (6, lambda: asyncio.sleep(0)),
            (6, lambda: faults.lose_answers(seconds, *some)),
            (3, lambda: faults.cut(seconds, *some)),
            (2, lambda: faults.vanish(seconds * 2, *some)),
            (2, lambda: faults.slow(seconds, *some)),
            (2, lambda: faults.crash(seconds / 3)),
            (2, faults.fail_over),
            (2, lambda: faults.terminate(one)),
            (2, lambda: faults.sleep(one, seconds)),
            (1, lambda: faults.sleep(one, 8 + 3 * seconds)),
            (1, lambda: faults.cut(12 + seconds, one)),
        ]
        weights = [weight for weight, _ in others]
        await self._chance.choices([act for _, act in others], weights)[0]()

    def _show(self, done: int) -> None:
        """A bar that grows, on one line of a terminal, else a line for each tenth."""
        full = WIDTH * done // self._kills
        seconds = time.monotonic() - self._began
        text = f"[{'#' * full}{'-' * (WIDTH - full)}] {done} of {self._kills} kills, {seconds:.0f} s"
        if sys.stdout.isatty():
            print(f"\r{text}", end="" if done < self._kills else "\n", flush=True)
        elif done * 10 // self._kills > (done - 1) * 10 // self._kills:
            print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill the nodes of a hub under load, and check what its clients saw.")
    parser.add_argument("--kills", type=int, default=100, help="number of SIGKILLs")
    parser.add_argument("--nodes", type=int, default=3, help="number of nodes")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="choices of clients and faults")
    args = parser.parse_args()
    folder = FOLDER / str(args.seed)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {args.seed}; histories and logs are in {folder}")
    with cluster(args.nodes, folder.absolute()) as made:
        run = Run(made, folder / "history.jsonl", args.seed)
        asyncio.run(run.play(Chaos(args.kills, args.nodes, args.seed).play))
    counts = Counter(str(each["status"]) for each in run.history.records if each["op"] == "post")
    print("answers to events:", ", ".join(f"{count} times {status}" for status, count in sorted(counts.items())))
    for line in run.violations[:MOST]:
        print(line[:1000])
    print(f"{len(run.violations)} violations")
    return int(bool(run.violations))


if __name__ == "__main__":
    sys.exit(main())
