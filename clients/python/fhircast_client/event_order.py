"""Which of two events is newer: by the order in which the hub tells, where it keeps one, else by timestamps (FHIRcast 3.0.0, 2.5).

No I/O, no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from fhircast_client.events import Event

#: Events that are remembered of each sort.
REMEMBERED = 512
#: Places of own events that the hub has accepted and not told back yet begin here: all that is told before the echo is older.
_LAST = 1 << 50


class Recent:
    """The ids of events, the newest of them."""

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
    """Where an event stands: its place among those that came, and its timestamp as an instant, None where it has none. `heard` is the
    moment when it came last, and `connection` the one on which; `is_awaited`: the hub accepted it, and will tell it back."""

    place: int
    at: int | None
    heard: int
    connection: int = 0
    is_awaited: bool = False


class Order:
    """The marks of the events that came and were sent. `is_kept`: the hub tells everybody all events in one order (CFG-4)."""

    def __init__(self) -> None:
        self.is_kept = False
        self._changes: OrderedDict[str, Mark] = OrderedDict()  # of opens, closes and Home-opens, by id
        self._others: OrderedDict[str, Mark] = OrderedDict()
        self._sent: OrderedDict[str, Mark] = OrderedDict()  # of own events that were not told back yet
        self._sent_before = Recent()  # own events that were sent and not answered before this connection was made
        #: The moment: grows with all that comes, is sent and is accepted.
        self.moment = 0
        self._connection = 0

    def connected(self, *, is_kept: bool) -> None:
        """A connection was made: the echoes that did not come on the last one may never come."""
        self.is_kept = is_kept
        self._connection += 1
        for id_, mark in list(self._sent.items()):
            if mark.is_awaited:
                mark.place, mark.is_awaited = min(mark.place, self.moment), False
            else:
                del self._sent[id_]
                self._sent_before.add(id_)

    def received(self, event: Event) -> None:
        """An event came from the hub. One that is told again on the same connection keeps its place."""
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
        """An own event is about to be posted."""
        self.moment += 1
        if self.mark_of(event.id) is None:
            self._sent[event.id] = self._note(event)
            trim(self._sent)

    def accepted(self, event: Event, *, comes_back: bool) -> bool:
        """The hub accepted an own event; `comes_back`: it tells the event to this client too.

        Returns whether its place is certain: not where it was sent before a connection was lost, on which it may have been told.
        """
        self.moment += 1
        is_certain, mark = event.id not in self._sent_before, self.mark_of(event.id)
        if mark is None or (is_certain and event.id not in self._sent):
            return is_certain  # it was told back already
        mark.heard, mark.is_awaited = self.moment, comes_back and is_certain
        if self.is_kept:
            mark.place = self.moment + (_LAST if mark.is_awaited else 0)
        self._sent_before.discard(event.id)
        self._sent[event.id] = mark
        return is_certain

    def echo_missing(self, event: Event) -> bool:
        """An echo is not waited for any more. Returns whether it was."""
        mark = self.mark_of(event.id)
        if mark is None or not mark.is_awaited:
            return False
        mark.place, mark.is_awaited = min(mark.place, self.moment), False
        return True

    def mark(self, event: Event) -> Mark:
        """Where an event stands; one that never came is the newest."""
        return self.mark_of(event.id) or Mark(self.moment, event.at, self.moment)

    def mark_of(self, event_id: str) -> Mark | None:
        """Where the event of this id stands; None for one that never came."""
        return self._changes.get(event_id) or self._others.get(event_id)

    def is_older(self, one: Mark, other: Mark) -> bool:
        """Whether `one` is older than `other`. What has no timestamp is as old as its place says."""
        if self.is_kept or one.at is None or other.at is None:
            return one.place < other.place
        return one.at < other.at

    def _note(self, event: Event) -> Mark:
        marks = self._changes if event.kind.changes_context else self._others
        mark = marks.setdefault(event.id, Mark(self.moment, event.at, self.moment))
        mark.heard = self.moment
        trim(marks)
        return mark


def trim(remembered: OrderedDict[str, Any]) -> None:
    """Forget the oldest where there are too many."""
    if len(remembered) > REMEMBERED:
        remembered.popitem(last=False)
