"""Each mutant of the core breaks an expected invariant within the fixed seeds."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, Mutant, mutated
from tests.simulation.run import check

#: The seeds of test_simulation.py.
SEEDS = 300


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.mistake)
def test_a_mistake_is_noticed(mutant: Mutant) -> None:
    with mutated(mutant):
        failed = next((failed for seed in range(SEEDS) if (failed := check(seed)) is not None), None)
    assert failed is not None, f"no invariant is broken: {mutant.mistake}"
    assert failed.invariant in mutant.caught_by, failed.found
