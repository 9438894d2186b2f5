"""A topic and a user have a limited number of subscriptions."""

from __future__ import annotations

import pytest

from fhircast_hub.core.errors import (
    InsufficientScope,
    NotFound,
    TooMany,
)
from fhircast_hub.core.state.commands import Evict
from tests.core.world import World, patient, token

PATIENT = "Patient-open,Patient-close"


@pytest.mark.req("SUB-22")
def test_a_full_topic_takes_no_more() -> None:
    """While all are connected: 429 with Retry-After, and nobody goes."""
    world = World(max_subscriptions=2)
    world.join("one", PATIENT)
    world.join("two", PATIENT)
    before = world.session
    with pytest.raises(TooMany) as refused:
        world.subscribe("three", PATIENT)
    assert refused.value.status == 429
    assert (refused.value.retry_after or 0) > 0
    assert world.session is before


@pytest.mark.req("SUB-22")
def test_the_longest_absent_makes_room() -> None:
    """Those without a socket go first, the longest absent before the others, and no more than needed."""
    world = World(max_subscriptions=3)
    for subscription_id in ("a", "b", "c"):
        world.join(subscription_id, PATIENT)
    for subscription_id in ("b", "a"):
        world.wait(1)
        world.disconnect(subscription_id)
    world.wait(1)
    world.join("d", PATIENT)
    with pytest.raises(NotFound):
        world.connect("b")
    world.connect("a")
    world.publish("Patient-open", patient("p1"))
    assert world.news("c") == world.news("d") == ["Patient-open p1"]


@pytest.mark.req("SUB-22")
def test_who_is_refused_takes_nobodys_place() -> None:
    """Nobody goes for a subscription that is not granted."""
    world = World(max_subscriptions=1)
    world.join("one", PATIENT)
    world.disconnect("one")
    with pytest.raises(InsufficientScope):
        world.subscribe("two", PATIENT, by=token(read=()))
    world.connect("one")


@pytest.mark.req("SUB-22")
def test_a_renewal_needs_no_room() -> None:
    """A full topic's subscriptions can be renewed."""
    world = World(max_subscriptions=1)
    world.join("one", PATIENT)
    world.renew("one", PATIENT)
    assert world.news("one") == ["subscribe"]


@pytest.mark.req("SUB-22")
def test_a_user_over_the_limit_elsewhere_loses_who_is_absent() -> None:
    """An absent subscription is evicted. One that came back meanwhile stays."""
    world = World()
    world.join("here", PATIENT)
    world.join("away", PATIENT)
    world.disconnect("away")
    for subscription_id in ("here", "away", "unknown"):
        world.do(Evict(subscription_id))
    with pytest.raises(NotFound):
        world.connect("away")
    world.publish("Patient-open", patient("p1"))
    assert world.news("here") == ["Patient-open p1"]
