"""A callback is posted events in order. The hub reports and ends a callback that does not follow."""

from __future__ import annotations

from typing import Any

import pytest

from fhircast_hub.acknowledgements.tracker import Policy
from fhircast_hub.core.rules import audiences
from fhircast_hub.core.rules.webhook_outbox import connection_name
from fhircast_hub.core.state.commands import (
    PostFinished,
    Undeliverable,
)
from fhircast_hub.core.state.effects import Post
from tests.core.rules.webhook_world import CALLBACK, KEY, Hooked
from tests.core.world import TOPIC, frozen, item, patient, study

PATIENT = "Patient-open,Patient-close"


@pytest.mark.req("WHK-4", "EVT-1")
def test_an_event_is_posted_to_each_webhook_and_sent_to_each_socket() -> None:
    """The same frame, each with its own secret and a number of its own."""
    world = Hooked()
    world.join("chart", PATIENT)
    world.hook("a", secret=b"one")
    world.hook("b", callback=CALLBACK + "2", secret=b"two")
    world.hook("c", "Patient-close", callback=CALLBACK + "3")
    world.done()
    world.publish("Patient-open", patient("p1"))
    (frame,) = world.heard("chart")
    posts = world.posts()
    assert [(post.subscription_id, post.secret, post.callback, post.frame) for post in posts] == [
        ("a", b"one", CALLBACK, frame),
        ("b", b"two", CALLBACK + "2", frame),
    ]
    assert len({post.number for post in posts}) == 2
    assert {post.key for post in posts} == {KEY}


@pytest.mark.req("WHK-8")
def test_numbers_are_never_used_twice() -> None:
    """Also when all before were answered, and after a restart."""
    world = Hooked()
    world.hook("a")
    numbers = []
    for time in range(4):
        world.publish("Patient-open", patient(f"p{time}"))
        (post,) = world.posts()
        numbers.append(post.number)
        world.do(PostFinished(post.number, 200))
        if time == 1:
            world.restart()
    assert len(set(numbers)) == 4
    assert numbers == sorted(numbers)


@pytest.mark.req("WHK-6")
def test_what_was_answered_leaves_the_outbox() -> None:
    """By whatever status, and once."""
    world = Hooked()
    world.hook("a")
    for status in (200, 204, 409, 500, 0):
        world.publish("Patient-open", patient(f"p{status}"))
        (post,) = world.posts()
        assert world.waiting() == [("a", f"Patient-open p{status}")]
        world.do(PostFinished(post.number, status))
        assert world.waiting() == []
        before = frozen(world.session)
        world.do(PostFinished(post.number, status))
        assert frozen(world.session) == before


@pytest.mark.req("WHK-6", "SYN-1", "SYN-2", "SYN-3")
@pytest.mark.parametrize(
    ("status", "why"),
    [
        (409, "Worklist refused to follow Patient-open (status 409)"),
        (499, "Worklist refused to follow Patient-open (status 499)"),
        (500, "Worklist could not follow Patient-open (status 500): it was not delivered"),
        (302, "Worklist could not follow Patient-open (status 302): it was not delivered"),
        (0, "Worklist did not acknowledge Patient-open within 10 seconds"),
    ],
)
def test_what_a_callback_does_not_follow_the_others_are_told(status: int, why: str) -> None:
    """Not itself; sockets and other webhooks that asked for SyncErrors."""
    world = Hooked()
    world.join("chart", "SyncError")
    world.hook("a", f"{PATIENT},SyncError", name="Worklist")
    world.hook("b", "SyncError", callback=CALLBACK + "2")
    world.publish("Patient-open", patient("p1"))
    world.do(PostFinished(world.posts()[0].number, status))
    (told,) = world.read("chart")
    assert told["event"]["context"][0]["resource"]["issue"][0]["diagnostics"] == why
    assert world.posted() == [("b", "SyncError")]


@pytest.mark.req("SYN-5", "SYN-6", "WHK-19")
@pytest.mark.parametrize("policy", [Policy.OFF, Policy.LENIENT])
def test_strikes_end_a_webhook_that_never_acknowledged_too(policy: Policy) -> None:
    """An answer is what HTTP demands: ACK_POLICY is about sockets."""
    world = Hooked(policy, ack_strikes=2)
    world.hook("a")
    for number in range(3):
        world.publish("Patient-open", patient(f"p{number}"))
    one, two, three = world.posts()
    world.do(PostFinished(one.number, 0))
    assert world.done() == []
    world.do(PostFinished(two.number, 503))
    (drop,) = world.drops()
    assert (drop.subscription_id, drop.callback, drop.key.topic, drop.events) == (
        "a",
        CALLBACK,
        TOPIC,
        ("Patient-open", "Patient-close"),
    )
    assert drop.reason
    assert world.subscriptions() == {}
    assert world.waiting() == []
    world.do(PostFinished(three.number, 200))
    world.publish("Patient-open", patient("p4"))
    assert world.posts() == []


@pytest.mark.req("SYN-5")
@pytest.mark.parametrize("status", [200, 409])
def test_who_answers_has_no_strikes_any_more(status: int) -> None:
    """In a row means in a row; a refusal is an answer, as it is on a socket."""
    world = Hooked(ack_strikes=2)
    world.hook("a")
    for answer in (0, status, 0):
        world.publish("Patient-open", patient(f"p{answer}"))
        world.do(PostFinished(world.posts()[0].number, answer))
    assert world.subscriptions().keys() == {"a"}


@pytest.mark.req("SYN-10", "SYN-11")
@pytest.mark.parametrize("status", [409, 500, 0])
def test_what_does_not_matter_is_neither_reported_nor_a_strike(status: int) -> None:
    """SyncErrors, as on a socket: else one dead callback would end another's subscription in silence."""
    world = Hooked(ack_strikes=1)
    world.join("chart", f"{PATIENT},SyncError")
    world.hook("a", "SyncError")
    world.publish("Patient-open", patient("p1"))
    world.answer("chart", 409)
    (post,) = world.posts()
    world.news("chart")
    world.do(PostFinished(post.number, status))
    assert world.news("chart") == []
    assert world.subscriptions().keys() == {"chart", "a"}


@pytest.mark.req("DER-3")
def test_a_refused_open_does_not_count_as_told() -> None:
    """The next study brings its patient again."""
    world = Hooked()
    world.hook("a", "Patient-open")
    for status in (409, 200):
        world.publish("ImagingStudy-open", study(f"s{status}"), patient("p1"))
        (post,) = world.posts()
        world.do(PostFinished(post.number, status))
    world.publish("ImagingStudy-open", study("s3"), patient("p1"))
    assert world.posts() == []


@pytest.mark.req("WHK-7", "SYN-14", "WHK-19")
@pytest.mark.parametrize("rules", [{"retained_messages": 2}, {"retained_bytes": 700}])
def test_too_much_waiting_ends_a_webhook(rules: dict[str, Any]) -> None:
    """The callback is reported to the others and told, and nothing waits any more. Prompt callbacks stay."""
    world = Hooked(**rules)
    world.join("chart", "SyncError")
    world.hook("a", name="Worklist")
    world.hook("b", callback=CALLBACK + "2")
    for number in range(3):
        world.publish("Patient-open", patient(f"p{number}"))
        for post in [
            effect for effect in world.webhook_effects if isinstance(effect, Post) and effect.subscription_id == "b"
        ]:
            world.do(PostFinished(post.number, 200))
    (drop,) = world.drops()
    assert (drop.subscription_id, drop.reason) == ("a", "too much waits for its callback")
    assert world.news("chart") == ["SyncError"]
    assert world.waiting() == []
    assert world.subscriptions().keys() == {"chart", "b"}


@pytest.mark.req("WHK-7")
def test_one_large_event_is_not_too_much() -> None:
    """However few bytes may wait, one may."""
    world = Hooked(retained_bytes=10)
    world.hook("a")
    world.publish("Patient-open", patient("p1"))
    assert world.subscriptions().keys() == {"a"}
    world.publish("Patient-open", patient("p2"))
    assert world.subscriptions() == {}


@pytest.mark.req("WHK-7")
def test_the_end_of_one_may_be_the_end_of_another() -> None:
    """The SyncError about the first is what is too much for the second."""
    world = Hooked(retained_messages=1)
    world.join("chart", "SyncError")
    world.hook("a", f"{PATIENT},SyncError")
    world.hook("b", "Patient-close,SyncError", callback=CALLBACK + "2")
    world.publish("SyncError", item("operationoutcome", "OperationOutcome", "x"))
    assert world.subscriptions().keys() == {"chart", "a", "b"}
    world.publish("Patient-open", patient("p1"))
    assert world.subscriptions().keys() == {"chart"}
    assert world.waiting() == []


@pytest.mark.req("WHK-6")
def test_what_cannot_be_delivered_at_all_is_reported() -> None:
    """With its reason, to the others and to the callback."""
    world = Hooked()
    world.join("chart", "SyncError")
    world.hook("a", name="Worklist")
    world.do(Undeliverable("a", "its secret was lost"))
    (told,) = world.read("chart")
    issue = told["event"]["context"][0]["resource"]["issue"][0]
    assert issue["diagnostics"] == "Worklist was unsubscribed: its secret was lost"
    (drop,) = world.drops()
    assert drop.reason == "its secret was lost"
    world.do(Undeliverable("a", "its secret was lost"))
    assert world.read("chart") == []


@pytest.mark.req("WHK-4")
def test_a_connection_is_called_after_its_subscription() -> None:
    """So that it is the same after a restart, and no socket's."""
    world = Hooked()
    world.hook("a")
    assert world.session is not None
    assert audiences.subscribers_of(world.session.audiences, "patient-open") == (connection_name("a"),)
    assert world.session.webhook_connections == {connection_name("a")}
    world.restart()
    assert audiences.subscribers_of(world.session.audiences, "patient-open") == (connection_name("a"),)
    assert world.session.webhook_connections == {connection_name("a")}
