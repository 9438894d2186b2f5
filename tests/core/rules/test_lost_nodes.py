"""A node dies: its sockets and raw tokens are lost. test_posters.py has its callbacks."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from fhircast_hub.core.rules.nodes import nodes_of
from fhircast_hub.core.state.commands import Disconnected, NodeLost
from fhircast_hub.core.wire.close_codes import ABNORMAL
from tests.core.rules.sync_error_world import errors
from tests.core.rules.webhook_world import Hooked
from tests.core.world import CLOSES, NOON, OPENS, World, patient, study, token

PATIENT = "Patient-open,Patient-close"
OPAQUE = replace(token(), opaque=True)


def on_two_nodes(**rules: Any) -> World:
    """A world with a subscriber on the node n2 that receives only SyncErrors."""
    world = World(**rules)
    world.join("monitor", "SyncError", name="A monitor", node="n2")
    return world


def assert_nothing(world: World, command: NodeLost) -> None:
    """The command leaves the session as the object that it is, without effects."""
    before = world.session
    outcome = world.do(command)
    assert outcome.session is before
    assert outcome.effects == ()


# Sockets


@pytest.mark.req("NOD-1", "SYN-7")
def test_the_sockets_of_a_dead_node_are_reported_after_the_grace() -> None:
    """RECONNECT_GRACE from the loss of the node, each once."""
    world = on_two_nodes()
    world.join("a", name="A", node="n1")
    world.join("b", name="B", node="n1")
    world.wait(10)
    world.do(NodeLost("n1"))
    world.wait(2.9)
    assert errors(world) == []
    world.wait(0.1)
    assert sorted(error.who for error in errors(world)) == ["A", "B"]
    world.wait(999)
    assert errors(world) == []


@pytest.mark.req("NOD-1", "SUB-12")
def test_a_subscriber_of_a_dead_node_comes_back_to_another_node() -> None:
    """The subscriber keeps its endpoint, is not reported, and is sent the close that it missed."""
    world = on_two_nodes()
    world.join("a", PATIENT, name="A", node="n1")
    world.publish("Patient-open", patient("p1"))
    world.news("a")
    world.wait(10)
    world.do(NodeLost("n1"))
    world.publish("Patient-close", patient("p1"))
    world.wait(2)
    world.connect("a", "n2")
    assert world.news("a") == ["subscribe", "Patient-close p1"]
    world.wait(999)
    assert errors(world) == []


@pytest.mark.req("NOD-2")
def test_the_sockets_of_other_nodes_are_not_touched() -> None:
    """No frame and no close is sent to them, and the next event reaches them alone."""
    world = World()
    gone = world.join("gone", PATIENT, node="n1")
    here = world.join("here", PATIENT, node="n11")
    assert world.session
    before = world.session.subscriptions["here"]
    assert world.do(NodeLost("n1")).effects == ()
    assert world.session.subscriptions["here"] is before
    assert [audience.members for audience in world.session.audiences] == [(here,)]
    world.publish("Patient-open", patient("p1"))
    assert world.news("here") == ["Patient-open p1"]
    assert len(world.frames[gone]) == 1


@pytest.mark.req("NOD-1")
def test_who_was_awaited_before_keeps_its_deadline() -> None:
    """The subscriber's socket was lost two seconds before its node."""
    world = on_two_nodes()
    world.join("a", name="A", node="n1")
    world.disconnect("a", code=1006)
    world.wait(2)
    assert_nothing(world, NodeLost("n1"))
    world.wait(1)
    assert [error.who for error in errors(world)] == ["A"]
    world.wait(99)
    assert errors(world) == []


@pytest.mark.req("NOD-1")
def test_the_second_loss_of_a_node_is_no_loss() -> None:
    """The deadline does not move. A socket that came to another node since stays."""
    world = on_two_nodes()
    world.join("a", name="A", node="n1")
    world.join("b", name="B", node="n1")
    world.join("opaque", by=OPAQUE, name="Opaque", node="n1")
    world.do(NodeLost("n1"))
    world.wait(1)
    world.connect("b", "n2")
    world.connect("opaque", "n2")
    assert_nothing(world, NodeLost("n1"))
    world.wait(2)
    assert [error.who for error in errors(world)] == ["A"]


@pytest.mark.req("NOD-1", "NOD-3", "NOD-4")
def test_a_node_without_anything_here_changes_nothing() -> None:
    """In a session and without one. A subscription that never had a socket stays too."""
    world = World()
    assert_nothing(world, NodeLost("n1"))
    world.join("a", PATIENT, node="n2")
    world.join("opaque", PATIENT, OPAQUE, node="n2")
    world.subscribe("new", PATIENT, node="n1")
    world.publish("Patient-open", patient("p1"))
    assert_nothing(world, NodeLost("n1"))


def shown(name: str = "") -> World:
    """A subscriber of n1 that was sent opens, closes and derived opens, on its second socket. Another one is at n2."""
    world = World()
    world.join("a", f"{OPENS},{CLOSES}", name=name, node="n1")
    world.wait(5)
    world.publish("Patient-open", patient("p1"))
    world.answer("a")
    world.disconnect("a", code=1006)
    world.wait(2)
    world.connect("a", "n1")
    world.publish("ImagingStudy-open", study("s1"), patient("p2"))
    world.join("b", "Patient-open,Patient-close", name=name, node="n2")
    world.wait(5)
    return world


@pytest.mark.req("NOD-1", "SUB-40", "DER-9")
@pytest.mark.parametrize("name", ["", "OHIF"])
def test_a_socket_is_lost_as_by_an_abnormal_closure(name: str) -> None:
    """The session is the same in all its parts."""
    one, other = shown(name), shown(name)
    assert one.session
    subscription = one.session.subscriptions["a"]
    one.do(Disconnected("a", subscription.connection, subscription.delivered_until, ABNORMAL))
    other.do(NodeLost("n1"))
    assert one.session == other.session
    assert ("a" in one.session.subscriptions) == (not name)
    if not name:
        assert one.session.subscriptions["a"].shown_opens


@pytest.mark.req("NOD-1", "SUB-40")
def test_who_came_anew_to_another_node_is_no_ghost() -> None:
    """The application subscribed again before its node was found dead."""
    world = on_two_nodes()
    world.join("old", "Patient-open", name="OHIF", node="n1")
    world.wait(10)
    world.join("new", "Patient-open", name="OHIF", node="n2")
    world.do(NodeLost("n1"))
    world.wait(60)
    assert errors(world) == []
    assert world.session
    assert world.session.subscriptions.keys() == {"monitor", "new"}


@pytest.mark.req("NOD-1", "SUB-40")
def test_a_second_window_that_came_while_the_node_lived_is_no_replacement() -> None:
    """The older window comes back to its endpoint."""
    world = on_two_nodes()
    world.join("old", "Patient-open", name="OHIF", node="n1")
    world.wait(10)
    world.join("new", "Patient-open", name="OHIF", node="n2")
    world.wait(20)
    world.do(NodeLost("n1", seen_at=world.now - 10))
    world.connect("old", "n2")
    world.wait(60)
    assert errors(world) == []
    assert world.session
    assert world.session.subscriptions.keys() == {"monitor", "old", "new"}


@pytest.mark.req("NOD-1", "SUB-40")
def test_two_of_one_name_on_the_dead_node_are_both_lost() -> None:
    """Neither has a socket, so neither replaces the other."""
    world = on_two_nodes()
    world.join("older", "Patient-open", name="OHIF", node="n1")
    world.wait(10)
    world.join("newer", "Patient-open", name="OHIF", node="n1")
    world.do(NodeLost("n1"))
    world.connect("older", "n2")
    world.connect("newer", "n2")
    world.wait(60)
    assert errors(world) == []


# Raw tokens


@pytest.mark.req("NOD-4", "AUT-34")
def test_the_opaque_tokens_of_a_dead_node_are_not_vouched_for() -> None:
    """A subscription of such a token ends in 60 seconds, also with a socket at another node. No lease gets longer."""
    world = World()
    world.join("here", PATIENT, OPAQUE, node="n1", lease=3600)
    world.connect("here", "n2")
    world.join("other", PATIENT, OPAQUE, node="n2", lease=3600)
    world.join("signed", PATIENT, node="n1", lease=3600)
    world.join("short", PATIENT, OPAQUE, node="n1", lease=10)
    world.do(NodeLost("n1"))
    assert world.session
    leases = {id_: each.expires - NOON for id_, each in world.session.subscriptions.items()}
    assert leases == {"here": 60, "other": 3600, "signed": 3600, "short": 10}
    assert nodes_of(world.session) == {"n2"}, "nobody has to lose n1 again"
    world.wait(60)
    assert world.session.subscriptions.keys() == {"other", "signed"}


@pytest.mark.req("NOD-4", "AUT-34")
def test_a_renewal_moves_a_token_to_its_node() -> None:
    """The node that took the last request keeps the token, of a webhook too."""
    world = Hooked()
    for subscription_id in ("renewed", "left"):
        world.join(subscription_id, PATIENT, OPAQUE, node="n1", lease=3600)
        world.renew(subscription_id, PATIENT, OPAQUE, node="n2", lease=3600)
    world.hook("hook", by=OPAQUE, node="n2", lease=3600)
    world.do(NodeLost("n1"))
    assert {each.expires - NOON for each in world.subscriptions().values()} == {3600}
    world.do(NodeLost("n2"))
    world.renew("renewed", PATIENT, OPAQUE, node="n3", lease=3600)
    leases = {id_: each.expires - NOON for id_, each in world.subscriptions().items()}
    assert leases == {"renewed": 3600, "left": 60, "hook": 60}
    assert world.subscriptions()["renewed"].watcher == "n3"


@pytest.mark.req("NOD-4")
def test_a_signed_token_has_no_watcher() -> None:
    """After a renewal with a signed token the node may go."""
    world = World()
    world.join("a", PATIENT, OPAQUE, node="n1", lease=3600)
    world.renew("a", PATIENT, node="n1", lease=3600)
    world.do(NodeLost("n1"))
    assert world.session
    assert world.session.subscriptions["a"].watcher == ""
    assert world.session.subscriptions["a"].expires == NOON + 3600


@pytest.mark.req("NOD-4", "AUT-34")
def test_after_a_restart_no_node_keeps_a_token() -> None:
    """All processes are new: the leases of every node's tokens are shortened."""
    world = World()
    for node in ("", "n1", "n2"):
        world.join(f"of {node}", PATIENT, OPAQUE, node=node, lease=3600)
    world.restart()
    assert world.session
    assert {(each.expires - NOON, each.watcher) for each in world.session.subscriptions.values()} == {(60, "")}
    assert nodes_of(world.session) == frozenset()
