"""What the callbacks of all users share, and how much of it each user may have (WHK-13, WHK-15)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fhircast_hub.budgets.table import MORE_CALLBACKS, NEW_CALLBACKS, SHARE

#: A realm, and a subscriber in it (Principal.subscriber).
User = tuple[str, str]
#: Who subscribes nothing.
NOBODY: User = ("", "")

#: New callbacks that a user may bring at once, and seconds until there may be one more. An application that starts subscribes
#: some dozen; at the rate of 30 a minute a scan of somebody else's hosts takes weeks.
BURST, SECONDS_EACH = int(NEW_CALLBACKS.most), 60 / MORE_CALLBACKS.most
#: Users whose new callbacks are counted, the last ones.
MAX_USERS = 10_000


class Shares:
    """So many places, shared out by user. A user may hold a quarter as many as are free, and one in any case while any is.

    So one user holds a fifth of all places at most, and two hold not much more than a third. The rest is there for others,
    however long those two hold theirs.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._held: dict[User, int] = {}
        self._waiting: OrderedDict[User, deque[asyncio.Future[None]]] = OrderedDict()

    def take(self, user: User) -> bool:
        """Take a place; False where this user may have none now."""
        if not self._may(user):
            return False
        self._held[user] = self._held.get(user, 0) + 1
        self._free -= 1
        return True

    async def acquire(self, user: User) -> None:
        """Take a place when there is one. Users take turns; what one user waits for comes in order."""
        if user not in self._waiting and self.take(user):
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the place was given in the same moment
                self.release(user)
            elif turn in self._waiting.get(user, ()):
                self._remove(user, turn)
            raise

    def release(self, user: User) -> None:
        """Give a place back. Those who may have one now are given it."""
        self._free += 1
        self._held[user] -= 1
        if not self._held[user]:
            del self._held[user]
        while (chosen := next(filter(self._may, self._waiting), None)) is not None:
            self._waiting.move_to_end(chosen)
            turn = self._waiting[chosen][0]
            self._remove(chosen, turn)
            if not turn.done():  # else its task was cancelled, and does not know yet
                self.take(chosen)
                turn.set_result(None)

    @asynccontextmanager
    async def of(self, user: User) -> AsyncIterator[None]:
        """A place, for as long as something lasts."""
        await self.acquire(user)
        try:
            yield
        finally:
            self.release(user)

    def _may(self, user: User) -> bool:
        return self._free > 0 and self._held.get(user, 0) < max(1, int(self._free * SHARE.most))

    def _remove(self, user: User, turn: asyncio.Future[None]) -> None:
        self._waiting[user].remove(turn)
        if not self._waiting[user]:
            del self._waiting[user]


class Newcomers:
    """How many new callbacks each user may bring: BURST at once, then one each SECONDS_EACH. Times are seconds of one clock."""

    def __init__(self) -> None:
        #: when nothing will be missing any more
        self._full_at: OrderedDict[User, float] = OrderedDict()

    def wait(self, user: User, now: float) -> float:
        """Seconds until this user may bring one; 0 where that is now."""
        return max(0.0, self._full_at.get(user, now) - now - (BURST - 1) * SECONDS_EACH)

    def take(self, user: User, now: float) -> None:
        """Count one."""
        self._full_at[user] = max(self._full_at.pop(user, now), now) + SECONDS_EACH
        if len(self._full_at) > MAX_USERS:
            self._full_at.popitem(last=False)
