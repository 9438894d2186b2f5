"""Scans: looks at all sessions of a realm take turns (CSL-16).

A scan takes as long as there are sessions. So one scan at a time is under way in the process, however many operators look,
and in the long run scans have a fiftieth of the time.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fhircast_hub.budgets.accounts import Accounts
from fhircast_hub.budgets.leaky_bucket import LeakyBucket
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import TooMany

#: Seconds of scans at once, and the part of the time that scans have in the long run.
BURST, PART = 1.0, 1 / 50
#: Scans of one operator that wait, and those of all.
OF_OPERATOR, OF_ALL = 5, 100
#: Seconds in Retry-After for a scan that has no turn.
RETRY_AFTER = 5

_Turn = asyncio.Future[None]
_Operator = tuple[str, str]


class Scans:
    """Turns of scans. Operators take them one after the other; so do the scans of each operator."""

    def __init__(self, accounts: Accounts, clock: Callable[[], float] = time.monotonic) -> None:
        self._accounts = accounts
        self._clock = clock
        self._used = LeakyBucket(BURST, PART)
        self._waiting: OrderedDict[_Operator, deque[_Turn]] = OrderedDict()
        #: Whether a scan is under way, or is about to be.
        self._busy = False
        self._resting: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """The scans that wait."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def turn(self, operator: Principal) -> AsyncIterator[None]:
        """A scan's turn, within the block. Its seconds are charged to the operator.

        Beyond OF_OPERATOR, a scan takes the place of the operator's oldest one that waits, which raises TooMany.
        So does a scan beyond OF_ALL.
        """
        await self._wait((operator.realm, operator.subscriber))
        began = self._clock()
        try:
            yield
        finally:
            now = self._clock()
            self._used.use(now - began, now)
            self._accounts.of(operator).charge(now - began)
            self._busy = False
            self._next()

    async def _wait(self, operator: _Operator) -> None:
        own = self._waiting.get(operator, deque[_Turn]())
        if len(own) >= OF_OPERATOR:
            _refuse(own.popleft(), "newer searches of the same operator took this search's place")
        elif len(self) >= OF_ALL:
            raise TooMany("as many searches wait as may; search again in a while", retry_after=RETRY_AFTER)
        turn: _Turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(operator, own).append(turn)
        self._next()
        try:
            await turn
        except asyncio.CancelledError:
            self._leave(operator, turn)
            raise

    def _leave(self, operator: _Operator, turn: _Turn) -> None:
        """The scan was cancelled before its turn, or just as its turn came."""
        if turn in self._waiting.get(operator, ()):
            self._waiting[operator].remove(turn)
        elif turn.done() and not turn.cancelled() and turn.exception() is None:
            self._busy = False
        self._next()

    def _next(self) -> None:
        """Give the next scan its turn, now or after the rest."""
        self._waiting = OrderedDict((name, turns) for name, turns in self._waiting.items() if turns)
        if self._busy or self._resting or not self._waiting:
            return
        if (rest := self._used.wait(self._clock())) > 0:
            self._resting = asyncio.get_running_loop().call_later(rest, self._rested)
            return
        operator, turns = self._waiting.popitem(last=False)
        turn = turns.popleft()
        if turns:
            self._waiting[operator] = turns  # behind all others
        if turn.done():  # cancelled, and about to leave
            self._next()
            return
        self._busy = True
        turn.set_result(None)

    def _rested(self) -> None:
        self._resting = None
        self._next()


def _refuse(turn: _Turn, why: str) -> None:
    if not turn.done():
        turn.set_exception(TooMany(why, retry_after=RETRY_AFTER))
