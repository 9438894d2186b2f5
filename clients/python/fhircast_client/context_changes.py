"""Changes of context: every open, close and Home-open that was received, or accepted by the hub. No I/O, no clock."""

from __future__ import annotations

from collections import OrderedDict

from fhircast_client.event_order import Mark, Order, trim
from fhircast_client.events import Event, Kind
from fhircast_client.timestamps import DAY


class ContextChanges:
    """The newest changes, in the order in which they came."""

    def __init__(self, order: Order) -> None:
        self._order = order
        #: By id.
        self._known: OrderedDict[str, tuple[Event, Mark]] = OrderedDict()
        #: Grows with every change, also with repeats.
        self.count = 0

    def add(self, event: Event) -> None:
        """The change was received, or the hub accepted it."""
        self.count += 1
        if event.id not in self._known:
            self._known[event.id] = (event, self._order.mark(event))
            trim(self._known)

    def has(self, event: Event) -> bool:
        """Whether the change was received or accepted."""
        return event.id in self._known

    def is_newest(self, event: Event) -> bool:
        """Whether no newer change was received or accepted since."""
        this = self._order.mark(event)
        return not any(
            self._is_since(other, mark, this, event.anchor)
            for other, mark in self._known.values()
            if other.id != event.id
        )

    def newest(self, now: int) -> int | None:
        """The newest timestamp of a change, as an instant. Clocks that are ahead by a day or more are ignored."""
        times = [mark.at for _, mark in self._known.values() if mark.at is not None]
        return max((at for at in times if at < now + DAY), default=None)

    def _is_since(self, other: Event, mark: Mark, this: Mark, anchor: str) -> bool:
        closes = other.kind is Kind.CLOSE and other.anchor == anchor
        return mark.place > this.place and (closes or self._order.is_older(this, mark))
