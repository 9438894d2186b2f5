"""Open contexts, and which of them is current (FHIRcast 3.0.0, 2.5). No I/O, no clock."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from fhircast_client.events import Event, key_of
from fhircast_client.update_bundle import Content

#: Contexts that are kept, as many as the hub keeps. Beyond that, the oldest is dropped.
MOST_CONTEXTS = 64


@dataclass(frozen=True, eq=False, slots=True)
class Context:
    """An open context. `event` opened it. `version` and `content` (by reference) are the shared content now, None where
    unknown. Do not change resources in it."""

    anchor: str
    event: Event
    version: str | None
    content: Content | None

    def resource(self, key_or_type: str) -> dict[str, Any] | None:
        """A resource of the open event, by context key ("patient") or resourceType."""
        return self.event.resource(key_or_type)


class Contexts:
    """Opens that were followed or published here and are not closed, by anchor, oldest first. `current` is one of them,
    or None."""

    def __init__(self) -> None:
        self.current: Event | None = None
        self.opens: OrderedDict[str, Event] = OrderedDict()

    def is_current(self, anchor: str) -> bool:
        """Whether the current context has this anchor."""
        return self.current is not None and self.current.anchor == anchor

    def patient_of(self, anchor: str) -> str:
        """Reference of the patient in a context's open, "" where unknown."""
        event = self.opens.get(anchor)
        patient = event.resource(key_of("Patient")) if event else None
        id_ = patient.get("id") if patient else None
        return f"Patient/{id_}" if isinstance(id_, str) else ""

    def opened(self, event: Event, *, is_old: bool) -> None:
        """A context is open. `is_old`: a newer context is current."""
        if is_old and self.is_current(event.anchor):
            return
        self.opens.pop(event.anchor, None)
        self.opens[event.anchor] = event
        if not is_old:
            self.current = event
        elif self.current is not None:
            self.opens.move_to_end(self.current.anchor)
        while len(self.opens) > MOST_CONTEXTS:
            del self.opens[next(anchor for anchor in self.opens if not self.is_current(anchor))]

    def closed(self, anchor: str) -> Event | None:
        """A context is closed. Returns its open, None where the context was not open."""
        if self.is_current(anchor):
            self.current = None
        return self.opens.pop(anchor, None)

    def home_opened(self) -> None:
        """Home-open: no context is current. Open contexts stay open."""
        self.current = None
