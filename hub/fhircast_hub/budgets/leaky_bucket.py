"""Leaky buckets: an amount at once, then an amount a second."""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Hashable
from itertools import islice

from fhircast_hub.core.errors import TooMany

#: The most accounts, or buckets, in memory. Beyond the limit the least recently used one is dropped.
MAX_HELD = 100_000


def check_wait(seconds: float, what: str) -> None:
    """Raise TooMany if `seconds` is not 0. `what` names the things that are too many, in the plural."""
    if seconds:
        raise TooMany(f"too many {what}", retry_after=math.ceil(seconds))


class LeakyBucket:
    """A budget that refills evenly: `burst` at once, then `rate` a second."""

    __slots__ = ("_at", "_burst", "_rate", "_used")

    def __init__(self, burst: float, rate: float) -> None:
        self._burst, self._rate = burst, rate
        self._used, self._at = 0.0, 0.0

    def use(self, amount: float, now: float) -> None:
        """Use an amount, also beyond the budget. `now` is in seconds. A clock that was set back refills nothing."""
        self._used = max(0.0, self._used - max(0.0, now - self._at) * self._rate) + amount
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until the use is within the budget again. 0: the use is within the budget."""
        over = self._used - max(0.0, now - self._at) * self._rate - self._burst
        return over / self._rate if over > 0 else 0.0

    def level(self, now: float) -> float:
        """The part of the burst that is used. 1: all of it, more than 1: beyond the budget."""
        return max(0.0, self._used - max(0.0, now - self._at) * self._rate) / self._burst

    def take(self, now: float) -> float:
        """Use 1 if the budget allows, and return 0. Otherwise use nothing, and return the seconds until the budget allows 1."""
        used = self._used = max(0.0, self._used - max(0.0, now - self._at) * self._rate)
        self._at = now
        if used + 1 > self._burst:
            return (used + 1 - self._burst) / self._rate
        self._used = used + 1
        return 0.0


class LeakyBuckets:
    """A LeakyBucket for each name, of the most recently used names."""

    def __init__(self, burst: float, rate: float) -> None:
        self._new = functools.partial(LeakyBucket, burst, rate)
        self._held: OrderedDict[Hashable, LeakyBucket] = OrderedDict()

    def take(self, name: Hashable, now: float) -> float:
        """Take 1 from the name's bucket. Returns 0, or the seconds until the bucket has 1 again."""
        bucket = self._held.pop(name, None) or self._new()
        self._held[name] = bucket
        if len(self._held) > MAX_HELD:
            self._held.popitem(last=False)
        return bucket.take(now)

    def near(self, part: float, now: float, most: int) -> int:
        """How many buckets are used by this part of their burst or more. Only the `most` used last are looked at."""
        return sum(bucket.level(now) >= part for bucket in islice(reversed(self._held.values()), most))
