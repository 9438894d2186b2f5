"""A subscriber without a connection, for tests of missed closes."""

from __future__ import annotations

from tests.core.world import World, patient

PATIENT = "Patient-open,Patient-close"


def away(world: World, events: str = PATIENT, *, since: float = 0) -> None:
    """`chart` was told p1, p2 and p3 and is away."""
    world.join("chart", events)
    for id_ in ("p1", "p2", "p3"):
        world.publish("Patient-open", patient(id_))
    world.wait(1)
    world.disconnect("chart")
    world.wait(1)
