"""The poster: the one node of several that works for a session's callbacks. Another node takes over when the poster dies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from fhircast_hub.core.decide import decide
from fhircast_hub.core.env import Env
from fhircast_hub.core.rules.nodes import nodes_of
from fhircast_hub.core.rules.webhook_outbox import connection_name
from fhircast_hub.core.state.commands import (
    Connected,
    EndSession,
    Evict,
    NodeLost,
    PostFinished,
    Restarted,
    ResumePosts,
    Tick,
    Undeliverable,
    VerificationFailed,
)
from fhircast_hub.core.state.effects import EndWebhook, Post, Verify
from tests.core.rules.webhook_world import CALLBACK, KEY, Hooked
from tests.core.world import patient, study

PATIENT = "Patient-open,Patient-close"


class Shared(Hooked):
    """A session on the nodes n1 and n2. n1 decides until `turn`."""

    def __init__(self, **rules: int) -> None:
        super().__init__(**rules)
        self.node = "n1"

    def turn(self) -> None:
        """From now on n2 decides. Earlier work for callbacks is forgotten."""
        self.node = "n2"
        self.done()

    def lose(self, node: str = "n1") -> list[Verify | Post | EndWebhook]:
        """n2 decides that a node is gone. Returns the work for callbacks."""
        self.turn()
        self.do(NodeLost(node))
        return self.done()

    def poster(self) -> str:
        assert self.session
        return self.session.poster


# Who is the poster


@pytest.mark.req("NOD-3")
def test_the_first_node_with_work_for_callbacks_stays_the_poster() -> None:
    """Other nodes subscribe callbacks, publish, and take answers."""
    world = Shared()
    world.join("chart", PATIENT)
    world.publish("Patient-open", patient("p1"))
    assert world.poster() == "", "there is no callback"
    world.node = "n2"
    world.hook("a", PATIENT)
    assert world.poster() == "n2"
    world.node = "n1"
    world.hook("b", callback=CALLBACK + "2")
    world.publish("Patient-open", patient("p2"))
    world.do(PostFinished(world.posts()[-1].number, 200))
    world.unsubscribe(None, callback=CALLBACK + "2")
    world.wait(60)
    assert world.poster() == "n2"
    assert [post for post, _ in world.waiting()] == ["a", "a"]


@pytest.mark.req("NOD-3")
def test_callbacks_of_one_process_have_no_poster() -> None:
    """The process has no name, and works for all callbacks."""
    world = Hooked()
    world.hook("a", PATIENT)
    world.publish("Patient-open", patient("p1"))
    assert world.session
    assert world.session.poster == ""
    assert nodes_of(world.session) == frozenset()


@pytest.mark.req("NOD-3")
def test_a_node_without_work_is_no_poster() -> None:
    """The callbacks were subscribed when the hub was one process. The node that posts first is the poster."""
    world = Hooked()
    world.hook("a", "Patient-open")
    world.node = "n1"
    world.publish("Home-open")
    assert world.session
    assert world.session.poster == ""
    world.node = "n2"
    world.publish("Patient-open", patient("p1"))
    assert world.posted() == [("a", "Patient-open p1")]
    assert world.session.poster == "n2"


@pytest.mark.req("NOD-3")
def test_a_node_that_ends_the_last_webhook_without_a_poster_denies_it() -> None:
    """That node is the poster until the next commit."""
    world = Hooked()
    world.hook("hook", lease=10)
    world.node = "n1"
    world.wait(10)
    assert [ended.reason for ended in world.drops()] == ["the lease has ended"]
    assert world.session
    assert world.session.poster == "n1"
    world.join("chart", PATIENT, node="n2")
    assert nodes_of(world.session) == {"n2"}


@pytest.mark.req("NOD-3")
@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda world: world.unsubscribe(None, callback=CALLBACK), ""),
        (lambda world: world.do(Undeliverable("hook", "gone")), "gone"),
        (lambda world: world.wait(100), "the lease has ended"),
        (
            lambda world: [world.do(PostFinished(number, 500)) for number in (1, 2, 3)],
            "3 events in a row were not acknowledged",
        ),
    ],
    ids=["unsubscribed", "undeliverable", "expired", "silent"],
)
def test_after_the_last_callback_there_is_no_poster(end: Callable[[Shared], object], reason: str) -> None:
    """Another node removes the callback. The end of its webhook is work of the same commit. The next node is a new poster."""
    world = Shared()
    world.hook("hook", lease=100)
    world.join("chart", PATIENT, node="n2")
    for number in range(3):
        world.publish("Patient-open", patient(f"p{number}"))
    world.turn()
    end(world)
    assert [(ended.subscription_id, ended.reason) for ended in world.drops()] == [("hook", reason)]
    assert world.poster() == ""
    assert nodes_of(world.session) == {"n2"}
    world.ask("new", node="n3")
    assert world.poster() == "n3"


@pytest.mark.req("NOD-3")
@pytest.mark.parametrize(
    ("end", "ends"),
    [
        (lambda world: world.do(VerificationFailed("hook")), []),
        (lambda world: world.do(Evict("hook")), ["hook"]),
        (lambda world: world.wait(30), ["hook"]),
        (lambda world: world.subscribe("chart", PATIENT), ["hook"]),
    ],
    ids=["refused", "evicted", "too late", "replaced by a socket"],
)
def test_after_the_last_verification_there_is_no_poster(end: Callable[[Shared], object], ends: list[str]) -> None:
    """The callback was never verified. A verification that goes on is cancelled in the same commit."""
    world = Shared(max_subscriptions=1, connect_timeout=30)
    world.ask("hook")
    assert world.poster() == "n1"
    world.turn()
    end(world)
    assert [ended.subscription_id for ended in world.drops()] == ends
    assert world.poster() == ""


@pytest.mark.req("NOD-3", "WHK-12")
def test_the_poster_stays_while_a_callback_replaces_another() -> None:
    """An unverified one is replaced at once, a verified one when the newcomer is verified. Both are removed in one commit."""
    world = Shared()
    world.ask("first")
    world.turn()
    world.ask("second")
    ended, asked = sorted(world.done(), key=lambda effect: isinstance(effect, Verify))
    assert isinstance(ended, EndWebhook)
    assert isinstance(asked, Verify)
    assert (ended.subscription_id, asked.subscription_id) == ("first", "second")
    assert world.poster() == "n1"
    world.do(Connected("second", connection_name("second")))
    world.publish("Patient-open", patient("p1"))
    world.hook("third")
    assert world.subscriptions().keys() == {"third"}
    assert world.waiting()[0] == ("third", "Patient-open p1"), "the newcomer has the posts"
    assert world.poster() == "n1"


@pytest.mark.req("NOD-3", "SES-4")
def test_the_end_of_a_session_ends_its_webhooks() -> None:
    """A new session of the topic has a poster of its own."""
    world = Shared()
    world.hook("hook")
    world.turn()
    world.do(EndSession("the user has left"))
    assert [(ended.subscription_id, ended.reason) for ended in world.drops()] == [("hook", "the user has left")]
    assert world.session is None
    world.hook("new")
    assert world.poster() == "n2"


@pytest.mark.req("NOD-3")
@pytest.mark.parametrize("node", ["", "n2"])
def test_after_a_restart_no_node_of_before_is_the_poster(node: str) -> None:
    """All processes are new. The one that posts the outbox again is the poster."""
    world = Shared()
    world.hook("hook")
    world.publish("Patient-open", patient("p1"))
    world.turn()
    world.do(Restarted(), node)
    assert world.posted() == [("hook", "Patient-open p1")]
    assert world.poster() == node


# The poster dies


@pytest.mark.req("NOD-3", "WHK-4")
def test_the_outbox_is_posted_again_in_order() -> None:
    """The unanswered posts of all webhooks, with their numbers and secrets. Some were committed by the node that takes over."""
    world = Shared()
    world.hook("b", secret=b"sealed")
    world.hook("a", callback=CALLBACK + "2")
    world.publish("Patient-open", patient("p0"))
    world.node = "n2"
    world.publish("Patient-open", patient("p1"))
    first, *rest = world.posts()
    world.do(PostFinished(first.number, 200))
    before = world.session
    assert before
    assert world.lose() == rest
    assert [post.number for post in rest] == sorted(post.number for post in rest)
    assert len(rest) == 3
    assert world.session == replace(before, poster="n2")


@pytest.mark.req("NOD-3", "WHK-2")
def test_an_unverified_callback_is_asked_again() -> None:
    """With the lease that is left, and before the posts of others."""
    world = Shared()
    world.hook("b", callback=CALLBACK + "2")
    world.publish("Patient-open", patient("p1"))
    world.ask("a", lease=100)
    world.now += 40
    asked, post = world.lose()
    assert asked == Verify(KEY, "a", CALLBACK, ("Patient-open", "Patient-close"), 60, "user:ann")
    assert isinstance(post, Post)
    assert post.subscription_id == "b"
    assert world.poster() == "n2"


@pytest.mark.req("NOD-3")
def test_the_second_loss_of_the_poster_is_no_loss() -> None:
    """The work is the new poster's, which goes on. When the new poster dies, the work is taken over again."""
    world = Shared()
    world.hook("b", callback=CALLBACK + "2")
    world.publish("Patient-open", patient("p1"))
    world.ask("a")
    work = world.lose()
    assert len(work) == 2
    before = world.session
    assert world.lose() == []
    assert world.session is before
    world.do(NodeLost("n2"), "n3")
    assert world.done() == work
    assert world.poster() == "n3"


@pytest.mark.req("NOD-3")
def test_callbacks_of_another_poster_are_left_to_that_node() -> None:
    """Neither verified, nor posted to, nor ended here. The lost node subscribed some of them."""
    world = Shared()
    world.hook("ended", lease=10)
    world.join("chart", PATIENT, node="n3")
    world.hook("b", callback=CALLBACK + "2", lease=100, node="n3")
    world.ask("asked", callback=CALLBACK + "3", node="n3")
    world.publish("Patient-open", patient("p1"))
    world.now += 10
    assert world.lose("n3") == []
    assert world.subscriptions().keys() == {"chart", "ended", "b", "asked"}
    assert not world.subscriptions()["chart"].connection
    assert world.poster() == "n1"


@pytest.mark.req("NOD-3", "DER-3")
def test_a_verified_callback_is_not_told_twice() -> None:
    """The session still knows what the callback was told. After a restart of the whole hub p1 would be told again."""
    world = Shared()
    world.hook("a", "Patient-open")
    world.publish("Patient-open", patient("p1"))
    world.do(PostFinished(world.posts()[0].number, 200))
    assert world.lose() == []
    assert world.poster() == "n2"
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    assert world.posts() == []
    world.publish("Patient-open", patient("p2"))
    assert world.posted() == [("a", "Patient-open p2")]


@pytest.mark.req("NOD-3", "WHK-11")
def test_a_webhook_whose_lease_has_ended_is_ended_first() -> None:
    """Its posts are not posted again. Those of others are."""
    world = Shared()
    world.hook("ended", lease=10)
    world.hook("b", callback=CALLBACK + "2", lease=100)
    world.publish("Patient-open", patient("p1"))
    world.now += 10
    ended, post = world.lose()
    assert isinstance(ended, EndWebhook)
    assert (ended.subscription_id, ended.reason) == ("ended", "the lease has ended")
    assert isinstance(post, Post)
    assert post.subscription_id == "b"
    assert world.subscriptions().keys() == {"b"}
    assert [id_ for id_, _ in world.waiting()] == ["b"]


@pytest.mark.req("NOD-3", "WHK-11")
def test_the_node_that_ends_the_last_webhook_of_a_dead_node_denies_it() -> None:
    """That node is the poster until its next commit: nobody would carry out the denial of a dead poster."""
    world = Shared()
    world.hook("hook", lease=10)
    world.now += 10
    (ended,) = world.lose()
    assert isinstance(ended, EndWebhook)
    assert ended.reason == "the lease has ended"
    assert world.poster() == "n2"
    world.do(Tick(), "n3")
    assert world.done() == []
    assert world.poster() == ""


# A poster that has lost track


@pytest.mark.req("NOD-10")
def test_the_poster_begins_its_work_anew() -> None:
    """Verifications first, then the posts in order. Nothing changes in the session."""
    world = Shared()
    world.hook("a", PATIENT)
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-open", patient("p2"))
    world.ask("b", PATIENT, callback=CALLBACK + "2")
    before, _ = world.session, world.done()
    assert before
    world.do(ResumePosts())
    first, *rest = world.done()
    assert isinstance(first, Verify)
    assert [effect.number for effect in rest if isinstance(effect, Post)] == sorted(
        number for queue in before.outbox.values() for number in queue.posts
    )
    assert world.session == before


@pytest.mark.req("NOD-10")
def test_a_node_that_is_not_the_poster_begins_nothing() -> None:
    """Neither does one without a session."""
    world = Shared()
    world.hook("a", PATIENT)
    world.publish("Patient-open", patient("p1"))
    world.turn()
    world.do(ResumePosts())
    assert world.done() == []
    assert decide(None, ResumePosts(), Env(world.now, world.ids, world.rules)).session is None
