"""SharedUsage: what each user has in all sessions of the database. Limits are checked within each commit (schema.sql)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from fhircast_hub.core.access.principal import Application, SessionKey
from fhircast_hub.core.access.topic_access import NO_OWNER
from fhircast_hub.core.state.session import Session
from fhircast_hub.postgresql.cache import Cache
from fhircast_hub.postgresql.database import Link
from fhircast_hub.postgresql.session_list import SharedSessions
from fhircast_hub.service.ports import Limits
from fhircast_hub.service.usage import (
    ABANDONED,
    MAX_USER_BYTES,
    SMALL,
    SMALL_PART,
    hub_is_full,
    too_large,
    too_many_subscriptions,
    widened,
)
from fhircast_hub.service.weights import growth
from fhircast_hub.telemetry.metrics import Metrics

#: The last quarter of all bytes is near the limit.
NEAR = 4

_SESSION_OF = "select realm, topic from fhircast.subscription where id = $1"
_HELD = "select sessions, bytes from fhircast.owner where realm = $1 and owner = $2"
_ALL = "select coalesce(sum(bytes), 0)::bigint from fhircast.session"
_LONGEST_IDLE = """
select realm, topic from fhircast.session where realm = $1 and owner = $2 and subscriptions = 0 order by last_used limit 1
"""
_LAST_BEGUN = """
select topic from fhircast.session where realm = $1 and owner = $2 and begun > 0 order by begun desc, topic desc limit 1
"""
_OWN_IDLE = """
select realm, topic, bytes from fhircast.session
where realm = $1 and owner = $2 and subscriptions = 0 and topic <> $3 order by last_used
"""
_ANY_IDLE = """
select s.realm, s.topic, s.bytes from fhircast.session s
left join fhircast.owner o on o.realm = s.realm and o.owner = s.owner and s.owner <> ''
where s.subscriptions = 0 and (s.realm, s.topic) <> ($1, $2)
    and (s.last_used < $3 or coalesce(o.bytes, s.bytes) > $4 or (s.realm = $1 and s.owner = $5 and s.owner <> ''))
order by s.last_used limit 256
"""
_OF_SUBSCRIBER = """
select id, realm, topic, issuer, client, connected, since from fhircast.subscription where realm = $1 and subscriber = $2
"""
_VERIFIED = """
select exists (select from fhircast.subscription
where realm = $1 and subscriber = $2 and issuer = $3 and client = $4 and place = $5)
"""


class SharedUsage:
    """Asks the database. The methods are those of service.ports.Usage. All of them raise Unavailable without an answer.

    Bytes of all sessions are measured every few seconds. When they come near their limit, each commit is checked beforehand.
    """

    def __init__(
        self,
        max_subscriptions: int,
        max_topics: int,
        max_user_bytes: int = MAX_USER_BYTES,
        max_bytes: int = sys.maxsize,
        metrics: Metrics | None = None,
    ) -> None:
        self._max_subscriptions = max_subscriptions
        self._max_topics = max_topics
        self._max_user_bytes = max_user_bytes
        self.max_bytes = max_bytes
        self.checks_first = False
        self._metrics = metrics or Metrics()
        #: The connection of the console's lists. The store sets it.
        self.lists: Link
        #: subscription_id -> its session, of the sessions that this node knows.
        self._known: dict[str, SessionKey] = {}

    def attach(self, link: Link, cache: Cache) -> None:
        """Ask by this connection, and count the sessions of this cache."""
        self._link = link
        self._cache = cache

    def session_list(self, log_hash: Callable[[str], str]) -> SharedSessions:
        """Lists of all sessions, for the operator's console."""
        return SharedSessions(self.lists, self._cache, log_hash)

    async def measure(self) -> None:
        """Measure the bytes of all sessions."""
        ((size,),) = await self._ask(_ALL)
        self.checks_first = int(size) > self.max_bytes - self.max_bytes // NEAR

    async def _ask(self, statement: str, *values: object) -> list[Any]:
        """The rows of a statement. A cancelled request does not drop the connection, which others share."""
        return await asyncio.shield(asyncio.ensure_future(self._link.fetch(statement, *values)))

    @property
    def subscriptions(self) -> int:
        """Number of subscriptions of the sessions that this node knows."""
        return len(self._known)

    @property
    def topics(self) -> int:
        """Number of sessions that this node knows."""
        return len(self._cache)

    @property
    def bytes(self) -> int:
        """Bytes of the sessions that this node knows."""
        return sum(entry.weight for _, entry in self._cache)

    def update(self, key: SessionKey, before: Session | None, after: Session | None) -> None:
        """Remember which subscriptions the session has."""
        old = before.subscriptions if before else {}
        new = after.subscriptions if after else {}
        if old is not new:
            for id_ in old.keys() - new.keys():
                self._known.pop(id_, None)
            self._known.update(dict.fromkeys(new.keys() - old.keys(), key))

    def limits(self, after: Session | None, *, closes: bool) -> Limits | None:
        """The limits of the session's owner. Sessions without an owner are weighed alone, by `sessions_to_forget`."""
        return Limits(_limit(self._max_user_bytes, closes), self._max_topics, self._max_subscriptions)

    def find(self, subscription_id: str) -> SessionKey | None:
        """The session of a subscription. None: this node knows no such subscription."""
        return self._known.get(subscription_id)

    async def session_of(self, subscription_id: str) -> SessionKey | None:
        """The session of a subscription. None: there is no such subscription."""
        if (known := self._known.get(subscription_id)) is not None:
            return known
        rows = await self._ask(_SESSION_OF, subscription_id)
        return SessionKey(*rows[0]) if rows else None

    async def may_begin_session(self, realm: str, owner: str) -> bool:
        """Whether the user may own one more session (LIM-1)."""
        return owner == NO_OWNER or (await self._held(realm, owner))[0] < self._max_topics

    async def longest_idle(self, realm: str, owner: str) -> SessionKey | None:
        """The user's session without subscriptions that is unused for longest."""
        rows = await self._ask(_LONGEST_IDLE, realm, owner)
        return SessionKey(*rows[0]) if rows else None

    async def last_begun_topic(self, realm: str, owner: str) -> str | None:
        """The topic of the user's session that a system client began last (SES-2). None: there is none."""
        rows = await self._ask(_LAST_BEGUN, realm, owner)
        return str(rows[0][0]) if rows else None

    def has_room(self, key: SessionKey, before: Session | None, after: Session | None) -> bool:
        """Whether the change surely exceeds no limit, since the session does not grow. See service.ports.Usage."""
        return before is not None and after is not None and growth(before, after) <= 0

    async def is_within_limits(
        self, key: SessionKey, before: Session | None, after: Session | None, *, closes: bool = False
    ) -> bool:
        """Whether the change exceeds no limit in bytes. See service.ports.Usage."""
        grown = growth(before, after)
        if after is None or grown <= 0:
            return True
        held = await self._bytes_of_owner(key, after)
        return held + grown <= _limit(self._max_user_bytes, closes) and await self._room(held, grown, closes) >= 0

    async def sessions_to_forget(
        self,
        key: SessionKey,
        before: Session | None,
        after: Session | None,
        *,
        closes: bool = False,
        now: float = 0.0,
    ) -> list[SessionKey]:
        """Other sessions to forget so that the change is within the limits (LIM-2). See service.ports.Usage."""
        grown = growth(before, after)
        if after is None or grown <= 0:
            return []
        held = await self._bytes_of_owner(key, after)
        missing = held + grown - _limit(self._max_user_bytes, closes)
        if missing > 0:
            rows = await self._ask(_OWN_IDLE, key.realm, after.owner, key.topic) if after.owner else []
            if found := _oldest(rows, missing):
                return found
            raise too_large(self._max_user_bytes, held, grown, after, self._metrics)
        room = await self._room(held, grown, closes)
        if room >= 0:
            return []
        rows = await self._ask(_ANY_IDLE, *key, now - ABANDONED, SMALL, after.owner)
        if found := _oldest(rows, -room):
            return found
        raise hub_is_full(self._metrics)

    async def subscription_to_evict(self, realm: str, application: Application) -> tuple[SessionKey, str] | None:
        """What must go before the application gets another subscription (SUB-22). See service.ports.Usage."""
        rows = await self._ask(_OF_SUBSCRIBER, realm, application.subscriber)
        if len(rows) < self._max_subscriptions:
            return None
        own = application.issuer, application.client
        absent = [row for row in rows if not row["connected"] and (row["issuer"], row["client"]) == own]
        if not absent:
            raise too_many_subscriptions(len(rows))
        longest = min(absent, key=lambda row: float(row["since"]))
        return SessionKey(longest["realm"], longest["topic"]), longest["id"]

    async def has_verified_callback(self, realm: str, application: Application, place: str) -> bool:
        """Whether the application has a verified callback at this place (WHK-13)."""
        of_whom = application.subscriber, application.issuer, application.client
        ((found,),) = await self._ask(_VERIFIED, realm, *of_whom, place)
        return bool(found)

    async def _held(self, realm: str, owner: str) -> tuple[int, int]:
        """Sessions and bytes of a user."""
        rows = await self._ask(_HELD, realm, owner)
        return (rows[0][0], rows[0][1]) if rows else (0, 0)

    async def _bytes_of_owner(self, key: SessionKey, after: Session) -> int:
        """Bytes of the owner of `after`: of a user's sessions, or of one session that no user owns."""
        if after.owner != NO_OWNER:
            return (await self._held(key.realm, after.owner))[1]
        entry = self._cache.get(key)
        return entry.weight if entry else 0

    async def _room(self, held: int, grown: int, closes: bool) -> int:
        """Bytes that are left of all that the sessions may have, after a change. The last part is for small users."""
        ((size,),) = await self._ask(_ALL)
        limit = _limit(self.max_bytes, closes)
        if not closes and held + grown > SMALL:
            limit -= limit // SMALL_PART
        return limit - int(size) - grown


def _limit(limit: int, closes: bool) -> int:
    return widened(limit) if closes else limit


def _oldest(rows: list[tuple[str, str, int]], size: int) -> list[SessionKey]:
    """The first sessions that have `size` bytes together. Empty where all of them have fewer."""
    found = []
    for realm, topic, weight in rows:
        found.append(SessionKey(realm, topic))
        size -= weight
        if size <= 0:
            return found
    return []
