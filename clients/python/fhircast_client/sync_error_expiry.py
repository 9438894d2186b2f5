"""When SyncErrors about events end that this client is not subscribed to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

#: Events that are waited for: a hub has no more subscribers that could be behind.
_MOST = 64


class SyncErrorExpiry:
    """The client does not receive these events, so it does not see that a subscriber follows after all. Where no
    SyncError names the event for `seconds`, the client assumes so: the publisher resends the event meanwhile, and
    would be refused again. `quiet` is then called with the event's id."""

    def __init__(
        self,
        seconds: float,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None] | None],
        quiet: Callable[[str], None],
    ) -> None:
        self._seconds, self._spawn, self._quiet = seconds, spawn, quiet
        self._waiting: dict[str, asyncio.Task[None]] = {}

    def named(self, event_id: str) -> None:
        """A SyncError names an event."""
        if waiting := self._waiting.pop(event_id, None):
            waiting.cancel()
        if len(self._waiting) < _MOST and (task := self._spawn(self._wait(event_id))):
            self._waiting[event_id] = task

    def stop(self) -> None:
        """Stop all waiting."""
        for waiting in self._waiting.values():
            waiting.cancel()
        self._waiting.clear()

    async def _wait(self, event_id: str) -> None:
        await asyncio.sleep(self._seconds)
        self._waiting.pop(event_id, None)
        self._quiet(event_id)
