"""Slots for work on callbacks, shared fairly between users (WHK-15)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fhircast_hub.budgets.table import SHARE
from fhircast_hub.core.state.effects import WebhookEffect

#: A realm, and a subscriber in it (Principal.subscriber).
User = tuple[str, str]
#: For requests that no subscriber caused.
NOBODY: User = ("", "")


def user_of(effect: WebhookEffect) -> User:
    """The user whose subscription the effect is about."""
    return effect.key.realm, effect.subscriber


class FairSlots:
    """A semaphore of `slots`, shared out by user.

    A user may hold a quarter as many slots as are free. While a slot is free, each user may hold one.
    So one user holds at most a fifth of all slots, and two users little more than a third.
    The rest stays for others, however long those two users hold theirs.
    """

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._held: dict[User, int] = {}
        #: Waiting tasks of each user, in order. The first user who may take a slot is served, and goes to the end.
        self._waiting: OrderedDict[User, deque[asyncio.Future[None]]] = OrderedDict()

    def take(self, user: User) -> bool:
        """Take a slot at once. False: this user may have none now."""
        if not self._may_take(user):
            return False
        self._held[user] = self._held.get(user, 0) + 1
        self._free -= 1
        return True

    async def acquire(self, user: User) -> None:
        """Wait for a slot, and take it. Users take turns; the tasks of one user are served in order."""
        if user not in self._waiting and self.take(user):
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # the slot was given in the same step
                self.release(user)
            elif waiter in self._waiting.get(user, ()):
                self._remove(user, waiter)
            raise

    def release(self, user: User) -> None:
        """Give a slot back, and serve waiting users who may take one now."""
        self._free += 1
        self._held[user] -= 1
        if not self._held[user]:
            del self._held[user]
        while (served := next(filter(self._may_take, self._waiting), None)) is not None:
            self._waiting.move_to_end(served)
            waiter = self._waiting[served][0]
            self._remove(served, waiter)
            if not waiter.done():  # done: its task was cancelled, and has not run since
                self.take(served)
                waiter.set_result(None)

    @asynccontextmanager
    async def slot(self, user: User) -> AsyncIterator[None]:
        """Hold a slot inside of the block."""
        await self.acquire(user)
        try:
            yield
        finally:
            self.release(user)

    def _may_take(self, user: User) -> bool:
        return self._free > 0 and self._held.get(user, 0) < max(1, int(self._free * SHARE.most))

    def _remove(self, user: User, waiter: asyncio.Future[None]) -> None:
        self._waiting[user].remove(waiter)
        if not self._waiting[user]:
            del self._waiting[user]
