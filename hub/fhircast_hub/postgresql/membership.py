"""Membership: this node's row in the database. A node lives while its signs of life come; a dead node never lives again.

Each node writes a sign of life every BEAT_SECONDS. A node that has seen none of another node for DEAD_SECONDS, by its own
monotonic clock, marks the other node dead. So no step of a wall clock marks anybody.
A node that was only asleep finds itself marked: every function of schema.sql refuses the node, and the node begins anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version

import structlog

from fhircast_hub.postgresql.database import DatabaseError, Fenced, Link

#: Seconds between two signs of life.
BEAT_SECONDS = 2.0
#: Seconds without a sign of life after which a node is dead.
DEAD_SECONDS = 10.0
#: Seconds before DEAD_SECONDS at which a node without an answer of the database does nothing more that others might do.
MARGIN = 2.0
#: Signs of life between two looks at the old slots of the log.
TIDY_BEATS = 5
#: Seconds that a node's clock may differ from the database's without a warning. The database's time counts.
MAX_SKEW = 2.0

_JOIN = "insert into fhircast.node (name, release) values ($1, $2)"
_BEAT = "select fhircast.beat_1($1)"
_NODES = "select name, seen, dead from fhircast.node"
_MARK = "select fhircast.mark_1($1, $2)"
_LEAVE = "select fhircast.leave_1($1)"
_FORGET = "select fhircast.forget_node_1($1)"
_TIDY = "select fhircast.tidy_1()"

_log = structlog.get_logger()


class DatabaseClock:
    """The database's time in epoch seconds, which is the same for all nodes. No step of this machine's clock changes it."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        #: The database's time less the seconds since this machine started. None: not known yet.
        self._started_at: float | None = None
        self._warned = False

    def __call__(self) -> float:
        return self._clock() if self._started_at is None else self._started_at + _boot_time()

    def set(self, database: float, asked_at: float) -> None:
        """The database said this time in answer to a question that was asked at `asked_at`, by CLOCK_BOOTTIME."""
        self._started_at = database - (asked_at + _boot_time()) / 2
        skew = self() - self._clock()
        if abs(skew) > MAX_SKEW and not self._warned:
            _log.warning("the clocks of this machine and of the database differ", seconds=round(skew, 1))
        self._warned = abs(skew) > MAX_SKEW


class Membership:
    """This node's name, its signs of life, and the dead nodes that it finds. `fenced` is called with the name that was marked."""

    def __init__(self, link: Link, clock: DatabaseClock, fenced: Callable[[str], None]) -> None:
        self._link = link
        self._clock = clock
        self._fenced = fenced
        self.name = _new_name()
        #: Whether the database knows this node under its name.
        self.joined = False
        #: Earlier names of this process that must be marked dead before the node joins again.
        self._earlier: list[str] = []
        #: Other nodes: last sign of life, and since when this node knows of it (monotonic clock).
        self._others: dict[str, tuple[datetime, float]] = {}
        #: Dead nodes whose sessions must be looked after, each with its last sign of life (epoch seconds).
        self.dead: tuple[tuple[str, float], ...] = ()
        self._alive_until = 0.0
        self._task: asyncio.Task[None] | None = None

    def sure_for(self) -> float:
        """Seconds for which nobody can have marked this node dead. Time that the machine sleeps counts."""
        return self._alive_until - _boot_time() if self.joined else 0.0

    async def join(self) -> None:
        """Become a node. The process's earlier nodes are dead then, and have nothing under way. Raises DatabaseError."""
        while self._earlier:
            await self._link.fetch(_LEAVE, self._earlier[0])
            del self._earlier[0]
        try:
            await self._link.fetch(_JOIN, self.name, version("fhircast-hub"))
            await self._give_sign()
        except DatabaseError:
            self.begin_anew()  # the database may have the name, and may mark it dead meanwhile
            raise
        self.joined = True

    async def beat(self) -> None:
        """Give a sign of life, and look for the dead. Raises DatabaseError."""
        try:
            await self._give_sign()
            await self._look_for_the_dead()
        except DatabaseError:
            # After an outage of the database, every node may give signs of life again before any is marked.
            self._others.clear()
            raise

    async def _give_sign(self) -> None:
        asked_at = _boot_time()
        ((database,),) = await self._link.fetch(_BEAT, self.name)
        self._clock.set(database, asked_at)
        self._alive_until = asked_at + DEAD_SECONDS - MARGIN

    async def _look_for_the_dead(self) -> None:
        nodes = await self._link.fetch(_NODES)
        now = time.monotonic()
        for name, seen, dead in nodes:
            last_seen, since = self._others.get(name, (None, now))
            self._others[name] = seen, since if seen == last_seen else now
            if not dead and name != self.name and now - self._others[name][1] >= DEAD_SECONDS:
                await self._link.fetch(_MARK, name, seen)
        self._others = {name: self._others[name] for name, _, _ in nodes}
        self.dead = tuple((name, seen.timestamp()) for name, seen, dead in nodes if dead)

    async def forget(self, name: str) -> None:
        """A dead node's sessions were all looked after. Raises DatabaseError."""
        await self._link.fetch(_FORGET, name)
        self.dead = tuple(each for each in self.dead if each[0] != name)

    async def leave(self) -> None:
        """Say that this node stops. Others take over at once."""
        self.joined = False
        with contextlib.suppress(DatabaseError):
            await self._link.fetch(_LEAVE, self.name)

    def begin_anew(self) -> None:
        """This node was marked dead: it has another name, and is nobody until it has joined again."""
        self.joined = False
        self._earlier.append(self.name)
        self.name = _new_name()
        self._others.clear()

    def start(self) -> None:
        """Begin to give signs of life."""
        self._task = asyncio.get_running_loop().create_task(self._beat_forever())

    async def stop(self) -> None:
        """Give no more signs of life."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _beat_forever(self) -> None:
        away, beats = False, secrets.randbelow(TIDY_BEATS)
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            name, beats = self.name, beats + 1
            try:
                if self.joined:
                    await self.beat()
                    if beats % TIDY_BEATS == 0:
                        await self._link.fetch(_TIDY)
            except Fenced:
                self._fenced(name)
            except DatabaseError:
                if not away:
                    _log.error("the database does not answer")
                away = True
            except Exception as error:
                _log.error("no sign of life", exc_info=error)
            else:
                if away:
                    _log.info("the database answers again")
                away = False


def _new_name() -> str:
    return secrets.token_hex(6)


def _boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
