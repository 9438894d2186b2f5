"""The hub reports a lost connection once the time to reconnect is over."""

from __future__ import annotations

import uuid

import pytest

from tests.core.rules.sync_error_world import errors, told, watched
from tests.core.world import (
    KEY,
    NOON,
    World,
    patient,
)

#: Close codes (RFC 6455) that mean that a connection was lost: protocol error, no code, no close, policy, too big, too slow.
LOST = [1002, 1005, 1006, 1008, 1009, 1011, 1013, 3000, 4000]


@pytest.mark.req("SYN-1", "SYN-7", "SYN-21")
@pytest.mark.parametrize("code", LOST)
def test_a_lost_connection_is_reported_once(code: int) -> None:
    """After RECONNECT_GRACE, about a new UUID and `syncerror`, to those who are there."""
    world = watched()
    world.join("a", name="A")
    world.disconnect("a", code=code)
    world.wait(2.9)
    assert errors(world) == []
    world.wait(0.1)
    (sent,) = world.read("monitor")
    error = told(sent)
    assert error[1:] == ("syncerror", "A", "A lost its connection and has not come back")
    assert str(uuid.UUID(error.id)) == error.id
    assert sent["timestamp"] == "2023-04-01T12:00:03.000Z"
    world.wait(999)
    assert errors(world) == []


@pytest.mark.req("SYN-8")
@pytest.mark.parametrize("code", [1000, 1001])
def test_who_leaves_is_not_lost(code: int) -> None:
    """A normal closure and a page that is left are no errors."""
    world = watched()
    world.join("a", name="A")
    world.disconnect("a", code=code)
    world.wait(7000)
    assert errors(world) == []


@pytest.mark.req("SYN-7", "SUB-12")
def test_who_is_back_in_time_is_not_lost() -> None:
    """Nor counted from its first loss when it is lost again."""
    world = watched(reconnect_grace=10)
    world.join("a", name="A")
    for _ in range(5):
        world.disconnect("a", code=1006)
        world.wait(9.9)
        world.connect("a")
        world.wait(0.05)
    world.wait(99)
    assert errors(world) == []
    world.disconnect("a", code=1006)
    world.wait(10)
    assert len(errors(world)) == 1
    world.connect("a")
    world.disconnect("a", code=1006)
    world.wait(10)
    assert len(errors(world)) == 1, "each loss that is not mended is one"


@pytest.mark.req("SYN-7", "SUB-11", "SUB-33")
def test_who_is_taken_over_is_not_lost() -> None:
    """The socket that was taken over goes later, by whatever code."""
    world = watched()
    world.join("a", name="A")
    old = world._sockets["a"]
    world.connect("a")
    new, world._sockets["a"] = world._sockets["a"], old
    world.disconnect("a", code=1008)
    assert new not in world.closed
    world.wait(99)
    assert errors(world) == []


@pytest.mark.req("SYN-7")
def test_several_who_are_lost_are_reported_each() -> None:
    """A switch went down: each by its name, in its time."""
    world = watched()
    for subscription_id in ("a", "b", "c"):
        world.join(subscription_id, name=subscription_id)
    for subscription_id in ("b", "a"):
        world.disconnect(subscription_id, code=1006)
    world.wait(1)
    world.disconnect("c", code=1006)
    world.wait(2)
    assert sorted(error.who for error in errors(world)) == ["a", "b"]
    world.wait(1)
    assert [error.who for error in errors(world)] == ["c"]


@pytest.mark.req("SYN-7", "SYN-2")
def test_the_lost_does_not_count_as_told() -> None:
    """A lost subscriber is sent nothing, and hears of others when it is back."""
    world = watched()
    for subscription_id in ("a", "b"):
        world.join(subscription_id, "SyncError", name=subscription_id)
    world.disconnect("a", code=1006)
    world.wait(3)
    assert world.news("a") == []
    assert world.news("b") == ["SyncError"]
    world.connect("a")
    assert world.news("a") == ["subscribe"]


@pytest.mark.req("SYN-7", "LEA-4", "UNS-6")
def test_who_is_over_is_not_lost() -> None:
    """A lease that ends, or an unsubscription, before the time to come back has passed, is the end of it."""
    world = watched()
    world.join("ended", lease=10)
    world.join("left")
    world.wait(8)
    for subscription_id in ("ended", "left"):
        world.disconnect(subscription_id, code=1006)
    world.unsubscribe("left")
    world.wait(99)
    assert errors(world) == []
    world.join("ended", lease=3)
    world.disconnect("ended", code=1006)
    world.wait(3)
    assert errors(world) == [], "in the same moment it is the lease"


@pytest.mark.req("SYN-7", "SUB-20")
def test_a_renewal_without_a_socket_does_not_bring_it_back() -> None:
    """The renewed subscription is still lost, and reported by its new name."""
    world = watched()
    world.join("a", name="Old")
    world.disconnect("a", code=1006)
    world.renew("a", "Patient-open", name="New")
    world.wait(3)
    assert [error.who for error in errors(world)] == ["New"]


@pytest.mark.req("SYN-7", "LIM-1")
def test_a_session_of_the_lost_is_not_forgotten_before_its_time() -> None:
    """The subscriber that comes back finds its session. Nobody was there to be told."""
    world = World()
    world.join("a", name="A")
    world.disconnect("a", code=1006)
    world.wait(7000)
    world.connect("a")
    assert world.news("a") == ["subscribe"]


@pytest.mark.req("SUB-23", "SUB-41")
def test_after_a_restart_there_are_thirty_seconds() -> None:
    """Connected and awaited subscribers are waited for after a restart. Subscribers that left are not."""
    world = watched()
    for subscription_id in ("back", "gone", "lost", "left", "reported"):
        world.join(subscription_id, name=subscription_id)
    world.disconnect("reported", code=1006)
    world.wait(3)
    assert len(errors(world)) == 1
    world.disconnect("lost", code=1006)
    world.disconnect("left", code=1000)
    world.now += 1
    world.restart()
    world.connect("monitor")
    world.wait(29.9)
    world.connect("back")
    assert world.news("monitor") == ["subscribe"]
    world.wait(0.1)
    assert sorted(error.who for error in errors(world)) == ["gone", "lost"]
    world.wait(999)
    assert errors(world) == []


@pytest.mark.req("SUB-23", "OPS-3", "SUB-41")
def test_an_orderly_stop_leaves_time_too() -> None:
    """Subscribers that the hub disconnected (1012) have thirty seconds, before the restart and again after it."""
    world = watched()
    world.join("a", name="A")
    world.disconnect("a", code=1012)
    world.wait(29)
    assert errors(world) == []
    world.disconnect("monitor", code=1012)
    world.restart()
    world.connect("monitor")
    assert world.news("monitor") == ["subscribe"]
    world.wait(29.9)
    assert errors(world) == []
    world.wait(0.1)
    assert [error.who for error in errors(world)] == ["A"]


def size(world: World) -> list[int]:
    """The number of remembered entries, in the session and beside it."""
    session, beside = world.session, world.tracker
    assert session
    members = sum(len(audience.members) for audience in session.audiences)
    topics = beside._topics
    assert set(topics) <= {KEY}
    waiting = sum(1 + len(sent.repeats or ()) for topic in topics.values() for sent in topic.sent.values())
    counts = len(session.subscriptions), len(session.audiences), members, len(session.contexts), len(session.retained)
    return [*counts, len(topics), len(beside._peers), len(beside._latest), len(beside._waiting), waiting]


@pytest.mark.req("SUB-23", "SYN-7")
def test_who_reconnects_every_second_leaves_nothing_behind() -> None:
    """OHIF's way, subscribing anew under its name, and Medplum's, to the same endpoint: no ghosts, no SyncErrors, no growth."""
    world = watched()
    world.join("medplum", name="Medplum")
    world.join("ohif-0", name="OHIF")
    sizes = []
    for second in range(120):
        world.publish("Patient-open", patient("p1"))
        world.answer("medplum", "200")
        world.publish("Patient-close", patient("p1"))
        for subscription_id in ("medplum", f"ohif-{second}"):
            world.disconnect(subscription_id, code=1006)
        world.wait(1)
        world.connect("medplum")
        world.join(f"ohif-{second + 1}", name="OHIF")
        sizes.append(size(world))
    assert sizes[-1] == sizes[75], "what is held for a minute is held for a minute"
    assert sizes[-1][:4] == sizes[0][:4]
    assert sizes[-1][6:8] == [3, 3]
    assert errors(world) == []
    for subscription_id in ("medplum", "ohif-120", "monitor"):
        world.disconnect(subscription_id)
    world.wait(61)
    assert size(world)[5:] == [0] * 5
    assert world.now == NOON + 181
