"""Timings, and the backoff between attempts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Timings:
    """How long the client waits, in seconds."""

    #: First delay before an attempt to reconnect, and the longest one.
    backoff_first: float = 0.5
    backoff_most: float = 30.0
    #: For the answer to a request.
    request: float = 5.0
    #: For a socket to open and to be confirmed.
    confirmation: float = 10.0
    #: Until an event is answered with 202 while its handler runs.
    accept_after: float = 2.0
    #: Until a SyncError tells that an event is not followed.
    give_up: float = 10.0
    #: After a SyncError, until an own open is sent again. None or 0: never.
    resend: float | None = 10.0
    #: How long a SyncError about an event without a subscription counts, unless another one comes.
    sync_error_expiry: float = 25.0
    #: After the confirmation, until a hub that has told no context is asked for it.
    settle: float = 1.0
    #: For the echo of an own update.
    echo: float = 2.0


class Backoff:
    """Delays that double, in seconds. Each is shortened by up to half at random, so that the clients of a hub do not
    reconnect together."""

    def __init__(self, first: float, most: float, chance: Callable[[], float] = random.random) -> None:
        self._first, self._most, self._chance = first, most, chance
        self._next = first

    def next(self) -> float:
        """The next delay."""
        delay = min(self._next, self._most)
        self._next = min(delay * 2, self._most)
        return delay * (0.5 + self._chance() / 2)

    def reset(self) -> None:
        """Begin again with the first delay."""
        self._next = self._first
