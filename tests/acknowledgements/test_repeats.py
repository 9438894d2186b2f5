"""Several events and answers with the same id are matched in order."""

from __future__ import annotations

import pytest

from fhircast_hub.acknowledgements import tracker
from fhircast_hub.acknowledgements.tracker import Policy
from fhircast_hub.core.state.commands import Acknowledged, Rejected
from fhircast_hub.core.state.effects import EventRef
from tests.acknowledgements.tracker_world import HERE, TIMEOUT, Node, event_ref, reply


@pytest.mark.req("SYN-1", "SYN-23")
@pytest.mark.parametrize(
    ("statuses", "refusals"),
    [
        ([200, 200], []),
        ([409, 409], [409]),
        ([202, 409], [409]),
        ([409, 200, 409], [409]),
        ([500, 409], [500]),
        ([None, 202, "503"], [503]),
    ],
)
def test_what_is_refused_is_refused_once(statuses: list[object], refusals: list[int]) -> None:
    """However many answers come, one refusal counts. A subscriber that first answers 202 may refuse later."""
    node = Node("a", "b")
    node.tells(event_ref(), "a", "b")
    found = [command for status in statuses for command in node.says("a", reply(status=status)) or ()]
    assert [each.status for each in found if isinstance(each, Rejected)] == refusals
    told = [each.followed for each in found if isinstance(each, Acknowledged)]
    assert told == ([False, True] if statuses == [409, 200, 409] else [statuses[0] not in (409, 500)])
    assert node.says("b", reply(status=409)) == [
        Acknowledged("b", followed=False),
        Rejected("b", "b'", event_ref(), 409),
    ]


@pytest.mark.req("SYN-1", "EVT-17")
def test_a_repeat_may_be_refused_anew() -> None:
    """Each sending may be refused once, and only by its receivers."""
    node = Node("a", "b")
    node.tells(event_ref(), "a", "b")
    refused = Rejected("a", "a'", event_ref(), 409)
    assert node.says("a", reply(status=409)) == [Acknowledged("a", followed=False), refused]
    node.tells(event_ref(), "b", at=1)
    assert node.says("a", reply(status=409)) == []
    node.tells(event_ref(), "a", "b", at=2)
    assert [node.says("a", reply(status=409)) for _ in range(2)] == [[refused], []]


@pytest.mark.req("SYN-1")
def test_of_several_events_with_one_id_the_last_is_refused() -> None:
    """A sender may use an id again for another event. An answer is then about the later event."""
    node, close = Node("a"), EventRef("e", "e", "Patient-close")
    node.tells(event_ref(), "a")
    node.tells(close, "a", at=1)
    assert node.says("a", reply(status=409), 2) == [Acknowledged("a", followed=False), Rejected("a", "a'", close, 409)]


@pytest.mark.req("SYN-4", "EVT-17")
def test_one_answer_is_for_all_repeats_before_it() -> None:
    """An answer is for all frames with its id. A repeat after the answer must be answered again."""
    node = Node("a", policy=Policy.STRICT)
    for at in (0, 4):
        node.tells(event_ref(), "a", at=at)
    node.says("a", reply(), 5)
    node.tells(event_ref(), "a", at=6)
    assert node.missing(15.9) == []
    assert node.says("a", reply(status=409), 15.9) == [Rejected("a", "a'", event_ref(), 409)]
    assert node.missing(16) == []
    assert node.says("a", reply(), 16) is None


@pytest.mark.req("SYN-4", "EVT-17")
def test_a_repeat_is_timed_by_itself() -> None:
    """Each repeat is timed from its own sending."""
    node = Node("a", policy=Policy.STRICT)
    for at in (0, 4):
        node.tells(event_ref(), "a", at=at)
    assert [node.missing(at) for at in (9, 10, 13, 14, 15)] == [[], [("a", "e")], [], [("a", "e")], []]


@pytest.mark.req("SYN-1", "SES-3")
def test_only_what_matters_is_followed() -> None:
    """An answer to a select does not end the refusal of an open. An answer to the next open does, once."""
    node = Node("a")
    for id_ in ("open", "other"):
        node.tells(event_ref(id_), "a")
    node.tells(event_ref("select", reportable=False), "a")
    assert node.says("a", reply("select")) == [Acknowledged("a", followed=False)]
    assert node.says("a", reply("other")) == []
    assert node.says("a", reply("open", 409)) == [Rejected("a", "a'", event_ref("open"), 409)]
    assert node.says("a", reply("select")) == []
    assert node.says("a", reply("other")) == [Acknowledged("a")]


@pytest.mark.req("SYN-4", "EVT-17")
def test_a_thousand_repeats_are_a_few_to_remember() -> None:
    """The first repeat keeps its time, and the last may be refused."""
    node = Node("ehr")
    node.comes("pacs", acknowledges=True)
    for number in range(1000):
        node.tells(event_ref(), "pacs", at=number / 1000)
    assert node.missing(TIMEOUT) == [("pacs", "e")]
    assert [type(command) for command in node.says("pacs", reply(status=409), at=TIMEOUT) or ()] == [
        Acknowledged,
        Rejected,
    ]
    (first,) = node._topics[HERE].sent.values()
    assert 0 < len(first.repeats or ()) <= tracker.MAX_REPEATS
