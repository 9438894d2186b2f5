"""Subscribers that join a session, and events that imply other contexts."""

from __future__ import annotations

from tests.core.world import World, encounter, patient, report

PATIENTS = "Patient-open,Patient-close"
REPORTS = f"{PATIENTS},DiagnosticReport-open,DiagnosticReport-close"


def joined(world: World, events: str) -> list[str]:
    """The events that a new subscriber of these events is sent on joining."""
    world.subscribe("joiner", events)
    world.connect("joiner")
    return world.news("joiner")[1:]


def away(world: World, name: str, *items: object) -> None:
    """The chart disconnects, `happens` runs, and the chart connects again."""
    world.disconnect("chart", code=1006)
    world.wait(1)
    world.publish(name, *items)
    world.connect("chart")


def told_by_an_encounter_that_is_closed(world: World) -> None:
    """A chart that knows patients and reports is told p2 by an encounter. A report of p2 is opened, and the encounter closed."""
    world.join("chart", REPORTS)
    world.publish("Encounter-open", encounter("e2"), patient("p2"))
    world.publish("DiagnosticReport-open", report("r2"), patient("p2"))
    world.publish("Encounter-close", encounter("e2"))
