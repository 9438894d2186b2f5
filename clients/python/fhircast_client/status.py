"""Whether the application shows what the others show, for people to see (FHIRcast 3.0.0, 4.2.1): no I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fhircast_client.event_order import Mark
from fhircast_client.events import Event
from fhircast_client.handler_races import HandlerRaces
from fhircast_client.unsent import UnsentEvents

#: Applications that are remembered as behind: a hub has no more subscribers.
_MOST_BEHIND = 64
Connection = Literal["connecting", "connected", "ended"]


@dataclass(frozen=True, slots=True)
class Status:
    """`in_sync` is True only while connected; `why` says in a sentence what is wrong, "" when in sync; `behind` are the names of
    other applications that did not follow."""

    connection: Connection
    in_sync: bool
    why: str
    behind: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Failure:
    event_id: str
    mark: Mark
    why: str
    since: int


class Sync:
    """What is known to be out of step. `is_older` compares the marks of two events; `unsent` is what the others were not told of,
    `races` what this application may show instead of it."""

    def __init__(self, is_older: Callable[[Mark, Mark], bool], unsent: UnsentEvents, races: HandlerRaces) -> None:
        self._is_older, self._unsent, self._races = is_older, unsent, races
        self._connection: Connection = "connecting"
        self._trouble = "Not connected to the hub yet"
        self._unknown, self._since = "", 0
        self._last_followed = Mark(0, None, 0)  # of the open that was followed last
        self._failed: dict[str, tuple[Event, Mark, str]] = {}  # why each is not followed here, by id
        self._behind: dict[str, _Failure] = {}

    @property
    def status(self) -> Status:
        """How it is now."""
        why = self.own_why or "; ".join(failure.why for failure in self._behind.values())
        return Status(self._connection, not why, why, tuple(self._behind))

    @property
    def own_why(self) -> str:
        """Why this application itself is out of step, "" where it is not."""
        return self._trouble or self._own_failure or self._races.why or self._unsent.why or self._unknown

    @property
    def _own_failure(self) -> str:
        return next((why for _, _, why in reversed(self._failed.values())), "")

    @property
    def failures(self) -> list[Event]:
        """The events that were not followed here, the newest last, as long as nothing newer is."""
        return [event for event, _, _ in self._failed.values()]

    def connected(self) -> None:
        """The hub confirmed."""
        self._connection, self._trouble = "connected", ""

    def disconnected(self, connection: Connection, trouble: str) -> None:
        """There is no connection, and `trouble` says why."""
        self._connection, self._trouble = connection, trouble

    def context_unknown(self, why: str, since: int = 0) -> None:
        """What is open at the hub is not known since that moment; "" when it is."""
        self._unknown, self._since = why, since

    def context_known(self, mark: Mark) -> None:
        """What is shown was told, or is told again: if it came after all that is not known, that is known."""
        if mark.heard > self._since:
            self._unknown = ""

    def failed(self, event: Event, mark: Mark, why: str) -> None:
        """This application did not follow an event."""
        self._failed.pop(event.id, None)
        self._failed[event.id] = (event, mark, why)
        if len(self._failed) > _MOST_BEHIND:
            del self._failed[next(iter(self._failed))]

    def other_failed(self, subscriber: str, event_id: str, mark: Mark, why: str, since: int) -> None:
        """A SyncError came at the moment `since`: somebody else did not follow the event, or nobody knows."""
        self._behind.pop(subscriber, None)
        self._behind[subscriber] = _Failure(event_id, mark, why, since)
        if len(self._behind) > _MOST_BEHIND:
            del self._behind[next(iter(self._behind))]

    def is_superseded(self, mark: Mark) -> bool:
        """Whether a newer open was followed since. Then nobody needs to follow that event any more."""
        return self._last_followed.place > mark.place and not self._is_older(self._last_followed, mark)

    def followed(self, mark: Mark, own_id: str = "") -> None:
        """An open is followed. "When an event is received with a timestamp equal or newer than the event that caused the SyncError,
        it assumes sync is restored" (4.2.1). What came before the SyncError proves nothing, nor does an own open (`own_id`) of those
        who did not follow it."""
        if mark.place >= self._last_followed.place:
            self._last_followed = mark
        self.context_known(mark)
        self._failed = {id_: one for id_, one in self._failed.items() if self._is_older(mark, one[1])}
        self._behind = {
            name: failure
            for name, failure in self._behind.items()
            if self._is_older(mark, failure.mark)
            or mark.heard < failure.since
            or (own_id and failure.event_id == own_id)
        }

    def recovered(self, event_id: str) -> None:
        """The event that was not followed is followed now."""
        self._failed.pop(event_id, None)

    def recovered_all(self) -> None:
        """What the hub shows is followed now."""
        self._failed.clear()

    def assume_recovered(self, event_id: str) -> None:
        """The event was sent again, and nobody complained."""
        self._behind = {name: failure for name, failure in self._behind.items() if failure.event_id != event_id}
