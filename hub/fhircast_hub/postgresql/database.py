"""Database: connections to PostgreSQL, made when they are needed, and what its errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import asyncpg
import structlog

from fhircast_hub.core.errors import Unavailable
from fhircast_hub.postgresql.connect import Connector
from fhircast_hub.postgresql.refusals import Login
from fhircast_hub.service.ports import StoreAway
from fhircast_hub.settings.database_url import parse

#: Seconds for a statement. A node without an answer for so long counts the answer as lost.
PATIENCE = 5.0
#: Seconds without another try after a connection failed, so that many callers do not wait one after the other.
PAUSE = 0.5
#: Seconds after which a client may try again.
RETRY_AFTER = 2

#: Classes of SQLSTATE after which a statement may have been committed: connection, operator intervention.
_LOST = ("08", "57P")
#: SQLSTATE of a statement that waited too long for a lock, of a commit that comes too late, and of a statement beyond
#: its statement_timeout. Nothing was changed.
_TOO_LATE = ("55P03", "FHC04", "57014")
#: SQLSTATE of a server that became read-only. Another host of the URL may take changes.
_READ_ONLY = "25006"

_IS_THERE = "select exists (select from pg_stat_activity where pid = $1 and backend_start = $2)"
_PROCESS = "select pid, backend_start from pg_stat_activity where pid = pg_backend_pid()"

_log = structlog.get_logger()
_Hook = Callable[["asyncpg.Connection[Any]"], Awaitable[None]]


class DatabaseError(Unavailable):
    """The database did not do what it was asked to, and nothing was changed."""

    def __init__(self, message: str = "the hub's database refused") -> None:
        super().__init__(message, retry_after=RETRY_AFTER)


class Lost(DatabaseError):
    """No answer came. Whether the statement was carried out is unknown."""

    def __init__(self) -> None:
        super().__init__("the hub's database does not answer; repeat the request")


class ReadOnly(DatabaseError):
    """The server takes no changes: it is a standby, or was made one. Nothing was changed."""


class Busy(DatabaseError):
    """The statement came too late, or waited too long. Nothing was changed."""

    def __init__(self) -> None:
        super().__init__("the hub's database is busy; repeat the request")


class Fenced(DatabaseError):
    """Another node marked this node dead, because this node gave no sign of life."""

    def __init__(self) -> None:
        super().__init__("this node of the hub begins anew; repeat the request")


class FellBehind(DatabaseError):
    """The log does not reach back to what this node has read."""


class OverLimits(DatabaseError):
    """Commits would exceed limits. `places` are their places in the group, from 1 on."""

    def __init__(self, places: frozenset[int]) -> None:
        super().__init__()
        self.places = places


def meaning(error: BaseException) -> DatabaseError:
    """What an error of asyncpg or of the network means. Its own text may hold patients or the password, and is dropped."""
    if not isinstance(error, asyncpg.PostgresError):
        return Lost()
    state = error.sqlstate or ""
    match state:
        case "FHC01":
            return Fenced()
        case "FHC02":
            return OverLimits(frozenset(map(int, (error.detail or "").split(","))))
        case "FHC03":
            return FellBehind()
    if state in _TOO_LATE:
        return Busy()
    if state.startswith(_LOST):
        return Lost()
    if state == _READ_ONLY:
        return ReadOnly()
    _log.error("database refused", error=type(error).__name__, sqlstate=state)
    return DatabaseError()


def refused_start(error: DatabaseError) -> ValueError:
    """The same for the operator, at the start: StoreAway, where a later start may succeed."""
    return ValueError(str(error)) if type(error) is DatabaseError else StoreAway(str(error))


class Database:
    """Where the database is, and as whom to connect. `url` is a URL of libpq, `password` what a file says, if any.

    Raises ValueError for a URL that the hub does not understand.
    """

    def __init__(self, url: str, password: str | None = None) -> None:
        parsed = parse(url)
        self._connector = Connector(parsed, password)
        #: As whom the hub connects, for what the operator is told.
        self.login = Login(parsed.user, parsed.database, self._connector.has_password)

    async def connect(self, purpose: str) -> asyncpg.Connection[Any]:
        """A new connection. Raises what Connector.connect raises."""
        return await self._connector.connect(purpose)


class Link:
    """One connection. It is made when it is needed, carries one statement at a time, and is dropped after a failure."""

    def __init__(self, database: Database, purpose: str, on_connect: _Hook | None = None) -> None:
        self._database = database
        self._purpose = purpose
        self._on_connect = on_connect
        self._connection: asyncpg.Connection[Any] | None = None
        self._turn = asyncio.Lock()
        #: Event loop's time until which no connection is tried.
        self._not_before = 0.0
        #: The present process of the server, by number and start; and one that still had a statement when it was left.
        self._process: tuple[int, datetime] | None = None
        self._left: tuple[int, datetime] | None = None

    @property
    def pid(self) -> int | None:
        """The process of the server that serves this connection. None: there is no connection."""
        connection = self._connection
        return None if connection is None or connection.is_closed() else connection.get_server_pid()

    async def fetch(self, statement: str, *values: Any) -> list[Any]:
        """The rows of a statement. Raises DatabaseError.

        Its turn comes after those before. Then a connection has the time of each host of the URL, and the statement PATIENCE.
        """
        async with self._turn:
            if self.pid is None:
                self._drop()
            connection = self._connection or await self._connect()
            work = asyncio.ensure_future(connection.fetch(statement, *values))
            # A statement is never cancelled at the server: who cancels a commit that waits for a standby has committed.
            try:
                await asyncio.wait([work], timeout=PATIENCE)
            finally:
                if not work.done():
                    self._left = self._process
                    self._drop()
            try:
                rows: list[Any] = await work
            except Exception as error:
                found = meaning(error)
                if isinstance(found, Lost | ReadOnly):
                    self._drop()
                raise found from None
            return rows

    def close(self) -> None:
        """Drop the connection."""
        self._drop()

    async def _connect(self) -> asyncpg.Connection[Any]:
        now = asyncio.get_running_loop().time
        if now() < self._not_before:
            raise Lost
        try:
            connection = self._connection = await self._database.connect(self._purpose)
            async with asyncio.timeout(PATIENCE):
                await self._check_process(connection)
                if self._on_connect is not None:
                    await self._on_connect(connection)
        except Exception as error:
            self._not_before = now() + PAUSE
            self._drop()
            meaning(error)
            raise Lost from None
        return connection

    async def _check_process(self, connection: asyncpg.Connection[Any]) -> None:
        """Raise Lost while a statement of an earlier connection is still under way.

        So statements without an answer do not pile up at a server whose standby is away, and none of them is overtaken.
        """
        if self._left is not None and await connection.fetchval(_IS_THERE, *self._left):
            raise Lost
        self._left = None
        self._process = tuple(await connection.fetchrow(_PROCESS))

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
