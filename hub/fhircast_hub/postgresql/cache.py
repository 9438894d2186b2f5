"""Cache: the sessions that this node serves or used lately, each at the revision that the node has heard of."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.rules.nodes import nodes_of
from fhircast_hub.core.state.session import Session

#: Seconds after which a session without anything of this node leaves.
KEPT_SECONDS = 120.0


class Entry:
    """A cached session."""

    __slots__ = ("behind", "pending", "revision", "session", "stale", "used_at", "waiting", "weight")

    def __init__(self, session: Session | None, revision: int, weight: int, now: float) -> None:
        #: None: there is no session yet, and its first commit is under way.
        self.session = session
        self.revision = revision
        #: Estimated bytes of the session (service/weights.py).
        self.weight = weight
        #: The loop's time of the last use.
        self.used_at = now
        #: Whether a commit of this node is under way.
        self.pending = False
        #: Whether the database may have a newer revision.
        self.stale = False
        #: Whether it has one for certain, which must be in the log.
        self.behind = False
        #: Those that wait for the pending commit, in order.
        self.waiting: deque[asyncio.Future[None]] = deque()


class Cache:
    """Entries by session. `left` is told which sessions this node does not know any more."""

    def __init__(self, left: Callable[[SessionKey, Session], None]) -> None:
        self._entries: dict[SessionKey, Entry] = {}
        self._left = left

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[SessionKey, Entry]]:
        return iter(self._entries.items())

    def get(self, key: SessionKey) -> Entry | None:
        """The entry. None: this node does not know the session."""
        return self._entries.get(key)

    def put(self, key: SessionKey, entry: Entry) -> None:
        """Add an entry."""
        self._entries[key] = entry

    def forget(self, key: SessionKey, entry: Entry) -> None:
        """Drop this entry, if it is still the session's."""
        if self._entries.get(key) is entry:
            del self._entries[key]
            if entry.session is not None:
                self._left(key, entry.session)

    def clear(self) -> None:
        """Drop all entries."""
        for key, entry in list(self._entries.items()):
            self.forget(key, entry)

    def sweep(self, node: str, now: float) -> None:
        """Drop what was not used for KEPT_SECONDS and concerns this node no more."""
        for key, entry in list(self._entries.items()):
            unused = now - entry.used_at >= KEPT_SECONDS
            if unused and not entry.pending and node not in nodes_of(entry.session):
                self.forget(key, entry)
