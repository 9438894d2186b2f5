"""The heartbeat: its receivers, its times, and its effects on nothing else."""

from __future__ import annotations

import json

import pytest

from fhircast_hub.acknowledgements.tracker import Policy
from fhircast_hub.core.state.commands import Acknowledged
from tests.core.world import NOON, TOPIC, World, patient, token


@pytest.mark.req("SYN-13")
def test_it_is_an_event_of_the_hubs_own() -> None:
    """Its name in lower case, a new id each time, the time in UTC, and the period as FHIRcast's STU2 has it."""
    world = World()
    world.join("viewer", "HeartBeat")
    world.wait(60)
    one, two = world.read("viewer")
    assert one == {
        "timestamp": "2023-04-01T12:00:30.000Z",
        "id": one["id"],
        "event": {
            "hub.topic": TOPIC,
            "hub.event": "heartbeat",
            "context": [{"key": "period", "decimal": "30"}],
        },
    }
    assert two["timestamp"] == "2023-04-01T12:01:00.000Z"
    assert len({one["id"], two["id"]}) == 2


@pytest.mark.req("SYN-13")
def test_only_who_asked_gets_it() -> None:
    """And may read it."""
    world = World()
    world.join("viewer", "heartbeat,Patient-open")
    world.join("chart", "heartbeat")
    world.join("silent", "Patient-open,Patient-close")
    world.join("denied", "heartbeat,Patient-open", by=token(read=["Patient-open"]))
    world.wait(30)
    heard = [world.news(subscription_id) for subscription_id in ("viewer", "chart", "silent", "denied")]
    assert heard == [["heartbeat"], ["heartbeat"], [], []]


@pytest.mark.req("SYN-13")
def test_the_period_is_the_settings() -> None:
    """Periods are kept in the message and on the clock. Events and other subscribers postpone no heartbeat."""
    world = World(heartbeat_seconds=7)
    world.join("viewer", "heartbeat")
    for second in range(1, 29):
        world.wait(1)
        world.publish("Patient-open", patient(f"p{second}"))
        if second % 4 == 1:
            world.join("other", "heartbeat,Patient-open")
        elif second % 4 == 3:
            world.disconnect("other")
    found = world.read("viewer")
    assert [of["timestamp"][17:19] for of in found] == ["07", "14", "21", "28"]
    assert {of["event"]["context"][0]["decimal"] for of in found} == {"7"}


@pytest.mark.req("SYN-13")
def test_it_goes_on_as_long_as_a_socket_wants_it() -> None:
    """Heartbeats run from the first such socket to the last. Unconnected subscribers do not count."""
    world = World(connect_timeout=999)
    world.subscribe("viewer", "heartbeat")
    world.subscribe("chart", "heartbeat")
    world.join("other", "Patient-open")
    world.wait(100)
    world.connect("viewer")
    world.wait(29)
    world.connect("chart")
    world.disconnect("viewer")
    assert world.news("chart") == ["subscribe"]
    world.wait(1)
    assert world.news("chart") == ["heartbeat"]
    assert world.news("viewer") == ["subscribe"]
    world.disconnect("chart")
    assert world.session
    assert world.session.next_heartbeat is None
    world.wait(100)
    world.connect("chart")
    world.wait(29.9)
    assert world.news("chart") == ["subscribe"]
    world.wait(0.1)
    assert world.news("chart") == ["heartbeat"]
    world.unsubscribe("chart")
    assert world.session.next_heartbeat is None


@pytest.mark.req("SYN-13", "SUB-20")
def test_a_renewal_begins_and_ends_it() -> None:
    """With the events that are asked for now."""
    world = World()
    world.join("viewer", "Patient-open")
    world.renew("viewer", "Patient-open,heartbeat")
    world.wait(30)
    world.renew("viewer", "Patient-open")
    world.wait(100)
    assert world.news("viewer") == ["subscribe", "heartbeat", "subscribe"]


@pytest.mark.req("SYN-13", "LEA-4")
def test_it_delays_no_deadline_and_none_delays_it() -> None:
    """A lease that ends between heartbeats ends in time. A lease that ends with a heartbeat gets none."""
    world = World()
    world.join("viewer", "heartbeat", lease=100)
    other = world.join("other", "Patient-open", lease=35)
    third = world.join("third", "heartbeat", lease=60)
    assert world.deadline() == NOON + 30
    world.wait(30)
    assert world.deadline() == NOON + 35
    world.wait(4.9)
    assert other not in world.closed
    world.wait(0.1)
    assert world.closed == {other: 1000}
    world.wait(25)
    assert world.closed == {other: 1000, third: 1000}
    assert world.news("third") == ["heartbeat", "denied"]
    assert world.news("viewer") == ["heartbeat"] * 2
    world.wait(40)
    assert world.news("viewer") == ["heartbeat", "denied"]
    assert world.session
    assert world.session.next_heartbeat is None


@pytest.mark.req("SYN-13")
def test_after_a_pause_one_is_enough() -> None:
    """The machine slept for an hour: no hundred of them, and the next one a period later."""
    world = World()
    world.join("viewer", "heartbeat")
    world.now += 3600
    world.wait(29)
    assert world.news("viewer") == ["heartbeat"]
    world.wait(1)
    assert world.news("viewer") == ["heartbeat"]


@pytest.mark.req("SYN-11", "SYN-13")
def test_nobody_need_acknowledge_it() -> None:
    """Neither silence nor refusal is reported, under any policy; an answer says that one acknowledges."""
    world = World(Policy.STRICT)
    world.join("viewer", "heartbeat")
    world.join("told", "SyncError")
    world.wait(600)
    assert len(world.heard("viewer")) == 20
    world.wait(30)
    world.answer("viewer", 409)
    assert world.session
    assert world.session.subscriptions["viewer"].acknowledges
    assert world.news("told") == []
    assert not world.closed


@pytest.mark.req("SYN-13", "SUB-23")
def test_after_a_restart_it_waits_for_sockets() -> None:
    """Those of the last process are gone, and get nothing."""
    world = World()
    gone = world.join("viewer", "heartbeat")
    world.restart()
    sent = len(world.frames[gone])
    world.wait(100)
    assert len(world.frames[gone]) == sent
    world.connect("viewer")
    world.wait(30)
    assert world.news("viewer") == ["subscribe", "heartbeat"]


@pytest.mark.req("SYN-13")
def test_a_session_keeps_its_rest_without_it() -> None:
    """Without subscribers of heartbeats there is no timer. Other decisions do not move the timer."""
    world = World()
    world.join("viewer", "Patient-open")
    assert world.deadline() == NOON + 7200
    world.join("other", "heartbeat")
    world.wait(10)
    world.publish("Patient-open", patient("p1"))
    world.do(Acknowledged("viewer"))
    assert world.deadline() == NOON + 30


@pytest.mark.req("SYN-13")
def test_it_is_one_frame_for_all() -> None:
    """However the subscribers are grouped, one heartbeat is made."""
    world = World()
    for number in range(3):
        world.join(f"v{number}", f"heartbeat,Patient-open,E{number}-open")
    world.wait(30)
    frames = [world.heard(f"v{number}") for number in range(3)]
    assert frames[0] == frames[1] == frames[2]
    assert json.loads(frames[0][0])["event"]["hub.event"] == "heartbeat"
