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
#: Seconds of the longest wait at a time.
_LONGEST = 86400.0


def _now() -> float:
    return time.monotonic()


class Lease:
    """A subscription's time, in seconds of `clock`, which only grows."""

    def __init__(self, clock: Callable[[], float] = _now, *, asked: float | None = None) -> None:
        """`asked`: how many seconds the hub is asked for, which hold until the hub says another number."""
        self._clock = clock
        self._granted = asked or 0.0
        self._asking = False
        self._ends_at = math.inf
        self.renew_at: float | None = None
        self._since = clock()
        self._changed = asyncio.Event()

    @property
    def age(self) -> float:
        """Seconds since the socket that is open now, or was last, was confirmed."""
        return self._clock() - self._since

    @property
    def is_over(self) -> bool:
        """Whether the last that was granted has ended."""
        return self._clock() >= self._ends_at

    def asking(self) -> None:
        """A new lease is asked for."""
        self._asking = True

    def promised(self) -> None:
        """The hub will give it: where no confirmation said how long it is, it is as long as the last."""
        if self._asking and self._granted:
            self._asking = False
            self._schedule(self._granted)

    def granted(self, seconds: float | None, *, new_socket: bool) -> None:
        """The hub says how long the lease lasts from now on; None where it does not say: as long as the last."""
        if new_socket:
            self._since = self._clock()
        if seconds is None:
            seconds = self._granted or None
        self._granted = (seconds or 0.0) if self._asking else max(self._granted, seconds or 0.0)
        self._asking = False
        self._schedule(seconds)

    async def over(self) -> None:
        """Wait for the end of the lease, which the hub does not renew."""
        await self.lasts(math.inf)

    async def lasts(self, seconds: float) -> bool:
        """Wait so many seconds, or for the end of the lease. Returns whether the lease lasts still."""
        until = self._clock() + seconds
        while (now := self._clock()) < min(until, self._ends_at):
            self._changed.clear()
            try:
                async with asyncio.timeout(min(until, self._ends_at, now + _LONGEST) - now):
                    await self._changed.wait()  # a confirmation may come meanwhile
            except TimeoutError:
                pass
        return until < self._ends_at

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
        self._ends_at = math.inf if seconds is None else self._clock() + seconds
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
