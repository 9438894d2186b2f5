"""The search: breadth-first over all states of a scenario. So the first failure has a shortest path."""

from __future__ import annotations

import gc
from typing import NamedTuple

from tests.model import states
from tests.model.scenarios import Scenario, begin
from tests.model.steps import Room, Step, take
from tests.model.world import World
from tests.simulation.violation import Violation


class Failure(NamedTuple):
    """A broken invariant, and the steps that lead there."""

    invariant: str
    found: str
    path: tuple[Step, ...]


class Found(NamedTuple):
    """The end of a search."""

    states: int
    steps: int
    #: Steps of the longest of all shortest paths.
    depth: int
    failure: Failure | None
    #: False: the search stopped at `most` states.
    whole: bool = True


def search(scenario: Scenario, most: int = 0) -> Found:
    """All states of the scenario, or those up to the first failure, or the first `most` (0: all).

    States are compared by hashes of 64 bits: of ten million states two are taken for one with a chance of one in 300,000.
    """
    collects = gc.isenabled()
    gc.disable()  # no value refers to itself, and a collection would look at all states
    try:
        return _search(scenario, most)
    finally:
        if collects:
            gc.enable()


def _search(scenario: Scenario, most: int) -> Found:
    values, first = begin(scenario)
    room = Room(scenario, values, first)
    came: dict[int, tuple[int, Step] | None] = {hash(first): None}
    level, steps, depth = [(hash(first), first)], 0, 0
    names: dict[Step, Step] = {}
    while level:
        after: list[tuple[int, World]] = []
        for here, world in level:
            following = list(room.enabled(world))
            try:
                states.check(room, world, ends=not following)
            except Violation as broken:
                return Found(len(came), steps, depth, _failure(broken, came, here, ()))
            for step in following:
                steps += 1
                try:
                    there = take(room, world, step)
                except Violation as broken:
                    return Found(len(came), steps, depth, _failure(broken, came, here, (step,)))
                if (known := hash(there)) not in came:
                    came[known] = here, names.setdefault(step, step)
                    after.append((known, there))
            if most and len(came) >= most:
                return Found(len(came), steps, depth, None, whole=False)
        level, depth = after, depth + bool(after)
    return Found(len(came), steps, depth, None)


def _failure(broken: Violation, came: dict[int, tuple[int, Step] | None], here: int, last: tuple[Step, ...]) -> Failure:
    path = list(last)
    while (before := came[here]) is not None:
        here, step = before
        path.insert(0, step)
    return Failure(broken.invariant, str(broken), tuple(path))
