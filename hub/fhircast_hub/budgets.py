"""Budgets: what a socket, a connection, an address and a user may cost, so that no holder of a token stops the hub (LIM-3).

One event loop serves everybody. So each turn of it is shared out, and what lasts is bounded. The code reads these budgets, and
SECURITY.md shows `TABLE`. To charge somebody is arithmetic: no lock, no task.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Generator, Hashable
from typing import Any, NamedTuple

from fhircast_hub.core.errors import TooMany
from fhircast_hub.core.principal import Principal


class Budget(NamedTuple):
    """What somebody may cost: `most` of `what`, in `unit`; `then` is what happens beyond it."""

    who: str
    what: str
    most: float
    unit: str
    then: str


REFUSALS = Budget("a session", "refusals of events", 64, "and 16 a second", "no SyncError tells of more")
UNMATCHED_FRAMES = Budget(
    *(
        "a socket",
        "frames beyond two for each that the hub sent; each further 4 KiB count as one frame",
        64,
        "a second",
    ),
    "closed with 1008",
)
FRAMES_A_TURN = Budget("a socket", "frames that are read", 16, "a turn", "the rest is read in the next turn")
HANDSHAKES = Budget("an endpoint", "handshakes", 60, "a minute", "429")
PIPELINED = Budget("a connection", "requests that wait for the answers before them", 16, "", "closed")
HEADER_BYTES = Budget("a connection", "bytes of a request's line and headers", 64 << 10, "", "closed")
HEADERS = Budget("a connection", "headers of a request", 256, "", "closed")
HEADER_SECONDS = Budget("a connection", "seconds for a request's line and headers", 15, "", "closed")
BODY_SECONDS = Budget("a connection", "seconds for a body", 30, "", "408")
CHUNKS = Budget("a connection", "chunks of a body", 32768, "", "400, and closed")
OVERHEAD = Budget(
    "a connection",
    "bytes of a request that are neither head nor body: chunks' sizes, trailers",
    256 << 10,
    "",
    "closed",
)
SLICE = Budget("a connection", "bytes of heads or chunks that are read", 4096, "a step", "the rest waits for its turn")
STALLED = Budget("a connection", "seconds in which nothing of an answer is taken", 20, "", "cut")
CONNECTIONS = Budget(
    "an address",
    "HTTP connections, unless it is a trusted proxy's",
    2048,
    "",
    "that which is idle for longest is closed",
)
ACCEPTED = Budget("the hub", "connections that are accepted", 64, "a turn", "others wait")
TURN = Budget("the hub", "seconds of steps in a turn, beyond which the next turn has fewer", 0.005, "", "others wait")
STARTED = Budget("the hub", "steps of requests that are begun", 48, "a turn", "users and connections take turns")
BIG_FRAME = Budget(
    "a socket", "bytes from which on a frame is written in a step of its own", 64 << 10, "", "users take turns"
)
BIG_BODY = Budget("the hub", "bytes from which on a body has a turn of its own", 64 << 10, "", "users take turns")
WAITING = Budget("a user", "requests that wait for their turn", 256, "", "429, or 503 and closed")
CPU_BURST = Budget("a user", "seconds of CPU at once", 0.25, "", "others go first, and big bodies wait")
CPU = Budget("a user", "seconds of CPU", 0.25, "a second", "the same; big bodies that wait for 5 seconds: 429")
BODIES = Budget("a user", "bytes of bodies that are under way, or two of MAX_BODY_BYTES", 16 << 20, "", "429")
BODY_BURST = Budget("a user", "bytes of bodies at once", 16 << 20, "", "the same")
BODY_BYTES = Budget("a user", "bytes of bodies", 2 << 20, "a second", "the same")
BIG_ANSWERS = Budget("a user", "bytes of answers of more than 64 KiB each that are under way", 64 << 20, "", "429")
QUEUED = Budget("a user", "bytes that wait for all sockets", 64 << 20, "", "closed with 1013")

NEW_CALLBACKS = Budget("a user", "new callbacks at once", 60, "", "429")
MORE_CALLBACKS = Budget("a user", "new callbacks beyond these", 30, "a minute", "429")
QUESTIONS = Budget("a host of callbacks", "questions under way", 1, "", "others wait")
AT_WORK = Budget("the hub", "posts to callbacks; questions; denials: of each under way", 512, "", "others wait")
RESOLVED = Budget("the hub", "names of new callbacks, and of known ones, that are looked up", 128, "", "others wait")
SHARE = Budget(
    "a user", "places among those of these two, as a part of those that are free", 0.25, "", "others go first"
)

#: All of the above, in this order.
TABLE = tuple(value for value in list(globals().values()) if isinstance(value, Budget))
#: Budgets that settings say: who, what, the setting's name, and what happens beyond it.
SETTINGS = (
    ("a token", "requests a minute", "RATE_LIMIT_TOKEN", "429"),
    ("an address", "requests a minute, handshakes of sockets too", "RATE_LIMIT_ADDRESS", "429"),
    ("a request", "bytes of a body", "MAX_BODY_BYTES", "413"),
    ("a request", "entries of an update", "MAX_BUNDLE_ENTRIES", "413"),
    ("a socket", "bytes that wait", "QUEUE_BYTES", "closed with 1013"),
    ("a socket", "frames that wait", "QUEUE_MESSAGES", "closed with 1013"),
    ("a topic", "subscriptions", "MAX_SUBSCRIPTIONS_PER_TOPIC", "429"),
    ("a user", "subscriptions", "MAX_SUBSCRIPTIONS_PER_USER", "the application's longest absent goes, else 429"),
    ("a user", "topics", "MAX_TOPICS_PER_USER", "those that are abandoned go, else 429"),
    ("a user", "bytes of sessions", "MAX_BYTES_PER_USER", "sessions that nobody follows go, else 413"),
    ("the hub", "bytes of sessions", "MAX_BYTES", "sessions that nobody follows go, else 503"),
)

#: Seconds that a request waits for its user's budget at most; clients give up after five.
PATIENCE = 5.0
#: Seconds until one who is over a budget may try again.
RETRY_AFTER = 5
#: Bytes of an answer from which on it counts as a big one, and in which it is written.
BIG_ANSWER = 64 << 10
#: Accounts and buckets that are held; the one not used for longest goes.
MAX_HELD = 100_000
#: Seconds of CPU that the store takes for each byte of a body: it writes in turns of its own, for all users together.
STORE_SECONDS = 5e-9

Monotonic = Callable[[], float]


def rows() -> list[str]:
    """The table in Markdown, as SECURITY.md has it."""
    own = [(each.who, each.what, f"{_shown(each)} {each.unit}".strip(), each.then) for each in TABLE]
    chosen = [(who, what, f"`FHIRCAST_{setting}`", then) for who, what, setting, then in SETTINGS]
    return [f"| {who} | {what} | {most} | {then} |" for who, what, most, then in (*own, *chosen)]


def _shown(budget: Budget) -> str:
    """A number for people: bytes in KiB or MiB."""
    if budget.what.startswith("bytes") and budget.most >= 1 << 20:
        return f"{budget.most / (1 << 20):g} MiB"
    if budget.what.startswith("bytes"):
        return f"{budget.most / (1 << 10):g} KiB"
    return f"{budget.most:g}"


def check_wait(seconds: float, what: str) -> None:
    """Raise TooMany unless there is nothing to wait for; `what` are the things of which too many came."""
    if seconds:
        raise TooMany(f"more {what} came than one may send", retry_after=math.ceil(seconds))


class Drain:
    """A leaky bucket: `burst` at once, and then `rate` a second."""

    __slots__ = ("_at", "_burst", "_rate", "_used")

    def __init__(self, burst: float, rate: float) -> None:
        self._burst, self._rate = burst, rate
        self._used, self._at = 0.0, 0.0

    def use(self, much: float, now: float) -> None:
        """Use so much of it, whatever is left; `now` is in seconds."""
        self._used = max(0.0, self._used - max(0.0, now - self._at) * self._rate) + much
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until some of it is left; 0 where some is."""
        over = self._used - max(0.0, now - self._at) * self._rate - self._burst
        return over / self._rate if over > 0 else 0.0


class Drains:
    """A Drain for each name, the newest of them."""

    def __init__(self, burst: float, rate: float) -> None:
        self._new = functools.partial(Drain, burst, rate)
        self._held: OrderedDict[Hashable, Drain] = OrderedDict()

    def take(self, name: Hashable, now: float) -> float:
        """Use one of this name's: 0, or the seconds until there will be one again."""
        drain = self._held.pop(name, None) or self._new()
        self._held[name] = drain
        if len(self._held) > MAX_HELD:
            self._held.popitem(last=False)
        drain.use(1, now)
        if wait := drain.wait(now):
            drain.use(-1, now)
        return wait


class Account:
    """What one user costs now, over all of that user's tokens, connections and sockets.

    `bodies` are the bytes of bodies that are under way, `answers` those of big answers that are, `queued` the bytes that wait for sockets.
    """

    __slots__ = ("_bytes", "_clock", "_cpu", "_most_bodies", "answers", "bodies", "queued")

    def __init__(self, clock: Monotonic, most_bodies: float = BODIES.most) -> None:
        self._clock = clock
        self._most_bodies = most_bodies
        self._cpu = Drain(CPU_BURST.most, CPU.most)
        self._bytes = Drain(BODY_BURST.most, BODY_BYTES.most)
        self.bodies = self.answers = self.queued = 0

    @property
    def idle(self) -> bool:
        """Whether nothing of it is under way."""
        return not (self.bodies or self.answers or self.queued)

    def spent(self, seconds: float) -> None:
        """So many seconds of CPU went into its requests."""
        self._cpu.use(seconds, self._clock())

    @property
    def over(self) -> bool:
        """Whether its budgets of CPU and bytes are used up: then others go first."""
        return self._wait() > 0

    async def admitted(self) -> None:
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

    def came(self, size: int) -> None:
        """So many bytes of a body came, and are held. Raises TooMany where that is more than may be; then they are not."""
        if self.bodies + size > self._most_bodies:
            raise TooMany(
                f"expected at most {self._most_bodies} bytes of this user's bodies at a time, got more",
                retry_after=RETRY_AFTER,
            )
        self.bodies += size
        self._bytes.use(size, self._clock())

    def answering(self, size: int) -> None:
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
        return self._new() if principal.system else self.named(principal.realm, principal.subscriber)

    def named(self, realm: str, subscriber: str) -> Account:
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


class Meter:
    """How much CPU one request has cost, in seconds; from `account` on, its user pays."""

    __slots__ = ("_told", "account", "seconds")

    def __init__(self, told: Callable[[float], None] = lambda seconds: None) -> None:
        self._told = told  # of every step, whoever pays
        self.seconds = 0.0
        self.account: Account | None = None

    def add(self, seconds: float) -> None:
        """Charge so many seconds of CPU."""
        self._told(seconds)
        self.seconds += seconds
        if self.account is not None:
            self.account.spent(self.seconds)
            self.seconds = 0.0


class Metered(Awaitable[None]):
    """A coroutine, whose every step is timed."""

    __slots__ = ("_meter", "_work")

    def __init__(self, work: Coroutine[Any, Any, None], meter: Meter) -> None:
        self._work, self._meter = work, meter

    def __await__(self) -> Generator[Any, Any, None]:
        # As `yield from` does, but with a look at the clock before and after each step.
        work, meter, clock = self._work, self._meter, time.perf_counter
        step: Callable[[Any], Any] = work.send
        value: Any = None
        while True:
            began = clock()
            try:
                waits_for = step(value)
            except StopIteration:
                return
            finally:
                meter.add(clock() - began)
            try:
                step, value = work.send, (yield waits_for)
            except BaseException as error:
                step, value = work.throw, error


async def metered(work: Coroutine[Any, Any, None], meter: Meter) -> None:
    """`work`, timed."""
    await Metered(work, meter)
