"""Short cuts for tests with a fake hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clients.places import within
from fhircast_client import Event, FHIRcastClient, Timings, WireMessage

#: Reconnects at once; all that has to do with people takes as long as ever.
FAST = Timings(backoff_first=0.01, backoff_most=0.05, settle=0.05)
#: Seconds until what must happen has happened, on a busy machine.
PATIENCE = 20


def patient(id_: str) -> dict[str, Any]:
    """A patient."""
    return {"resourceType": "Patient", "id": id_}


def study(id_: str) -> dict[str, Any]:
    """A study."""
    return {"resourceType": "ImagingStudy", "id": id_}


def report(id_: str) -> dict[str, Any]:
    """A report."""
    return {"resourceType": "DiagnosticReport", "id": id_}


def observation(id_: str, **members: Any) -> dict[str, Any]:
    """An observation."""
    return {"resourceType": "Observation", "id": id_, **members}


async def until(condition: Callable[[], Any], said: Callable[[], Any] = lambda: "it did not come true") -> None:
    """Wait for a condition."""
    await within(PATIENCE, condition, said)


class Heard:
    """A handler that remembers whom it was called with, and does what `then` does."""

    def __init__(self, then: Callable[[Event], Any] = lambda event: None) -> None:
        self.events: list[Event] = []
        self.then = then

    async def __call__(self, event: Event) -> None:
        self.events.append(event)
        result = self.then(event)
        if result is not None:
            await result

    @property
    def anchors(self) -> list[str]:
        """What they were about."""
        return [event.anchor for event in self.events]


class Wire:
    """What a client sent and got."""

    def __init__(self, client: FHIRcastClient) -> None:
        self.messages: list[WireMessage] = []
        client.on_wire(self.messages.append)

    def of(self, direction: str, kind: str) -> list[WireMessage]:
        """The messages of this direction and kind."""
        return [message for message in self.messages if (message.direction, message.kind) == (direction, kind)]
