"""Seconds between two requests for the same thing to a callback."""

from __future__ import annotations

import random

#: The first and the longest pause. Each further pause is twice as long.
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 4.0


def jittered(seconds: float) -> float:
    """Half to one and a half times as long, so that the callbacks of one server are not retried all at once."""
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311
