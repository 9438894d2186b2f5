"""Leaky buckets: so much at once, and then so much a second."""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Hashable

from fhircast_hub.core.errors import TooMany

#: Accounts and buckets that are held; the one not used for longest goes.
MAX_HELD = 100_000


def check_wait(seconds: float, what: str) -> None:
    """Raise TooMany unless there is nothing to wait for; `what` are the things of which too many came."""
    if seconds:
        raise TooMany(f"more {what} came than one may send", retry_after=math.ceil(seconds))


class LeakyBucket:
    """A leaky bucket: `burst` at once, and then `rate` a second."""

    __slots__ = ("_at", "_burst", "_rate", "_used")

    def __init__(self, burst: float, rate: float) -> None:
        self._burst, self._rate = burst, rate
        self._used, self._at = 0.0, 0.0

    def use(self, much: float, now: float) -> None:
        """Use so much of it, whatever is left; `now` is in seconds."""
        self._used = max(0.0, self._used - max(0.0, now - self._at) * self._rate) + much
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until some of it is left; 0 where some is."""
        over = self._used - max(0.0, now - self._at) * self._rate - self._burst
        return over / self._rate if over > 0 else 0.0


class LeakyBuckets:
    """A LeakyBucket for each name, the newest of them."""

    def __init__(self, burst: float, rate: float) -> None:
        self._new = functools.partial(LeakyBucket, burst, rate)
        self._held: OrderedDict[Hashable, LeakyBucket] = OrderedDict()

    def take(self, name: Hashable, now: float) -> float:
        """Use one of this name's: 0, or the seconds until there will be one again."""
        bucket = self._held.pop(name, None) or self._new()
        self._held[name] = bucket
        if len(self._held) > MAX_HELD:
            self._held.popitem(last=False)
        bucket.use(1, now)
        if wait := bucket.wait(now):
            bucket.use(-1, now)
        return wait
