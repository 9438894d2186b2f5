"""Which of two events is newer: by the hub's order where the hub declares one, else by timestamps (FHIRcast 3.0.0,
2.5).

No I/O, no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from fhircast_client.events import Event

#: Events that are remembered, for changes of context and for other events each.
REMEMBERED = 512
#: First place of accepted own events that await their echo. Every event that comes before the echo is older.
_LAST = 1 << 50


class Recent:
    """Ids of events, as many as are remembered."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, id_: str) -> None:
        """Remember an id."""
        self._ids[id_] = None
        self._ids.move_to_end(id_)
        trim(self._ids)

    def discard(self, id_: str) -> None:
        """Forget an id."""
        self._ids.pop(id_, None)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._ids


@dataclass(eq=False, slots=True)
class Mark:
    """The rank of an event among others."""

    #: Its place in the order of arrival.
    place: int
    #: Its timestamp as an instant, None where the event has none.
    at: int | None
    #: The moment at which the event came last, and the number of that connection.
    last_seen: int
    connection: int = 0
    #: Whether the hub accepted the event and its echo is due.
    is_awaited: bool = False


class Order:
    """Marks of the events that were received or sent. `is_kept`: the hub declares one order for all events (CFG-4)."""

    def __init__(self) -> None:
        self.is_kept = False
        #: Marks of opens, closes and Home-opens, by id.
        self._changes: OrderedDict[str, Mark] = OrderedDict()
        self._others: OrderedDict[str, Mark] = OrderedDict()
        #: Marks of own events without an echo yet.
        self._sent: OrderedDict[str, Mark] = OrderedDict()
        #: Own events without an answer when this connection was made.
        self._sent_before = Recent()
        #: Counts events that are received, sent and accepted.
        self.moment = 0
        self._connection = 0

    def connected(self, *, is_kept: bool) -> None:
        """A connection was made. Echoes that were due on the last connection may never come."""
        self.is_kept = is_kept
        self._connection += 1
        for id_, mark in list(self._sent.items()):
            if mark.is_awaited:
                mark.place, mark.is_awaited = min(mark.place, self.moment), False
            else:
                del self._sent[id_]
                self._sent_before.add(id_)

    def received(self, event: Event) -> None:
        """An event came from the hub. A repeat on the same connection keeps its place."""
        self.moment += 1
        is_first = event.id in self._sent or event.id in self._sent_before
        self._sent.pop(event.id, None)
        self._sent_before.discard(event.id)
        mark = self._note(event)
        is_first |= mark.connection != self._connection
        mark.connection, mark.is_awaited = self._connection, False
        if is_first and self.is_kept:
            mark.place = self.moment

    def sending(self, event: Event) -> None:
        """The client is about to post an own event."""
        self.moment += 1
        if self.mark_of(event.id) is None:
            self._sent[event.id] = self._note(event)
            trim(self._sent)

    def accepted(self, event: Event, *, comes_back: bool) -> bool:
        """The hub accepted an own event. `comes_back`: the hub also sends the event to this client.

        Returns whether its place is certain. An event that was sent before a cut may have been broadcast on the lost
        connection.
        """
        self.moment += 1
        is_certain, mark = event.id not in self._sent_before, self.mark_of(event.id)
        if mark is None or (is_certain and event.id not in self._sent):
            return is_certain  # the echo came before the answer
        mark.last_seen, mark.is_awaited = self.moment, comes_back and is_certain
        if self.is_kept:
            mark.place = self.moment + (_LAST if mark.is_awaited else 0)
        self._sent_before.discard(event.id)
        self._sent[event.id] = mark
        return is_certain

    def echo_missing(self, event: Event) -> bool:
        """Stop waiting for an echo. Returns whether the client waited for one."""
        mark = self.mark_of(event.id)
        if mark is None or not mark.is_awaited:
            return False
        mark.place, mark.is_awaited = min(mark.place, self.moment), False
        return True

    def mark(self, event: Event) -> Mark:
        """The mark of an event. An event that never came is the newest."""
        return self.mark_of(event.id) or Mark(self.moment, event.at, self.moment)

    def mark_of(self, event_id: str) -> Mark | None:
        """The mark of the event with this id, None for an event that never came."""
        return self._changes.get(event_id) or self._others.get(event_id)

    def is_older(self, one: Mark, other: Mark) -> bool:
        """Whether `one` is older than `other`. Without timestamps, the places decide."""
        if self.is_kept or one.at is None or other.at is None:
            return one.place < other.place
        return one.at < other.at

    def _note(self, event: Event) -> Mark:
        marks = self._changes if event.kind.changes_context else self._others
        mark = marks.setdefault(event.id, Mark(self.moment, event.at, self.moment))
        mark.last_seen = self.moment
        trim(marks)
        return mark


def trim(remembered: dict[str, Any], most: int = REMEMBERED) -> None:
    """Forget the oldest entry beyond the limit."""
    if len(remembered) > most:
        del remembered[next(iter(remembered))]
