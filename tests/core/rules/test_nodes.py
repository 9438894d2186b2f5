"""Sockets are named after their nodes, and a session knows the nodes that it concerns."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fhircast_hub.core.rules.nodes import node_of, nodes_of, socket_name
from fhircast_hub.core.rules.webhook_outbox import connection_name
from tests.core.rules.webhook_world import CALLBACK, Hooked
from tests.core.world import token


@pytest.mark.req("NOD-1")
@pytest.mark.parametrize("node", ["n1", "3f9a01bc", "hub-7f9-x", "hooks"])
def test_a_socket_is_named_after_its_node(node: str) -> None:
    """The node's name may contain hyphens."""
    assert node_of(socket_name(node, 12)) == node


@pytest.mark.req("NOD-1", "NOD-3")
@pytest.mark.parametrize("connection", ["", connection_name("a"), connection_name("a-1")])
def test_a_callback_and_no_connection_belong_to_no_node(connection: str) -> None:
    """Whatever the id of the webhook's subscription contains."""
    assert node_of(connection) == ""


@pytest.mark.req("NOD-1", "NOD-3", "NOD-4")
def test_a_session_concerns_the_nodes_of_its_sockets_callbacks_and_tokens() -> None:
    """Neither verified callbacks, nor signed tokens, nor lost sockets name a node. The session names its poster."""
    opaque = replace(token(), opaque=True)
    world = Hooked()
    assert nodes_of(world.session) == frozenset()
    world.join("here", node="n1")
    world.join("there", node="n2")
    world.join("lost", node="n3")
    world.disconnect("lost", code=1006)
    world.subscribe("watched", "Patient-open", opaque, node="n4")
    world.subscribe("signed", "Patient-open", node="n5")
    world.subscribe("one process", "Patient-open", opaque)
    assert nodes_of(world.session) == {"n1", "n2", "n4"}
    world.hook("hook", node="n6")
    world.hook("another hook", callback=f"{CALLBACK}2", node="n7")
    assert nodes_of(world.session) == {"n1", "n2", "n4", "n6"}
