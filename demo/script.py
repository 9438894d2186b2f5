"""What happens in the demo, and what each application must be told of it."""

from __future__ import annotations

from typing import NamedTuple

from demo.fhir import Message, event_name


class Step(NamedTuple):
    """What the EHR publishes, and the events that each follower is then told, in order."""

    event: str
    viewer: str = ""
    chart: str = ""
    reporting: str = ""

    def told(self, name: str, published: Message) -> list[Message]:
        """The messages for the follower of this name."""
        events: list[str] = getattr(self, name).split()
        return [published if event == event_name(published) else derived(event, published) for event in events]


def derived(event: str, source: Message) -> Message:
    """An open that the hub derives from another, about what its context names too (FHIRcast 3.0.0, 2.5).

    Its id is the hub's to choose, so there is none here.
    """
    type_ = event.partition("-")[0]
    context = [item for item in source["event"]["context"] if item["resource"]["resourceType"] == type_]
    return {"timestamp": source["timestamp"], "event": source["event"] | {"hub.event": event, "context": context}}


#: The chart is told the patient once: study and encounter are about the one that it shows.
OPENS = (
    Step("Patient-open", chart="Patient-open"),
    Step("ImagingStudy-open", viewer="ImagingStudy-open"),
    Step("Encounter-open"),
)
#: Then the reporting application joins, and is told what is open.
CLOSES = (
    Step("Encounter-close", reporting="Encounter-close"),
    Step("ImagingStudy-close", viewer="ImagingStudy-close", reporting="ImagingStudy-close"),
    Step("Patient-close", chart="Patient-close", reporting="Patient-close"),
)
#: Nobody opened the patient, so the hub derives it from the study. Closes are never derived: the patient is closed by name.
STUDY_ALONE = (
    Step(
        "ImagingStudy-open",
        viewer="ImagingStudy-open",
        chart="Patient-open",
        reporting="Patient-open ImagingStudy-open",
    ),
    Step("ImagingStudy-close", viewer="ImagingStudy-close", reporting="ImagingStudy-close"),
    Step("Patient-close", chart="Patient-close", reporting="Patient-close"),
)
