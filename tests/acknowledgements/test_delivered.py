"""The tracker knows until when a connection has received everything."""

from __future__ import annotations

import pytest

from tests.acknowledgements.tracker_world import Node, event_ref, reply


@pytest.mark.req("SUB-12", "SUB-36")
def test_what_has_arrived_is_known_from_answers() -> None:
    """The time begins with the connection. An acknowledgement or a pong moves it forward, never back."""
    node = Node()
    node.comes("a", 3)
    seen = [node.delivered_until("a")]
    node.tells(event_ref("one"), "a", at=5)
    node.tells(event_ref("two"), "a", at=6)
    node.tells(event_ref("two"), "a", at=8)
    for id_ in ("two", "one"):
        node.says("a", reply(id_), 9)
        seen.append(node.delivered_until("a"))
    for at in (7, 4):
        node.alive("a'", at)
        seen.append(node.delivered_until("a"))
    assert seen == [3, 6, 6, 7, 7]
    assert node.disconnected("a'") == 7
    assert (node.disconnected("a'"), node.delivered_until("a")) == (0, 0)
    node.alive("a'", 9)  # of a closed connection
    assert node.delivered_until("a") == 0


@pytest.mark.req("SUB-12")
def test_what_only_another_was_told_says_nothing() -> None:
    """An answer to another's event shows no delivery."""
    node = Node("a", "b")
    node.tells(event_ref("theirs"), "b", at=5)
    node.says("a", reply("theirs"), 6)
    assert node.delivered_until("a") == 0


@pytest.mark.req("SUB-11", "SUB-12")
def test_of_two_connections_the_newer_counts() -> None:
    """The replaced connection ends later, and changes nothing."""
    node = Node("a")
    node.comes("a", 4, as_="a''")
    assert node.delivered_until("a") == 4
    assert node.disconnected("a'") == 0
    assert node.delivered_until("a") == 4
    assert node.disconnected("a''") == 4
    assert node.memory == 0
