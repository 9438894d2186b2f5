"""Promise: which failures the events that were answered with 202 survive. The database's settings decide.

PostgreSQL's pages: https://www.postgresql.org/docs/current/wal-async-commit.html and
https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION
"""

from __future__ import annotations

from typing import Any, NamedTuple

import asyncpg
import structlog

from fhircast_hub.postgresql.database import Link

_SETTINGS = """
select current_setting('synchronous_commit'), current_setting('synchronous_standby_names'), current_setting('fsync'),
    (select setting::integer from pg_settings where name = 'wal_writer_delay')
"""
#: Values of synchronous_commit with which a commit is on a synchronous standby's disk.
_ON_STANDBY = ("on", "remote_apply")

_log = structlog.get_logger()


class Promise(NamedTuple):
    """Settings of the database, as the hub's role has them."""

    synchronous_commit: str
    synchronous_standby_names: str
    fsync: str
    #: Milliseconds.
    wal_writer_delay: int

    @property
    def is_whole(self) -> bool:
        """Whether no single failure loses an event."""
        return not self._risks()

    def __str__(self) -> str:
        """The promise in one line, of at most 200 characters."""
        survived = ["any node"]
        if self.synchronous_commit != "off":
            survived.append("a crash of the database")
            if self.fsync == "on":
                survived.append("a power cut")
            if self._has_standby():
                survived.append("the database's failover")
        return "; ".join([f"accepted events survive {_listed(survived)}", *self._risks()])

    def _has_standby(self) -> bool:
        return bool(self.synchronous_standby_names.strip()) and self.synchronous_commit in _ON_STANDBY

    def _risks(self) -> list[str]:
        risks = []
        if self.fsync != "on":
            risks.append("a power cut may lose everything: fsync is off")
        if self.synchronous_commit == "off":
            # "The maximum ... is three times wal_writer_delay" (PostgreSQL, Asynchronous Commit)
            seconds = self.wal_writer_delay * 3 / 1000
            risks.append(f"a crash, power cut or failover may lose the last {seconds:g} s: synchronous_commit is off")
        elif not self.synchronous_standby_names.strip():
            risks.append("a failover may lose the last events: synchronous_standby_names is empty")
        elif self.synchronous_commit not in _ON_STANDBY:
            risks.append(f"a failover may lose the last events: synchronous_commit is {self.synchronous_commit}")
        return risks


def _listed(words: list[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


async def read_promise(connection: asyncpg.Connection[Any]) -> Promise:
    """The promise, by a connection of the hub's role. Raises what asyncpg raises."""
    return Promise(*await connection.fetchrow(_SETTINGS))


class PromiseLog:
    """Says in the log which promise holds, at the start and whenever the promise changes."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._said: Promise | None = None

    async def look(self) -> None:
        """Ask the database. Raises DatabaseError."""
        [settings] = await self._link.fetch(_SETTINGS)
        promise = Promise(*settings)
        if promise != self._said:
            self._said = promise
            say = _log.info if promise.is_whole else _log.warning
            say("promise of the database", reason=str(promise))
