"""SqliteStore: sessions in memory, journalled to a SQLite file. An accepted change is in the file before anybody is told.

A session is a few rows (rows.py); a commit writes the rows that differ. All commits of one turn of the event loop share a
transaction (group commit). A transaction takes some tens of microseconds, because it does not wait for the disk.

- The process may die at any moment: WAL mode with synchronous=NORMAL loses nothing.
- The machine may die: every second a thread waits until the log is on the disk. A power cut may cost that second, and a move of
  the log if one is under way. The file stays consistent.

Deleted rows are not left behind (OPS-7). `secure_delete` overwrites them in the file. The log is moved into the file and emptied
after a second without commits, and at least every half minute. A long log is moved sooner. Commits wait for some milliseconds
then, and the event loop goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.errors import Unavailable
from fhircast_hub.core.state.effects import Effect
from fhircast_hub.core.state.session import Session
from fhircast_hub.service.ports import Changed, Deliver, Limits, Stale, StoreAway, ignore_changes
from fhircast_hub.storage import meta
from fhircast_hub.storage.memory import MemoryStore
from fhircast_hub.storage.row_reader import sessions_of
from fhircast_hub.storage.rows import Row, changes
from fhircast_hub.storage.scrubbing import WriteAheadLog
from fhircast_hub.storage.upgrade import OLDEST_VERSION, upgrade
from fhircast_hub.waiter import Waiter

#: Version of the rows. A change that older hubs cannot read raises the version by one, and adds a step to upgrade.py.
SCHEMA_VERSION = 3
#: Seconds between two waits for the disk: a power cut may cost so many.
SYNC_SECONDS = 1.0
#: Seconds until the log is emptied although there are commits in each second. Closed data may stay for a minute (OPS-7).
EMPTY_SECONDS = 30.0
#: Seconds until the next attempt where another process reads the file, as a backup does.
EMPTY_AGAIN_SECONDS = 5.0
#: A log with so many bytes is moved, and begun anew.
MAX_LOG_BYTES = 16 << 20
#: Seconds after which a client may try again when the file could not be written.
RETRY_AFTER = 5

_SCHEMA = """
create table part (
    realm text not null, topic text not null, kind text not null, name text not null, body blob not null,
    unique (realm, topic, kind, name)
)
"""
# An existing row is changed in its place. Such a write changes a page or two, however large the table is.
_PUT = "insert into part values {} on conflict (realm, topic, kind, name) do update set body = excluded.body"
_DELETE = "delete from part where realm = ? and topic = ? and kind = ? and name = ?"
_COLUMNS = 5
#: Parameters of one statement: a hundred rows. Most batches are one statement, which needs no explicit transaction.
_PARAMETERS = 100 * _COLUMNS

_ROWS_BY_SESSION = "select realm, topic, kind, name, body from part order by realm, topic"

_log = structlog.get_logger()
_Result = TypeVar("_Result")


class SqliteStore(MemoryStore):
    """`sqlite:///path`. One process at a time may use the file.

    `learn_key` is given the key of the keyed hashes in logs, which the file keeps.
    """

    def __init__(self, path: Path, learn_key: Callable[[bytes], None] = lambda key: None) -> None:
        self._learn_key = learn_key
        self._path = path.resolve()  # so that two names of one file have one lock
        super().__init__()
        self._batch = _Batch()
        #: Transactions since the last wait for the disk.
        self._commits = 0
        #: Whether the log may have pages. At the start, a killed process may have left some.
        self._has_log = True
        #: Whether the log is being emptied or begun anew. Commits wait meanwhile.
        self._emptying = False
        self._thread = ThreadPoolExecutor(1, "store")
        #: Work of the thread that was begun last.
        self._work: asyncio.Future[Any] | None = None

    async def open(self, deliver: Deliver, changed: Changed = ignore_changes) -> None:
        """Open or create the file (mode 0600), and read every session. Raises OSError or ValueError, for the operator."""
        await super().open(deliver, changed)
        self._loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as undo:  # closes a file that is refused
            self._lock = _lock(self._path)
            undo.callback(os.close, self._lock)
            # Kept open to the end: closing it would end the locks that SQLite has on the file.
            self._file = _open_private(self._path)
            undo.callback(os.close, self._file)
            self._wal = WriteAheadLog(self._path, self._file)
            try:
                self._connection = sqlite3.connect(self._path, isolation_level=None, timeout=1.0)
                undo.callback(self._connection.close)
                _prepare(self._connection, self._path)
                self._learn_key(meta.settle(self._connection, version_of("fhircast-hub")))
                #: Writes all batches. A cursor for each would take a microsecond.
                self._cursor = self._connection.cursor()
                rows = self._connection.execute(_ROWS_BY_SESSION)
                self._sessions = {SessionKey(s.realm, s.topic): (s, 1) for s in sessions_of(rows)}
            except (sqlite3.Error, msgspec.MsgspecError, KeyError) as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise StoreAway(f"{self._path} is in use by another program") from None
                raise ValueError(f"{self._path} cannot be read as a hub's store: {error}") from None
            undo.pop_all()
        self._checkpoints = asyncio.create_task(self._checkpoint())

    async def commit_and_deliver(
        self,
        key: SessionKey,
        revision: int,
        before: Session | None,
        after: Session | None,
        effects: Sequence[Effect],
        limits: Limits | None = None,
    ) -> None:
        if self._sessions.get(key, (None, 0))[1] != revision:
            raise Stale
        batch = self._batch
        if not batch.waiting:
            self._loop.call_soon(self._flush)
        written = Waiter()
        batch.waiting.append(written)
        if after is not before:
            batch.undo.setdefault(key, (before, revision))
            batch.rows.update(changes(key, before, after))
            self._put(key, after, revision + 1)
        batch.effects += effects
        await written

    async def close(self) -> None:
        """Write pending commits, move the log into the file, and unlock the file."""
        self._checkpoints.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._checkpoints
        if self._work:
            await asyncio.wait([self._work])
        self._flush()
        try:
            await self._in_thread(self._wal.empty)
        except (sqlite3.Error, OSError) as error:
            _log.error("store not checkpointed", error=type(error).__name__)
        self._thread.shutdown()
        self._connection.close()
        os.close(self._file)
        os.close(self._lock)

    def _flush(self) -> None:
        """Write the batch in one transaction, then deliver. After a failure undo the batch, so that memory equals the file."""
        if self._emptying:
            return
        # Requests go on while their commits are settled. Their next commits make the next batch.
        batch, self._batch = self._batch, _Batch()
        if not batch.waiting:
            return
        try:
            self._write(batch.rows)
        except Exception as error:
            _log.error("store not written", error=type(error).__name__, count=len(batch.undo))
            for key, (before, revision) in batch.undo.items():
                self._put(key, before, revision)
            for written in batch.waiting:
                written.settle(Unavailable("the hub cannot write its store", retry_after=RETRY_AFTER))
            return
        try:
            self._deliver(batch.effects)
        finally:
            for written in batch.waiting:
                written.settle()

    def _write(self, rows: dict[Row, bytes | None]) -> None:
        statements = _statements(rows)
        self._commits += bool(statements)
        if len(statements) == 1:
            self._cursor.execute(*statements[0])
        elif statements:
            self._cursor.execute("begin immediate")
            try:
                for statement in statements:
                    self._cursor.execute(*statement)
                self._cursor.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._cursor.execute("rollback")
                raise

    async def _checkpoint(self) -> None:
        not_before = empty_by = 0.0
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            commits, self._commits = self._commits, 0
            self._has_log = self._has_log or commits > 0
            if not self._has_log:
                continue
            try:
                size = await self._in_thread(self._wal.sync) if commits else 0
                now = self._loop.time()
                is_due = not commits or now >= empty_by
                if now >= not_before and (is_due or size > MAX_LOG_BYTES):
                    # Commits go on meanwhile. So little is left to do while they wait.
                    await self._in_thread(self._wal.move)
                    is_done = await (self._empty() if is_due else self._alone(self._wal.reset))
                    not_before = 0.0 if is_done else self._loop.time() + EMPTY_AGAIN_SECONDS
                    if is_due:
                        empty_by = self._loop.time() + EMPTY_SECONDS if is_done else not_before
            except (sqlite3.Error, OSError) as error:
                _log.error("store not checkpointed", error=type(error).__name__)

    async def _empty(self) -> bool:
        """Empty the log. Returns False where another process reads."""
        is_empty = await self._alone(self._wal.empty)
        self._has_log = not is_empty
        return is_empty

    async def _alone(self, work: Callable[[], _Result]) -> _Result:
        """Run `work` in the thread. Commits of this time are written afterwards."""
        self._emptying = True
        try:
            return await self._in_thread(work)
        finally:
            self._emptying = False
            self._loop.call_soon(self._flush)

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        """Run `work` in the thread. A cancelled caller does not cancel the work."""
        working = self._loop.run_in_executor(self._thread, work)
        self._work = working
        return await asyncio.shield(working)


class _Batch:
    """The commits of one turn of the event loop."""

    def __init__(self) -> None:
        #: Settled when the batch is written and delivered; one for each commit.
        self.waiting: list[Waiter] = []
        #: Session and revision before the batch.
        self.undo: dict[SessionKey, tuple[Session | None, int]] = {}
        #: Rows to write. None: to delete.
        self.rows: dict[Row, bytes | None] = {}
        #: Effects to deliver, in the order of the commits.
        self.effects: list[Effect] = []


def _lock(path: Path) -> int:
    """Lock the file for this process. Returns the descriptor of the lock. Raises ValueError where another process has the lock."""
    lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ValueError(f"{path} is in use by another hub") from None
    return lock


def _open_private(path: Path) -> int:
    """Open or create a file that only its owner can read, for it names patients. SQLite makes its log with the same mode."""
    file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    path.chmod(0o600)
    return file


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create the table of a new file, or upgrade the rows of an older hub. Raises ValueError for other versions."""
    version = connection.execute("pragma user_version").fetchone()[0]
    if version and not OLDEST_VERSION <= version <= SCHEMA_VERSION:
        raise ValueError(f"{path} {_other_schema(version, meta.release_of(connection))}")
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    connection.execute("pragma wal_autocheckpoint = 0")
    # Deleted rows name patients: SQLite overwrites them with zeros, and does not only unlink them.
    connection.execute("pragma secure_delete = on")
    if version == 0:
        connection.execute("begin immediate")
        connection.execute(_SCHEMA)
        connection.execute(f"pragma user_version = {SCHEMA_VERSION}")
        connection.execute("commit")
    elif version < SCHEMA_VERSION:
        upgrade(connection, version, SCHEMA_VERSION)


def _other_schema(version: int, release: str) -> str:
    """What is wrong with a file of this version, which the hub `release` ("": not known) wrote, and what to do."""
    by = f", written by fhircast-hub {release}" if release else ""
    found = f"has schema version {version}{by}; this hub reads versions {OLDEST_VERSION} to {SCHEMA_VERSION}"
    if version < OLDEST_VERSION:
        return f"{found}: open the file once with an older hub that reads version {version} and writes a newer one"
    newer = f"fhircast-hub {release} or newer" if release else "the hub that wrote the file, or a newer one"
    return f"{found}: install {newer}, or restore a backup of the file"


def _statements(rows: dict[Row, bytes | None]) -> list[tuple[str, Sequence[str | bytes]]]:
    """The statements that write and delete these rows, with their parameters. Usually one."""
    put: list[str | bytes] = []
    deleted: list[Row] = []
    for row, body in rows.items():
        if body is None:
            deleted.append(row)
        else:
            put += row
            put.append(body)
    statements: list[tuple[str, Sequence[str | bytes]]] = []
    for start in range(0, len(put), _PARAMETERS):
        some = put[start : start + _PARAMETERS]
        statements.append((_put(len(some) // _COLUMNS), some))
    statements += [(_DELETE, row) for row in deleted]
    return statements


@functools.cache
def _put(rows: int) -> str:
    return _PUT.format(", ".join(["(?, ?, ?, ?, ?)"] * rows))
