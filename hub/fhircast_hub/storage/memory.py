"""MemoryStore: sessions in memory, for demos and tests. They do not survive the process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.effects import Effect
from fhircast_hub.core.state.session import Session
from fhircast_hub.service.ports import Changed, Deliver, Limits, Stale, ignore_changes


class MemoryStore:
    """The store of the URL `memory:`. Its methods are those of service.ports.SessionStore."""

    node = ""

    def __init__(self) -> None:
        #: Session and revision.
        self._sessions: dict[SessionKey, tuple[Session, int]] = {}
        self._deliver: Deliver = lambda effects: None
        self._changed: Changed = ignore_changes

    async def open(self, deliver: Deliver, changed: Changed = ignore_changes) -> None:
        self._deliver, self._changed = deliver, changed

    def sessions(self) -> Iterable[Session]:
        return [session for session, _ in self._sessions.values()]

    async def load(self, key: SessionKey) -> tuple[Session | None, int]:
        return self._sessions.get(key, (None, 0))

    async def confirm(self, key: SessionKey, revision: int) -> None:
        if self._sessions.get(key, (None, 0))[1] != revision:
            raise Stale

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
        if after is not before:
            self._put(key, after, revision + 1)
        self._deliver(effects)

    async def close(self) -> None:
        self._sessions.clear()

    def _put(self, key: SessionKey, session: Session | None, revision: int) -> None:
        before, _ = self._sessions.get(key, (None, 0))
        if session is None:
            self._sessions.pop(key, None)
        else:
            self._sessions[key] = session, revision
        self._changed(key, before, session)
