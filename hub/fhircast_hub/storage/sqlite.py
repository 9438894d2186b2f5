"""Sessions in memory, journalled to a SQLite file: what was accepted is in the file before anybody is told.

Each session is a few rows: its head, and one for each subscription, open context, shared resource and held event; a commit
writes those that differ. All commits of one turn of the event loop share a transaction (group commit), which takes some tens of microseconds
because it does not wait for the disk: WAL mode with synchronous=NORMAL survives the death of the process at any moment. For
the death of the machine, a thread moves the log into the file every second and waits for the disk there; a power cut can cost
that second, never the file's consistency.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from fhircast_hub.core.bundles import full_url_of
from fhircast_hub.core.effects import Effect
from fhircast_hub.core.errors import Unavailable
from fhircast_hub.core.principal import SessionKey
from fhircast_hub.core.session import Content, Held, OpenContext, Outgoing, Queue, Session, Shared, Subscription
from fhircast_hub.ports import Deliver, Stale
from fhircast_hub.storage.memory import MemoryStore

#: Raised by one whenever older hubs could not read the file any more.
SCHEMA_VERSION = 2
#: Seconds between two moves of the log into the file, and so what a power cut may cost.
CHECKPOINT_SECONDS = 1.0
#: Pages of 4 KiB after which the log is begun anew even if writers must wait some milliseconds for it.
MAX_LOG_PAGES = 16384
#: Seconds after which a client may try again when the file could not be written.
RETRY_AFTER = 5

_SCHEMA = """
create table part (
    realm text not null, topic text not null, kind text not null, name text not null, body blob not null,
    unique (realm, topic, kind, name)
)
"""
# A row that is there is changed in its place: a page or two of the log, whatever the size of the table.
_PUT = "insert into part values {} on conflict (realm, topic, kind, name) do update set body = excluded.body"
_DELETE = "delete from part where realm = ? and topic = ? and kind = ? and name = ?"
#: Rows that one statement puts: most batches are one statement, and so a transaction without further ado.
_ROWS = 100

_log = structlog.get_logger()
_encode = msgspec.msgpack.Encoder().encode
_Part = TypeVar("_Part", Subscription, OpenContext)
_Name = TypeVar("_Name", str, int)
_Row = tuple[str, str, str, str]


class _Head(msgspec.Struct):
    """A session's own row: all of it that is not a row of its own, or that no process survives (the audiences)."""

    owner: str
    order: int
    version: str
    current: str
    changed: int
    used: float
    deadline: float | None
    posts: int
    made: float
    recent: dict[bytes, int]


_HEAD = msgspec.msgpack.Decoder(_Head)
_HOME = msgspec.msgpack.Decoder(bytes)
_LOST = msgspec.msgpack.Decoder(dict[str, float])
_SUBSCRIPTION = msgspec.msgpack.Decoder(Subscription)
_CONTEXT = msgspec.msgpack.Decoder(OpenContext)
_HELD = msgspec.msgpack.Decoder(Held)
_OUTGOING = msgspec.msgpack.Decoder(Outgoing)
_SHARED = msgspec.msgpack.Decoder(Shared)
_UPDATES = msgspec.msgpack.Decoder(tuple[bytes, ...])


class SqliteStore(MemoryStore):
    """`sqlite:///path`. One process at a time may use the file."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()  # so that two names of one file have one lock
        super().__init__()
        self._batch = _Batch()
        self._dirty = False

    async def open(self, deliver: Deliver) -> None:
        """Open or create the file (mode 0600), and read every session. Raises OSError or ValueError naming what is wrong."""
        await super().open(deliver)
        self._loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as undo:  # a file that is refused is not kept open
            self._lock = _lock(self._path)
            undo.callback(os.close, self._lock)
            try:
                self._connection = _connect(self._path)
                undo.callback(self._connection.close)
                _prepare(self._connection, self._path)
                self._sessions = {SessionKey(s.realm, s.topic): (s, 1) for s in _read(self._connection)}
            except (sqlite3.Error, msgspec.MsgspecError, KeyError) as error:
                raise ValueError(f"{self._path} cannot be read as a hub's store: {error}") from None
            undo.pop_all()
        self._checkpoints = asyncio.create_task(self._checkpoint())

    async def commit(
        self, key: SessionKey, revision: int, before: Session | None, after: Session | None, effects: Sequence[Effect]
    ) -> None:
        if self._sessions.get(key, (None, 0))[1] != revision:
            raise Stale
        batch = self._batch
        if not batch.waiting:
            self._loop.call_soon(self._flush)
        written: asyncio.Future[None] = self._loop.create_future()
        batch.waiting.append(written)
        if after is not before:
            batch.undo.setdefault(key, (before, revision))
            batch.rows.update(_changes(key, before, after))
            self._put(key, after, revision + 1)
        batch.effects += effects
        await written

    async def close(self) -> None:
        """Write what is pending, move the log into the file, and let others have it."""
        self._flush()
        self._checkpoints.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._checkpoints
        self._connection.close()
        os.close(self._lock)

    def _flush(self) -> None:
        """Write the batch in one transaction, then deliver; or undo it, so that memory says what the file says."""
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
                if not written.done():  # whoever waited may be gone
                    written.set_exception(Unavailable("the hub cannot write its store", retry_after=RETRY_AFTER))
            return
        try:
            self._deliver(batch.effects)
        finally:
            for written in batch.waiting:
                if not written.done():
                    written.set_result(None)

    def _write(self, rows: dict[_Row, bytes | None]) -> None:
        statements = list(_statements(rows))
        self._dirty = self._dirty or bool(statements)
        if len(statements) == 1:
            self._connection.execute(*statements[0])
        elif statements:
            self._connection.execute("begin immediate")
            try:
                for statement in statements:
                    self._connection.execute(*statement)
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise

    async def _checkpoint(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_SECONDS)
            if self._dirty:
                self._dirty = False
                try:
                    await asyncio.to_thread(_move_log, self._path)
                except sqlite3.Error as error:
                    self._dirty = True
                    _log.error("store not checkpointed", error=type(error).__name__)


class _Batch:
    """The commits of one turn of the event loop, and who waits until they are in the file."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []
        self.undo: dict[SessionKey, tuple[Session | None, int]] = {}
        self.rows: dict[_Row, bytes | None] = {}
        self.effects: list[Effect] = []


def _lock(path: Path) -> int:
    lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ValueError(f"{path} is in use by another hub") from None
    return lock


def _connect(path: Path) -> sqlite3.Connection:
    # The file holds patients: it is made so that nobody else can read it, and SQLite makes its log with the same mode.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    return sqlite3.connect(path, isolation_level=None, timeout=1.0)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file; an old one's schema must be this hub's."""
    version = connection.execute("pragma user_version").fetchone()[0]
    if version not in (0, SCHEMA_VERSION):
        raise ValueError(f"{path} has schema version {version}; this hub reads version {SCHEMA_VERSION}")
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    connection.execute("pragma wal_autocheckpoint = 0")
    if version == 0:
        connection.execute("begin immediate")
        connection.execute(_SCHEMA)
        connection.execute(f"pragma user_version = {SCHEMA_VERSION}")
        connection.execute("commit")


def _move_log(path: Path) -> None:
    """Move the log into the file. Writers go on meanwhile; only a log that never gets a pause to be begun anew makes them wait."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=1.0)) as connection:
        pages: int = connection.execute("pragma wal_checkpoint(passive)").fetchone()[1]
        if pages > MAX_LOG_PAGES:
            connection.execute("pragma wal_checkpoint(truncate)")


def _statements(rows: dict[_Row, bytes | None]) -> Iterator[tuple[str, list[object]]]:
    put = [(*row, body) for row, body in rows.items() if body is not None]
    for start in range(0, len(put), _ROWS):
        some = put[start : start + _ROWS]
        yield _put(len(some)), [value for values in some for value in values]
    for row, body in rows.items():
        if body is None:
            yield _DELETE, list(row)


@functools.cache
def _put(rows: int) -> str:
    return _PUT.format(", ".join(["(?, ?, ?, ?, ?)"] * rows))


def _changes(key: SessionKey, before: Session | None, after: Session | None) -> Iterator[tuple[_Row, bytes | None]]:
    """The rows with which the file says `after` where it said `before`; None for one to delete."""
    yield (*key, "head", ""), _encode(_head(after)) if after else None
    yield from _differing(key, "home", _one(before.home if before else b""), _one(after.home if after else b""))
    yield from _differing(key, "lost", _one(before.lost if before else {}), _one(after.lost if after else {}))
    yield from _differing(
        key, "subscription", before.subscriptions if before else {}, after.subscriptions if after else {}
    )
    yield from _differing(key, "context", before.contexts if before else {}, after.contexts if after else {})
    yield from _differing(key, "held", before.held if before else {}, after.held if after else {})
    yield from _changed_outbox(key, before.outbox if before else {}, after.outbox if after else {})
    yield from _changed_contents(key, before.contents if before else {}, after.contents if after else {})


def _changed_contents(
    key: SessionKey, before: dict[str, Content], after: dict[str, Content]
) -> Iterator[tuple[_Row, bytes | None]]:
    """A row for each resource that was shared, so that an update writes no more than it changes."""
    for ref in before.keys() | after.keys() if before is not after else ():
        old, new = before.get(ref), after.get(ref)
        if old is not new:
            yield from _differing(key, "updates", {ref: old.updates} if old else {}, {ref: new.updates} if new else {})
            yield from _differing(key, "shared", _named(ref, old), _named(ref, new))


def _changed_outbox(
    key: SessionKey, before: dict[str, Queue], after: dict[str, Queue]
) -> Iterator[tuple[_Row, bytes | None]]:
    """A row for each post that waits. Those of a callback may have become another subscription's (WHK-12): its row is one still."""
    if before is after:
        return
    changed = [sid for sid in before.keys() | after.keys() if before.get(sid) is not after.get(sid)]
    old, new = (
        {number: post for sid in changed if sid in outbox for number, post in outbox[sid].posts.items()}
        for outbox in (before, after)
    )
    yield from _differing(key, "outgoing", old, new)


def _named(ref: str, content: Content | None) -> dict[str, Shared]:
    """The resources of a content by the names of their rows. No ref has a line end in it: the API refuses that."""
    return {f"{ref}\n{other}": shared for other, shared in content.resources.items()} if content else {}


def _one(part: object) -> dict[str, object]:
    """A part of which there is one, or none."""
    return {"": part} if part else {}


def _head(session: Session) -> _Head:
    return _Head(
        owner=session.owner,
        order=session.order,
        version=session.version,
        current=session.current,
        changed=session.changed,
        used=session.used,
        deadline=session.deadline,
        posts=session.posts,
        made=session.made,
        recent=session.recent,
    )


def _differing(
    key: SessionKey, kind: str, before: Mapping[_Name, object], after: Mapping[_Name, object]
) -> Iterator[tuple[_Row, bytes | None]]:
    if before is after:
        return
    for name, part in after.items():
        if before.get(name) is not part:
            yield (*key, kind, str(name)), _encode(part)
    for name in before.keys() - after.keys():
        yield (*key, kind, str(name)), None


def _read(connection: sqlite3.Connection) -> Iterator[Session]:
    parts: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
    for realm, topic, kind, name, body in connection.execute("select realm, topic, kind, name, body from part"):
        parts.setdefault((realm, topic), {}).setdefault(kind, {})[name] = body
    for (realm, topic), kinds in parts.items():
        yield _session(realm, topic, kinds)


def _session(realm: str, topic: str, kinds: dict[str, dict[str, bytes]]) -> Session:
    head = _HEAD.decode(kinds["head"][""])
    contexts = sorted(_decoded(_CONTEXT, kinds.get("context", {})), key=lambda context: context.order)
    held = {int(number): _HELD.decode(body) for number, body in kinds.get("held", {}).items()}
    return Session(
        realm=realm,
        topic=topic,
        **msgspec.structs.asdict(head),
        home=_HOME.decode(kinds["home"][""]) if "home" in kinds else b"",
        lost=_LOST.decode(kinds["lost"][""]) if "lost" in kinds else {},
        subscriptions={part.sid: part for part in _decoded(_SUBSCRIPTION, kinds.get("subscription", {}))},
        contexts={context.ref: context for context in contexts},
        contents=_contents(kinds),
        held=dict(sorted(held.items())),
        outbox=_outbox(kinds.get("outgoing", {})),
    )


def _outbox(rows: dict[str, bytes]) -> dict[str, Queue]:
    posts: dict[str, dict[int, Outgoing]] = {}
    for number, body in sorted((int(name), body) for name, body in rows.items()):
        post = _OUTGOING.decode(body)
        posts.setdefault(post.sid, {})[number] = post
    return {sid: Queue(some, sum(len(post.frame) for post in some.values())) for sid, some in posts.items()}


def _contents(kinds: dict[str, dict[str, bytes]]) -> dict[str, Content]:
    resources: dict[str, dict[str, Shared]] = {}
    for name, body in kinds.get("shared", {}).items():
        ref, _, other = name.partition("\n")
        resources.setdefault(ref, {})[other] = _SHARED.decode(body)
    return {
        ref: Content(
            resources=resources.get(ref, {}),
            size=sum(len(shared.entry) for shared in resources.get(ref, {}).values()),
            updates=_UPDATES.decode(body),
            urls={url: other for other, shared in resources.get(ref, {}).items() if (url := full_url_of(shared.entry))},
        )
        for ref, body in kinds.get("updates", {}).items()
    }


def _decoded(decoder: msgspec.msgpack.Decoder[_Part], rows: dict[str, bytes]) -> Iterator[_Part]:
    return map(decoder.decode, rows.values())
