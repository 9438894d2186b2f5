"""The tracker reports missing acknowledgements by policy and timeout."""

from __future__ import annotations

import pytest

from fhircast_hub.acknowledgements.tracker import TOGETHER, Policy
from fhircast_hub.core.state.commands import Acknowledged, AcksTimedOut, MissedAck, Rejected
from tests.acknowledgements.tracker_world import HERE, THERE, TIMEOUT, Node, event_ref, reply


@pytest.mark.req("SES-3")
def test_when_somebody_was_heard_last_is_known() -> None:
    """An acknowledgement of any status sets the time. A silent or disconnected subscriber has none."""
    node = Node("a", "b")
    node.tells(event_ref(), "a", "b")
    for status, at in ((200, 3), (409, 5)):
        node.says("a", reply(status=status), at)
        assert node.acknowledged_at("a") == at
    assert node.acknowledged_at("b") is None
    node.disconnected("a'")
    assert node.acknowledged_at("a") is None


# Missed acknowledgements, and their times


@pytest.mark.req("SYN-4", "SYN-6")
@pytest.mark.parametrize(
    ("policy", "missed"), [(Policy.STRICT, ["new", "used to"]), (Policy.LENIENT, ["used to"]), (Policy.OFF, [])]
)
def test_the_policy_says_who_is_missed(policy: Policy, missed: list[str]) -> None:
    """STRICT: every subscriber. LENIENT: subscribers that have acknowledged before. OFF: nobody."""
    node = Node("new", policy=policy)
    node.comes("used to", acknowledges=True)
    node.tells(event_ref(), "new", "used to")
    assert node.missing(TIMEOUT) == [(subscription_id, "e") for subscription_id in missed]


@pytest.mark.req("SYN-1", "SYN-6")
def test_without_a_policy_refusals_count_still() -> None:
    """No frame is timed, but acknowledgements are still read."""
    node = Node("a", policy=Policy.OFF)
    node.tells(event_ref(), "a")
    assert node.says("a", reply(status=409)) == [
        Acknowledged("a", followed=False),
        Rejected("a", "a'", event_ref(), 409),
    ]
    node.tells(event_ref("f"), "a", at=1)
    assert node.missing(99) == []


@pytest.mark.req("SYN-6")
def test_who_begins_to_acknowledge_is_missed_from_then_on() -> None:
    """Frames from before the first acknowledgement are not missed."""
    node = Node("a")
    node.tells(event_ref("before"), "a", at=1)
    node.tells(event_ref("first"), "a", at=2)
    assert node.says("a", reply("first"), 3) == [Acknowledged("a")]
    node.tells(event_ref("after"), "a", at=3)
    assert [node.missing(at) for at in (12, 12.9, 13)] == [[], [], [("a", "after")]]


@pytest.mark.req("SYN-6")
def test_who_acknowledged_is_missed_for_good() -> None:
    """A later acknowledgement does not change when the missed acknowledgement began."""
    node = Node("a")
    node.comes("b", acknowledges=True, missed_acks=1)
    node.tells(event_ref("one"), "a", "b", at=1)
    node.says("a", reply("one"), 2)
    for number, at in enumerate((3, 4)):
        node.tells(event_ref(f"{number}"), "a", "b", at=at)
    assert node.says("a", reply("1"), 5) == []
    assert node.says("b", reply("1"), 5) == [Acknowledged("b")]
    assert sorted(node.missing(13)) == [("a", "0"), ("b", "0")]


@pytest.mark.req("SYN-4")
def test_time_runs_from_when_the_socket_took_it() -> None:
    """A frame that waits for a slow reader is not timed. A frame that was never handed over never is."""
    node = Node("a", "b", policy=Policy.STRICT)
    node.tells(event_ref(), "a", "b", later=["a"])
    node.tells(event_ref("dropped"), "a", "b", later=["a", "b"])
    node.tells(event_ref(), "a", at=7)
    assert [node.missing(at) for at in (9.9, 10, 16.9, 17, 99)] == [[], [("b", "e")], [], [("a", "e")], []]


@pytest.mark.req("SYN-4")
def test_nobody_is_missed_who_answered_or_went() -> None:
    """Subscribers that answered in time with any status, left, or reconnected are not reported."""
    node = Node("a", "b", "c", "d", policy=Policy.STRICT)
    node.tells(event_ref(), "a", "b", "c", "d")
    node.says("a", reply(status=500), 9)
    node.disconnected("b'")
    node.disconnected("c'")
    node.comes("c", 5, as_="c''")
    assert node.missing(TIMEOUT) == [("d", "e")]


@pytest.mark.req("SYN-4")
def test_who_came_afterwards_is_not_missed() -> None:
    """A connection that reuses a name came later than the frame."""
    node = Node("a", "b", policy=Policy.STRICT)
    node.tells(event_ref(), "a", "b")
    node.disconnected("a'")
    node.comes("a", 5)
    assert node.missing(TIMEOUT) == [("b", "e")]


@pytest.mark.req("SYN-11", "SYN-10")
def test_what_does_not_matter_is_neither_missed_nor_refused() -> None:
    """An answer to such an event still acknowledges, and shows that the frame has arrived."""
    node = Node("a", "b", policy=Policy.STRICT)
    node.tells(event_ref(reportable=False), "a", "b", at=2)
    assert node.says("a", reply(status=409), 3) == [Acknowledged("a", followed=False)]
    assert node.delivered_until("a") == 2
    assert node.missing(99) == []


@pytest.mark.req("SYN-4", "SYN-24")
def test_what_expires_together_is_one_silence() -> None:
    """For each connection: its last reportable event without an acknowledgement."""
    node = Node("a", "b", "c", policy=Policy.STRICT)
    node.tells(event_ref("one"), "a", "b", "c")
    node.tells(event_ref("two"), "a", "b", at=0.05)
    node.tells(event_ref("three"), "a", "b", "c", at=0.06)
    node.tells(event_ref("select", reportable=False), "a", "b", "c", at=0.07)
    node.says("b", reply("three"), 1)
    node.says("c", reply("one"), 1)
    (found,) = node.timed_out(TIMEOUT + 0.1)
    assert found == (
        HERE,
        AcksTimedOut(
            (
                MissedAck("a", "a'", event_ref("three")),
                MissedAck("b", "b'", event_ref("two")),
                MissedAck("c", "c'", event_ref("three")),
            )
        ),
    )


@pytest.mark.req("SYN-4", "EVT-11")
def test_each_session_has_its_own_silence() -> None:
    """Events of two sessions may have the same id."""
    node = Node("a", policy=Policy.STRICT)
    node.comes("b", key=THERE)
    node.tells(event_ref(), "a")
    node.tells(event_ref(), "b")
    assert node.timed_out(TIMEOUT) == [
        (HERE, AcksTimedOut((MissedAck("a", "a'", event_ref()),))),
        (THERE, AcksTimedOut((MissedAck("b", "b'", event_ref()),))),
    ]


@pytest.mark.req("SYN-4", "SYN-24")
def test_it_is_asked_for_when_something_is_due() -> None:
    """The deadline is shortly after the first waiting frame, so that frames sent together are reported together."""
    node = Node("a", policy=Policy.STRICT)
    assert node.deadline() is None
    for at in (1, 1.05, 5):
        node.tells(event_ref(str(at)), "a", at=at)
    assert node.deadline() == 1 + TIMEOUT + TOGETHER
    assert node.missing(1 + TIMEOUT + TOGETHER) == [("a", "1.05")]
    assert node.deadline() == 5 + TIMEOUT + TOGETHER
    assert node.missing(15) == [("a", "5")]
    assert node.deadline() is None
    assert node.missing(99) == []


# Missed acknowledgements in a row


@pytest.mark.req("SYN-5")
def test_an_answer_after_a_silence_is_told() -> None:
    """An answer of any status to any event ends the missed acknowledgements. The core is told once."""
    node = Node("a", "b")
    for subscription_id in ("a", "b"):
        node.tells(event_ref(subscription_id), subscription_id)
        node.says(subscription_id, reply(subscription_id))
    node.tells(event_ref("one"), "a")
    node.tells(event_ref("two"), "a", at=1)
    assert node.missing(TIMEOUT) == [("a", "one")]
    assert node.says("b", reply("two"), 10) == []
    assert node.says("a", reply("two", 409), 10) == [
        Acknowledged("a", followed=False),
        Rejected("a", "a'", event_ref("two"), 409),
    ]
    assert node.says("a", reply("two"), 10) == [Acknowledged("a")]  # now it followed
    assert node.says("a", reply("two"), 10) == []


@pytest.mark.req("SYN-5")
def test_strikes_outlive_the_connection() -> None:
    """A subscriber that comes back with missed acknowledgements and answers has none any more."""
    node = Node()
    node.comes("a", acknowledges=True, missed_acks=2)
    node.comes("b", acknowledges=True)
    node.tells(event_ref(), "a", "b")
    assert node.says("a", reply()) == [Acknowledged("a")]
    assert node.says("b", reply()) == []


# The clock, and repeats without end


@pytest.mark.req("SYN-4")
def test_a_clock_that_is_set_back_begins_the_time_anew() -> None:
    """A silent subscriber is reported one timeout later. The old time of the clock does not count."""
    node = Node()
    node.comes("pacs", 5000, acknowledges=True)
    node.comes("mute", 5000)
    node.tells(event_ref("before"), "pacs", "mute", at=5000)
    node.tells(event_ref("after"), "pacs", "mute", at=1000)
    assert node.missing(1000 + TIMEOUT - 1) == []
    assert node.missing(1000 + TIMEOUT) == [("pacs", "after")], "who never acknowledges is not missed for it"
    assert node.deadline() is None


@pytest.mark.req("SYN-4")
def test_a_clock_that_is_set_back_is_noticed_when_somebody_looks() -> None:
    """The tracker notices the change at a check, without another frame."""
    node = Node()
    node.comes("pacs", 5000, acknowledges=True)
    node.tells(event_ref(), "pacs", at=5000)
    assert [node.missing(at) for at in (1000, 1000 + TIMEOUT - 1, 1000 + TIMEOUT)] == [[], [], [("pacs", "e")]]
