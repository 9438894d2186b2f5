"""Follower: reads the log, in its order, and hands each row on once.

A notice only wakes the follower; every second the follower reads without one. Positions become visible in their order
(schema.sql, commit_1), so one number says what was read. Own commits that follow directly need no reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog

from fhircast_hub.postgresql.commits import Writer
from fhircast_hub.postgresql.database import Database, DatabaseError, FellBehind, Fenced, Link, Lost

#: Rows of one reading, at most.
MOST = 500
#: Seconds after which the log is read without a notice.
POLL_SECONDS = 1.0
#: Seconds that a request waits for the log.
PATIENCE = 5.0
#: Seconds after which a node that can give signs of life, and cannot read the log, begins anew.
BLIND_SECONDS = 10.0
CHANNEL = "fhircast"

_FOLLOW = "select * from fhircast.follow_1($1, $2, $3, $4)"
_NEWEST = "select * from fhircast.newest_1()"

_log = structlog.get_logger()


class Follower:
    """Reads the log for the node `node()`.

    `hear` is given each row, and raises nothing. `lost_track` is called with the name of the node that must begin anew. `writer` writes the
    commits of this node. `sure_for()`: seconds for which the node's last sign of life holds.
    """

    def __init__(
        self,
        database: Database,
        node: Callable[[], str],
        hear: Callable[[Any], None],
        lost_track: Callable[[str], None],
        writer: Writer,
        sure_for: Callable[[], float],
    ) -> None:
        self._link = Link(database, "follower", self._listen)
        self._sure_for = sure_for
        #: The loop's time since when the log cannot be read, although the database answers. None: it can, or nothing answers.
        self._blind_since: float | None = None
        self._node = node
        self._hear = hear
        self._lost_track = lost_track
        self._writer = writer
        #: Everything up to this position was handed on. With the time of its row in the log, None where the log was empty.
        self._position = 0
        self._written: datetime | None = None
        #: Positions beyond it that this node has committed, and knows, each with the time of its row.
        self._own: dict[int, datetime] = {}
        self._wake = asyncio.Event()
        #: Those that wait for a reading that begins later.
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Begin at the end of the log. Raises DatabaseError."""
        ((self._position, self._written),) = await self._link.fetch(_NEWEST)
        self._own.clear()

    def start(self) -> None:
        """Begin to read."""
        self._task = asyncio.get_running_loop().create_task(self._read_forever())

    async def stop(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._link.close()
        self._answer(Lost())

    def committed(self, position: int, written: datetime) -> None:
        """This node has committed at `position`, and needs not read that row."""
        if position == self._position + 1:
            self._position, self._written = position, written
        elif position > self._position:
            self._own[position] = written

    async def check(self, connection: Any) -> None:
        """Raise if the server's log has lost what this node knows, or if the node is dead.

        A standby without the last commits may have taken over. Nothing is committed or confirmed there before this node
        begins anew: the positions of lost commits are given again, and would count as known.
        """
        newest = max(self._own, default=self._position)
        try:
            await connection.fetch(_FOLLOW, self._node(), newest, self._own.get(newest, self._written), 0)
        except Exception:
            self._wake.set()
            raise

    async def catch_up(self) -> None:
        """Return when all that was committed before this call was handed on. Raises DatabaseError."""
        loop = asyncio.get_running_loop()
        reading: asyncio.Future[None] = loop.create_future()
        self._waiting.append(reading)
        self._wake.set()
        # asyncio.timeout needs a task, and a request may have none.
        timer = loop.call_later(PATIENCE, _give_up, reading)
        try:
            await reading
        finally:
            timer.cancel()

    async def _listen(self, connection: Any) -> None:
        await connection.add_listener(CHANNEL, self._on_notice)

    def _on_notice(self, connection: Any, pid: int, channel: str, payload: Any) -> None:
        if pid != self._writer.pid:
            self._wake.set()

    async def _read_forever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            node = self._node()
            try:
                await self._read(node)
            except (Fenced, FellBehind) as error:
                _settle(waiting, error)
                self._lost_track(node)
                await asyncio.sleep(POLL_SECONDS)
            except DatabaseError as error:
                _settle(waiting, error)
                if self._is_blind():
                    self._lost_track(node)
                await asyncio.sleep(POLL_SECONDS / 5)
            except Exception as error:
                _log.error("log not read", exc_info=error)
                _settle(waiting, Lost())
                self._lost_track(node)
                await asyncio.sleep(POLL_SECONDS)
            else:
                self._blind_since = None
                _settle(waiting, None)

    def _is_blind(self) -> bool:
        """Whether this node alone has not been able to read for BLIND_SECONDS: its sockets miss what others are told."""
        now = asyncio.get_running_loop().time()
        if self._sure_for() <= 0:
            self._blind_since = None
        elif self._blind_since is None:
            self._blind_since = now
        return self._blind_since is not None and now - self._blind_since >= BLIND_SECONDS

    async def _read(self, node: str) -> None:
        """Read to the end of the log. Raises FellBehind also where a commit of this node is not there any more."""
        committed = dict(self._own)
        while True:
            rows = await self._link.fetch(_FOLLOW, node, self._position, self._written, MOST)
            if self._node() != node:
                raise Fenced  # this node began anew meanwhile
            for row in rows:
                position, written, own = row[0], row[1], row[2]
                if own and position > self._position and position not in self._own:
                    # The log may be faster than the answer to the commit itself.
                    await self._writer.settled()
                if position in self._own:
                    if self._own.pop(position) != written:
                        raise FellBehind
                elif position > self._position:
                    self._hear(row)
                if position > self._position:
                    self._position, self._written = position, written
            if len(rows) < MOST:
                break
        if committed.keys() & self._own.keys():
            raise FellBehind

    def _answer(self, error: Exception | None) -> None:
        waiting, self._waiting = self._waiting, []
        _settle(waiting, error)


def _give_up(reading: asyncio.Future[None]) -> None:
    _settle([reading], Lost())


def _settle(waiting: list[asyncio.Future[None]], error: Exception | None) -> None:
    for each in waiting:
        if not each.done():
            if error is None:
                each.set_result(None)
            else:
                each.set_exception(error)
