"""The present cost of each user, over all tokens, connections and sockets of the user."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import OrderedDict
from itertools import islice

from fhircast_hub.budgets.leaky_bucket import MAX_HELD, LeakyBucket
from fhircast_hub.budgets.table import BIG_ANSWERS, BODIES, BODY_BURST, BODY_BYTES, CPU, CPU_BURST, QUEUED, Monotonic
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import TooMany

#: Seconds that a request waits for its user's budget, at most. Clients give up after five seconds.
PATIENCE = 5.0
#: Seconds in Retry-After for a user over budget.
RETRY_AFTER = 5


class Account:
    """The present cost of one user."""

    __slots__ = ("_bytes", "_clock", "_cpu", "_max_bodies", "answers", "bodies", "queued")

    def __init__(self, clock: Monotonic, max_bodies: float = BODIES.most) -> None:
        self._clock = clock
        self._max_bodies = max_bodies
        self._cpu = LeakyBucket(CPU_BURST.most, CPU.most)
        self._bytes = LeakyBucket(BODY_BURST.most, BODY_BYTES.most)
        #: Bytes of bodies under way. Callers subtract them at the end of a request.
        self.bodies = 0
        #: Bytes of big answers under way. Callers subtract them at the end of an answer.
        self.answers = 0
        #: Bytes that wait for the user's sockets.
        self.queued = 0

    @property
    def idle(self) -> bool:
        """Whether no bytes are under way."""
        return not (self.bodies or self.answers or self.queued)

    def charge(self, seconds: float) -> None:
        """Charge seconds of CPU."""
        self._cpu.use(seconds, self._clock())

    @property
    def over_budget(self) -> bool:
        """Whether the budgets of CPU and bytes are used up. Other users then go first."""
        return self._wait() > 0

    async def wait_for_budget(self) -> None:
        """Wait until the budgets of CPU and bytes allow a big body. Raises TooMany if the wait exceeds PATIENCE."""
        while (wait := self._wait()) > 0:
            if wait > PATIENCE:
                raise TooMany(
                    "this user's requests have used up the user's share of the hub's time", retry_after=RETRY_AFTER
                )
            await asyncio.sleep(wait)

    def used(self) -> dict[str, float]:
        """The used part of each budget, by a name of it. 1: all of it."""
        now = self._clock()
        return {
            "cpu": self._cpu.level(now),
            "bodyBytes": self._bytes.level(now),
            "bodies": self.bodies / self._max_bodies,
            "answers": self.answers / BIG_ANSWERS.most,
            "queued": self.queued / QUEUED.most,
        }

    def _wait(self) -> float:
        now = self._clock()
        return max(self._cpu.wait(now), self._bytes.wait(now))

    def add_body(self, size: int) -> None:
        """Count bytes of a body. Raises TooMany beyond the limit, and then counts none."""
        if self.bodies + size > self._max_bodies:
            raise TooMany(
                f"the bodies of this user's requests may have at most {self._max_bodies} bytes at a time",
                retry_after=RETRY_AFTER,
            )
        self.bodies += size
        self._bytes.use(size, self._clock())

    def add_answer(self, size: int) -> None:
        """Count bytes of a big answer. Raises TooMany beyond the limit, and then counts none."""
        if self.answers + size > BIG_ANSWERS.most:
            raise TooMany(
                f"large answers to this user may have at most {BIG_ANSWERS.most} bytes at a time",
                retry_after=RETRY_AFTER,
            )
        self.answers += size


class Accounts:
    """The accounts of users, by realm and Principal.subscriber.

    A system client acts for all users. Each request of a system client has an account of its own.
    """

    def __init__(self, max_body: int = 0, clock: Monotonic = time.monotonic) -> None:
        self._new = functools.partial(Account, clock, max(BODIES.most, 2 * max_body))
        self._held: OrderedDict[tuple[str, str], Account] = OrderedDict()

    def of(self, principal: Principal) -> Account:
        """The account for a principal's request."""
        return self._new() if principal.system else self.of_user(principal.realm, principal.subscriber)

    def of_user(self, realm: str, subscriber: str) -> Account:
        """The account of a user."""
        key = realm, subscriber
        account = self._held.get(key)
        if account is None:
            account = self._held[key] = self._new()
            if len(self._held) > MAX_HELD:
                oldest, dropped = self._held.popitem(last=False)
                if not dropped.idle:
                    self._held[oldest] = dropped
        else:
            self._held.move_to_end(key)
        return account

    def recent(self, most: int) -> list[tuple[str, str, Account]]:
        """The accounts that were used last, at most so many, each with realm and Principal.subscriber."""
        return [(*of, account) for of, account in islice(reversed(self._held.items()), most)]
