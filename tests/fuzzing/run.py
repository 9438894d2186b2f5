"""Looks for inputs that make a parser fail, or that it reads slowly.

    python -m tests.fuzzing.run 2000 [--first SEED]

Slow is what takes longer than ordinary JSON of the same size would take Python's json, many times over; or far more than four
times as long as a quarter of it. All times are of the processor, the best of some.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator

from tests.fuzzing.inputs import Shape, changed, shape
from tests.fuzzing.parsers import PARSERS, Parser

#: How many times longer than Python's json an input may take, and seconds that any may.
ALLOWED, FREE = 8.0, 0.002
#: How much longer four times the size may take, which are 16 times where it is quadratic; and seconds under which that is not asked.
GROWN, ASKED = 9.0, 0.004
#: Inputs that are changed for each that is grown: those cost a thousandth.
CHANGED = 40
_TRIES = 9


def spent(read: Callable[[bytes], object], text: bytes, tries: int = 1) -> float:
    """Seconds of the processor, the least of some tries."""
    least = float("inf")
    for _ in range(tries):
        began = time.thread_time()
        read(text)
        least = min(least, time.thread_time() - began)
    return least


def per_byte() -> float:
    """Seconds that Python's json takes here for a byte of ordinary JSON."""
    text = json.dumps(
        [{"system": "http://loinc.org", "code": f"{n}-5", "value": [n, 1.5]} for n in range(3000)]
    ).encode()
    return spent(json.loads, text, 9) / len(text)


class Judge:
    """Says what is wrong with how a parser reads an input; "" where nothing is."""

    def __init__(self) -> None:
        self._per_byte = per_byte()

    def of(self, parser: Parser, text: bytes) -> str:
        """Whether an input makes it fail."""
        try:
            parser.read(text)
        except Exception as error:
            return f"{parser.name}: {type(error).__name__}: {error} for {_shown(text)}"
        return ""

    def of_shape(self, parser: Parser, found: Shape) -> str:
        """Whether it fails for an input as long as may come, or is slow."""
        whole, quarter = found.grown(parser.longest), found.grown(parser.longest // 4)
        if wrong := self.of(parser, whole):
            return wrong
        allowed = FREE + ALLOWED * self._per_byte * len(whole)
        if self._is_over(parser, whole, allowed):
            self._per_byte = max(self._per_byte, per_byte())  # the machine may be slower now than at the start
            allowed = FREE + ALLOWED * self._per_byte * len(whole)
        if self._is_over(parser, whole, allowed):
            return f"{parser.name}: over {allowed * 1000:.1f} ms for {len(whole)} bytes: {_shown_shape(found)}"
        if spent(parser.read, whole) > ASKED and self._is_over(
            parser, whole, max(ASKED, GROWN * spent(parser.read, quarter, _TRIES))
        ):
            return f"{parser.name}: over {GROWN} times the time for four times the size: {_shown_shape(found)}"
        return ""

    def _is_over(self, parser: Parser, text: bytes, allowed: float) -> bool:
        """Whether not one of some tries takes so little: others use the processor too."""
        return all(spent(parser.read, text) > allowed for _ in range(_TRIES))


def _shown(text: bytes) -> str:
    return repr(text if len(text) < 3000 else text[:3000]) + f" ({len(text)} bytes)"


def _shown_shape(found: Shape) -> str:
    return f"Shape({found.before!r}, {found.unit!r}, {found.after!r})"


def wrong_with(parser: Parser, seed: int, judge: Judge) -> Iterator[str]:
    """What is wrong with how a parser reads the inputs of a seed."""
    chance = random.Random(f"{parser.name} {seed}")  # not for secrets
    for _ in range(CHANGED):
        if wrong := judge.of(parser, changed(chance.choice(parser.seeds), chance, parser.seeds)):
            yield f"seed {seed}: {wrong}"
    if wrong := judge.of_shape(parser, shape(chance.choice(parser.seeds), chance)):
        yield f"seed {seed}: {wrong}"


def main() -> int:
    """Rounds of all parsers, each from its seed; 1 where anything was found."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("rounds", type=int, nargs="?", default=500)
    arguments.add_argument("--first", type=int, default=0)
    given, judge, found = arguments.parse_args(), Judge(), 0
    for seed in range(given.first, given.first + given.rounds):
        for parser in PARSERS.values():
            for wrong in wrong_with(parser, seed, judge):
                print(wrong, flush=True)
                found += 1
    print(f"{given.rounds} rounds of {len(PARSERS)} parsers from seed {given.first}: {found or 'nothing'} found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
