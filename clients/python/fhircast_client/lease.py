"""When a lease is to be renewed, and when a silent hub counts as lost."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

#: Renewed before this part of the lease is left, and no sooner than so many seconds before its end.
_LEFT, _MOST_LEFT = 0.2, 60.0
#: A little before that, for the request takes time too.
_EARLY = 0.95
_MISSED = 3


def _now() -> float:
    return time.monotonic()


class Lease:
    """A subscription's time, in seconds of `clock`, which only grows."""

    def __init__(self, clock: Callable[[], float] = _now) -> None:
        self._clock = clock
        self._granted = 0.0
        self._asking = False
        self._ends_at: float | None = None
        self.renew_at: float | None = None
        self._since = clock()
        self._changed = asyncio.Event()

    @property
    def age(self) -> float:
        """Seconds since the socket that is open now, or was last, was confirmed."""
        return self._clock() - self._since

    def asking(self) -> None:
        """A new lease is asked for."""
        self._asking = True

    def promised(self) -> None:
        """The hub will give it: where no confirmation said how long it is, it is as long as the last."""
        if self._asking and self._granted:
            self._asking = False
            self._schedule(self._granted)

    def granted(self, seconds: float | None, *, new_socket: bool) -> None:
        """The hub says how long it lasts from now on; None where it does not, and then it lasts."""
        if new_socket:
            self._since = self._clock()
        self._granted = (seconds or 0.0) if self._asking else max(self._granted, seconds or 0.0)
        self._asking = False
        self._schedule(seconds)

    async def over(self) -> None:
        """Wait until it ends, for the hub does not renew it."""
        await self.lasts(math.inf)

    async def lasts(self, seconds: float) -> bool:
        """Wait so long, or until it ends; whether it lasts still."""
        left = math.inf if self._ends_at is None else max(0.0, self._ends_at - self._clock())
        await asyncio.sleep(min(seconds, left))
        return seconds < left

    async def due(self) -> None:
        """Wait until it is time to renew."""
        while self.renew_at is None or self.renew_at > self._clock():
            self._changed.clear()
            left = None if self.renew_at is None else self.renew_at - self._clock()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _schedule(self, seconds: float | None) -> None:
        left = min(self._granted * _LEFT, _MOST_LEFT)
        self._ends_at = None if seconds is None else self._clock() + seconds
        self.renew_at = None if seconds is None else self._clock() + max(0.0, seconds - left) * _EARLY
        self._changed.set()


class Heartbeats:
    """The hub's heartbeats: after the first it is known when the next is due."""

    def __init__(self, clock: Callable[[], float] = _now) -> None:
        self._clock = clock
        self._period: float | None = None
        self._heard = clock()
        self._known = asyncio.Event()

    def start(self) -> None:
        """A new socket."""
        self._period = None
        self._known.clear()

    def heard(self) -> None:
        """Something came: the hub is there."""
        self._heard = self._clock()

    def expect(self, period: float | None) -> None:
        """A heartbeat said after how many seconds the next comes; None for what was none."""
        if period:
            self._period = period
            self._known.set()

    async def missed(self) -> None:
        """Wait until three heartbeats were due, and nothing at all came."""
        await self._known.wait()
        left = self._left()
        while left > 0:
            await asyncio.sleep(left)
            left = self._left()

    def _left(self) -> float:
        return self._heard + _MISSED * (self._period or 0.0) - self._clock()
