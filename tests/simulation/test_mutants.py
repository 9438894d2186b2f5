"""The simulation bites: each mistake in the core is noticed within the fixed seeds, and by whom it should be."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, Mutant, mutated
from tests.simulation.run import check

#: The same that test_simulation.py runs.
SEEDS = 300


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.mistake)
def test_a_mistake_is_noticed(mutant: Mutant) -> None:
    with mutated(mutant):
        failed = next((failed for seed in range(SEEDS) if (failed := check(seed)) is not None), None)
    assert failed is not None, f"nobody noticed: {mutant.mistake}"
    assert failed.invariant in mutant.caught_by, failed.found
