"""Which events are followed, and what they make current (FHIRcast 3.0.0, 2.5): no I/O, no clock."""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum

from fhircast_client.contexts import MOST_CONTEXTS, Contexts
from fhircast_client.event_order import Mark, Order, Recent
from fhircast_client.events import Event, Kind, named, same_json
from fhircast_client.timestamps import MINUTE


class Verdict(Enum):
    """What is to be done with an event: hand it to its handler, or only acknowledge it."""

    FOLLOW = "follow"
    REPEAT = "repeat"
    OLD = "old"


class Following:
    """What this application follows. `home` is the Home-open that nothing has followed since, else None."""

    def __init__(self) -> None:
        self.contexts = Contexts()
        self.order = Order()
        self.home: Event | None = None
        #: The mark of what made the current context, and its timestamp as far as it counts: None where anything is newer.
        self._current_mark: Mark | None = None
        self._current_at: int | None = None
        self._is_adopted = False
        self._closed_mark: tuple[Mark, Mark] | None = None  # as `_made`, of what was current until this close
        self._closes: OrderedDict[str, Mark] = OrderedDict()  # of what was closed and not opened since, by anchor
        self._done = Recent()  # events other than opens that were followed or published
        self._closed = Recent()  # opens whose context was closed
        self._refused = Recent()
        self._handed = Recent()  # opens that were followed, refused or published
        self._last_handed = ""
        self._handed_one = False  # whether one was since the last connection was made
        self._handed_before_cut = False  # whether that was on a connection that was cut short
        self._knew_opens = False  # whether one was before the last connection was made

    @property
    def shown(self) -> Event | None:
        """The open or Home-open that made what is current."""
        return self.contexts.current or self.home

    def verdict(self, event: Event) -> Verdict:
        """Whether the application is to follow `event`.

        "Subscribers SHALL ignore messages with older timestamps than the message that established the current context" (2.5).
        """
        if self._is_repeat(event):
            return Verdict.REPEAT
        if self._is_left_behind(event) or self._ended_while_waiting(event):
            return Verdict.OLD
        return Verdict.OLD if event.kind.changes_context and self._is_old(event) else Verdict.FOLLOW

    def connected(self, *, ordered: bool, was_cut_short: bool = False) -> None:
        """A connection was made: the hub tells again what is open. What it tells now is newer than what it told before.

        `was_cut_short`: the last connection was lost before the hub may have told everything.
        """
        self._handed_one = self._handed_before_cut = self._handed_one and was_cut_short and self._knew_opens
        self._knew_opens = self._last_handed != ""
        self._current_mark = self._current_at = self._closed_mark = None
        self.order.connected(is_kept=ordered)

    def followed(self, event: Event, now: int) -> None:
        """The application follows, or published, `event`; one that something newer overtook meanwhile is not current.

        `now` is the own clock as an instant: a timestamp of the future keeps others from being followed for a minute at most.
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
        """The hub answered, when asked, that `event` made the current context; when it was made is not known."""
        self.contexts.opened(event, is_old=False)
        self._forget_current_mark()
        self.home, self._is_adopted = None, True

    def repeated(self, event: Event, now: int) -> bool:
        """A repeat came; whether it is what the application shows. One that says the same anew counts from now on."""
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
        """What else was opened before or after an own open is not certain: the next connection may tell what is newer."""
        self._knew_opens = True

    def tells_current(self, event: Event) -> bool:
        """Whether an open or Home-open says what is open at the hub: not one that was left, or that may have been."""
        may_be_left = self._handed_before_cut and event.id in self._handed
        return not may_be_left and self.verdict(event) is not Verdict.OLD

    def is_old_by_echo(self, event: Event) -> bool:
        """Whether an open is old only because the echo of an own one has not come yet."""
        return (
            event.kind is Kind.OPEN
            and self.order.is_kept
            and self._current_mark is not None
            and self._current_mark.is_awaited
        )

    def missed_end(self, event: Event) -> bool:
        """Whether it is an open that is not followed, for it was closed while it waited here, and it is newer than what is shown: at
        the hub that is not current any more."""
        is_closed = event.kind is Kind.OPEN and (self.was_closed(event) or self._ended_while_waiting(event))
        if not is_closed or self.contexts.current is None or self.contexts.is_current(event.anchor):
            return False
        return not self._is_old(event) and not self._is_left_behind(event)

    def ignored(self, event: Event) -> None:
        """An old event came. It changes nothing that is shown; a context that is not current may be closed by it."""
        opened = self.contexts.opens.get(event.anchor)
        if event.kind is Kind.CLOSE and opened is not None and not self.contexts.is_current(event.anchor):
            self._done.add(event.id)
            if not self.order.is_older(self.order.mark(event), self.order.mark(opened)):
                self._close(event.anchor, self.order.mark(event))

    def refused(self, event: Event) -> None:
        """The application did not follow."""
        self._refused.add(event.id)
        self._note_handed(event)

    def _is_repeat(self, event: Event) -> bool:
        if event.kind is Kind.OPEN:
            return self.was_closed(event) or self._says_the_same(event) or self._is_implied(event)
        if event.kind is Kind.HOME:
            return self.home is not None
        return event.id in self._done and not self._closes_still(event)

    def was_closed(self, event: Event) -> bool:
        """Whether it is an open whose context was closed here, by a close that is not older where the hub keeps an order."""
        close = self._closes.get(event.anchor) if self.order.is_kept else None
        return event.id in self._closed and not (close and self.order.is_older(close, self.order.mark(event)))

    def _closes_still(self, event: Event) -> bool:
        """Whether it is a close, and what it closes was shown since, though it is older."""
        opened = self.contexts.opens.get(event.anchor) if event.kind is Kind.CLOSE else None
        return opened is not None and self.order.is_older(self.order.mark(opened), self.order.mark(event))

    def _says_the_same(self, event: Event) -> bool:
        """Whether it is the current open, told again, or another open of exactly what is current."""
        current = self.contexts.current
        if current is None:
            return False
        return current.id == event.id or self._is_adopted_open(current, event) or says_the_same(current, event)

    def _is_adopted_open(self, current: Event, event: Event) -> bool:
        """Whether it is the event of which the hub only told, when it was asked, that it made the current context."""
        same = current.anchor == event.anchor and event.version in (None, current.version)
        return same and self._is_adopted

    def _is_implied(self, event: Event) -> bool:
        """Whether an open says no more than the current one: hubs send the opens of the resources in an open too (2.5)."""
        current = self.contexts.current
        return (
            current is not None
            and current.timestamp == event.timestamp
            and event.id not in self._refused
            and event.anchor not in ("", current.anchor)
            and event.anchor in [named(item) for item in current.context]
        )

    def _is_left_behind(self, event: Event) -> bool:
        """Whether it is an open that was followed or refused here, and another came after it.

        Of each type the hub tells the newest open that is not closed, also one that everybody has left for another type: who knows it
        has left it too. Only when something that was missed was followed since is what comes after that newer.
        """
        known = event.kind is Kind.OPEN and event.id in self._handed
        return known and not self._handed_one and event.id != self._last_handed

    def _ended_while_waiting(self, event: Event) -> bool:
        """Whether it is an open that waited here while what it opens was closed, Home was opened, or what was opened after it was
        closed."""
        return self._closed_since(event) is not None or self._left_since(event)

    def _closed_since(self, event: Event) -> Mark | None:
        """The mark of the close that closed what an open opens, where the open waited here meanwhile, or its handler was at work."""
        mark, close = self.order.mark(event), self._closes.get(event.anchor)
        return close if event.kind is Kind.OPEN and close and self._arrived_before(mark, close, close) else None

    def _left_since(self, event: Event) -> bool:
        """Whether Home was opened while an open waited here, or what was opened after it was closed."""
        mark, home = self.order.mark(event), self.home and self.order.mark(self.home)
        limits = ((home, home), self._closed_mark or (None, None))
        return event.kind is Kind.OPEN and any(
            newer and since and self._arrived_before(mark, newer, since) for newer, since in limits
        )

    def _arrived_before(self, mark: Mark, newer: Mark, since: Mark) -> bool:
        """Whether it is older than `newer`, and came before the close or Home-open `since`, or would have: clocks alone prove nothing
        of what comes later."""
        is_before = self.order.is_kept or since.is_awaited or mark.heard <= since.heard
        return is_before and self.order.is_older(mark, newer)

    def is_overtaken(self, event: Event) -> bool:
        """Whether something newer is current, or was, than an event whose handler has ended."""
        return self._is_old(event) or self._left_since(event)

    def _is_old(self, event: Event) -> bool:
        """Whether it is older than what made the current context. A close of another context is not, where the hub keeps an order."""
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
        """Whatever is opened next is newer."""
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
        if len(self._closes) > MOST_CONTEXTS:
            self._closes.popitem(last=False)
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
    """Whether what was opened belongs to what is shown, as a study of that patient does."""
    return shown.anchor in [named(item) for item in opened.context]
