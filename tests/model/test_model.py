"""Many nodes on one database: no state of the model breaks an invariant, and each mutant of the algorithm does."""

from __future__ import annotations

import pytest

from tests.model import invariants, states
from tests.model.mutants import MUTANTS, InModel
from tests.model.scenarios import Scenario, begin
from tests.model.search import search
from tests.model.seeds import scenario, walk
from tests.model.steps import Room, take
from tests.model.suite import SHORT
from tests.model.words import report
from tests.simulation.mutants import mutated

#: States of a mutant's scenario without the mistake. Each mistake is found among fewer.
MOST = 30_000
#: Seeds of the walks.
SEEDS = 60
#: The scenarios of the mutants, without those of the suite.
_IN_SUITE = {of._replace(name="") for of in SHORT}
UNMUTATED = {each.scenario.name: each.scenario for each in MUTANTS if each.scenario._replace(name="") not in _IN_SUITE}


@pytest.mark.req("NOD-1", "NOD-3", "NOD-5", "NOD-7", "NOD-8", "NOD-10", "NOD-12", "EVT-17", "EVT-20", "CTX-5", "SYN-7")
@pytest.mark.parametrize("of", SHORT, ids=lambda of: of.name)
def test_no_state_breaks_an_invariant(of: Scenario) -> None:
    found = search(of)
    assert found.failure is None, report(of, found.failure)
    assert found.states > 500  # the search has not ended early


@pytest.mark.req("NOD-1", "NOD-3", "NOD-5", "NOD-7", "NOD-8", "NOD-9", "NOD-10", "NOD-12")
@pytest.mark.parametrize("seed", range(0, SEEDS, 10))
def test_no_walk_by_chance_breaks_an_invariant(seed: int) -> None:
    for each in range(seed, seed + 10):
        failed = walk(scenario(each), each)
        assert failed is None, report(scenario(each), failed)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.mutant.mistake)
def test_a_mistake_is_found(mutant: InModel) -> None:
    with mutated(mutant.mutant):
        found = search(mutant.scenario, MOST)
    assert found.failure is not None, f"no state breaks an invariant: {mutant.mutant.mistake}"
    assert found.failure.invariant in mutant.mutant.caught_by, report(mutant.scenario, found.failure)


@pytest.mark.parametrize("of", UNMUTATED.values(), ids=lambda of: of.name)
def test_without_the_mistake_its_scenario_holds(of: Scenario) -> None:
    """Searched farther than to the state in which the mistake is found."""
    found = search(of, MOST)
    assert found.failure is None, report(of, found.failure)


#: A mutant whose failure is printed and walked again.
OVERTAKES = next(each for each in MUTANTS if "overtakes" in each.mutant.mistake)


def test_the_path_to_a_failure_is_told_in_words() -> None:
    """No shorter path leads to the failure, and each of its steps is a sentence."""
    with mutated(OVERTAKES.mutant):
        found = search(OVERTAKES.scenario)
        assert found.failure is not None
        lines = report(OVERTAKES.scenario, found.failure).splitlines()
    assert lines[1] == f"  {len(found.failure.path)} steps lead there:"
    assert lines[2] == "    1. event 0 is posted to node a0"
    assert any("gets no answer, so the outcome is unknown" in line for line in lines)


def test_a_path_can_be_walked_again() -> None:
    with mutated(OVERTAKES.mutant):
        found = search(OVERTAKES.scenario)
        assert found.failure is not None
        values, world = begin(OVERTAKES.scenario)
        room = Room(OVERTAKES.scenario, values, world)
        for step in found.failure.path[:-1]:
            assert step in list(room.enabled(world))
            world = take(room, world, step)
            states.check(room, world, ends=False)


def test_each_invariant_is_broken_by_a_mutant() -> None:
    steps = [each.__name__ for each in invariants.AT_EACH_COMMIT]
    named = {name for each in MUTANTS for name in each.mutant.caught_by}
    in_states = [each.__name__ for each in (*states.IN_EACH_STATE, *states.AT_THE_END)]
    others = ["sockets_are_told_the_log", "posts_come_in_order"]
    assert set(steps + in_states + others) - named <= {"nobody_waits", "absent_subscribers_are_known"}
