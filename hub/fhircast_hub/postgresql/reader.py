"""Reader: reads sessions and their revisions. All that want the same thing at a time share one statement."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.postgresql.cache import Entry
from fhircast_hub.postgresql.database import DatabaseError, Link, Lost
from fhircast_hub.storage.row_reader import session_of
from fhircast_hub.telemetry.metrics import Metrics

_LOAD = """
select s.revision, s.bytes, p.kind, p.name, p.body from fhircast.session s
left join fhircast.part p on p.realm = s.realm and p.topic = s.topic where s.realm = $1 and s.topic = $2
"""
_REVISIONS = """
select c.place, s.revision from unnest($1::text[], $2::text[]) with ordinality as c(realm, topic, place)
join fhircast.session s on s.realm = c.realm and s.topic = c.topic
"""

_log = structlog.get_logger()


class Reader:
    """Reads by one connection."""

    def __init__(self, link: Link, metrics: Metrics) -> None:
        self._link = link
        self._metrics = metrics
        #: Sessions that are being read.
        self._reading: dict[SessionKey, asyncio.Future[Entry | None]] = {}
        #: Those of them of which a change was heard meanwhile.
        self._changed: set[SessionKey] = set()
        #: Sessions whose revision will be asked for in this turn.
        self._asking: dict[SessionKey, asyncio.Future[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: Sessions that could not be read: the log has one line of each.
        self._unreadable: set[SessionKey] = set()

    async def session(self, key: SessionKey) -> Entry | None:
        """The session. None: there is none. Raises DatabaseError."""
        if (reading := self._reading.get(key)) is None:
            reading = self._reading[key] = asyncio.get_running_loop().create_future()
            self._spawn(self._read(key, reading))
        return await asyncio.shield(reading)  # others may wait for the same answer

    async def revision(self, key: SessionKey) -> int:
        """The newest revision of the session. 0: there is none. Raises DatabaseError."""
        if (asked := self._asking.get(key)) is None:
            if not self._asking:
                self._spawn(self._ask())
            asked = self._asking[key] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(asked)

    def changed(self, key: SessionKey) -> None:
        """A change of the session was heard: what is being read may be older."""
        if key in self._reading:
            self._changed.add(key)

    async def stop(self) -> None:
        """Read no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read(self, key: SessionKey, reading: asyncio.Future[Entry | None]) -> None:
        try:
            entry = await self._fetch(key)
            while key in self._changed:
                self._changed.discard(key)
                entry = await self._fetch(key)
            self._unreadable.discard(key)
            _answer(reading, entry)
        except Exception as error:
            if not isinstance(error, DatabaseError):
                if key not in self._unreadable:
                    _log.error("session cannot be read", error=type(error).__name__)
                self._unreadable.add(key)
                self._metrics.unreadable.inc()
            _fail([reading], error if isinstance(error, DatabaseError) else DatabaseError())
        finally:
            del self._reading[key]
            self._changed.discard(key)
            reading.cancel()  # where this task was cancelled

    async def _fetch(self, key: SessionKey) -> Entry | None:
        rows = await self._link.fetch(_LOAD, *key)
        return _entry_of(key, rows) if rows else None

    async def _ask(self) -> None:
        """Ask for the revisions of all sessions that somebody asks for in this turn."""
        await asyncio.sleep(0)
        asking, self._asking = self._asking, {}
        try:
            columns = [key.realm for key in asking], [key.topic for key in asking]
            found = dict(await self._link.fetch(_REVISIONS, *columns))
        except Exception as error:
            _fail(list(asking.values()), error if isinstance(error, DatabaseError) else Lost())
            return
        for place, asked in enumerate(asking.values(), 1):
            _answer(asked, found.get(place, 0))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _answer(waiting: asyncio.Future[Any], answer: object) -> None:
    if not waiting.done():
        waiting.set_result(answer)


def _fail(waiting: list[asyncio.Future[Any]], error: Exception) -> None:
    for each in waiting:
        if not each.done():
            each.set_exception(error)
            each.exception()  # those that wait may be gone


def _entry_of(key: SessionKey, rows: list[Any]) -> Entry:
    """The entry of a session's rows. Raises what session_of raises."""
    kinds: dict[str, dict[str, bytes]] = {}
    for _, _, kind, name, body in rows:
        kinds.setdefault(kind, {})[name] = body
    return Entry(session_of(*key, kinds), rows[0][0], rows[0][1], asyncio.get_running_loop().time())
