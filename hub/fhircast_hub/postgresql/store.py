"""PostgresStore: sessions in PostgreSQL, shared by many nodes (`postgresql://`). Any of them may die.

- A commit is a compare-and-set of its session's revision, and one row of the log. Both are written by one statement.
- A node knows each of its sessions at one revision, and hands effects to its sockets in the order of the revisions.
- What other nodes commit comes by the log. A commit on an older revision is stale: the loop of the service begins again.
- After an unknown outcome the session counts as stale, so that nothing is decided on what may not have happened.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec
import structlog

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.rules.nodes import node_of, nodes_of
from fhircast_hub.core.state.effects import Close, Effect, Send
from fhircast_hub.core.state.session import Session
from fhircast_hub.postgresql.cache import Cache, Entry
from fhircast_hub.postgresql.commits import Commit, Ends, Writer
from fhircast_hub.postgresql.database import Database, DatabaseError, Fenced, Link, Lost
from fhircast_hub.postgresql.follower import Follower
from fhircast_hub.postgresql.log import decode_changes, decode_effects
from fhircast_hub.postgresql.membership import DatabaseClock, Membership
from fhircast_hub.postgresql.schema import log_key, upgrade
from fhircast_hub.postgresql.usage import SharedUsage
from fhircast_hub.service.ports import Changed, Deliver, Limits, Stale, ignore_changes
from fhircast_hub.service.weights import growth
from fhircast_hub.storage.row_reader import apply_changes, session_of
from fhircast_hub.telemetry.metrics import Metrics

#: Seconds between two looks for sessions that leave the cache, and at the bytes of all.
SWEEP_SECONDS = 5.0

_LOAD = """
select s.revision, s.bytes, p.kind, p.name, p.body from fhircast.session s
left join fhircast.part p on p.realm = s.realm and p.topic = s.topic where s.realm = $1 and s.topic = $2
"""
_REVISIONS = """
select c.place, s.revision from unnest($1::text[], $2::text[]) with ordinality as c(realm, topic, place)
join fhircast.session s on s.realm = c.realm and s.topic = c.topic
"""
_OVERDUE = "select realm, topic from fhircast.session where deadline < $1 order by deadline limit 64"
_OF_NODE = "select realm, topic from fhircast.session where nodes @> array[$1::text] limit 64"
_LOOKED_AFTER = "delete from fhircast.node where name = $1 and dead"

_log = structlog.get_logger()


class Sockets(Protocol):
    """What the store asks of the sockets and posts of its node, where it cannot serve them any more."""

    def abandoned(self, key: SessionKey, connections: list[str]) -> None:
        """The node missed changes of a session, whose sockets these are. They must come back."""
        ...

    def begin_anew(self) -> None:
        """The node was marked dead. All of its sockets must come back."""
        ...


class PostgresStore(Ends):
    """The store of a node. Its methods are those of service.ports.SharedStore.

    `learn_key` is given the key of the keyed hashes in logs, which all nodes share.
    """

    def __init__(
        self,
        database: Database,
        clock: DatabaseClock,
        usage: SharedUsage,
        metrics: Metrics,
        learn_key: Callable[[bytes], None] = lambda key: None,
    ) -> None:
        self._database = database
        self._learn_key = learn_key
        self._clock = clock
        self._metrics = metrics
        self._sockets: Sockets | None = None
        self._links = [Link(database, purpose) for purpose in ("writer", "reader", "node")]
        writer, self._reader, self._beats = self._links
        self._cache = Cache(self._left)
        self._writer = Writer(writer, self)
        self.membership = Membership(self._beats, clock, self._begin_anew)
        self._follower = Follower(database, lambda: self.node, self._hear, self._begin_anew, self._writer)
        #: Sessions that are being read.
        self._reading: dict[SessionKey, asyncio.Future[Entry | None]] = {}
        #: Sessions whose revision is being asked for, and who asks.
        self._asking: dict[SessionKey, asyncio.Future[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        usage.attach(self._reader, self._cache)

    @property
    def node(self) -> str:
        """The name of this node."""
        return self.membership.name

    # The life of the store

    def attach(self, sockets: Sockets) -> None:
        """Ask these sockets. Comes before `open`."""
        self._sockets = sockets

    async def open(self, deliver: Deliver, changed: Changed = ignore_changes) -> None:
        """Make the tables where there are none, and join the other nodes. Raises ValueError, for the operator."""
        self._deliver, self._changed = deliver, changed
        self._loop = asyncio.get_running_loop()
        await upgrade(self._database)
        self._learn_key(await log_key(self._reader))
        try:
            await self.membership.join()
            await self._follower.begin()
        except DatabaseError as error:
            raise ValueError(str(error)) from None
        self.membership.start()
        self._follower.start()
        self._spawn(self._sweep_forever())

    async def close(self) -> None:
        """Write what waits, and leave the other nodes."""
        await self._writer.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._follower.stop()
        await self.membership.stop()
        await self.membership.leave()
        for link in self._links:
            link.close()

    def _begin_anew(self) -> None:
        """This node was marked dead, or lost track: its sockets end, and the node joins again under another name."""
        if not self.membership.joined:
            return
        _log.error("this node begins anew", node=self.node)
        self.membership.begin_anew()
        self._cache.clear()
        if self._sockets is not None:
            self._sockets.begin_anew()
        self._spawn(self._join_again())

    async def _join_again(self) -> None:
        while True:
            try:
                await self._beats.fetch("update fhircast.node set dead = true where name = $1", self.node)
                await self._follower.begin()
                await self.membership.join()
            except DatabaseError:
                await asyncio.sleep(1.0)
            else:
                return

    # Reading

    def sessions(self) -> Iterable[Session]:
        """No session: nothing is read at the start, however many there are."""
        return ()

    async def load(self, key: SessionKey) -> tuple[Session | None, int]:
        """The session and its revision, as this node knows them. Raises DatabaseError."""
        while True:
            self._check_joined()
            entry = self._cache.get(key)
            if entry is None:
                entry = await self._read(key)
                if entry is None:
                    return None, 0
            elif entry.pending:
                turn = self._loop.create_future()
                entry.waiting.append(turn)
                await turn
            elif entry.stale:
                await self._refresh(key, entry)
            else:
                entry.used_at = self._loop.time()
                return entry.session, entry.revision

    async def confirm(self, key: SessionKey, revision: int) -> None:
        """Return if the database has no newer revision of the session. Raises Stale or DatabaseError."""
        entry = self._cache.get(key)
        if (entry.revision if entry else 0) != revision or (entry is not None and (entry.pending or entry.stale)):
            raise Stale
        if (asked := self._asking.get(key)) is None:
            if not self._asking:
                self._spawn(self._ask())
            asked = self._asking[key] = self._loop.create_future()
        if await asked != revision:
            if entry is not None:
                entry.stale = True
            raise Stale

    async def _ask(self) -> None:
        """Ask for the revisions of all sessions that somebody asks for in this turn."""
        await asyncio.sleep(0)
        asking, self._asking = self._asking, {}
        keys = list(asking)
        try:
            columns = [key.realm for key in keys], [key.topic for key in keys]
            found = dict(await self._reader.fetch(_REVISIONS, *columns))
        except Exception as error:
            for each in asking.values():
                if not each.done():
                    each.set_exception(error if isinstance(error, DatabaseError) else Lost())
                    each.exception()  # the one that asked may be gone
            return
        for place, each in enumerate(asking.values(), 1):
            if not each.done():
                each.set_result(found.get(place, 0))

    async def _read(self, key: SessionKey) -> Entry | None:
        """Read a session from the database. All that want it at a time share one reading."""
        if (reading := self._reading.get(key)) is None:
            reading = self._reading[key] = self._loop.create_future()
            self._spawn(self._read_now(key, reading))
        return await asyncio.shield(reading)

    async def _read_now(self, key: SessionKey, reading: asyncio.Future[Entry | None]) -> None:
        node = self.node
        try:
            rows = await self._reader.fetch(_LOAD, *key)
            entry = _entry_of(key, rows, self._loop.time()) if rows else None
            if node != self.node or not self.membership.joined:
                raise Fenced
        except Exception as error:
            if not isinstance(error, DatabaseError):
                _log.error("session cannot be read", error=type(error).__name__)
                self._metrics.unreadable.inc()
            reading.set_exception(error if isinstance(error, DatabaseError) else DatabaseError())
            reading.exception()  # those that wait may be gone
        else:
            if entry is not None and self._cache.get(key) is None:
                self._cache.put(key, entry)
                self._changed(key, None, entry.session)
            reading.set_result(self._cache.get(key))
        finally:
            del self._reading[key]

    async def _refresh(self, key: SessionKey, entry: Entry) -> None:
        """Bring a stale entry up to date: by the log where sockets of this node follow the session, else by reading anew."""
        if self.node in nodes_of(entry.session):
            await self._follower.catch_up()
            entry.stale = False
        else:
            self._cache.forget(key, entry)

    # Committing

    async def commit_and_deliver(
        self,
        key: SessionKey,
        revision: int,
        before: Session | None,
        after: Session | None,
        effects: Sequence[Effect],
        limits: Limits | None = None,
    ) -> None:
        """See service.ports.SessionStore. Raises OverLimit where the session's owner would hold more than `limits` allow."""
        self._check_joined()
        entry = self._cache.get(key)
        if (entry.revision if entry else 0) != revision or (entry is not None and (entry.pending or entry.stale)):
            raise Stale
        if entry is None:
            entry = Entry(None, 0, 0, self._loop.time())
            self._cache.put(key, entry)
        entry.pending = True
        try:
            commit = Commit(key, entry, after, effects, limits)
            self._writer.add(commit, self.node)
        except BaseException:
            self._settle(key, entry)
            raise
        await commit.done

    def committed(self, commits: list[tuple[Commit, int]]) -> None:
        """Take over what was committed, and hand its effects on, in the order of the revisions."""
        for commit, revision in commits:
            entry = commit.entry
            self._follower.committed(revision)
            if self._cache.get(commit.key) is entry:  # otherwise this node began anew meanwhile
                entry.session, entry.revision, entry.weight = commit.after, revision, commit.weight
                self._changed(commit.key, commit.before, commit.after)
                self._hand_on(commit.before, commit.after, commit.effects)
            self._settle(commit.key, entry)
            commit.succeed()

    def not_committed(self, commit: Commit, error: Exception) -> None:
        """A stale commit is tried again by the service. After an unknown outcome the log says what happened."""
        commit.entry.stale = isinstance(error, Stale | Lost)
        self._settle(commit.key, commit.entry)
        commit.fail(error)
        if isinstance(error, Fenced):
            self._begin_anew()

    def _settle(self, key: SessionKey, entry: Entry) -> None:
        """No commit of the session is under way any more: let the next one go on."""
        entry.pending = False
        if entry.session is None:
            self._cache.forget(key, entry)
        self._wake_next(entry)

    def _wake_next(self, entry: Entry) -> None:
        """Wake one that waits. When that one does not commit, wake the next."""
        while entry.waiting and not entry.pending:
            turn = entry.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._loop.call_soon(self._wake_next, entry)
                return

    # Following

    def _hear(self, row: Any) -> None:
        """Take over what another node committed."""
        position, _, told, realm, topic, previous, changes, effects = row
        key = SessionKey(realm, topic)
        entry = self._cache.get(key)
        if entry is None or entry.revision >= position:
            return
        if not told:
            entry.stale = True
            return
        if changes is None or entry.revision != previous:
            # A commit of this node whose outcome was unknown, or a gap.
            self._abandon(key, entry)
            return
        try:
            before, after = entry.session, apply_changes(entry.session, key, decode_changes(changes))
            found = decode_effects(effects)
        except (msgspec.MsgspecError, LookupError, ValueError) as error:
            self._metrics.unreadable.inc()
            _log.error("a commit of another node cannot be read", error=type(error).__name__)
            self._abandon(key, entry)
            return
        entry.session, entry.revision = after, position
        entry.weight += growth(before, after)
        self._changed(key, before, after)
        self._hand_on(before, after, found)
        if after is None:
            self._cache.forget(key, entry)

    def _hand_on(self, before: Session | None, after: Session | None, effects: Sequence[Effect]) -> None:
        """Carry out the effects. For callbacks only the session's poster works; after the last one, the poster of before."""
        poster = (after.poster if after else "") or (before.poster if before else "")
        posts = poster == self.node
        self._deliver(effects if posts else [each for each in effects if isinstance(each, Send | Close)])

    def _abandon(self, key: SessionKey, entry: Entry) -> None:
        """Forget a session whose changes were missed. Its sockets end and come back; its posts are begun anew."""
        self._metrics.abandoned.inc()
        session = entry.session
        self._cache.forget(key, entry)
        if session is not None:
            names = [
                each.connection for each in session.subscriptions.values() if node_of(each.connection) == self.node
            ]
            if self._sockets is not None:
                self._sockets.abandoned(key, names)

    # Duties

    async def overdue(self) -> list[SessionKey]:
        """Sessions whose deadline has passed, and whom nobody ticked for a second. Raises DatabaseError."""
        return [SessionKey(*row) for row in await self._reader.fetch(_OVERDUE, self._clock() - 1.0)]

    async def orphans(self) -> list[tuple[SessionKey, str, float]]:
        """Sessions of dead nodes, some at a time. Raises DatabaseError."""
        found: list[tuple[SessionKey, str, float]] = []
        dead, self.membership.dead = self.membership.dead, ()
        for node, seen_at in dead:
            rows = await self._reader.fetch(_OF_NODE, node)
            found += [(SessionKey(*row), node, seen_at) for row in rows]
            if not rows:
                await self._reader.fetch(_LOOKED_AFTER, node)
        return found

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._cache.sweep(self.node, self._loop.time())
            with contextlib.suppress(DatabaseError):
                await self._usage.measure()

    def _left(self, key: SessionKey, session: Session) -> None:
        self._changed(key, session, None)

    def _check_joined(self) -> None:
        if not self.membership.joined:
            raise Fenced

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _entry_of(key: SessionKey, rows: list[Any], now: float) -> Entry:
    """The entry of a session's rows. Raises what rows.session_of raises."""
    kinds: dict[str, dict[str, bytes]] = {}
    for _, _, kind, name, body in rows:
        kinds.setdefault(kind, {})[name] = body
    return Entry(session_of(*key, kinds), rows[0][0], rows[0][1], now)
