"""Handlers that overlap with own events: a slow handler may show an older context over a newer one. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable

from fhircast_client.context_changes import ContextChanges
from fhircast_client.events import Event, Kind
from fhircast_client.following import Following, belongs, says_the_same

#: Re-shown events in a row, where each handler is overtaken by the next own open.
_MOST_RESHOWS = 3
_MOST_MAYBE_SHOWN = 8


class HandlerRaces:
    """Which handler runs, what the application published meanwhile, and which event must be shown again.

    `following`: the contexts that the application follows. `changes`: events that were received or accepted.
    """

    def __init__(self, following: Following, changes: ContextChanges) -> None:
        self._following, self._changes = following, changes
        #: The event whose handler is running.
        self.handling: Event | None = None
        #: The event to show again: an open, or an own close of a context that was shown over it.
        self.to_reshow: Event | None = None
        #: Events that the application may show without following them: a failed handler's event, or an own open. Empty
        #: once an event was followed.
        self.maybe_shown: list[Event] = []
        #: The event that was shown over it.
        self._shown_over: Event | None = None
        #: Since the handler began: the last own open, or an own close of the handler's context.
        self._own_event: Event | None = None
        self._reshows = 0

    @property
    def why(self) -> str:
        """Why the application may show the wrong context, "" where all is well."""
        if self.to_reshow is None or self._shown_over is None:
            return ""
        return f"{self._shown_over.name} was shown here after the newer {self.to_reshow.name}"

    def already_shown(self, event: Event) -> Event | None:
        """The shown event, or the event of the running handler, that opens the same as `event` and is the newest."""
        known = (self.handling, self._following.contexts.current)
        return next((one for one in known if one and says_the_same(one, event) and self._changes.is_newest(one)), None)

    def is_echoed_by_handler(self, event: Event) -> bool:
        """Whether a handler publishes the event that it was called with."""
        return self.handling is not None and says_the_same(self.handling, event)

    def may_show_another(self, event: Event, unsent: Iterable[Event]) -> bool:
        """Whether the event is a new open, and the application may show another context: of an own open (`unsent`), or
        of a failed handler."""
        current = self._following.contexts.current
        is_new = event.kind.opens and (current is None or current.id != event.id)
        may_show = any(one.kind.opens and not says_the_same(one, event) for one in [*unsent, *self.maybe_shown])
        return is_new and may_show and not self._following.was_closed(event)

    def may_be_shown(self, event: Event) -> bool:
        """Whether the event must still be shown again: the hub has the event, and no newer change came."""
        shown = self._following.shown
        is_shown = shown is not None and says_the_same(shown, event)
        return event is self.to_reshow and self._changes.has(event) and (is_shown or self._changes.is_newest(event))

    def newer_than(self, event: Event) -> Event | None:
        """The context that overtook an open while its handler ran, unless that context belongs to the open."""
        shown = self._following.shown
        return shown if shown and self._following.is_overtaken(event) and not belongs(shown, event) else None

    def handler_begins(self, event: Event) -> None:
        """A handler is called."""
        self.handling, self._own_event = event, None
        if event.kind.opens and not event.own and event is not self.to_reshow:
            self._reshows = 0

    def own_posted(self, event: Event) -> None:
        """An own event is posted. The application shows an own open before or after the hub's answer, and hides the
        context of an own close."""
        if self.handling is None:
            return
        if event.kind.opens:
            self._own_event = None if belongs(event, self.handling) else event
        elif event.kind is Kind.CLOSE and event.anchor == self.handling.anchor and self._own_event is None:
            self._own_event = event

    def may_show(self, *events: Event) -> None:
        """The application may show these events without following them."""
        self.maybe_shown = [*self.maybe_shown, *events][-_MOST_MAYBE_SHOWN:]

    def own_refused(self, event: Event) -> None:
        """The hub refused an own event."""
        if self._own_event is event:
            self._own_event = None
        self.resolved(event)

    def handler_ends(self, event: Event, *, shows: bool, newer: Event | None = None) -> Event | None:
        """The handler has ended. `shows`: the application may show the event, though `newer` has overtaken it. Returns
        the event to show again."""
        newer_event, self._own_event = self._own_event or newer, None
        if self.handling is not None and self.handling.id == event.id:
            self.handling = None
        if newer_event is None or not shows or not event.kind.opens:
            return None
        self.to_reshow, self._shown_over, self._reshows = newer_event, event, self._reshows + 1
        return newer_event if self._reshows <= _MOST_RESHOWS else None

    def resolved(self, event: Event) -> None:
        """The event is shown, or need not be shown again."""
        if self.to_reshow is not None and self.to_reshow.id == event.id:
            self.to_reshow = self._shown_over = None

    def another_opened(self) -> None:
        """A context was opened, which may replace the event that was to be shown again."""
        if self.to_reshow is not None and self._changes.has(self.to_reshow) and not self.may_be_shown(self.to_reshow):
            self.resolved(self.to_reshow)

    def ended(self) -> None:
        """The client is stopped. No handler is at work."""
        self.handling = self.to_reshow = self._shown_over = self._own_event = None
        self.maybe_shown = []
