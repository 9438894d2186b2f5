"""A new subscription of the same application replaces a lost one without a report."""

from __future__ import annotations

import pytest

from fhircast_hub.core.state.commands import Evict, Subscribe
from tests.core.rules.sync_error_world import errors, watched
from tests.core.world import (
    OPENS,
    TOPIC,
    token,
)


@pytest.mark.req("SUB-23")
def test_who_comes_anew_replaces_the_lost_in_silence() -> None:
    """The same user and name are the same application. Another name or user, or no name, is another."""
    world = watched()
    ann, bob = token("ann"), token(None, client="bob", system=True)
    for subscription_id, name in (("a", "A"), ("b", "B"), ("none", "")):
        world.join(subscription_id, name=name)
        world.disconnect(subscription_id, code=1006)
    world.subscribe("a2", OPENS, by=ann, name="A")
    world.subscribe("b2", OPENS, by=bob, name="B")
    world.subscribe("none2", OPENS, by=ann)
    assert world.session
    assert "a" not in world.session.subscriptions
    world.wait(3)
    assert sorted(error.who for error in errors(world)) == ["B", "unnamed"]


@pytest.mark.req("SYN-7", "SUB-22", "SYN-26")
@pytest.mark.parametrize("code", [1006, 1000])
def test_the_lost_that_must_make_room_is_reported_at_once(code: int) -> None:
    """A new subscription evicts the lost one, which is reported. A subscriber that left is not."""
    for command in (
        Subscribe(token(), TOPIC, "new", ("Patient-open",), name="New"),
        Evict("a"),
    ):
        world = watched(max_subscriptions=2)
        world.join("a", name="A")
        world.disconnect("a", code=code)
        world.do(command)
        assert world.session
        assert "a" not in world.session.subscriptions
        assert [error[1:3] for error in errors(world)] == ([("syncerror", "A")] if code == 1006 else [])
        world.wait(99)
        assert errors(world) == []


@pytest.mark.req("SYN-7", "SUB-22", "SYN-26")
def test_the_unnamed_that_must_make_room_is_reported_too() -> None:
    """To have no name is not to have the same name."""
    for command in (Subscribe(token(), TOPIC, "new", ("Patient-open",)), Evict("a")):
        world = watched(max_subscriptions=2)
        world.join("a")
        world.disconnect("a", code=1006)
        world.do(command)
        assert [error.who for error in errors(world)] == ["unnamed"]


@pytest.mark.req("SYN-7", "SUB-22", "SYN-26")
def test_a_lost_one_of_another_name_is_reported_when_it_must_make_room() -> None:
    """Only one of the same name came back in another way."""
    world = watched(max_subscriptions=2)
    world.join("a", name="A")
    world.disconnect("a", code=1006)
    world.subscribe("new", OPENS, name="B")
    assert [error.who for error in errors(world)] == ["A"]


@pytest.mark.req("SUB-23", "SYN-7", "SUB-40")
def test_who_came_anew_before_the_old_socket_was_found_dead_is_no_ghost() -> None:
    """OHIF subscribes again after its network broke. Nothing is reported, and the old subscription is gone."""
    world = watched()
    world.join("old", "Patient-open", name="OHIF")
    died = world.now
    world.wait(10)
    world.join("new", "Patient-open", name="OHIF")
    world.disconnect("old", delivered_until=died, code=1006)
    world.wait(60)
    assert errors(world) == []
    assert world.session
    assert "old" not in world.session.subscriptions


@pytest.mark.req("SUB-23", "SYN-7", "SUB-40")
@pytest.mark.parametrize("name", ["", "OHIF"])
def test_two_of_one_name_who_live_side_by_side_are_two(name: str) -> None:
    """The first gave a sign of life after the other came. So its loss is reported."""
    world = watched()
    world.join("one", "Patient-open", name=name)
    world.join("other", "Patient-open", name=name)
    world.wait(10)
    world.disconnect("one", code=1006)
    world.wait(60)
    assert len(errors(world)) == 1


@pytest.mark.req("SUB-23", "SYN-7", "SUB-40")
@pytest.mark.parametrize(
    ("name", "newcomer", "user"),
    [("OHIF", "Other", "ann"), ("OHIF", "", "ann"), ("", "", "ann"), ("OHIF", "OHIF", "bob")],
)
def test_only_the_same_users_app_of_that_name_comes_anew(name: str, newcomer: str, user: str) -> None:
    """Any other newcomer replaces nothing. The loss is reported, and the endpoint kept."""
    world = watched()
    world.join("lost", "Patient-open", name=name)
    died = world.now
    world.wait(10)
    world.join("new", "Patient-open", by=token(user, topics=[TOPIC]), name=newcomer)
    world.disconnect("lost", delivered_until=died, code=1006)
    world.wait(60)
    assert [error.who for error in errors(world)] == [name or "unnamed"]
    world.connect("lost")


@pytest.mark.req("SUB-23", "SYN-7", "SUB-40")
def test_who_came_anew_and_went_is_not_there() -> None:
    """The app has no socket at all: that its old one was lost is reported."""
    world = watched()
    world.join("old", "Patient-open", name="OHIF")
    died = world.now
    world.wait(10)
    world.join("new", "Patient-open", name="OHIF")
    world.disconnect("new", code=1000)
    world.disconnect("old", delivered_until=died, code=1006)
    world.wait(60)
    assert [error.who for error in errors(world)] == ["OHIF"]


@pytest.mark.req("SUB-23", "SYN-7")
def test_who_is_back_at_its_endpoint_did_not_come_anew() -> None:
    """The subscriber returns, and is lost before an answer. The endpoint is kept, and one loss reported."""
    world = watched()
    world.join("a", "Patient-open", name="Medplum")
    died = world.now
    world.disconnect("a", delivered_until=died, code=1006)
    world.wait(2)
    world.connect("a")
    world.wait(1)
    world.disconnect("a", delivered_until=died, code=1006)
    world.wait(60)
    assert [error.who for error in errors(world)] == ["Medplum"]
    world.connect("a")
