"""The viewer: it shows the images of one study, and knows of nothing else."""

from __future__ import annotations

from demo.fhir import Message, anchor, describe, opens
from demo.follower import Follower


class Viewer(Follower):
    """It may read of studies; its token lets it open nothing for others."""

    name = "viewer"
    events = ("ImagingStudy-open", "ImagingStudy-close")

    def understand(self, message: Message) -> str:
        """Show the images, or none."""
        return f"{'opens' if opens(message) else 'closes'} {describe(anchor(message))}"
