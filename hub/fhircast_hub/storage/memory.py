"""MemoryStore: sessions in memory, for demos and tests. They do not survive the process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.effects import Effect
from fhircast_hub.core.state.session import Session
from fhircast_hub.service.ports import Deliver, Stale


class MemoryStore:
    """The store of the URL `memory:`. Its methods are those of service.ports.SessionStore."""

    def __init__(self) -> None:
        #: Session and revision.
        self._sessions: dict[SessionKey, tuple[Session, int]] = {}
        self._deliver: Deliver = lambda effects: None

    async def open(self, deliver: Deliver) -> None:
        self._deliver = deliver

    def sessions(self) -> Iterable[Session]:
        return [session for session, _ in self._sessions.values()]

    async def load(self, key: SessionKey) -> tuple[Session | None, int]:
        return self._sessions.get(key, (None, 0))

    async def commit_and_deliver(
        self, key: SessionKey, revision: int, before: Session | None, after: Session | None, effects: Sequence[Effect]
    ) -> None:
        if self._sessions.get(key, (None, 0))[1] != revision:
            raise Stale
        if after is not before:
            self._put(key, after, revision + 1)
        self._deliver(effects)

    async def close(self) -> None:
        self._sessions.clear()

    def _put(self, key: SessionKey, session: Session | None, revision: int) -> None:
        if session is None:
            self._sessions.pop(key, None)
        else:
            self._sessions[key] = session, revision
