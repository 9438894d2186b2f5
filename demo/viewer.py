"""The viewer: it shows the images of one study, and knows of nothing else."""

from __future__ import annotations

from demo.fhir import Message, anchor, describe, event_name
from demo.follower import Follower


class Viewer(Follower):
    """It may read of studies; its token lets it open nothing for others."""

    name = "viewer"
    events = ("ImagingStudy-open", "ImagingStudy-close")

    def understand(self, message: Message) -> str:
        """Show the images, or none."""
        does = "opens" if event_name(message) == "ImagingStudy-open" else "closes"
        return f"{does} {describe(anchor(message))}"
