"""Waiting for what comes from the hub: an echo, a SyncError, an update that was missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fhircast_client.event_loops import PerLoop


class EventSignal:
    """Wakes those who wait, whenever an event came."""

    def __init__(self) -> None:
        self._news = PerLoop(asyncio.Event)

    def notify(self) -> None:
        """An event came."""
        self._news.here.set()

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether the condition has come true within so many seconds."""
        news = self._news.here
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    news.clear()
                    await news.wait()
        except TimeoutError:
            pass
        return condition()
