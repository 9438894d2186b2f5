"""Own events that other applications may not have received, and which are retried. No I/O, no clock."""

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
    """Own events, in the order in which they were sent."""

    def __init__(self) -> None:
        self._events: OrderedDict[str, _Unsent] = OrderedDict()

    @property
    def why(self) -> str:
        """Why the newest event was not delivered, as a sentence; "" where there is none."""
        return next((one.why for one in reversed(self._events.values())), "")

    @property
    def newest(self) -> Event | None:
        """The newest event that is retried."""
        return next((one.event for one in reversed(self._events.values()) if one.is_tried), None)

    @property
    def retried(self) -> list[Event]:
        """The events that are retried, oldest first."""
        return [one.event for one in self._events.values() if one.is_tried]

    def is_retried(self, event: Event) -> bool:
        """Whether an event is retried: the hub may not have the event."""
        known = self._events.get(event.id)
        return known is not None and known.is_tried

    def must_wait(self, event: Event) -> bool:
        """Whether a newer own open is retried. The older event is then sent only if the hub refuses the newer one."""
        newer = takewhile(lambda one: one.event.id != event.id, reversed(self._events.values()))
        return event.kind.changes_context and any(one.is_tried and one.event.kind.opens for one in newer)

    def failed(self, event: Event, why: str, *, is_final: bool) -> None:
        """The hub refused an event that failed before (`is_final`), or did not answer, so the hub may have the event."""
        if event.announces and (event.id in self._events or not is_final):
            self._events[event.id] = _Unsent(event, f"The others were not told of {event.name}: {why}", not is_final)

    def reached_hub(self, event: Event) -> None:
        """The hub has the event. Its turn decides whether the application shows the event."""
        if event.id in self._events:
            self._events[event.id].is_tried = False

    def resolved(self, event: Event) -> None:
        """Whether the application follows the event is known now."""
        self._events.pop(event.id, None)

    def overtaken(self, event: Event, *, by_own: bool) -> None:
        """The application is shown an event, or the hub has an own one (`by_own`). Events that are overtaken need not
        be sent any more.

        Only an own open overtakes a logout: events of other applications do not undo a logout.
        """
        for one in [one.event for one in self._events.values() if one.event.id != event.id]:
            is_open = event.kind.opens and (by_own or one.kind.changes_context)
            if is_open or (event.kind is Kind.CLOSE and event.anchor == one.anchor):
                self.resolved(one)

    def clear(self) -> None:
        """Nothing is retried any more."""
        self._events.clear()
