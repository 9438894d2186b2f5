"""PostgresStore: sessions in PostgreSQL, shared by many nodes (`postgresql://`). Any of them may die.

- A commit is a compare-and-set of its session's revision, and one row of the log. Both are written by one statement.
- A node knows each of its sessions at one revision, and hands effects to its sockets in the order of the revisions.
- What other nodes commit comes by the log. A commit on an older revision is stale: the loop of the service begins again.
- After an unknown outcome the session counts as stale, so that nothing is decided on what may not have happened.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
import structlog

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.rules.nodes import node_of, nodes_of
from fhircast_hub.core.rules.webhook_outbox import posts_all
from fhircast_hub.core.state.effects import Close, Effect, Post, Send
from fhircast_hub.core.state.session import Session
from fhircast_hub.postgresql.cache import Cache, Entry
from fhircast_hub.postgresql.commits import Commit, Writer, has_work_for_callbacks
from fhircast_hub.postgresql.database import Database, DatabaseError, Fenced, Link, Lost, refused_start
from fhircast_hub.postgresql.follower import Follower
from fhircast_hub.postgresql.log import decode_changes, decode_effects
from fhircast_hub.postgresql.membership import DatabaseClock, Membership
from fhircast_hub.postgresql.promise import PromiseLog
from fhircast_hub.postgresql.reader import Reader
from fhircast_hub.postgresql.schema import log_key, upgrade
from fhircast_hub.postgresql.session_list import Heard, limit_statements
from fhircast_hub.postgresql.sockets import Sockets
from fhircast_hub.postgresql.usage import SharedUsage
from fhircast_hub.service.ports import Changed, Deliver, Limits, Stale, ignore_changes
from fhircast_hub.service.weights import growth
from fhircast_hub.storage.row_reader import apply_changes
from fhircast_hub.telemetry.metrics import Metrics

#: Sessions of a dead node that are looked after at a time.
TOGETHER = 64
#: Seconds between two looks for sessions that leave the cache, at the bytes of all, and at the database's promise.
SWEEP_SECONDS = 5.0

_OVERDUE = "select realm, topic from fhircast.session where deadline < $1 order by deadline limit $2"
_SESSIONS_OF = "select realm, topic from fhircast.sessions_of_1($1, $2, $3)"

_log = structlog.get_logger()


class PostgresStore:
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
        #: Told of each commit of another node that this node follows, and without sessions of the first commit of each session.
        #: None: nobody looks.
        self.heard: Heard | None = None
        writer = Link(database, "writer", lambda connection: self._follower.check(connection))
        reader = Link(database, "reader", lambda connection: self._follower.check(connection))
        beats, self._asks = (Link(database, purpose) for purpose in ("node", "usage"))
        console = Link(database, "console", limit_statements)
        self._links = [writer, reader, beats, self._asks, console]
        self._reader = Reader(reader, metrics)
        self._promise = PromiseLog(self._asks)
        self._usage = usage
        self._cache = Cache(self._left)
        self._writer = Writer(writer, self)
        self.membership = Membership(beats, clock, self._begin_anew)
        sure_for = self.membership.sure_for
        self._follower = Follower(database, lambda: self.node, self._hear, self._begin_anew, self._writer, sure_for)
        self._tasks: set[asyncio.Task[None]] = set()
        usage.attach(self._asks, self._cache)
        usage.lists = console

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
        self._learn_key(await log_key(self._asks))
        try:
            await self.membership.join()
            await self._follower.begin()
            await self._promise.look()
        except DatabaseError as error:
            raise refused_start(error) from None
        self.membership.start()
        self._follower.start()
        self._spawn(self._sweep_forever())

    async def close(self) -> None:
        """Write what waits, and leave the other nodes."""
        await self._writer.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reader.stop()
        await self._follower.stop()
        await self.membership.stop()
        await self.membership.leave()
        for link in self._links:
            link.close()

    def _begin_anew(self, name: str) -> None:
        """The node of this name was marked dead, or lost track: its sockets end, and it joins again under another name."""
        if not self.membership.joined or name != self.node:
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
                await self._follower.begin()
                await self.membership.join()
            except Exception as error:
                if not isinstance(error, DatabaseError):
                    _log.error("this node cannot begin anew", exc_info=error)
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
        entry = self._at(key, revision)
        newest = await self._reader.revision(key)
        self._check_joined()
        if newest != revision:
            if entry is not None and entry.revision == revision:
                entry.stale = entry.behind = True
            raise Stale

    def _at(self, key: SessionKey, revision: int) -> Entry | None:
        """The entry, if this node knows the session at this revision and nothing newer. Raises Stale otherwise."""
        entry = self._cache.get(key)
        if (entry.revision if entry else 0) != revision or (entry is not None and (entry.pending or entry.stale)):
            raise Stale
        return entry

    async def _read(self, key: SessionKey) -> Entry | None:
        """Read a session from the database into the cache. None: there is no session."""
        node, entry = self.node, await self._reader.session(key)
        if node != self.node:
            raise Fenced
        if entry is not None and self._cache.get(key) is None:
            self._cache.put(key, entry)
            self._changed(key, None, entry.session)
        return self._cache.get(key)

    async def _refresh(self, key: SessionKey, entry: Entry) -> None:
        """Bring a stale entry up to date: by the log where sockets of this node follow the session, else by reading anew."""
        if self.node in nodes_of(entry.session):
            revision, behind = entry.revision, entry.behind
            await self._follower.catch_up()
            if behind and entry.revision == revision and self._cache.get(key) is entry:
                self._abandon(key, entry)  # the log did not bring the newer revision
            entry.stale = entry.behind = False
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
        entry = self._at(key, revision)
        if entry is None:
            entry = Entry(None, 0, 0, self._loop.time())
            self._cache.put(key, entry)
        entry.pending = True
        try:
            commit = Commit(key, entry, after, effects, limits, self.node)
            self._writer.add(commit)
        except BaseException:
            self._settle(key, entry)
            raise
        await commit.written

    def committed(self, commits: list[tuple[Commit, int, datetime]]) -> None:
        """Take over what was committed, and hand its effects on, in the order of the revisions."""
        for commit, revision, written in commits:
            entry = commit.entry
            self._follower.committed(revision, written)
            if self._cache.get(commit.key) is entry:  # otherwise this node began anew meanwhile
                entry.session, entry.revision, entry.weight = commit.after, revision, commit.weight
                self._changed(commit.key, commit.before, commit.after)
                self._hand_on(commit.key, commit.before, commit.after, commit.effects)
            else:
                self._close_sockets(commit.key, commit.after)
            self._settle(commit.key, entry)
            self._loop.call_soon(commit.written.settle)  # the writer begins the next group first

    def not_committed(self, commit: Commit, error: Exception) -> None:
        """A stale commit is tried again by the service. After an unknown outcome the log says what happened."""
        entry = commit.entry
        if isinstance(error, Lost):
            entry.stale = True
        elif isinstance(error, Stale) and entry.revision == commit.expected:
            entry.stale = entry.behind = True
        self._settle(commit.key, entry)
        self._loop.call_soon(commit.written.settle, error)
        if isinstance(error, Fenced):
            self._begin_anew(commit.node)
        if isinstance(error, Lost) and self._sockets is not None and has_work_for_callbacks(commit.effects):
            self._sockets.resume_posts(commit.key)

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
        position, _, own, told, realm, topic, previous, changes, effects = row
        key = SessionKey(realm, topic)
        if own and self._sockets is not None:
            self._sockets.look_again(key)  # the outcome was unknown, and the requests were refused
        self._reader.changed(key)
        if not previous and self.heard is not None:
            self.heard(key, None, None, ())  # of a session before, this node may have missed the end
        entry = self._cache.get(key)
        if entry is None or entry.revision >= position:
            return
        if not told:
            entry.stale = entry.behind = True
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
        entry.stale = entry.behind = False
        entry.weight += growth(before, after)
        self._changed(key, before, after)
        self._hand_on(key, before, after, found)
        if self.heard is not None:
            self.heard(key, before, after, found)
        if after is None:
            self._cache.forget(key, entry)

    def _hand_on(
        self, key: SessionKey, before: Session | None, after: Session | None, effects: Sequence[Effect]
    ) -> None:
        """Carry out the effects. For callbacks only the session's poster works; after the last one, the poster of before.

        A post does not overtake older ones that this node has yet to begin anew, since it missed their commit.
        """
        poster = (after.poster if after else "") or (before.poster if before else "")
        if poster != self.node:
            effects = [each for each in effects if isinstance(each, Send | Close)]
        elif (
            after
            and after.outbox
            and not posts_all(after, effects)
            and self._sockets
            and self._sockets.holds_posts(key)
        ):
            effects = [each for each in effects if not isinstance(each, Post)]
        self._deliver(effects)

    def _abandon(self, key: SessionKey, entry: Entry) -> None:
        """Forget a session whose changes were missed. Its sockets end and come back; its posts are begun anew."""
        self._metrics.abandoned.inc()
        session = entry.session
        self._cache.forget(key, entry)
        self._close_sockets(key, session)

    def _close_sockets(self, key: SessionKey, session: Session | None) -> None:
        """Close what this node has of a session that it does not follow any more."""
        subscriptions = session.subscriptions.values() if session else ()
        names = [each.connection for each in subscriptions if node_of(each.connection) == self.node]
        if self._sockets is not None:
            self._sockets.abandoned(key, names)

    # Duties

    async def overdue(self, skip: Collection[SessionKey]) -> list[SessionKey]:
        """Sessions whose deadline has passed, and whom nobody ticked for a second. Raises DatabaseError."""
        rows = await self._asks.fetch(_OVERDUE, self._clock() - 1.0, TOGETHER + len(skip))
        return [key for row in rows if (key := SessionKey(*row)) not in skip]

    async def orphans(self, skip: Collection[SessionKey]) -> list[tuple[SessionKey, str, float]]:
        """Sessions of one dead node, some at a time. Raises DatabaseError."""
        for node, seen_at in self.membership.dead:
            rows = await self._asks.fetch(_SESSIONS_OF, node, self.node, TOGETHER + len(skip))
            if found := [key for row in rows if (key := SessionKey(*row)) not in skip]:
                return [(key, node, seen_at) for key in found]
            if not rows:
                await self.membership.forget(node)
        return []

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._cache.sweep(self.node, self._loop.time())
            with contextlib.suppress(DatabaseError):
                await self._usage.measure()
                await self._promise.look()

    def _left(self, key: SessionKey, session: Session) -> None:
        self._changed(key, session, None)

    def _check_joined(self) -> None:
        """Raise Fenced where this node is none, or another may have marked it dead: its answers may be old."""
        if self.membership.sure_for() <= 0:
            raise Fenced

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
