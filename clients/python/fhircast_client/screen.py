"""What may stand on the application's screen: a slow handler may show something older over what was opened here. No I/O, no clock."""

from __future__ import annotations

from fhircast_client.events import Event, Kind
from fhircast_client.following import belongs

#: Own opens that are handed again one after the other, where each handler is overtaken by the next own open.
_MOST_AGAIN = 3
_MOST_FAILED = 8


class Screen:
    """Which handler is at work, what the application opened meanwhile, and what its handler must show again."""

    def __init__(self) -> None:
        #: The event that its handler is being shown.
        self.handling: Event | None = None
        #: What the application must be shown again: an open, or an own close of what was shown over it.
        self.again: Event | None = None
        #: What the application may show though it is not followed: a handler that failed, or an own open; nothing was shown since.
        self.failed: list[Event] = []
        self._over: Event | None = None  # what was shown over it
        #: Since the handler began: the own open that was posted last, or an own close of what the handler is called with.
        self._chosen: Event | None = None
        self._times = 0

    @property
    def why(self) -> str:
        """Why the screen may be wrong, "" where it is not."""
        if self.again is None or self._over is None:
            return ""
        return f"{self._over.name} was shown here after the newer {self.again.name}"

    def begins(self, event: Event) -> None:
        """A handler is called; only those of opens show something else."""
        if not event.kind.opens:
            return
        self.handling, self._chosen = event, None
        if not event.own and event is not self.again:
            self._times = 0

    def chosen(self, event: Event) -> None:
        """An own event is posted: the application shows what it opens, before or after the hub's answer, and not what it closes."""
        if self.handling is None:
            return
        if event.kind.opens:
            self._chosen = None if belongs(event, self.handling) else event
        elif event.kind is Kind.CLOSE and event.anchor == self.handling.anchor and self._chosen is None:
            self._chosen = event

    def may_show(self, *events: Event) -> None:
        """The application may show these, though they are not followed."""
        self.failed = [*self.failed, *events][-_MOST_FAILED:]

    def withdrawn(self, event: Event) -> None:
        """The hub refused an own event."""
        if self._chosen is event:
            self._chosen = None
        self.settled(event)

    def ends(self, event: Event, *, shows: bool, newer: Event | None = None) -> Event | None:
        """The handler has ended; `shows`: it may have shown what it was called with, though `newer` has overtaken that. Returns what is
        to be shown again."""
        if not event.kind.opens:
            return None
        chosen, self.handling, self._chosen = self._chosen or newer, None, None
        if chosen is None or not shows:
            return None
        self.again, self._over, self._times = chosen, event, self._times + 1
        return chosen if self._times <= _MOST_AGAIN else None

    def settled(self, event: Event) -> None:
        """It is shown, or need not be any more."""
        if self.again is not None and self.again.id == event.id:
            self.again = self._over = None

    def ended(self) -> None:
        """The client is stopped: no handler is at work."""
        self.handling = self.again = self._over = self._chosen = None
        self.failed = []
