"""Shares out the turns of the event loop among users and connections (LIM-3).

A step is the work of one request until its next await. A turn is one round of the loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

from fhircast_hub.budgets.accounts import RETRY_AFTER
from fhircast_hub.budgets.table import STARTED, TURN, WAITING
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import TooMany
from fhircast_hub.waiter import Waiter

Begin = Callable[[], object]


def turn_key(principal: Principal, own: object) -> Hashable:
    """The key of a user's turns. A system client acts for all users, so `own` keeps its connections or requests apart."""
    return principal.realm, principal.subscriber, own if principal.system else None


class _Ring:
    """Waiting steps by key. The keys take turns."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, deque[Begin]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, key: Hashable, begin: Begin) -> bool:
        """Queue a step. False: too many steps of the key wait."""
        queue = self._waiting.setdefault(key, deque())
        if len(queue) >= WAITING.most:
            return False
        queue.append(begin)
        return True

    def take(self) -> Begin:
        """Remove and return the first step of the next key. Call the step afterwards: the step may queue another one."""
        key, queue = self._waiting.popitem(last=False)
        begin = queue.popleft()
        if queue:
            self._waiting[key] = queue
        return begin


class _Strangers:
    """Waiting steps without a known user. The addresses take turns, and the connections of each address."""

    def __init__(self) -> None:
        self._rings: OrderedDict[bytes, _Ring] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._rings)

    def put(self, address_key: bytes, key: Hashable, begin: Begin) -> bool:
        return self._rings.setdefault(address_key, _Ring()).put(key, begin)

    def take(self) -> Begin:
        """See _Ring.take."""
        address_key, ring = self._rings.popitem(last=False)
        begin = ring.take()
        if ring:
            self._rings[address_key] = ring
        return begin


class Turns:
    """Begins a limited number of steps in each turn of the loop, and one step with a big body.

    Further steps wait. Their keys take turns, so a key with many steps waits longest. Half of the steps are for known users,
    if any wait. A user over budget gets one step a turn, and the steps that no other key needs. A turn with long steps makes
    the next turn shorter.
    """

    def __init__(self, steps: int = int(STARTED.most)) -> None:
        self._steps = self._left = steps
        self._step_seconds = 0.0
        self._big_left = True
        self._scheduled = False
        self._known, self._over, self._big = _Ring(), _Ring(), _Ring()
        self._strangers = _Strangers()

    def add_step_time(self, seconds: float) -> None:
        """Add the seconds of one step."""
        self._step_seconds += seconds

    def claim_step(self, *, big: bool = False) -> bool:
        """Whether the caller may begin a step now. False: the step must wait."""
        if big:
            free, self._big_left = self._big_left and not self._big, False
        else:
            free = self._left > 0 and not (self._known or self._strangers or self._over)
            self._left -= free
        self._schedule()
        return free

    def queue_step(self, key: Hashable, begin: Begin, *, address_key: bytes | None = None) -> bool:
        """Call `begin` in a later turn. False: too many steps of the key wait.

        `key` is a known user. With an `address_key` (see edge/client_addresses.py), `key` is a connection of that address.
        """
        self._schedule()
        return self._known.put(key, begin) if address_key is None else self._strangers.put(address_key, key, begin)

    async def wait_for_step(self, key: Hashable, *, big: bool = False, over: bool = False) -> None:
        """Wait for a step of a known user. `over`: the user is over budget. Raises TooMany if too many of the user's steps wait."""
        if self.claim_step(big=big):
            return
        begun = Waiter()
        ring = self._big if big else self._over if over else self._known
        if not ring.put(key, begun.settle):
            raise TooMany("too many requests of this user wait for their turn", retry_after=RETRY_AFTER)
        await begun

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run_turn)

    def _run_turn(self) -> None:
        self._scheduled = False
        seconds, self._step_seconds = self._step_seconds, 0.0
        steps = self._steps if seconds <= TURN.most else max(2, int(self._steps * TURN.most / seconds))
        self._left, self._big_left = steps, not self._big
        for ring in (self._big, self._over):
            if ring:
                ring.take()()
                self._schedule()
        while self._left > 0 and (self._known or self._strangers or self._over):
            # Users over budget get the steps that no other key needs.
            if not (self._known or self._strangers):
                self._over.take()()
                self._left -= 1
            if self._known:
                self._known.take()()
                self._left -= 1
            if self._strangers:
                self._strangers.take()()
                self._left -= 1
            self._schedule()
