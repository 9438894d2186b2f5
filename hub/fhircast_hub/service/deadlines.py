"""Deadlines: when each session wants a Tick. They are in a heap; outdated entries are skipped when they reach its top."""

from __future__ import annotations

import heapq

from fhircast_hub.core.access.principal import SessionKey


class Deadlines:
    """Deadlines of sessions, in epoch seconds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, SessionKey]] = []
        #: The valid deadlines. All other entries of the heap are outdated.
        self._at: dict[SessionKey, float] = {}

    def set(self, key: SessionKey, at: float | None) -> bool:
        """Set a session's deadline (None: there is none). Returns whether the deadline is the earliest of all now."""
        if at == self._at.get(key):
            return False
        if at is None:
            self._at.pop(key, None)
            return False
        self._at[key] = at
        heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 64 + 4 * len(self._at):
            self._heap = [(at, key) for key, at in self._at.items()]
            heapq.heapify(self._heap)
        return self.next() == at

    def next(self) -> float | None:
        """The earliest deadline. None: there is none."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[SessionKey]:
        """Remove the deadlines that have passed. Returns their sessions."""
        found = []
        while (at := self.next()) is not None and at <= now:
            _, key = heapq.heappop(self._heap)
            del self._at[key]
            found.append(key)
        return found
