"""The reporting application: it is started late, and must know at once what all others are looking at."""

from __future__ import annotations

from demo.fhir import Message, anchor, describe, opens
from demo.follower import Follower


class Reporting(Follower):
    """A report is about a patient, a study and an encounter, so it follows all three."""

    name = "reporting"
    events = tuple(f"{what}-{verb}" for what in ("Patient", "ImagingStudy", "Encounter") for verb in ("open", "close"))

    def understand(self, message: Message) -> str:
        """Fill in the report's head, or empty it."""
        return f"the report is {'about' if opens(message) else 'no longer about'} {describe(anchor(message))}"
