"""Subscribers that watch for SyncErrors, and SyncErrors as these subscribers read them."""

from __future__ import annotations

from typing import Any, NamedTuple

from fhircast_hub.acknowledgements.tracker import Policy
from tests.core.world import (
    World,
    patient,
)


class Told(NamedTuple):
    """The OperationOutcome of a SyncError."""

    id: str
    name: str
    who: str
    why: str


def told(message: dict[str, Any]) -> Told:
    """The facts of a SyncError, in short."""
    assert message["event"]["hub.event"] == "SyncError"
    (issue,) = message["event"]["context"][0]["resource"]["issue"]
    id_, name, who, again = (coding["code"] for coding in issue["details"]["coding"])
    assert who == again
    return Told(id_, name, who, issue["diagnostics"])


def errors(world: World, subscription_id: str = "monitor") -> list[Told]:
    """The new SyncErrors of a subscription that receives nothing else."""
    return [told(each) for each in world.read(subscription_id)]


def watched(policy: Policy = Policy.LENIENT, **rules: Any) -> World:
    """A world with a subscriber that receives only SyncErrors, and answers each."""
    world = World(policy, **rules)
    world.join("monitor", "SyncError", name="A monitor")
    return world


def opening(world: World, *subscription_ids: str, number: int = 1) -> None:
    """A patient is opened, and these subscribers answer."""
    world.publish("Patient-open", patient(f"p{number}"))
    for subscription_id in subscription_ids:
        world.answer(subscription_id)
