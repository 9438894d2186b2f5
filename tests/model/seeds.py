"""Seeds: walks by chance through worlds that are too large for a search: more nodes, more events, more faults."""

from __future__ import annotations

import random

from tests.model import states
from tests.model.scenarios import Scenario, begin
from tests.model.search import Failure
from tests.model.steps import Room, Step, take
from tests.model.world import Budget
from tests.simulation.violation import Violation

#: Steps of a walk, at most. A walk ends where nothing more can happen.
LONGEST = 1000


def scenario(seed: int) -> Scenario:
    """The scenario of a seed: up to five nodes and eight events, with faults of all kinds."""
    dice = random.Random(seed)
    nodes = dice.randint(2, 5)
    topics = dice.randint(1, 2)
    updates = dice.random() < 0.2
    deaths, sleeps, lost_answers, failovers, returns = (dice.randint(0, 2) for _ in range(5))
    budget = Budget(min(deaths, nodes - 1), sleeps, lost_answers, failovers, 2 * returns)
    return Scenario(
        f"seed {seed}",
        events=(*range(topics), *(dice.randrange(topics) for _ in range(dice.randint(1, 6)))),
        updates=updates,
        subs=(*((topic, dice.randrange(nodes)) for topic in range(topics)), *_subs(dice, nodes, topics)),
        callback=dice.random() < 0.5,
        budget=budget,
        slow_commits=topics > 1 and dice.random() < 0.5,
        notices=dice.random() < 0.3,
        time=dice.random() < 0.5,
        nodes=nodes,
    )


def _subs(dice: random.Random, nodes: int, topics: int) -> tuple[tuple[int, int], ...]:
    return tuple((dice.randrange(topics), dice.randrange(nodes)) for _ in range(dice.randint(0, 4)))


def walk(of: Scenario, seed: int) -> Failure | None:
    """A walk through the worlds of a scenario: the failure that it meets, or None."""
    values, world = begin(of)
    room, dice, path = Room(of, values, world), random.Random(seed), list[Step]()
    try:
        for _ in range(LONGEST):
            following = list(room.enabled(world))
            states.check(room, world, ends=not following)
            if not following:
                return None
            path.append(dice.choice(following))
            world = take(room, world, path[-1])
    except Violation as broken:
        return Failure(broken.invariant, str(broken), tuple(path))
    return None
