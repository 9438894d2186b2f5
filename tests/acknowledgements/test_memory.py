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
    """The oldest events of a session are forgotten: neither missed nor acknowledged. Events of other sessions stay."""
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
    """The timeout of the first event is not the timeout of the second."""
    monkeypatch.setattr(tracker, "MAX_WAITING", 1)
    node = Node("a", policy=Policy.STRICT)
    for at, id_ in enumerate(("e", "f", "e")):
        node.tells(event_ref(id_), "a", at=at)
    assert [node.missing(10), node.missing(11)] == [[], []]
    assert node.says("a", reply("e"), 11) is not None
    node.tells(event_ref("e"), "a", at=11.5)
    assert [node.missing(12), node.missing(22)] == [[], [("a", "e")]]


def test_nothing_is_remembered_for_ever() -> None:
    """After the last timeout and the last disconnection, in any order, nothing is left."""
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


def test_a_frame_that_all_acknowledged_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames expire by the thousand. Only those that somebody did not acknowledge are looked at by connection."""
    searched: list[str] = []

    def search(_: Node, sent: tracker._Sent) -> list[str]:
        searched.append(sent.event_ref.id)
        return []

    monkeypatch.setattr(tracker.AckTracker, "_missed", search)
    node = Node("a", "b", policy=Policy.STRICT)
    for id_ in ("all", "one", "odd"):
        node.tells(event_ref(id_), "a", "b")
        node.says("a", reply(id_))
    node.says("b", reply("all"))
    node.comes("c")
    node.says("c", reply("odd"))
    node.timed_out(99)
    assert searched == ["one", "odd"]


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
    """A subscriber that is absent, was not sent the event, or answered is not missed. In the end nothing is left."""
    node, present, unanswered = Node(policy=policy), set[str](), set[tuple[str, str]]()
    for now, (action, number, event_number) in enumerate(steps):
        subscription_id, id_ = f"s{number}", f"e{event_number}"
        key = THERE if number == 3 else HERE
        if action == "come" and subscription_id not in present:
            node.comes(subscription_id, now, key=key)
            present.add(subscription_id)
        elif action == "go":
            node.disconnected(f"{subscription_id}'")
            present.discard(subscription_id)
            unanswered = {(receiver, event) for receiver, event in unanswered if receiver != subscription_id}
        elif action in ("tell", "later"):
            node.tells(event_ref(id_), subscription_id, at=now, later=[subscription_id] if action == "later" else ())
            if action == "tell" and subscription_id in present:
                unanswered.add((subscription_id, id_))
        elif action in ("answer", "refuse"):
            node.says(subscription_id, reply(id_, 200 if action == "answer" else 409), now)
            unanswered.discard((subscription_id, id_))
        elif action == "look":
            missed = set(node.missing(now))
            assert missed <= unanswered
            assert not missed or policy is not Policy.OFF
    for subscription_id in present:
        node.disconnected(f"{subscription_id}'")
    node.timed_out(999)
    assert node.memory == 0
