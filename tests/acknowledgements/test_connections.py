"""An acknowledgement counts for the connection that received the event."""

from __future__ import annotations

import pytest

from fhircast_hub.acknowledgements.tracker import Policy
from fhircast_hub.core.state.commands import Acknowledged, Rejected
from tests.acknowledgements.tracker_world import HERE, THERE, TIMEOUT, Node, event_ref, reply


@pytest.mark.req("SYN-15", "EVT-11")
def test_an_event_of_another_session_cannot_be_acknowledged() -> None:
    """The client may know the id. Both sessions may even use the same id."""
    node = Node("a")
    node.comes("b", key=THERE)
    node.tells(event_ref("theirs"), "b")
    assert node.says("a", reply("theirs", 409)) is None
    node.tells(event_ref("both"), "a")
    node.tells(event_ref("both"), "b", at=1)
    assert node.acknowledged("a'", reply("both", 409), 2) == (
        HERE,
        [Acknowledged("a", followed=False), Rejected("a", "a'", event_ref("both"), 409)],
    )
    assert node.acknowledged("b'", reply("both", 500), 2) == (
        THERE,
        [Acknowledged("b", followed=False), Rejected("b", "b'", event_ref("both"), 500)],
    )


@pytest.mark.req("SYN-1")
def test_what_one_was_not_told_cannot_be_refused() -> None:
    """A frame sent only to others cannot be refused, nor a frame that still waits for the socket."""
    node = Node("a", "b")
    node.tells(event_ref(), "b")
    assert node.says("a", reply(status=409)) == [Acknowledged("a", followed=False)]
    node.tells(event_ref("waiting"), "a", "b", later=["a"])
    assert node.says("a", reply("waiting", 409)) == []
    node.tells(event_ref("waiting"), "a", at=1)
    assert node.says("a", reply("waiting", 409)) == [Rejected("a", "a'", event_ref("waiting"), 409)]


def test_who_is_not_connected_acknowledges_nothing() -> None:
    """An unknown name and a disconnected one acknowledge nothing, and frames to them are not timed."""
    node = Node("a", "b")
    node.tells(event_ref(), "a", "b", "stranger")
    node.disconnected("a'")
    assert node.says("a", reply(status=409)) is None
    assert node.says("stranger", reply(status=409)) is None
    node = Node("a")
    node.tells(event_ref(), "stranger", "another")
    assert node.deadline() is None


def test_connections_of_other_nodes_do_not_count() -> None:
    """A frame goes to connections of several nodes. Each node remembers the frame for its own connections."""
    node = Node("a", policy=Policy.STRICT)
    node.tells(event_ref(), "elsewhere", "a", "elsewhere too")
    assert node.missing(TIMEOUT) == [("a", "e")]


@pytest.mark.req("SYN-1")
def test_a_connection_cannot_refuse_what_the_one_before_was_told() -> None:
    """A new connection is sent the frames again that it needs. A connection that stayed may refuse."""
    node = Node("a", "b")
    node.tells(event_ref(), "a", "b")
    node.disconnected("a'")
    node.comes("a", 1)
    node.disconnected("a'")
    node.comes("a", 1, as_="a''")
    answer = node.acknowledged("a''", reply(status=409), 2)
    assert answer is not None
    assert answer[1] == [Acknowledged("a", followed=False)]
    assert node.says("b", reply(status=409), 2) == [
        Acknowledged("b", followed=False),
        Rejected("b", "b'", event_ref(), 409),
    ]
