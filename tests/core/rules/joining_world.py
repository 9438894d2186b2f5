"""A subscriber that joins a session after others."""

from __future__ import annotations

from tests.core.world import (
    CLOSES,
    OPENS,
    World,
)


def joined(world: World, events: str = f"{OPENS},{CLOSES},Home-open") -> list[str]:
    """The events that a new subscriber is sent after the confirmation."""
    world.subscribe("joiner", events)
    world.connect("joiner")
    first, *others = world.news("joiner")
    assert first == "subscribe"
    return others
