"""The chart: it shows one patient, and knows of nothing else."""

from __future__ import annotations

from demo.fhir import Message, anchor, describe, event_name, opens, resource
from demo.follower import Follower


class Chart(Follower):
    """Where the EHR opens a study or an encounter, the hub derives from it the patient to show."""

    name = "chart"
    events = ("Patient-open", "Patient-close")

    _shows: str | None = None

    def understand(self, message: Message) -> str:
        """Show the patient, or nobody."""
        patient = anchor(message)
        if opens(message):
            self._shows = patient.get("id")
            return f"now shows {describe(patient)}"
        self._shows = None
        return f"puts {describe(patient)} away"

    def why_not(self, message: Message) -> str:
        """The hub derives an open only for who does not know of that patient already."""
        patient = resource(message, "Patient")
        if opens(message) and patient and patient["id"] == self._shows:
            return f"was not told of the patient of {event_name(message)}: it shows that one already"
        return super().why_not(message)
