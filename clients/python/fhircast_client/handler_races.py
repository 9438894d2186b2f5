"""What may stand on the application's screen: a slow handler may show something older over what was opened here. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable

from fhircast_client.context_changes import ContextChanges
from fhircast_client.events import Event, Kind
from fhircast_client.following import Following, belongs, says_the_same

#: Own opens that are handed again one after the other, where each handler is overtaken by the next own open.
_MOST_RESHOWS = 3
_MOST_MAYBE_SHOWN = 8


class HandlerRaces:
    """Which handler is at work, what the application opened meanwhile, and what its handler must show again.

    `following` is what the application follows, `changes` what came and was accepted.
    """

    def __init__(self, following: Following, changes: ContextChanges) -> None:
        self._following, self._changes = following, changes
        #: The event that its handler is being shown.
        self.handling: Event | None = None
        #: What the application must be shown again: an open, or an own close of what was shown over it.
        self.to_reshow: Event | None = None
        #: What the application may show though it is not followed: a handler that failed, or an own open; nothing was shown since.
        self.maybe_shown: list[Event] = []
        self._shown_over: Event | None = None  # what was shown over it
        #: Since the handler began: the own open that was posted last, or an own close of what the handler is called with.
        self._own_event: Event | None = None
        self._reshows = 0

    @property
    def why(self) -> str:
        """Why the screen may be wrong, "" where it is not."""
        if self.to_reshow is None or self._shown_over is None:
            return ""
        return f"{self._shown_over.name} was shown here after the newer {self.to_reshow.name}"

    def already_shown(self, event: Event) -> Event | None:
        """What the application shows, or is being shown, where `event` opens exactly that and nothing newer came."""
        known = (self.handling, self._following.contexts.current)
        return next((one for one in known if one and says_the_same(one, event) and self._changes.is_newest(one)), None)

    def is_echoed_by_handler(self, event: Event) -> bool:
        """Whether a handler publishes what it is just being shown."""
        return self.handling is not None and says_the_same(self.handling, event)

    def may_show_another(self, event: Event, unsent: Iterable[Event]) -> bool:
        """Whether it is a new event, and not closed, and an own open (`untold`) or a handler of something else failed: the application
        may show that."""
        current = self._following.contexts.current
        is_new = event.kind.opens and (current is None or current.id != event.id)
        may_show = any(one.kind.opens and not says_the_same(one, event) for one in [*unsent, *self.maybe_shown])
        return is_new and may_show and not self._following.was_closed(event)

    def may_be_shown(self, event: Event) -> bool:
        """Whether the application must be shown it again still: the hub has it, and nothing newer came."""
        shown = self._following.shown
        is_shown = shown is not None and says_the_same(shown, event)
        return event is self.to_reshow and self._changes.has(event) and (is_shown or self._changes.is_newest(event))

    def newer_than(self, event: Event) -> Event | None:
        """What has overtaken an open while its handler was at work, and does not belong to it."""
        shown = self._following.shown
        return shown if shown and self._following.is_overtaken(event) and not belongs(shown, event) else None

    def handler_begins(self, event: Event) -> None:
        """A handler is called."""
        self.handling, self._own_event = event, None
        if event.kind.opens and not event.own and event is not self.to_reshow:
            self._reshows = 0

    def own_posted(self, event: Event) -> None:
        """An own event is posted: the application shows what it opens, before or after the hub's answer, and not what it closes."""
        if self.handling is None:
            return
        if event.kind.opens:
            self._own_event = None if belongs(event, self.handling) else event
        elif event.kind is Kind.CLOSE and event.anchor == self.handling.anchor and self._own_event is None:
            self._own_event = event

    def may_show(self, *events: Event) -> None:
        """The application may show these, though they are not followed."""
        self.maybe_shown = [*self.maybe_shown, *events][-_MOST_MAYBE_SHOWN:]

    def own_refused(self, event: Event) -> None:
        """The hub refused an own event."""
        if self._own_event is event:
            self._own_event = None
        self.resolved(event)

    def handler_ends(self, event: Event, *, shows: bool, newer: Event | None = None) -> Event | None:
        """The handler has ended; `shows`: it may have shown what it was called with, though `newer` has overtaken that. Returns what is
        to be shown again."""
        newer_event, self._own_event = self._own_event or newer, None
        if self.handling is not None and self.handling.id == event.id:
            self.handling = None
        if newer_event is None or not shows or not event.kind.opens:
            return None
        self.to_reshow, self._shown_over, self._reshows = newer_event, event, self._reshows + 1
        return newer_event if self._reshows <= _MOST_RESHOWS else None

    def resolved(self, event: Event) -> None:
        """It is shown, or need not be any more."""
        if self.to_reshow is not None and self.to_reshow.id == event.id:
            self.to_reshow = self._shown_over = None

    def another_opened(self) -> None:
        """Something was opened: what was to be shown again may be left behind."""
        if self.to_reshow is not None and self._changes.has(self.to_reshow) and not self.may_be_shown(self.to_reshow):
            self.resolved(self.to_reshow)

    def ended(self) -> None:
        """The client is stopped: no handler is at work."""
        self.handling = self.to_reshow = self._shown_over = self._own_event = None
        self.maybe_shown = []
