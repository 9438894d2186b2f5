"""What a run ends with when something does not hold."""

from __future__ import annotations


class Violation(AssertionError):
    """An invariant does not hold: which, and what was found."""

    def __init__(self, invariant: str, found: str) -> None:
        super().__init__(f"{invariant}: {found}")
        self.invariant = invariant
