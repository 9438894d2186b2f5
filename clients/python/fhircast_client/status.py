"""Whether the application shows what the others show, for people to see (FHIRcast 3.0.0, 4.2.1): no I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    at: int | None
    why: str


class Sync:
    """What is known to be out of step."""

    def __init__(self) -> None:
        self._connection: Connection = "connecting"
        self._trouble = "not connected to the hub yet"
        self._unknown = ""
        self._failed: _Failure | None = None
        self._behind: dict[str, _Failure] = {}

    @property
    def status(self) -> Status:
        """How it is now."""
        why = self._why()
        return Status(self._connection, not why, why, tuple(self._behind))

    def connected(self) -> None:
        """The hub confirmed."""
        self._connection, self._trouble = "connected", ""

    def apart(self, connection: Connection, trouble: str) -> None:
        """There is no connection, and `trouble` says why."""
        self._connection, self._trouble = connection, trouble

    def unknown(self, why: str) -> None:
        """What is open at the hub is not known, "" when it is."""
        self._unknown = why

    def failed(self, event_id: str, at: int | None, why: str) -> None:
        """This application did not follow an event whose timestamp is the instant `at`."""
        self._failed = _Failure(event_id, at, why)

    def told(self, subscriber: str, event_id: str, at: int | None, why: str) -> None:
        """A SyncError came: somebody else did not follow the event, or nobody knows."""
        self._behind.pop(subscriber, None)
        self._behind[subscriber] = _Failure(event_id, at, why)
        if len(self._behind) > _MOST_BEHIND:
            del self._behind[next(iter(self._behind))]

    def followed(self, at: int | None, own_id: str = "") -> None:
        """An open is followed. "When an event is received with a timestamp equal or newer than the event that caused the SyncError,
        it assumes sync is restored" (4.2.1); an own open (`own_id`) proves nothing of those who did not follow it."""
        self._unknown = ""
        if self._failed and _covers(at, self._failed):
            self._failed = None
        self._behind = {
            name: failure
            for name, failure in self._behind.items()
            if not _covers(at, failure) or (own_id and failure.event_id == own_id)
        }

    def recovered(self) -> None:
        """The event that was not followed is followed now."""
        self._failed = None

    def quiet(self, event_id: str) -> None:
        """The event was sent again, and nobody complained."""
        self._behind = {name: failure for name, failure in self._behind.items() if failure.event_id != event_id}

    def _why(self) -> str:
        if self._trouble:
            return self._trouble
        if self._failed:
            return self._failed.why
        return self._unknown or "; ".join(failure.why for failure in self._behind.values())


def _covers(at: int | None, failure: _Failure) -> bool:
    return at is None or failure.at is None or at >= failure.at
