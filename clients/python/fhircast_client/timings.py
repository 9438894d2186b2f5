"""How long the client waits: its timings, and the backoff between attempts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Timings:
    """How long the client waits, in seconds.

    backoff_first, backoff_most: before the first attempt to reconnect, and at most between two. request: for the answer to a
    request. confirmation: for a socket to open and confirm. accept_after: before an event is answered with 202. give_up: before
    the others are told that an event is not followed. resend: before an own open that was not followed is sent again, None or 0
    for never. sync_error_expiry: how long a SyncError about an event that is not subscribed to counts, unless another one comes. settle: after joining, before a hub that told nothing is asked. echo: for an own update to come back.
    """

    backoff_first: float = 0.5
    backoff_most: float = 30.0
    request: float = 5.0
    confirmation: float = 10.0
    accept_after: float = 2.0
    give_up: float = 10.0
    resend: float | None = 10.0
    sync_error_expiry: float = 25.0
    settle: float = 1.0
    echo: float = 2.0


class Backoff:
    """Delays that double, in seconds, each shortened by up to half so that clients of one hub do not all come at once."""

    def __init__(self, first: float, most: float, chance: Callable[[], float] = random.random) -> None:
        self._first, self._most, self._chance = first, most, chance
        self._next = first

    def next(self) -> float:
        """The next delay."""
        delay = min(self._next, self._most)
        self._next = min(delay * 2, self._most)
        return delay * (0.5 + self._chance() / 2)

    def reset(self) -> None:
        """Begin again with the first."""
        self._next = self._first
