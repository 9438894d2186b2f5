"""Unsubscribing names a subscription by its endpoint or by its name."""

from __future__ import annotations

from typing import Any

import pytest

from fhircast_hub.core.errors import (
    BadRequest,
    NotFound,
)
from tests.core.world import TOPIC, World, patient, token

PATIENT = "Patient-open,Patient-close"


@pytest.mark.req("UNS-6")
def test_unsubscribing_ends_it_for_good() -> None:
    """Denial frame, close 1000, nothing more, and the endpoint never comes back."""
    world = World()
    socket = world.join("chart", PATIENT)
    world.unsubscribe("chart")
    (denial,) = world.read("chart")
    assert (denial["hub.mode"], denial["hub.topic"], denial["hub.events"]) == ("denied", TOPIC, PATIENT)
    assert world.closed == {socket: 1000}
    world.publish("Patient-open", patient("p1"))
    assert world.news("chart") == []
    with pytest.raises(NotFound):
        world.connect("chart")
    with pytest.raises(NotFound):
        world.renew("chart", PATIENT)


@pytest.mark.req("UNS-6")
@pytest.mark.parametrize("came", [True, False])
def test_unsubscribing_without_a_socket(came: bool) -> None:
    """Somebody who is gone, or never came, can be unsubscribed."""
    world = World()
    world.subscribe("chart", PATIENT)
    if came:
        world.connect("chart")
        world.disconnect("chart")
    assert world.unsubscribe("chart").effects == ()
    with pytest.raises(NotFound):
        world.connect("chart")


@pytest.mark.req("UNS-2")
def test_an_unknown_endpoint_cannot_be_unsubscribed() -> None:
    """404, in a session that is there and in one that is not."""
    with pytest.raises(NotFound):
        World().unsubscribe("chart")
    world = World()
    world.join("chart", PATIENT)
    world.unsubscribe("chart")
    with pytest.raises(NotFound):
        world.unsubscribe("chart")


@pytest.mark.req("UNS-3")
@pytest.mark.parametrize("by", [token("bob"), token("bob", topics=[TOPIC]), token(None, client="ann", system=True)])
def test_another_users_endpoint_cannot_be_unsubscribed(by: Any) -> None:
    """Another's subscription gets 404 too, and stays."""
    world = World()
    world.join("chart", PATIENT)
    with pytest.raises(NotFound):
        world.unsubscribe("chart", by=by)
    world.publish("Patient-open", patient("p1"))
    assert world.news("chart") == ["Patient-open p1"]


@pytest.mark.req("UNS-7")
def test_without_endpoint_the_name_says_which() -> None:
    """The caller's own subscription of that name, if it is exactly one."""
    world = World()
    world.join("one", PATIENT, name="OHIF")
    world.join("two", PATIENT, name="chart")
    world.join("server", PATIENT, by=token(None, client="server", system=True), name="OHIF")
    world.unsubscribe(None, name="OHIF")
    assert (world.news("one"), world.news("two"), world.news("server")) == (["denied"], [], [])


@pytest.mark.req("UNS-7")
@pytest.mark.parametrize("names", [[], ["chart"], ["OHIF", "OHIF"], ["chart", "ohif"]])
def test_without_endpoint_and_not_exactly_one_of_that_name(names: list[str]) -> None:
    """None or two: 400, and all stay."""
    world = World()
    for number, name in enumerate(names):
        world.join(f"s{number}", PATIENT, name=name)
    with pytest.raises(BadRequest):
        world.unsubscribe(None, name="OHIF")
    world.publish("Patient-open", patient("p1"))
    assert all(world.news(f"s{number}") == ["Patient-open p1"] for number in range(len(names)))


@pytest.mark.req("UNS-7")
def test_without_endpoint_and_name_an_only_nameless_one_is_meant() -> None:
    """A client that gave no name when it subscribed gives none now. (Of several, none is meant.)"""
    world = World()
    world.join("one", PATIENT)
    world.unsubscribe(None)
    assert world.news("one") == ["denied"]
    world.join("two", PATIENT)
    world.join("three", PATIENT)
    with pytest.raises(BadRequest):
        world.unsubscribe(None)


@pytest.mark.req("UNS-7")
def test_another_users_subscription_is_never_meant() -> None:
    """Somebody whose token names the topic, without a subscription of their own, gets 400."""
    world = World()
    world.join("chart", PATIENT, name="OHIF")
    with pytest.raises(BadRequest):
        world.unsubscribe(None, by=token("bob", topics=[TOPIC]), name="OHIF")
