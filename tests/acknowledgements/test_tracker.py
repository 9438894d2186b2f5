"""Deliveries: what counts as an acknowledgement, who is missed and since when, and that nothing is remembered for ever."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhircast_hub.acknowledgements import tracker
from fhircast_hub.acknowledgements.tracker import TOGETHER, AckTracker, Policy
from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.commands import Acknowledged, AcksTimedOut, Command, MissedAck, Rejected
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.state.session import Subscription
from fhircast_hub.core.wire.acknowledgement import MAX_REASON, read_acknowledgement

TIMEOUT = 10.0
HERE, THERE = SessionKey("a-realm", "here"), SessionKey("a-realm", "there")


def subscription(
    subscription_id: str, delivered_until: float = 0, *, acknowledges: bool = False, missed_acks: int = 0
) -> Subscription:
    """The least that a subscription may be; its first socket came."""
    return Subscription(
        subscription_id,
        "ann",
        subscription_id,
        ("Patient-open",),
        9e9,
        0,
        delivered_until=delivered_until,
        acknowledges=acknowledges,
        missed_acks=missed_acks,
    )


def event_ref(id_: str = "e", *, reportable: bool = True) -> EventRef:
    """What the event of this id tells of."""
    return EventRef(id_, id_, "Patient-open", "patient/p1", reportable=reportable)


def reply(id_: str = "e", status: object = 200) -> bytes:
    """An acknowledgement, as the specification has it."""
    return json.dumps({"id": id_, "status": status}).encode()


class Node(AckTracker):
    """Deliveries under the default policy unless told otherwise; a connection is called as its subscription, with a stroke."""

    def __init__(self, *present: str, policy: Policy = Policy.LENIENT) -> None:
        super().__init__(policy, TIMEOUT)
        for subscription_id in present:
            self.comes(subscription_id)

    def comes(self, subscription_id: str, at: float = 0, *, as_: str = "", key: SessionKey = HERE, **more: Any) -> None:
        self.connected(key, subscription(subscription_id, at, **more), as_ or f"{subscription_id}'", at)

    def says(self, subscription_id: str, message: bytes, at: float = 0) -> list[Command] | None:
        """What follows from this text on its connection; None if it acknowledges nothing."""
        answer = self.acknowledged(f"{subscription_id}'", message, at)
        return answer[1] if answer else None

    def tells(self, of: EventRef, *subscription_ids: str, at: float = 0, later: Sequence[str] = ()) -> None:
        self.sent(
            of,
            tuple(f"{subscription_id}'" for subscription_id in subscription_ids),
            at,
            [f"{subscription_id}'" for subscription_id in later],
        )

    def missing(self, at: float) -> list[tuple[str, str]]:
        """Who is missed at this time, and which event."""
        found = self.timed_out(at)
        return [
            (missed_ack.subscription_id, missed_ack.event_ref.id)
            for _, command in found
            for missed_ack in command.missed
        ]

    @property
    def memory(self) -> int:
        """How much is remembered."""
        return len(self._topics) + len(self._peers) + len(self._latest) + len(self._waiting)


# What an acknowledgement is


@pytest.mark.req("SYN-1")
@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((status, None) for status in ("200", "202", "204", "299", '"200"', '"202"', '"200 OK"', '"200: fine"')),
        *(("409", 409), ("400", 400), ("404", 404), ("500", 500), ("503", 503), ("599", 599)),
        *(("100", 100), ("199", 199), ("300", 300), ("302", 302)),
        *(('"409"', 409), ('"409 Conflict"', 409), ('"500 Internal Server Error"', 500), ('" 409 "', 409)),
        *(("409.0", 409), ('"409.5"', 409), (" \n409 ", 409), ("200.0", None)),
        *((status, None) for status in ("null", "true", "false", "[409]", '{"code": 409}', "[]", '""', '"Conflict"')),
        *((status, None) for status in ("0", "-409", "99", "600", "1000", "4090", "40", "4", "2000", '"4090"')),
        ('"409۹"', 409),  # digits are those of ASCII, and there is no fourth
        *((status, None) for status in ('"٤٠٩"', '"HTTP/1.1 409 Conflict"', "1e400", '"\\u0034"')),
    ],
)
def test_a_status_of_any_shape_is_an_acknowledgement(status: str, code: int | None) -> None:
    """What can be read and is not 2xx refuses; everything else was received."""
    node = Node("a")
    node.tells(event_ref(), "a")
    told = [Acknowledged("a", followed=code is None)]
    refused = [] if code is None else [Rejected("a", "a'", event_ref(), code)]
    assert node.says("a", b'{"id": "e", "status": %b}' % status.encode()) == told + refused


@pytest.mark.req("SYN-1")
@pytest.mark.parametrize(
    "message",
    [
        b'{"id":"e"}',
        b'{"id":"e","timestamp":"2023-04-01T12:00:00Z"}',
        b' {"status" :200 , "id" : "e"} ',
        b'{"hub.topic":"here","id":"e","event":{"status":409},"status":"200"}',
        b'{"id":"\\u0065"}',
    ],
)
def test_the_id_alone_acknowledges(message: bytes) -> None:
    """Without a status, among other members, in any order."""
    node = Node("a")
    node.tells(event_ref(), "a")
    assert node.says("a", message) == [Acknowledged("a")]


@pytest.mark.req("SYN-15")
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"e",
        b"not json",
        b"null",
        b'"e"',
        b"[]",
        b'["e"]',
        b"{}",
        b'{"status":409}',
        b'{"id":1,"status":409}',
        b'{"id":null,"status":409}',
        b'{"id":["e"],"status":409}',
        b'{"ID":"e","status":409}',
        b'{"id":"unknown","status":409}',
        b'{"id":"E","status":409}',
        b'{"id":"","status":409}',
        b'{"hub.channel.endpoint":"wss://hub.example/ws/x"}',
        b'{"id":"e","status":"',
        b'{"id":"e","status":',
        b'{"reason":"he said "status":409 so", "id":"e","status":200}',
        b'{"event":{"id":"e","status":409},"id":"f","status":200,',
        b'{"id":5,"status":409,}',
        b'"id":"e","status":409',
        b'{"event":{"id":"e","status":409}}',
        b'{"id":"\xff","status":409}',
        b'{"id":"\\ud800","status":409}',
        b'{"id":"e","x":' + b"[" * 4000,
        b'{"x":' * 800,
        b'{"id":"e","x":' + b"[" * 65000,
        b"\x00" * 65536,
    ],
)
def test_an_odd_text_acknowledges_nothing(message: bytes) -> None:
    """Whatever it is, it is no error, and its sender is the same as before."""
    node = Node("a")
    node.tells(event_ref(), "a")
    assert node.says("a", message) is None
    assert node.says("a", reply()) == [Acknowledged("a")]


@pytest.mark.req("SYN-15")
@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b'{"id":"e","status":409,"reason":"cut \xf0\x9f\x98"}', "cut \ufffd"),
        (b'{"id":"e","status":409,"reason":"cut \\ud83d"}', "cut \ufffd"),
        (b'{"id":"e","status":409,"reason":"cut \\ud83d and on"}', "cut \ufffd and on"),
        (b'{"id":"e","status":409,"reason":"Latin-1: M\xfcller"}', "Latin-1: M\ufffdller"),
        (b'{"id":"e","status":409,"reason":"two\nlines\tand a tab"}', "two lines and a tab"),
        (b'\xef\xbb\xbf{"id":"e","status":409,"reason":"behind a mark"}', "behind a mark"),
        (b'{"id":"e","status":409,"reason":{"text":"x"}}', ""),
        (b'{"id":"e","status":409,"other":"\xff\xfe"}', ""),
        (b'{"id":"e","status":409,"took":NaN,"of":Infinity}', ""),
        (b'{"id":"e","status":409,"n":' + b"9" * 5000 + b"}", ""),
        (b'{"id":"e","status":409,}', ""),
        (b'{"id":"e","status":409', ""),
        (b'{"id":"e","status":409}}', ""),
        (b'{"id":"e","status":409}\n{"id":"f","status":200}', ""),
        (b'{"id":"e","status":"409 Conflict","reason":"patient "X" is unknown"}', "patient"),
        (b'{"event":{"id":"f","status":200},"id":"e","status":409', ""),
        (b'{"id":"\\u0065","status":409,', ""),
        (b'{"id":"e","status":409,"id":"f","status":200,}', ""),
        (b'{"id": "e", "status": "409", "reason": "cut off in the mid', ""),
        (b'{"id":"e","status":409,"x":' + b"[" * 4000, ""),
        (b'[{"id":"e","status":409}]', ""),
    ],
)
def test_a_refusal_counts_whatever_else_the_frame_holds(message: bytes, reason: str) -> None:
    """Where id and status can be read; a reason that is not text in UTF-8 is shown as far as it is."""
    node = Node("a")
    node.tells(event_ref(), "a")
    refused = Rejected("a", "a'", event_ref(), 409, reason)
    assert node.says("a", message) == [Acknowledged("a", followed=False), refused]


@pytest.mark.req("SYN-15")
@pytest.mark.parametrize(("before", "counts"), [(62, True), (63, False)])
def test_of_what_is_no_json_the_first_64_members_count(before: int, counts: bool) -> None:
    """Id and status behind them are not looked for."""
    odd = b"{" + b'"x":0,' * before + b'"id":"e","status":409,'
    assert (read_acknowledgement(odd) is not None) is counts
    assert read_acknowledgement(odd[:-1] + b"}") is not None


@pytest.mark.req("SYN-15")
def test_of_what_is_no_json_the_first_24_kib_count() -> None:
    """So much, and no more, may stand before id and status."""
    for size, counts in ((24_000, True), (25_000, False)):
        odd = b'{"x":NaN,"reason":"%b","id":"e","status":409}' % (b"x" * size)
        assert (read_acknowledgement(odd) is not None) is counts


@pytest.mark.req("SYN-15", "SYN-1")
@pytest.mark.parametrize(
    "message", [b'{"id":"e","status":NaN}', b'{"id":"e","status":null,"x":"\xff"}', b'{"id":"e","status":[],"x":NaN}']
)
def test_a_status_that_cannot_be_read_counts_as_received(message: bytes) -> None:
    """As where there is none."""
    node = Node("a")
    node.tells(event_ref(), "a")
    assert node.says("a", message) == [Acknowledged("a")]


@pytest.mark.req("SYN-15")
@pytest.mark.parametrize(
    "message",
    [
        b'{"id":"e","status":' + b" " * 65000 + b"x",
        b'{"status"' + b" " * 65000 + b'"id"',
        b"{" + b"," * 65000 + b'"id" "status"',
        b'{"id" "status":' * 4000,
        b'{"status":"' + b"\\" * 65000 + b'"id"',
        b'{"status":' + b"[" * 65000 + b'"id"',
        b'{"a":' * 13000 + b'"id" "status"',
    ],
)
def test_no_frame_takes_long_to_read(message: bytes) -> None:
    """As long as a frame may be, in less than what a hundred good ones take: nobody keeps the hub from all others."""
    good = b'{"id":"e","status":409,"reason":"' + b"x" * 65000 + b'"}'
    started = time.perf_counter()
    for _ in range(100):
        read_acknowledgement(good)
    limit = time.perf_counter() - started
    started = time.perf_counter()
    assert read_acknowledgement(message) is None
    assert time.perf_counter() - started < limit + 1


def test_the_longest_acknowledgement_is_heard() -> None:
    """256 characters outside the basic plane, all of them escaped."""
    node, id_ = Node("a"), "\U0001f600" * 256
    node.tells(event_ref(id_), "a")
    message = json.dumps({"id": id_, "status": "409 Conflict", "timestamp": "2023-04-01T12:00:00.000Z"}).encode()
    assert len(message) > 3000
    assert node.says("a", message) == [Acknowledged("a", followed=False), Rejected("a", "a'", event_ref(id_), 409)]


@pytest.mark.req("SYN-1", "SYN-15")
@pytest.mark.parametrize("size", [4096, 65_400])
def test_a_refusal_with_a_long_reason_is_heard(size: int) -> None:
    """Somebody's stack trace: as long as a frame may be, it must not cost the others the news; they read the start of it."""
    node = Node("a")
    node.tells(event_ref(), "a")
    message = json.dumps({"id": "e", "status": 500, "reason": "Traceback:\n" + "x" * size}).encode()
    refused = Rejected("a", "a'", event_ref(), 500, "Traceback: " + "x" * (MAX_REASON - 11))
    assert node.says("a", message) == [Acknowledged("a", followed=False), refused]


# Whose it is


@pytest.mark.req("SYN-15", "EVT-11")
def test_an_event_of_another_session_cannot_be_acknowledged() -> None:
    """Though its id be known, and even the same as one of ours."""
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
    """Neither what only others were told, nor what still waits for the socket to take it."""
    node = Node("a", "b")
    node.tells(event_ref(), "b")
    assert node.says("a", reply(status=409)) == [Acknowledged("a", followed=False)]
    node.tells(event_ref("waiting"), "a", "b", later=["a"])
    assert node.says("a", reply("waiting", 409)) == []
    node.tells(event_ref("waiting"), "a", at=1)
    assert node.says("a", reply("waiting", 409)) == [Rejected("a", "a'", event_ref("waiting"), 409)]


def test_who_is_not_connected_acknowledges_nothing() -> None:
    """Nobody of that name, or nobody any more; and nothing is sent to them either."""
    node = Node("a", "b")
    node.tells(event_ref(), "a", "b", "stranger")
    node.disconnected("a'")
    assert node.says("a", reply(status=409)) is None
    assert node.says("stranger", reply(status=409)) is None
    node = Node("a")
    node.tells(event_ref(), "stranger", "another")
    assert node.deadline() is None


def test_connections_of_other_nodes_do_not_count() -> None:
    """A frame goes to those of several nodes at once; this one remembers it for its own, wherever they stand."""
    node = Node("a", policy=Policy.STRICT)
    node.tells(event_ref(), "elsewhere", "a", "elsewhere too")
    assert node.missing(TIMEOUT) == [("a", "e")]


@pytest.mark.req("SYN-1")
def test_a_connection_cannot_refuse_what_the_one_before_was_told() -> None:
    """It is told again what it needs; who was there all along may refuse."""
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


# Several


@pytest.mark.req("SYN-1")
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
    """However often it is answered; who first says that it will see, may refuse then."""
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
    """One refusal for each time that it was sent, and only to whom."""
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
    """A sender that uses an id again for something else: whoever answers has heard of that."""
    node, close = Node("a"), EventRef("e", "e", "Patient-close")
    node.tells(event_ref(), "a")
    node.tells(close, "a", at=1)
    assert node.says("a", reply(status=409), 2) == [Acknowledged("a", followed=False), Rejected("a", "a'", close, 409)]


@pytest.mark.req("SYN-4", "EVT-17")
def test_one_answer_is_for_all_repeats_before_it() -> None:
    """An id names them all; a repeat after the answer is to be answered again, and may be while it is waited for."""
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
    """Each from when it was sent."""
    node = Node("a", policy=Policy.STRICT)
    for at in (0, 4):
        node.tells(event_ref(), "a", at=at)
    assert [node.missing(at) for at in (9, 10, 13, 14, 15)] == [[], [("a", "e")], [], [("a", "e")], []]


@pytest.mark.req("SYN-1", "SES-3")
def test_only_what_matters_is_followed() -> None:
    """Who refused an open and is content with a select is as far behind as before; the next open says otherwise, and that once."""
    node = Node("a")
    for id_ in ("open", "other"):
        node.tells(event_ref(id_), "a")
    node.tells(event_ref("select", reportable=False), "a")
    assert node.says("a", reply("select")) == [Acknowledged("a", followed=False)]
    assert node.says("a", reply("other")) == []
    assert node.says("a", reply("open", 409)) == [Rejected("a", "a'", event_ref("open"), 409)]
    assert node.says("a", reply("select")) == []
    assert node.says("a", reply("other")) == [Acknowledged("a")]


@pytest.mark.req("SES-3")
def test_when_somebody_was_heard_last_is_known() -> None:
    """By an acknowledgement, of whatever status; never of who has said nothing, or is not here."""
    node = Node("a", "b")
    node.tells(event_ref(), "a", "b")
    for status, at in ((200, 3), (409, 5)):
        node.says("a", reply(status=status), at)
        assert node.acknowledged_at("a") == at
    assert node.acknowledged_at("b") is None
    node.disconnected("a'")
    assert node.acknowledged_at("a") is None


# Who is missed, and since when


@pytest.mark.req("SYN-4", "SYN-6")
@pytest.mark.parametrize(
    ("policy", "missed"), [(Policy.STRICT, ["new", "used to"]), (Policy.LENIENT, ["used to"]), (Policy.OFF, [])]
)
def test_the_policy_says_who_is_missed(policy: Policy, missed: list[str]) -> None:
    """Everybody, who has acknowledged before, or nobody."""
    node = Node("new", policy=policy)
    node.comes("used to", acknowledges=True)
    node.tells(event_ref(), "new", "used to")
    assert node.missing(TIMEOUT) == [(subscription_id, "e") for subscription_id in missed]


@pytest.mark.req("SYN-1", "SYN-6")
def test_without_a_policy_refusals_count_still() -> None:
    """Nobody is timed, and who answers is heard."""
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
    """Not for what was sent before its first answer."""
    node = Node("a")
    node.tells(event_ref("before"), "a", at=1)
    node.tells(event_ref("first"), "a", at=2)
    assert node.says("a", reply("first"), 3) == [Acknowledged("a")]
    node.tells(event_ref("after"), "a", at=3)
    assert [node.missing(at) for at in (12, 12.9, 13)] == [[], [], [("a", "after")]]


@pytest.mark.req("SYN-6")
def test_who_acknowledged_is_missed_for_good() -> None:
    """A later answer, also the one that ends its strikes, does not put off since when it is."""
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
    """What waits for a slow reader is not timed, and what was never handed to it never is."""
    node = Node("a", "b", policy=Policy.STRICT)
    node.tells(event_ref(), "a", "b", later=["a"])
    node.tells(event_ref("dropped"), "a", "b", later=["a", "b"])
    node.tells(event_ref(), "a", at=7)
    assert [node.missing(at) for at in (9.9, 10, 16.9, 17, 99)] == [[], [("b", "e")], [], [("a", "e")], []]


@pytest.mark.req("SYN-4")
def test_nobody_is_missed_who_answered_or_went() -> None:
    """Answered in time with any status, gone, or back as another connection."""
    node = Node("a", "b", "c", "d", policy=Policy.STRICT)
    node.tells(event_ref(), "a", "b", "c", "d")
    node.says("a", reply(status=500), 9)
    node.disconnected("b'")
    node.disconnected("c'")
    node.comes("c", 5, as_="c''")
    assert node.missing(TIMEOUT) == [("d", "e")]


@pytest.mark.req("SYN-4")
def test_who_came_afterwards_is_not_missed() -> None:
    """A name that is used again by somebody who came later than the frame."""
    node = Node("a", "b", policy=Policy.STRICT)
    node.tells(event_ref(), "a", "b")
    node.disconnected("a'")
    node.comes("a", 5)
    assert node.missing(TIMEOUT) == [("b", "e")]


@pytest.mark.req("SYN-11", "SYN-10")
def test_what_does_not_matter_is_neither_missed_nor_refused() -> None:
    """But who answers it acknowledges, and what it was sent has arrived."""
    node = Node("a", "b", policy=Policy.STRICT)
    node.tells(event_ref(reportable=False), "a", "b", at=2)
    assert node.says("a", reply(status=409), 3) == [Acknowledged("a", followed=False)]
    assert node.delivered_until("a") == 2
    assert node.missing(99) == []


@pytest.mark.req("SYN-4")
def test_what_expires_together_is_one_silence() -> None:
    """Of each connection, about the last event that it left unanswered and that matters."""
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
    """Also of events with the same id."""
    node = Node("a", policy=Policy.STRICT)
    node.comes("b", key=THERE)
    node.tells(event_ref(), "a")
    node.tells(event_ref(), "b")
    assert node.timed_out(TIMEOUT) == [
        (HERE, AcksTimedOut((MissedAck("a", "a'", event_ref()),))),
        (THERE, AcksTimedOut((MissedAck("b", "b'", event_ref()),))),
    ]


@pytest.mark.req("SYN-4")
def test_it_is_asked_for_when_something_is_due() -> None:
    """Shortly after the first that waits, so that what was sent together is reported together; never when nothing waits."""
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


# Strikes


@pytest.mark.req("SYN-5")
def test_an_answer_after_a_silence_is_told() -> None:
    """Of any status and to any event, once: it ends the strikes."""
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
    """Who comes back with some, and answers, is told to have none."""
    node = Node()
    node.comes("a", acknowledges=True, missed_acks=2)
    node.comes("b", acknowledges=True)
    node.tells(event_ref(), "a", "b")
    assert node.says("a", reply()) == [Acknowledged("a")]
    assert node.says("b", reply()) == []


# Until when everything has arrived


@pytest.mark.req("SUB-12")
def test_what_has_arrived_is_known_from_answers() -> None:
    """Since the connection came; by an acknowledgement, of a repeat as of the first; by a pong; never backwards."""
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
    node.alive("a'", 9)  # of somebody who went
    assert node.delivered_until("a") == 0


@pytest.mark.req("SUB-12")
def test_what_only_another_was_told_says_nothing() -> None:
    """An answer to it shows that nothing has arrived."""
    node = Node("a", "b")
    node.tells(event_ref("theirs"), "b", at=5)
    node.says("a", reply("theirs"), 6)
    assert node.delivered_until("a") == 0


@pytest.mark.req("SUB-11", "SUB-12")
def test_of_two_connections_the_newer_counts() -> None:
    """The one that was taken over goes later, and takes nothing along."""
    node = Node("a")
    node.comes("a", 4, as_="a''")
    assert node.delivered_until("a") == 4
    assert node.disconnected("a'") == 0
    assert node.delivered_until("a") == 4
    assert node.disconnected("a''") == 4
    assert node.memory == 0


# Bounds


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


# The clock, and repeats without end


@pytest.mark.req("SYN-4")
def test_a_clock_that_is_set_back_begins_the_time_anew() -> None:
    """Who does not answer is missed a timeout later, not when the clock has come back to where it was."""
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
    """Though nothing else is sent."""
    node = Node()
    node.comes("pacs", 5000, acknowledges=True)
    node.tells(event_ref(), "pacs", at=5000)
    assert [node.missing(at) for at in (1000, 1000 + TIMEOUT - 1, 1000 + TIMEOUT)] == [[], [], [("pacs", "e")]]


@pytest.mark.req("SYN-4", "EVT-17")
def test_a_thousand_repeats_are_a_few_to_remember() -> None:
    """The first keeps its time, and the last may be refused."""
    node = Node("ehr")
    node.comes("pacs", acknowledges=True)
    for number in range(1000):
        node.tells(event_ref(), "pacs", at=number / 1000)
    assert node.missing(TIMEOUT) == [("pacs", "e")]
    assert [type(command) for command in node.says("pacs", reply(status=409), at=TIMEOUT) or ()] == [
        Acknowledged,
        Rejected,
    ]
    (repeats,) = node._topics[HERE].sent.values()
    assert len(repeats) <= tracker.MAX_REPEATS
