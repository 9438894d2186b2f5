"""A lease is granted up to a maximum, and the subscription ends with the lease."""

from __future__ import annotations

from typing import Any

import pytest

from fhircast_hub.core.errors import (
    NotFound,
    Unauthenticated,
)
from tests.core.world import NOON, TOPIC, World, patient, token

PATIENT = "Patient-open,Patient-close"


def confirmed(world: World, subscription_id: str) -> dict[str, Any]:
    """The newest confirmation on its socket."""
    return next(frame for frame in reversed(world.read(subscription_id)) if frame.get("hub.mode") == "subscribe")


@pytest.mark.req("LEA-1")
@pytest.mark.parametrize(
    ("asked", "granted"), [(None, 7200), (60, 60), (86400, 86400), (86401, 86400), (10**18, 86400)]
)
def test_a_lease_is_granted_up_to_the_maximum(asked: int | None, granted: int) -> None:
    """Without one, the default."""
    world = World(default_lease=7200, max_lease=86400)
    world.subscribe("chart", PATIENT, lease=asked)
    world.connect("chart")
    assert confirmed(world, "chart")["hub.lease_seconds"] == granted
    world.renew("chart", PATIENT, lease=asked)
    assert confirmed(world, "chart")["hub.lease_seconds"] == granted


@pytest.mark.req("LEA-2")
def test_a_lease_ends_with_the_token() -> None:
    """Never beyond its exp, asked for or by default."""
    world = World()
    world.subscribe("chart", PATIENT, by=token(expires=NOON + 100), lease=3600)
    world.connect("chart")
    assert confirmed(world, "chart")["hub.lease_seconds"] == 100
    world.wait(101)
    assert world.news("chart") == ["denied"]


@pytest.mark.req("LEA-2")
@pytest.mark.parametrize("late", [0.5, 29])
def test_a_token_past_its_end_cannot_subscribe(late: float) -> None:
    """Other requests allow clock skew. Here the expired token gets 401, and nothing is made."""
    world = World()
    with pytest.raises(Unauthenticated):
        world.subscribe("chart", PATIENT, by=token(expires=NOON - late))
    assert world.session is None


@pytest.mark.req("LEA-2", "SUB-20")
def test_a_token_past_its_end_cannot_renew() -> None:
    """401, and the old lease stays, for otherwise a renewal would end the subscription."""
    world = World()
    world.join("chart", PATIENT)
    with pytest.raises(Unauthenticated):
        world.renew("chart", PATIENT, by=token(expires=NOON - 1))
    world.wait(100)
    assert world.news("chart") == []


@pytest.mark.req("LEA-4")
def test_at_its_end_a_subscription_is_denied() -> None:
    """Denial frame, close 1000, endpoint dead; the others stay."""
    world = World()
    socket = world.join("chart", PATIENT, lease=60)
    world.join("viewer", PATIENT)
    world.wait(59.9)
    assert world.news("chart") == []
    world.wait(0.1)
    (denial,) = world.read("chart")
    assert denial.pop("hub.reason")
    assert denial == {"hub.mode": "denied", "hub.topic": TOPIC, "hub.events": PATIENT}
    assert world.closed == {socket: 1000}
    with pytest.raises(NotFound):
        world.connect("chart")
    world.publish("Patient-open", patient("p1"))
    assert world.news("viewer") == ["Patient-open p1"]


@pytest.mark.req("LEA-1", "LEA-4")
def test_a_lease_runs_from_the_202() -> None:
    """Coming late, going and coming back do not make it longer."""
    world = World()
    world.subscribe("chart", PATIENT, lease=100)
    world.wait(50)
    world.connect("chart")
    world.disconnect("chart")
    world.wait(49)
    world.connect("chart")
    world.wait(1)
    assert world.news("chart") == ["subscribe", "denied"]


@pytest.mark.req("LEA-4")
def test_the_lease_of_the_absent_ends_too() -> None:
    """In silence: nobody is there to be told."""
    world = World()
    world.join("chart", PATIENT, lease=60)
    world.disconnect("chart")
    world.wait(60)
    assert world.closed == {}
    with pytest.raises(NotFound):
        world.connect("chart")
