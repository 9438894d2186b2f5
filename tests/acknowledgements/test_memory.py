"""The tracker remembers a limited number of events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhircast_hub.acknowledgements import tracker
from fhircast_hub.acknowledgements.tracker import Policy
from fhircast_hub.core.state.commands import Acknowledged
from tests.acknowledgements.tracker_world import HERE, THERE, Node, event_ref, reply


def test_a_flood_of_events_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest of a session go, and are then neither missed nor acknowledged; those of others stay."""
    monkeypatch.setattr(tracker, "MAX_WAITING", 3)
    node = Node("a", policy=Policy.STRICT)
    node.comes("b", key=THERE)
    node.tells(event_ref("other"), "b")
    for number in range(5):
        node.tells(event_ref(f"{number}"), "a", at=number)
    assert [node.says("a", reply(f"{number}")) is not None for number in range(5)] == [False, False, True, True, True]
    assert node.says("b", reply("other")) == [Acknowledged("b")]
    assert [node.missing(10 + at) for at in range(5)] == [[]] * 5


def test_an_id_that_went_in_a_flood_may_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the first one's time is not the end of the second's."""
    monkeypatch.setattr(tracker, "MAX_WAITING", 1)
    node = Node("a", policy=Policy.STRICT)
    for at, id_ in enumerate(("e", "f", "e")):
        node.tells(event_ref(id_), "a", at=at)
    assert [node.missing(10), node.missing(11)] == [[], []]
    assert node.says("a", reply("e"), 11) is not None
    node.tells(event_ref("e"), "a", at=11.5)
    assert [node.missing(12), node.missing(22)] == [[], [("a", "e")]]


def test_nothing_is_remembered_for_ever() -> None:
    """After the last timeout and the last disconnection, in any order, there is nothing left."""
    for first in ("timeout", "disconnection"):
        node = Node("a", "b", policy=Policy.STRICT)
        node.comes("c", key=THERE)
        for number in range(100):
            node.tells(event_ref(f"{number % 30}"), "a", "b", later=["b"] if number % 2 else [], at=number)
            node.tells(event_ref(f"{number}"), "c", at=number)
            node.says("a", reply(f"{number % 30}"), number)
        if first == "timeout":
            node.timed_out(999)
            assert all(not topic.sent for topic in node._topics.values())
        for subscription_id in ("a", "b", "c"):
            node.disconnected(f"{subscription_id}'")
        node.timed_out(999)
        assert node.memory == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["come", "go", "tell", "later", "answer", "refuse", "look"]),
            st.integers(0, 3),
            st.integers(0, 2),
        ),
        max_size=60,
    ),
    st.sampled_from(Policy),
)
def test_whatever_happens_the_books_are_straight(steps: list[tuple[str, int, int]], policy: Policy) -> None:
    """Nobody is missed who is not there, was not told, or answered; and in the end there is nothing left."""
    node, present, owed = Node(policy=policy), set[str](), set[tuple[str, str]]()
    for now, (what, who, which) in enumerate(steps):
        subscription_id, id_ = f"s{who}", f"e{which}"
        key = THERE if who == 3 else HERE
        if what == "come" and subscription_id not in present:
            node.comes(subscription_id, now, key=key)
            present.add(subscription_id)
        elif what == "go":
            node.disconnected(f"{subscription_id}'")
            present.discard(subscription_id)
            owed = {(whose, event) for whose, event in owed if whose != subscription_id}
        elif what in ("tell", "later"):
            node.tells(event_ref(id_), subscription_id, at=now, later=[subscription_id] if what == "later" else ())
            if what == "tell" and subscription_id in present:
                owed.add((subscription_id, id_))
        elif what in ("answer", "refuse"):
            node.says(subscription_id, reply(id_, 200 if what == "answer" else 409), now)
            owed.discard((subscription_id, id_))
        elif what == "look":
            missed = set(node.missing(now))
            assert missed <= owed
            assert not missed or policy is not Policy.OFF
    for subscription_id in present:
        node.disconnected(f"{subscription_id}'")
    node.timed_out(999)
    assert node.memory == 0
