"""The error that ends a run when an invariant is broken."""

from __future__ import annotations


class Violation(AssertionError):
    """An invariant is broken. `invariant` is its name."""

    def __init__(self, invariant: str, found: str) -> None:
        super().__init__(f"{invariant}: {found}")
        self.invariant = invariant
