"""What each user costs now, over all of that user's tokens, connections and sockets."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import OrderedDict

from fhircast_hub.budgets.leaky_bucket import MAX_HELD, LeakyBucket
from fhircast_hub.budgets.table import BIG_ANSWERS, BODIES, BODY_BURST, BODY_BYTES, CPU, CPU_BURST, Monotonic
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import TooMany

#: Seconds that a request waits for its user's budget at most; clients give up after five.
PATIENCE = 5.0


#: Seconds until one who is over a budget may try again.
RETRY_AFTER = 5


class Account:
    """What one user costs now, over all of that user's tokens, connections and sockets.

    `bodies` are the bytes of bodies that are under way, `answers` those of big answers that are, `queued` the bytes that wait for sockets.
    """

    __slots__ = ("_bytes", "_clock", "_cpu", "_max_bodies", "answers", "bodies", "queued")

    def __init__(self, clock: Monotonic, max_bodies: float = BODIES.most) -> None:
        self._clock = clock
        self._max_bodies = max_bodies
        self._cpu = LeakyBucket(CPU_BURST.most, CPU.most)
        self._bytes = LeakyBucket(BODY_BURST.most, BODY_BYTES.most)
        self.bodies = self.answers = self.queued = 0

    @property
    def idle(self) -> bool:
        """Whether nothing of it is under way."""
        return not (self.bodies or self.answers or self.queued)

    def charge(self, seconds: float) -> None:
        """So many seconds of CPU went into its requests."""
        self._cpu.use(seconds, self._clock())

    @property
    def over_budget(self) -> bool:
        """Whether its budgets of CPU and bytes are used up: then others go first."""
        return self._wait() > 0

    async def wait_for_budget(self) -> None:
        """Wait until its budgets of CPU and bytes allow something big. Raises TooMany where that takes longer than PATIENCE."""
        while (wait := self._wait()) > 0:
            if wait > PATIENCE:
                raise TooMany(
                    "this user's requests took more of the hub's time than one user has", retry_after=RETRY_AFTER
                )
            await asyncio.sleep(wait)

    def _wait(self) -> float:
        now = self._clock()
        return max(self._cpu.wait(now), self._bytes.wait(now))

    def add_body(self, size: int) -> None:
        """So many bytes of a body came, and are held. Raises TooMany where that is more than may be; then they are not."""
        if self.bodies + size > self._max_bodies:
            raise TooMany(
                f"expected at most {self._max_bodies} bytes of this user's bodies at a time, got more",
                retry_after=RETRY_AFTER,
            )
        self.bodies += size
        self._bytes.use(size, self._clock())

    def add_answer(self, size: int) -> None:
        """A big answer of so many bytes begins. Raises TooMany where that is more than may be under way."""
        if self.answers + size > BIG_ANSWERS.most:
            raise TooMany(
                f"expected at most {BIG_ANSWERS.most} bytes of large answers to this user at a time, got more",
                retry_after=RETRY_AFTER,
            )
        self.answers += size


class Accounts:
    """The accounts of users, by realm and Principal.subscriber. System clients act for everybody: each request has one of its own."""

    def __init__(self, max_body: int = 0, clock: Monotonic = time.monotonic) -> None:
        self._new = functools.partial(Account, clock, max(BODIES.most, 2 * max_body))
        self._held: OrderedDict[tuple[str, str], Account] = OrderedDict()

    def of(self, principal: Principal) -> Account:
        """The account of a principal."""
        return self._new() if principal.system else self.of_user(principal.realm, principal.subscriber)

    def of_user(self, realm: str, subscriber: str) -> Account:
        """The account of a user."""
        key = realm, subscriber
        account = self._held.get(key)
        if account is None:
            account = self._held[key] = self._new()
            if len(self._held) > MAX_HELD:
                oldest, its = self._held.popitem(last=False)
                if not its.idle:
                    self._held[oldest] = its
        else:
            self._held.move_to_end(key)
        return account
