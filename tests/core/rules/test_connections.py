"""A subscription has one connection, and keeps its endpoint after a restart."""

from __future__ import annotations

import json

import pytest

from fhircast_hub.core.errors import (
    NotFound,
)
from fhircast_hub.core.state.commands import Connected, Disconnected, Restarted
from tests.core.world import CLOSES, OPENS, World, patient, study

PATIENT = "Patient-open,Patient-close"


@pytest.mark.req("SUB-11")
def test_an_unknown_endpoint_is_refused() -> None:
    """In a session and without one."""
    world = World()
    with pytest.raises(NotFound):
        world.do(Connected("chart", "socket"))
    world.join("chart", PATIENT)
    with pytest.raises(NotFound):
        world.do(Connected("other", "socket"))


@pytest.mark.req("SUB-11", "SUB-33")
def test_a_second_socket_takes_over() -> None:
    """The first connection is closed with 1008 and sent nothing more. The second begins as any."""
    world = World()
    first = world.join("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    second = world.connect("chart")
    world.publish("Patient-open", patient("p2"))
    assert world.closed == {first: 1008}
    assert world.news("chart") == ["subscribe", "Patient-open p1", "Patient-open p2"]
    assert len(world.frames[first]) == 2
    assert second not in world.closed


@pytest.mark.req("SUB-11", "SUB-33")
def test_the_end_of_the_first_socket_is_not_the_seconds() -> None:
    """The hub learns of the old connection's end after the new connection came."""
    world = World()
    first = world.join("chart", PATIENT)
    world.connect("chart")
    world.do(Disconnected("chart", first, world.now, 1000))
    world.publish("Patient-open", patient("p1"))
    assert world.news("chart") == ["subscribe", "Patient-open p1"]


@pytest.mark.req("SUB-23")
def test_who_has_no_socket_is_sent_nothing() -> None:
    """Before its first socket and after its last a subscription is sent nothing. The endpoint stays."""
    world = World()
    world.subscribe("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    assert world.frames == {}
    socket = world.connect("chart")
    world.disconnect("chart")
    world.publish("Patient-open", patient("p2"))
    assert len(world.frames[socket]) == 2
    world.connect("chart")
    assert world.news("chart") == ["subscribe", "Patient-open p2"]


@pytest.mark.req("SUB-23")
def test_after_a_restart_all_may_come_back() -> None:
    """Endpoints, events and leases stay after a restart. Events that a subscriber may have missed are sent."""
    world = World()
    world.join("chart", f"{OPENS},{CLOSES}", lease=3600)
    world.wait(10)
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-open", patient("p2"))
    world.publish("Patient-close", patient("p2"))
    before = list(world.frames["chart/1"])
    world.wait(10)
    world.do(Restarted())
    world.publish("ImagingStudy-open", study("s1"))
    assert world.frames["chart/1"] == before
    world.wait(10)
    world.connect("chart")
    first, *others = world.heard("chart")
    assert json.loads(first)["hub.lease_seconds"] == 3570
    world.news("chart")
    labels = [json.loads(frame)["event"]["hub.event"] for frame in others]
    assert labels == ["Patient-close", "Patient-open", "ImagingStudy-open"]


@pytest.mark.req("SUB-23")
def test_a_restart_of_nothing_is_nothing() -> None:
    """A topic without a session has none after a restart. A session without sockets keeps its state."""
    world = World()
    world.do(Restarted())
    assert world.session is None
    world.subscribe("chart", PATIENT)
    world.do(Restarted())
    world.connect("chart")
    assert world.news("chart") == ["subscribe"]


@pytest.mark.req("SUB-11", "SUB-12")
def test_a_take_over_does_not_tell_old_closes_again() -> None:
    """The hub would have noticed a socket that was dead for an hour. So frames sent an hour ago have arrived."""
    world = World(max_lease=10000)
    world.join("chart", PATIENT, lease=10000)
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-close", patient("p1"))
    world.wait(3600)
    world.connect("chart")
    assert world.news("chart") == ["subscribe"]
