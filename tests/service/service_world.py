"""A store that fails on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.errors import Unavailable
from fhircast_hub.core.state.effects import Effect
from fhircast_hub.core.state.session import Session
from fhircast_hub.service.ports import Changed, Deliver, Limits, SessionStore, ignore_changes
from tests.running import RunningHub


class Moody:
    """A store whose commits first do what `moods` say, one each. `down`: commits fail. `slow`: loads let others in."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self.moods: list[Callable[[], object]] = []
        self.down = self.slow = False
        self.commits = 0

    @property
    def node(self) -> str:
        return self._store.node

    async def open(self, deliver: Deliver, changed: Changed = ignore_changes) -> None:
        await self._store.open(deliver, changed)

    def sessions(self) -> Iterable[Session]:
        return self._store.sessions()

    async def load(self, key: SessionKey) -> tuple[Session | None, int]:
        loaded = await self._store.load(key)
        if self.slow:
            await asyncio.sleep(0)
        return loaded

    async def confirm(self, key: SessionKey, revision: int) -> None:
        await self._store.confirm(key, revision)

    async def commit_and_deliver(
        self,
        key: SessionKey,
        revision: int,
        before: Session | None,
        after: Session | None,
        effects: Sequence[Effect],
        limits: Limits | None = None,
    ) -> None:
        self.commits += 1
        if self.down:
            raise Unavailable("the store is down", retry_after=5)
        if self.moods:
            self.moods.pop(0)()
        await self._store.commit_and_deliver(key, revision, before, after, effects)

    async def close(self) -> None:
        await self._store.close()


def moody(hub: RunningHub) -> Moody:
    """Put a moody store between the hub and its own."""
    store = Moody(hub.hub.service._store)
    hub.hub.service._store = store
    return store
