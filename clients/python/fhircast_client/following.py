"""Which events to follow, and which context becomes current (FHIRcast 3.0.0, 2.5). No I/O, no clock."""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum

from fhircast_client.contexts import MOST_CONTEXTS, Contexts
from fhircast_client.event_order import Mark, Order, Recent, trim
from fhircast_client.events import Event, Kind, named, same_json
from fhircast_client.timestamps import MINUTE


class Verdict(Enum):
    """Whether to call the handler with an event, or only to acknowledge the event."""

    FOLLOW = "follow"
    REPEAT = "repeat"
    OLD = "old"


class Following:
    """The contexts that this application follows. `home`: the last Home-open, None once a context was opened after it."""

    def __init__(self) -> None:
        self.contexts = Contexts()
        self.order = Order()
        self.home: Event | None = None
        #: Mark of the open that made the current context, and its timestamp. None: any event counts as newer.
        self._current_mark: Mark | None = None
        self._current_at: int | None = None
        self._is_adopted = False
        #: `_current_mark` of the last current context, and the mark of its close.
        self._closed_mark: tuple[Mark, Mark] | None = None
        #: Marks of closes, by anchor, until the anchor is opened again.
        self._closes: OrderedDict[str, Mark] = OrderedDict()
        #: Ids of other events that were followed or published.
        self._done = Recent()
        #: Ids of opens whose context was closed.
        self._closed = Recent()
        self._refused = Recent()
        #: Ids of opens that were followed, refused or published.
        self._handed = Recent()
        self._last_handed = ""
        #: Whether an open was handed since the last connection was made.
        self._handed_one = False
        #: Whether an open was handed on a connection that was cut short.
        self._handed_before_cut = False
        #: Whether an open was handed before the last connection was made.
        self._knew_opens = False

    @property
    def shown(self) -> Event | None:
        """The open or Home-open of the current context."""
        return self.contexts.current or self.home

    def verdict(self, event: Event) -> Verdict:
        """Whether the application is to follow `event`.

        "Subscribers SHALL ignore messages with older timestamps than the message that established the current context"
        (2.5).
        """
        if self._is_repeat(event):
            return Verdict.REPEAT
        if self._is_left_behind(event) or self._ended_while_waiting(event):
            return Verdict.OLD
        return Verdict.OLD if event.kind.changes_context and self._is_old(event) else Verdict.FOLLOW

    def connected(self, *, ordered: bool, was_cut_short: bool = False) -> None:
        """A connection was made, and the hub replays the open contexts. The replay is newer than everything received
        before.

        `was_cut_short`: the last connection was lost before its replay may have ended.
        """
        self._handed_one = self._handed_before_cut = self._handed_one and was_cut_short and self._knew_opens
        self._knew_opens = self._last_handed != ""
        self._current_mark = self._current_at = self._closed_mark = None
        self.order.connected(is_kept=ordered)

    def followed(self, event: Event, now: int) -> None:
        """The application followed or published `event`. An event that was overtaken meanwhile does not become current.

        `now`: the local clock as an instant. A timestamp in the future keeps other events out for a minute at most.
        """
        is_old, close = self.is_overtaken(event), self._closed_since(event)
        self._note_handed(event)
        self._refused.discard(event.id)
        match event.kind:
            case Kind.OPEN:
                self._closes.pop(event.anchor, None)
                self.contexts.opened(event, is_old=is_old)
            case Kind.CLOSE:
                self._done.add(event.id)
                if not (is_old and self.contexts.is_current(event.anchor)):
                    self._close(event.anchor, self.order.mark(event))
            case Kind.HOME if not is_old:
                self.contexts.home_opened()
                self.home = event
            case Kind.HOME:
                pass
            case _:
                self._done.add(event.id)
        if event.kind.opens and not is_old:
            self._set_current_mark(event, now)
        if close is not None:
            self._close(event.anchor, close)

    def adopted(self, event: Event) -> None:
        """`event` is the answer to "Get Current Context". The time of the open is unknown."""
        self.contexts.opened(event, is_old=False)
        self._forget_current_mark()
        self.home, self._is_adopted = None, True

    def repeated(self, event: Event, now: int) -> bool:
        """A repeat came. Returns whether the application shows its context. A new open of the same context counts from
        now on."""
        if event.kind is Kind.HOME:
            self.home = event
            return True
        if event.kind is not Kind.OPEN or self.was_closed(event):
            return False
        if self._says_the_same(event) and not self._is_old(event):
            self._note_repeated(event)
            self.contexts.opened(event, is_old=False)
            self._set_current_mark(event, now)
        return True

    def place_uncertain(self) -> None:
        """The order around an own open is not certain: the next replay may hold newer contexts."""
        self._knew_opens = True

    def tells_current(self, event: Event) -> bool:
        """Whether an open or Home-open tells the hub's current context: not where the application left that context, or
        may have left it."""
        may_be_left = self._handed_before_cut and event.id in self._handed
        return not may_be_left and self.verdict(event) is not Verdict.OLD

    def is_old_by_echo(self, event: Event) -> bool:
        """Whether an open is old only because the echo of an own open is still missing."""
        return (
            event.kind is Kind.OPEN
            and self.order.is_kept
            and self._current_mark is not None
            and self._current_mark.is_awaited
        )

    def missed_end(self, event: Event) -> bool:
        """Whether an open was closed before its turn, and is newer than the current context. The current context is
        then not current at the hub."""
        is_closed = event.kind is Kind.OPEN and (self.was_closed(event) or self._ended_while_waiting(event))
        if not is_closed or self.contexts.current is None or self.contexts.is_current(event.anchor):
            return False
        return not self._is_old(event) and not self._is_left_behind(event)

    def ignored(self, event: Event) -> None:
        """An old event was ignored. A late close still closes a context that is not current."""
        opened = self.contexts.opens.get(event.anchor)
        if event.kind is Kind.CLOSE and opened is not None and not self.contexts.is_current(event.anchor):
            self._done.add(event.id)
            if not self.order.is_older(self.order.mark(event), self.order.mark(opened)):
                self._close(event.anchor, self.order.mark(event))

    def refused(self, event: Event) -> None:
        """The application did not follow the event."""
        self._refused.add(event.id)
        self._note_handed(event)

    def _is_repeat(self, event: Event) -> bool:
        if event.kind is Kind.OPEN:
            return self.was_closed(event) or self._says_the_same(event) or self._is_implied(event)
        if event.kind is Kind.HOME:
            return self.home is not None
        return event.id in self._done and not self._closes_still(event)

    def was_closed(self, event: Event) -> bool:
        """Whether the context of an open was closed here. Where the hub orders events, the close must not be older."""
        close = self._closes.get(event.anchor) if self.order.is_kept else None
        return event.id in self._closed and not (close and self.order.is_older(close, self.order.mark(event)))

    def _closes_still(self, event: Event) -> bool:
        """Whether the event is a close of a context that was shown since, though the close is newer than its open."""
        opened = self.contexts.opens.get(event.anchor) if event.kind is Kind.CLOSE else None
        return opened is not None and self.order.is_older(self.order.mark(opened), self.order.mark(event))

    def _says_the_same(self, event: Event) -> bool:
        """Whether the event is the current open, or opens exactly the current context."""
        current = self.contexts.current
        if current is None:
            return False
        return current.id == event.id or self._is_adopted_open(current, event) or says_the_same(current, event)

    def _is_adopted_open(self, current: Event, event: Event) -> bool:
        """Whether the event is the open that was learnt from "Get Current Context"."""
        same = current.anchor == event.anchor and event.version in (None, current.version)
        return same and self._is_adopted

    def _is_implied(self, event: Event) -> bool:
        """Whether the current open implies this one: hubs also send opens for the resources in an open (2.5)."""
        current = self.contexts.current
        return (
            current is not None
            and current.timestamp == event.timestamp
            and event.id not in self._refused
            and event.anchor not in ("", current.anchor)
            and event.anchor in [named(item) for item in current.context]
        )

    def _is_left_behind(self, event: Event) -> bool:
        """Whether an open was handed here before, and another open was handed after it.

        The replay holds the newest open of each type, even where everybody moved on to another type. Ignore such opens
        until an open that was missed is followed: later events are then newer.
        """
        known = event.kind is Kind.OPEN and event.id in self._handed
        return known and not self._handed_one and event.id != self._last_handed

    def _ended_while_waiting(self, event: Event) -> bool:
        """Whether the context of an open ended while the open waited: by its close, by Home-open, or by the close of a
        newer context."""
        return self._closed_since(event) is not None or self._left_since(event)

    def _closed_since(self, event: Event) -> Mark | None:
        """Mark of the close that ended the context of an open, where the open waited or its handler was at work."""
        mark, close = self.order.mark(event), self._closes.get(event.anchor)
        return close if event.kind is Kind.OPEN and close and self._arrived_before(mark, close, close) else None

    def _left_since(self, event: Event) -> bool:
        """Whether Home-open, or the close of a newer context, came while an open waited."""
        mark, home = self.order.mark(event), self.home and self.order.mark(self.home)
        limits = ((home, home), self._closed_mark or (None, None))
        return event.kind is Kind.OPEN and any(
            newer and since and self._arrived_before(mark, newer, since) for newer, since in limits
        )

    def _arrived_before(self, mark: Mark, newer: Mark, since: Mark) -> bool:
        """Whether `mark` is older than `newer`, and came before the close or Home-open `since`, or belongs there.
        Clocks prove nothing about later arrivals."""
        is_before = self.order.is_kept or since.is_awaited or mark.last_seen <= since.last_seen
        return is_before and self.order.is_older(mark, newer)

    def is_overtaken(self, event: Event) -> bool:
        """Whether a newer context became current before the handler ended."""
        return self._is_old(event) or self._left_since(event)

    def _is_old(self, event: Event) -> bool:
        """Whether the event is older than the current context. Where the hub orders events, a close of another context
        is not old."""
        if self.order.is_kept:
            return self._current_mark is not None and self._is_before(event, self._current_mark)
        return event.at is not None and self._current_at is not None and event.at < self._current_at

    def _is_before(self, event: Event, made: Mark) -> bool:
        if event.kind is Kind.CLOSE and not self.contexts.is_current(event.anchor):
            return False
        return self.order.is_older(self.order.mark(event), made)

    def _set_current_mark(self, event: Event, now: int) -> None:
        self._forget_current_mark()
        self._current_mark, self._closed_mark = self.order.mark(event), None
        if event.kind is Kind.OPEN:
            self.home = None
            self._current_at = None if event.at is None else min(event.at, now + MINUTE)

    def _forget_current_mark(self) -> None:
        """The next open counts as newer, whatever its timestamp is."""
        self._current_mark, self._current_at, self._is_adopted = None, None, False

    def _note_repeated(self, event: Event) -> None:
        if self._is_adopted:
            self._handed.add(event.id)
            self._last_handed = event.id
        elif event.id not in self._handed:
            self._note_handed(event)

    def _note_handed(self, event: Event) -> None:
        if event.kind.opens:
            self._handed.add(event.id)
            self._last_handed, self._handed_one = event.id, True

    def _close(self, anchor: str, mark: Mark) -> None:
        if self.contexts.is_current(anchor):
            self._closed_mark = None if self._current_mark is None else (self._current_mark, mark)
            self._forget_current_mark()
        known = self._closes.get(anchor)
        if known is None or not self.order.is_older(mark, known):
            self._closes[anchor] = mark
        trim(self._closes, MOST_CONTEXTS)
        closed = self.contexts.closed(anchor)
        if closed is not None:
            self._closed.add(closed.id)


def says_the_same(one: Event, other: Event) -> bool:
    """Whether two opens, or two Home-opens, open exactly the same."""
    return (
        one.kind is other.kind
        and one.kind.opens
        and one.anchor == other.anchor
        and one.name.lower() == other.name.lower()
        and same_json(one.context, other.context)
    )


def belongs(opened: Event, shown: Event) -> bool:
    """Whether `opened` belongs to `shown`, as a study belongs to its patient."""
    return shown.anchor in [named(item) for item in opened.context]
