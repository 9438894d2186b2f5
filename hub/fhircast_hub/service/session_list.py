"""Lists of sessions for the operator's console: what a store says, and what the console asks."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple, Protocol

from fhircast_hub.core.state.session import Session
from fhircast_hub.telemetry.keyed_hash import user_hash

#: Sessions that are looked at in a step of some milliseconds. Other requests run between two steps.
STEP = 100


class SessionRow(NamedTuple):
    """A session in a list."""

    topic: str
    #: The user that the session belongs to, or topic_access.NO_OWNER.
    owner: str
    #: Epoch seconds.
    last_used_at: float
    #: Number of subscriptions.
    subscriptions: int
    #: The session. None: this process does not know the session.
    session: Session | None = None


class Wanted(NamedTuple):
    """Which sessions are listed."""

    realm: str
    #: Topics that the operator's token is limited to. None: all.
    topics: frozenset[str] | None = None
    #: A part of the topic, the user, or the hash of either. "": any.
    text: str = ""


class Node(NamedTuple):
    """A process of a hub whose processes share the sessions."""

    name: str
    release: str
    #: Epoch seconds.
    started_at: float
    #: Epoch seconds of the last sign of life.
    seen_at: float
    dead: bool
    #: Sessions with a socket, a post or an opaque token at the node.
    sessions: int


class Owner(NamedTuple):
    """A user with sessions."""

    realm: str
    owner: str
    sessions: int
    #: Bytes of these sessions.
    bytes: int


class SessionList(Protocol):
    """Lists the sessions of a store. All methods raise Unavailable where the store does not answer."""

    async def newest(self, wanted: Wanted, most: int) -> tuple[list[SessionRow], int]:
        """At most so many of the wanted sessions, those used last first, and the number of all of them."""
        ...

    async def largest(self, most: int) -> list[Owner]:
        """The users whose sessions have the most bytes, the first at the head."""
        ...

    async def nodes(self) -> list[Node]:
        """The nodes that share the store. Empty: the store has one process."""
        ...


class LocalSessions:
    """The list of a store with one process. `log_hash` makes the hash that a search may name."""

    def __init__(
        self,
        sessions: Callable[[], Iterable[Session]],
        owners: Callable[[], Iterable[Owner]],
        log_hash: Callable[[str], str],
    ) -> None:
        self._sessions = sessions
        self._owners = owners
        self._log_hash = log_hash

    async def newest(self, wanted: Wanted, most: int) -> tuple[list[SessionRow], int]:
        """See SessionList."""
        everything, count = list(self._sessions()), 0
        newest: list[Session] = []
        for start in range(0, len(everything), STEP):
            found = [each for each in everything[start : start + STEP] if self._is_wanted(each, wanted)]
            count += len(found)
            newest = heapq.nlargest(most, [*newest, *found], key=lambda session: session.last_used_at)
            await asyncio.sleep(0)
        return [_row(session) for session in newest], count

    async def largest(self, most: int) -> list[Owner]:
        """See SessionList."""
        owners, largest = iter(self._owners()), list[Owner]()
        while some := list(islice(owners, STEP)):
            largest = heapq.nlargest(most, [*largest, *some], key=lambda each: each.bytes)
            await asyncio.sleep(0)
        return largest

    async def nodes(self) -> list[Node]:
        """None: the store has one process."""
        return []

    def _is_wanted(self, session: Session, wanted: Wanted) -> bool:
        if session.realm != wanted.realm or not (wanted.topics is None or session.topic in wanted.topics):
            return False
        text = wanted.text
        return (
            not text
            or text in session.topic
            or text == session.owner
            or matches(wanted, session.topic, session.owner, self._log_hash)
        )


def is_hash(text: str) -> bool:
    """Whether the text may be a hash of the log."""
    return len(text) == 12 and all(each in "0123456789abcdef" for each in text)


def matches(wanted: Wanted, topic: str, owner: str, log_hash: Callable[[str], str]) -> bool:
    """Whether the text is the hash of a session's topic or user: of a log line, or of the console, which has the realm in it."""
    if not is_hash(wanted.text):
        return False
    user = f"user:{owner}"
    return wanted.text in (log_hash(topic), log_hash(user), user_hash(log_hash, wanted.realm, user))


def _row(session: Session) -> SessionRow:
    return SessionRow(session.topic, session.owner, session.last_used_at, len(session.subscriptions), session)
