"""Whose turn it is: one event loop serves everybody, and each turn of it is shared out (LIM-3)."""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

from fhircast_hub.budgets.accounts import RETRY_AFTER
from fhircast_hub.budgets.table import STARTED, TURN, WAITING
from fhircast_hub.core.errors import TooMany

Begin = Callable[[], object]


class _Ring:
    """What waits, by key, in the order in which the keys take turns."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, deque[Begin]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, key: Hashable, begin: Begin) -> bool:
        """Let it wait. False where too many of the key wait already."""
        queue = self._waiting.setdefault(key, deque())
        if len(queue) >= WAITING.most:
            return False
        queue.append(begin)
        return True

    def take(self) -> Begin:
        """The first of the key whose turn it is. It is to be called once all is in its address_key: it may let more wait."""
        key, queue = self._waiting.popitem(last=False)
        begin = queue.popleft()
        if queue:
            self._waiting[key] = queue
        return begin


class _Strangers:
    """What waits without a known user: the places take turns, and in each the connections."""

    def __init__(self) -> None:
        self._places: OrderedDict[bytes, _Ring] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._places)

    def put(self, address_key: bytes, key: Hashable, begin: Begin) -> bool:
        return self._places.setdefault(address_key, _Ring()).put(key, begin)

    def take(self) -> Begin:
        """See _Ring.take."""
        address_key, ring = self._places.popitem(last=False)
        begin = ring.take()
        if ring:
            self._places[address_key] = ring
        return begin


class Turns:
    """So many steps, and one with a big body, begin in one turn of the loop. Beyond it keys take turns, so a key with many waits longest.

    Half of the steps are for known users, where some wait. A user who is over budget has what they leave, and one step. After a turn
    whose steps took long the next one has fewer.
    """

    def __init__(self, steps: int = int(STARTED.most)) -> None:
        self._steps = self._left = steps
        self._step_seconds = 0.0
        self._big_left = True
        self._armed = False
        self._known, self._over, self._big = _Ring(), _Ring(), _Ring()
        self._strangers = _Strangers()

    def add_step_time(self, seconds: float) -> None:
        """A step took so long."""
        self._step_seconds += seconds

    def claim_step(self, *, big: bool = False) -> bool:
        """Whether a step may begin at once; else it must wait."""
        if big:
            free, self._big_left = self._big_left and not self._big, False
        else:
            free = self._left > 0 and not (self._known or self._strangers or self._over)
            self._left -= free
        self._arm()
        return free

    def queue_step(self, key: Hashable, begin: Begin, *, address_key: bytes | None = None) -> bool:
        """Call `begin` when the turn of this key has come: of a known user, or of a stranger at a address_key (see addresses.address_key).

        False where too many of the key wait already.
        """
        self._arm()
        return self._known.put(key, begin) if address_key is None else self._strangers.put(address_key, key, begin)

    async def wait_for_step(self, key: Hashable, *, big: bool = False, over: bool = False) -> None:
        """Wait for a turn of a known user, who may be over budget. Raises TooMany where too many of the key wait already."""
        if self.claim_step(big=big):
            return
        come: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ring = self._big if big else self._over if over else self._known
        if not ring.put(key, functools.partial(_arrive, come)):
            raise TooMany("more requests of this user wait for their turn than may", retry_after=RETRY_AFTER)
        await come

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._armed = False
        took, self._step_seconds = self._step_seconds, 0.0
        steps = self._steps if took <= TURN.most else max(2, int(self._steps * TURN.most / took))
        self._left, self._big_left = steps, not self._big
        for ring in (self._big, self._over):
            if ring:
                ring.take()()
                self._arm()
        while self._left > 0 and (self._known or self._strangers or self._over):
            # Who is over budget has what the others leave.
            if not (self._known or self._strangers):
                self._over.take()()
                self._left -= 1
            if self._known:
                self._known.take()()
                self._left -= 1
            if self._strangers:
                self._strangers.take()()
                self._left -= 1
            self._arm()


def _arrive(come: asyncio.Future[None]) -> None:
    if not come.done():
        come.set_result(None)
