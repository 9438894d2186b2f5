"""Own events that the others were not told of, and which of them are tried again: no I/O, no clock."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import takewhile

from fhircast_client.events import Event, Kind


@dataclass(slots=True)
class _Unsent:
    event: Event
    why: str
    is_tried: bool


class UnsentEvents:
    """In the order in which they were sent."""

    def __init__(self) -> None:
        self._events: OrderedDict[str, _Unsent] = OrderedDict()

    @property
    def why(self) -> str:
        """Why the newest of them was not told, as a sentence; "" where there is none."""
        return next((one.why for one in reversed(self._events.values())), "")

    @property
    def newest(self) -> Event | None:
        """The newest of those that are tried again."""
        return next((one.event for one in reversed(self._events.values()) if one.is_tried), None)

    @property
    def retried(self) -> list[Event]:
        """Those that are tried again, oldest first."""
        return [one.event for one in self._events.values() if one.is_tried]

    def is_retried(self, event: Event) -> bool:
        """Whether an event is tried again: the hub may not have it."""
        known = self._events.get(event.id)
        return known is not None and known.is_tried

    def must_wait(self, event: Event) -> bool:
        """Whether something newer was opened here: the event is not told unless the hub does not take that."""
        newer = takewhile(lambda one: one.event.id != event.id, reversed(self._events.values()))
        return event.kind.changes_context and any(one.is_tried and one.event.kind.opens for one in newer)

    def failed(self, event: Event, why: str, *, is_final: bool) -> None:
        """The hub refused an event that failed before (`is_final`), or nobody knows whether the hub has it."""
        if event.announces and (event.id in self._events or not is_final):
            self._events[event.id] = _Unsent(event, f"The others were not told of {event.name}: {why}", not is_final)

    def reached_hub(self, event: Event) -> None:
        """The hub has it. Whether the application shows it, its turn will say."""
        if event.id in self._events:
            self._events[event.id].is_tried = False

    def resolved(self, event: Event) -> None:
        """What the application makes of an event is known now."""
        self._events.pop(event.id, None)

    def overtaken(self, event: Event, *, by_own: bool) -> None:
        """The application is shown an event, or the hub has an own one (`by_own`). What it overtakes needs not be told any more.

        A logout is overtaken by an own open only: nothing that others do undoes it.
        """
        for one in [one.event for one in self._events.values() if one.event.id != event.id]:
            is_open = event.kind.opens and (by_own or one.kind.changes_context)
            if is_open or (event.kind is Kind.CLOSE and event.anchor == one.anchor):
                self.resolved(one)

    def clear(self) -> None:
        """Nothing is told any more."""
        self._events.clear()
