"""Resending an own open that another application did not follow (FHIRcast 3.0.0, 2.6). No I/O, no clock.

"A Subscriber that initiates a context change and receives a SyncError related to a context change event it sent, SHOULD
resend this event at regular intervals until sync is reestablished or another, newer, event has been received."
"""

from __future__ import annotations

from collections.abc import Callable

from fhircast_client.events import Event


class Resending:
    """The last own open or Home-open, and whether the client resends it."""

    def __init__(self) -> None:
        self._last: Event | None = None
        self._previous: Event | None = None
        self._resent: Event | None = None
        #: A SyncError has named the event since it was last sent.
        self._is_reported = False

    def sending(self, event: Event) -> None:
        """The client is about to post an own event."""
        if event.kind.opens:
            self._previous, self._last = self._last, event

    def refused(self, event: Event) -> None:
        """The hub refused the event: the context before it is still open."""
        if self._last is event:
            self._last = self._previous

    def reported(self, event_id: str, is_newest: Callable[[Event], bool]) -> Event | None:
        """A SyncError names an event. Returns the own open to resend from now on."""
        if self._resent is not None and self._resent.id == event_id:
            self._is_reported = True
            return None
        if self._last is None or self._last.id != event_id or not is_newest(self._last):
            return None
        self._resent, self._is_reported = self._last, True
        return self._resent

    def sent(self, event: Event) -> None:
        """The event is sent again. A SyncError may come before the hub's answer."""
        if self._resent is event:
            self._is_reported = False

    def is_due(self, event: Event) -> bool:
        """Whether to send the event once more: a SyncError has named it since."""
        return self._resent is event and self._is_reported

    def ended(self, event: Event) -> None:
        """The event is not resent any more."""
        if self._resent is event:
            self._resent = None
