"""When to renew a lease, and when a silent hub counts as lost."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

#: Renew when this part of the lease is left, or this many seconds if that is less.
_LEFT, _MOST_LEFT = 0.2, 60.0
#: Renew a little earlier, because the request takes time.
_EARLY = 0.95
_MISSED = 3
#: The longest single wait, in seconds.
_LONGEST = 86400.0


def _now() -> float:
    return time.monotonic()


class Lease:
    """The lease of a subscription, in seconds of the monotonic `clock`."""

    def __init__(self, clock: Callable[[], float] = _now, *, asked: float | None = None) -> None:
        """`asked`: the lease that the client asks for, in seconds. It counts until the hub grants another one."""
        self._clock = clock
        self._granted = asked or 0.0
        self._asking = False
        self._ends_at = math.inf
        self.renew_at: float | None = None
        self._since = clock()
        self._changed = asyncio.Event()

    @property
    def age(self) -> float:
        """Seconds since the current or last socket was confirmed."""
        return self._clock() - self._since

    @property
    def is_over(self) -> bool:
        """Whether the granted lease has ended."""
        return self._clock() >= self._ends_at

    def asking(self) -> None:
        """The client is about to ask for a new lease."""
        self._asking = True

    def promised(self) -> None:
        """The hub accepted the request. Without a confirmation, the lease is as long as the last one."""
        if self._asking and self._granted:
            self._asking = False
            self._schedule(self._granted)

    def granted(self, seconds: float | None, *, new_socket: bool) -> None:
        """The hub granted a lease that begins now. None: the hub did not say, and the lease is as long as the last one."""
        if new_socket:
            self._since = self._clock()
        if seconds is None:
            seconds = self._granted or None
        self._granted = (seconds or 0.0) if self._asking else max(self._granted, seconds or 0.0)
        self._asking = False
        self._schedule(seconds)

    async def over(self) -> None:
        """Wait for the end of a lease that the hub does not renew."""
        await self.lasts(math.inf)

    async def lasts(self, seconds: float) -> bool:
        """Wait for `seconds`, or for the end of the lease. Returns whether the lease has not ended."""
        until = self._clock() + seconds
        while (now := self._clock()) < min(until, self._ends_at):
            self._changed.clear()
            try:
                async with asyncio.timeout(min(until, self._ends_at, now + _LONGEST) - now):
                    await self._changed.wait()  # a confirmation may change the end of the lease
            except TimeoutError:
                pass
        return until < self._ends_at

    async def due(self) -> None:
        """Wait until a renewal is due."""
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
    """The hub's heartbeats. The first one tells when the next one is due."""

    def __init__(self, clock: Callable[[], float] = _now) -> None:
        self._clock = clock
        self._period: float | None = None
        self._heard = clock()
        self._known = asyncio.Event()

    def start(self) -> None:
        """A new socket is open."""
        self._period = None
        self._known.clear()

    def heard(self) -> None:
        """A frame came, so the hub is alive."""
        self._heard = self._clock()

    def expect(self, period: float | None) -> None:
        """A heartbeat told the seconds until the next one. None: the frame was not a heartbeat."""
        if period:
            self._period = period
            self._known.set()

    async def missed(self) -> None:
        """Wait until three heartbeats are missing and no other frame came."""
        await self._known.wait()
        left = self._left()
        while left > 0:
            await asyncio.sleep(left)
            left = self._left()

    def _left(self) -> float:
        return self._heard + _MISSED * (self._period or 0.0) - self._clock()
