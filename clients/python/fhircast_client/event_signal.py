"""Waiting for an event: an echo, a SyncError, or a missed update."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fhircast_client.event_loops import PerLoop


class EventSignal:
    """Wakes waiting tasks at every event."""

    def __init__(self) -> None:
        self._news = PerLoop(asyncio.Event)

    def notify(self) -> None:
        """An event came."""
        self._news.here.set()

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether the condition became true within `seconds`."""
        news = self._news.here
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    news.clear()
                    await news.wait()
        except TimeoutError:
            pass
        return condition()
