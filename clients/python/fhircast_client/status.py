"""Whether all applications of the session show the same context, for users to see (FHIRcast 3.0.0, 4.2.1). No I/O, no
clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fhircast_client.event_order import Mark, trim
from fhircast_client.events import Event
from fhircast_client.handler_races import HandlerRaces
from fhircast_client.unsent import UnsentEvents

#: Subscribers that are remembered as behind.
_MOST_BEHIND = 64
Connection = Literal["connecting", "connected", "ended"]


@dataclass(frozen=True, slots=True)
class Status:
    """Whether this application shows the same context as the others."""

    connection: Connection
    #: True only while connected.
    in_sync: bool
    #: Why not in sync, as a sentence for users. "" when in sync.
    why: str
    #: Names of other applications that did not follow.
    behind: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Failure:
    event_id: str
    mark: Mark
    why: str
    since: int


class Sync:
    """Reasons for being out of sync. `is_older` compares the marks of two events. `unsent`: own events that other
    applications may not have. `races`: contexts that this application may show by mistake."""

    def __init__(self, is_older: Callable[[Mark, Mark], bool], unsent: UnsentEvents, races: HandlerRaces) -> None:
        self._is_older, self._unsent, self._races = is_older, unsent, races
        self._connection: Connection = "connecting"
        self._trouble = "Not connected to the hub yet"
        self._unknown, self._since = "", 0
        #: The mark of the last open that was followed.
        self._last_followed = Mark(0, None, 0)
        #: Events that were not followed here, with mark and reason, by id.
        self._failed: dict[str, tuple[Event, Mark, str]] = {}
        self._behind: dict[str, _Failure] = {}

    @property
    def status(self) -> Status:
        """The status now."""
        why = self.own_why or "; ".join(failure.why for failure in self._behind.values())
        return Status(self._connection, not why, why, tuple(self._behind))

    @property
    def own_why(self) -> str:
        """Why this application itself is out of sync, "" where it is in sync."""
        return self._trouble or self._own_failure or self._races.why or self._unsent.why or self._unknown

    @property
    def _own_failure(self) -> str:
        return next((why for _, _, why in reversed(self._failed.values())), "")

    @property
    def failures(self) -> list[Event]:
        """The events that were not followed here, newest last. A newer open that is followed clears them."""
        return [event for event, _, _ in self._failed.values()]

    def connected(self) -> None:
        """The hub confirmed the subscription."""
        self._connection, self._trouble = "connected", ""

    def disconnected(self, connection: Connection, trouble: str) -> None:
        """There is no connection. `trouble` says why."""
        self._connection, self._trouble = connection, trouble

    def context_unknown(self, why: str, since: int = 0) -> None:
        """The hub's current context is not known since the moment `since`. `why` is "" once the context is known."""
        self._unknown, self._since = why, since

    def context_known(self, mark: Mark) -> None:
        """The hub sent the context that is shown here. A context that came after `since` ends the doubt."""
        if mark.last_seen > self._since:
            self._unknown = ""

    def failed(self, event: Event, mark: Mark, why: str) -> None:
        """This application did not follow an event."""
        self._failed.pop(event.id, None)
        self._failed[event.id] = (event, mark, why)
        trim(self._failed, _MOST_BEHIND)

    def other_failed(self, subscriber: str, event_id: str, mark: Mark, why: str, since: int) -> None:
        """A SyncError came at the moment `since`: the subscriber did not follow the event, or did not answer."""
        self._behind.pop(subscriber, None)
        self._behind[subscriber] = _Failure(event_id, mark, why, since)
        trim(self._behind, _MOST_BEHIND)

    def is_superseded(self, mark: Mark) -> bool:
        """Whether a newer open was followed since. No application needs to follow the older event then."""
        return self._last_followed.place > mark.place and not self._is_older(self._last_followed, mark)

    def followed(self, mark: Mark, own_id: str = "") -> None:
        """An open is followed. "When an event is received with a timestamp equal or newer than the event that caused
        the SyncError, it assumes sync is restored" (4.2.1). An event that came before the SyncError proves nothing.
        An own open (`own_id`) proves nothing about subscribers that did not follow that open."""
        if mark.place >= self._last_followed.place:
            self._last_followed = mark
        self.context_known(mark)
        self._failed = {id_: one for id_, one in self._failed.items() if self._is_older(mark, one[1])}
        self._behind = {
            name: failure
            for name, failure in self._behind.items()
            if self._is_older(mark, failure.mark)
            or mark.last_seen < failure.since
            or (own_id and failure.event_id == own_id)
        }

    def recovered(self, event_id: str) -> None:
        """The event is followed after all."""
        self._failed.pop(event_id, None)

    def recovered_all(self) -> None:
        """The application follows the hub's current context."""
        self._failed.clear()

    def assume_recovered(self, event_id: str) -> None:
        """The event was resent, and no SyncError about it came."""
        self._behind = {name: failure for name, failure in self._behind.items() if failure.event_id != event_id}
