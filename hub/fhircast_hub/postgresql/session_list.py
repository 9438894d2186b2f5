"""SharedSessions: lists of the sessions in the database, for the operator's console.

Its statements have a connection of their own. So no subscriber's request waits for an operator's search.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.effects import Effect
from fhircast_hub.core.state.session import Session
from fhircast_hub.postgresql.cache import Cache
from fhircast_hub.postgresql.database import Link
from fhircast_hub.service.session_list import STEP, Node, Owner, SessionRow, Wanted, is_hash, matches

if TYPE_CHECKING:
    import asyncpg

#: Takes a commit of another node: session, the session before and after (None: there is none) and the effects.
Heard = Callable[[SessionKey, Session | None, Session | None, Sequence[Effect]], None]

#: Milliseconds for a statement. Fewer than database.PATIENCE has: the server ends the statement, and the connection stays.
MOST_MILLISECONDS = 3000

_ROWS = """
select topic, owner, last_used, subscriptions, revision, count(*) over () as found from fhircast.session
where realm = $1 and ($2::text[] is null or topic = any($2))
    and ($3 = '' or owner = $3 or position($3 in topic) > 0)
order by last_used desc, topic limit $4
"""
#: The next sessions in the order of the primary key, so that each session is read once.
_NEXT = """
select topic, owner from fhircast.session
where realm = $1 and topic > $2 and ($3::text[] is null or topic = any($3)) order by topic limit $4
"""
_LARGEST = "select realm, owner, sessions, bytes from fhircast.owner order by bytes desc limit $1"
_NODES = """
select n.name, n.release, extract(epoch from n.started)::float8, extract(epoch from n.seen)::float8, n.dead,
    coalesce(h.sessions, 0) from fhircast.node n
left join (select name, count(*) as sessions from fhircast.session s, unnest(s.nodes) as name group by name) h
    on h.name = n.name
order by n.started, n.name
"""


class SharedSessions:
    """A service.session_list.SessionList. `log_hash` makes the hash that a search may name."""

    def __init__(self, link: Link, cache: Cache, log_hash: Callable[[str], str]) -> None:
        self._link = link
        self._cache = cache
        self._log_hash = log_hash

    async def newest(self, wanted: Wanted, most: int) -> tuple[list[SessionRow], int]:
        """See SessionList."""
        if is_hash(wanted.text):
            topics = await self._with_hash(wanted)
            if topics:
                wanted = wanted._replace(topics=frozenset(topics), text="")
        return await self._rows(wanted, most)

    async def largest(self, most: int) -> list[Owner]:
        """See SessionList."""
        return [Owner(*row) for row in await self._fetch(_LARGEST, most)]

    async def nodes(self) -> list[Node]:
        """See SessionList."""
        return [Node(*row) for row in await self._fetch(_NODES)]

    async def _rows(self, wanted: Wanted, most: int) -> tuple[list[SessionRow], int]:
        topics = None if wanted.topics is None else sorted(wanted.topics)
        found = await self._fetch(_ROWS, wanted.realm, topics, wanted.text, most)
        return [self._row(wanted.realm, *row[:5]) for row in found], found[0][5] if found else 0

    def _row(
        self, realm: str, topic: str, owner: str, last_used_at: float, subscriptions: int, revision: int
    ) -> SessionRow:
        entry = self._cache.get(SessionKey(realm, topic))
        session = entry.session if entry and entry.revision == revision else None  # else of another time than the row
        return SessionRow(topic, owner, last_used_at, subscriptions, session)

    async def _with_hash(self, wanted: Wanted) -> list[str]:
        """The topics of the sessions whose topic or user has this hash, of all sessions of the realm."""
        limited = None if wanted.topics is None else sorted(wanted.topics)
        topics: list[str] = []
        last = ""
        while rows := await self._fetch(_NEXT, wanted.realm, last, limited, STEP):
            topics += [topic for topic, owner in rows if matches(wanted, topic, owner, self._log_hash)]
            last = rows[-1][0]
        return topics

    async def _fetch(self, statement: str, *values: object) -> list[Any]:
        """The rows of a statement. A cancelled search does not drop the connection."""
        return await asyncio.shield(asyncio.ensure_future(self._link.fetch(statement, *values)))


async def limit_statements(connection: asyncpg.Connection[Any]) -> None:
    """Let the server end each statement of this connection after MOST_MILLISECONDS."""
    await connection.execute(f"set statement_timeout = {MOST_MILLISECONDS}")
