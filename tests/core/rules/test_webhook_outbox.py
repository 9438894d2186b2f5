"""Webhooks in the core: what is to be asked, posted and dropped; and what of it outlives the hub's process."""

from __future__ import annotations

from typing import Any

import pytest

from fhircast_hub.acknowledgements.tracker import Policy
from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.errors import NotFound
from fhircast_hub.core.rules import audiences
from fhircast_hub.core.rules.webhook_outbox import connection_name
from fhircast_hub.core.state.commands import (
    Connected,
    EndSession,
    Evict,
    PostFinished,
    Restarted,
    Undeliverable,
    Unsubscribe,
    VerificationFailed,
)
from fhircast_hub.core.state.effects import EndWebhook, Post, Verify
from fhircast_hub.core.state.session import Subscription
from tests.core.world import NOON, TOPIC, World, encounter, frozen, item, label, patient, study, token

CALLBACK = "https://app.example/callback"
PATIENT = "Patient-open,Patient-close"
KEY = SessionKey("a-realm", TOPIC)


class Hooked(World):
    """A world with webhooks."""

    def ask(self, subscription_id: str, events: str = PATIENT, callback: str = CALLBACK, **more: Any) -> None:
        """A webhook asks for a subscription."""
        self.subscribe(subscription_id, events, callback=callback, **more)

    def hook(self, subscription_id: str, events: str = PATIENT, callback: str = CALLBACK, **more: Any) -> None:
        """One asks, and is verified."""
        self.ask(subscription_id, events, callback, **more)
        self.do(Connected(subscription_id, connection_name(subscription_id)))

    def done(self) -> list[Verify | Post | EndWebhook]:
        """What was to be done since this was last asked."""
        done, self.hooked = self.hooked, []
        return done

    def posts(self) -> list[Post]:
        """Those that are to be posted."""
        return [effect for effect in self.done() if isinstance(effect, Post)]

    def posted(self) -> list[tuple[str, str]]:
        """To whom, and what."""
        return [(post.subscription_id, label(post.frame)) for post in self.posts()]

    def drops(self) -> list[EndWebhook]:
        """Those that are over."""
        return [effect for effect in self.done() if isinstance(effect, EndWebhook)]

    def waiting(self) -> list[tuple[str, str]]:
        """The outbox."""
        assert self.session is not None
        posts = {number: post for queue in self.session.outbox.values() for number, post in queue.posts.items()}
        assert [sum(len(post.frame) for post in queue.posts.values()) for queue in self.session.outbox.values()] == [
            queue.size for queue in self.session.outbox.values()
        ]
        return [(post.subscription_id, label(post.frame)) for _, post in sorted(posts.items())]

    def subscriptions(self) -> dict[str, Subscription]:
        return self.session.subscriptions if self.session else {}

    def restart(self) -> None:
        """The hub's process is new: of a session remains what is stored."""
        assert self.session is not None
        self.session = type(self.session)(
            **{name: getattr(self.session, name) for name in self.session.__struct_fields__ if name not in FORGOTTEN}
        )
        self.done()
        self.do(Restarted())


FORGOTTEN = {"audiences", "hooks", "beat"}


@pytest.mark.req("WHK-2")
def test_a_new_webhook_is_asked() -> None:
    """With what was granted and for how long; until it is verified it is in no audience."""
    world = Hooked()
    world.ask("a", f"{PATIENT},ImagingStudy-open", by=token(read=PATIENT.split(","), expires=NOON + 90.5))
    assert world.done() == [Verify(KEY, "a", CALLBACK, ("Patient-open", "Patient-close"), 90, "user:ann")]
    world.publish("Patient-open", patient("p1"))
    assert world.done() == []
    assert world.waiting() == []


@pytest.mark.req("WHK-2", "WHK-9", "CTX-1", "CTX-2", "CTX-3")
def test_a_verified_webhook_is_posted_what_is_current() -> None:
    """As a socket that joins would be told, but for the confirmation."""
    world = Hooked()
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    world.publish("Patient-open", patient("p1"))
    world.publish("ImagingStudy-open", study("s1"))
    world.hook("a", "Patient-open,ImagingStudy-open")
    assert world.posted() == [("a", "Patient-open p1"), ("a", "ImagingStudy-open s1")]


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


@pytest.mark.req("SYN-5", "SYN-6")
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


@pytest.mark.req("WHK-3")
def test_who_is_not_verified_is_gone() -> None:
    """Without a denial; a verified one stays whatever is said later."""
    world = Hooked()
    world.ask("a")
    world.hook("b", callback=CALLBACK + "2")
    world.do(VerificationFailed("a"))
    world.do(VerificationFailed("b"))
    world.do(VerificationFailed("unknown"))
    assert world.subscriptions().keys() == {"b"}
    assert world.drops() == []
    with pytest.raises(NotFound):
        world.do(Connected("a", connection_name("a")))


@pytest.mark.req("WHK-2")
def test_verified_twice_is_verified_once() -> None:
    """Nothing is posted again."""
    world = Hooked()
    world.publish("Patient-open", patient("p1"))
    world.hook("a")
    before = frozen(world.session)
    world.do(Connected("a", connection_name("a")))
    assert frozen(world.session) == before
    assert world.posted() == [("a", "Patient-open p1")]


@pytest.mark.req("SUB-14", "WHK-3")
def test_who_is_not_verified_in_time_is_gone() -> None:
    """Nothing is said to the callback."""
    world = Hooked(connect_timeout=60)
    world.ask("a")
    world.done()
    world.wait(61)
    assert [effect.reason for effect in world.done() if isinstance(effect, EndWebhook)] == [""]
    assert world.subscriptions() == {}


@pytest.mark.req("WHK-11", "LEA-4")
def test_the_leases_end_is_told_and_ends_what_waits() -> None:
    """Once; no SyncError."""
    world = Hooked()
    world.join("chart", "SyncError")
    world.hook("a", lease=60)
    world.publish("Patient-open", patient("p1"))
    world.done()
    world.wait(61)
    (drop,) = world.done()
    events = ("Patient-open", "Patient-close")
    assert drop == EndWebhook(KEY, "a", frozenset({1}), CALLBACK, events, "the lease has ended", "user:ann")
    assert world.waiting() == []
    assert world.news("chart") == []


@pytest.mark.req("WHK-5", "UNS-3")
def test_unsubscribing_by_callback() -> None:
    """Only one's own, in this topic, of exactly this callback; it is told nothing."""
    world = Hooked()
    world.hook("a")
    world.publish("Patient-open", patient("p1"))
    world.done()
    for by, callback in ((token("bob"), CALLBACK), (token(), CALLBACK + "/"), (token(), CALLBACK.upper())):
        with pytest.raises(NotFound):
            world.do(Unsubscribe(by, TOPIC, callback=callback))
    world.do(Unsubscribe(token(), TOPIC, callback=CALLBACK))
    (drop,) = world.done()
    assert isinstance(drop, EndWebhook)
    assert (drop.subscription_id, drop.reason) == ("a", "")
    assert world.waiting() == []
    with pytest.raises(NotFound):
        world.do(Unsubscribe(token(), TOPIC, callback=CALLBACK))


@pytest.mark.req("WHK-5", "LEA-4")
def test_a_lease_that_is_over_cannot_be_unsubscribed() -> None:
    """The time counts, not the timer."""
    world = Hooked()
    world.hook("a", lease=60)
    world.now += 61
    with pytest.raises(NotFound):
        world.do(Unsubscribe(token(), TOPIC, callback=CALLBACK))


@pytest.mark.req("WHK-5", "WHK-12")
def test_unsubscribing_ends_a_renewal_too() -> None:
    """The callback is nobody's any more, whether it was verified again or not."""
    world = Hooked()
    world.hook("a")
    world.ask("b")
    world.do(Unsubscribe(token(), TOPIC, callback=CALLBACK))
    assert world.subscriptions() == {}


@pytest.mark.req("WHK-12")
def test_a_verified_renewal_takes_over() -> None:
    """What the old one still waits for is the new one's; what is answered then is its answer; it is posted what is current."""
    world = Hooked()
    world.join("chart", "SyncError")
    world.hook("a", name="old")
    world.publish("Patient-open", patient("p1"))
    (pending,) = world.posts()
    world.ask("b", "Patient-open,Encounter-open", name="new")
    world.publish("Patient-open", patient("p2"))
    assert world.posted() == [("a", "Patient-open p2")]
    world.do(Connected("b", connection_name("b")))
    assert world.subscriptions().keys() == {"chart", "b"}
    assert world.posted() == [("b", "Patient-open p2")]
    assert [subscription_id for subscription_id, _ in world.waiting()] == ["b"] * 3
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    assert world.posted() == [("b", "Encounter-open e1")]
    world.do(PostFinished(pending.number, 409))
    (told,) = world.read("chart")
    assert "new refused" in told["event"]["context"][0]["resource"]["issue"][0]["diagnostics"]


@pytest.mark.req("WHK-12")
@pytest.mark.parametrize("first", ["a", "b"])
def test_of_two_that_are_asked_the_newer_stays(first: str) -> None:
    """In whichever order they are verified."""
    world = Hooked()
    world.ask("a", "Patient-open")
    world.now += 1
    world.ask("b", "Encounter-open")
    for subscription_id in (first, *({"a", "b"} - {first})):
        if subscription_id in world.subscriptions():
            world.do(Connected(subscription_id, connection_name(subscription_id)))
    assert world.subscriptions().keys() == {"b"}


@pytest.mark.req("WHK-12")
def test_a_subscription_of_another_user_is_not_replaced() -> None:
    """Nor one of another callback, nor a socket's."""
    world = Hooked()
    system = token(None, client="engine", topics=[TOPIC])
    world.join("chart", PATIENT)
    world.hook("a")
    world.hook("b", callback=CALLBACK + "?")
    world.hook("c", by=system)
    world.hook("d")
    assert world.subscriptions().keys() == {"chart", "b", "c", "d"}


@pytest.mark.req("WHK-12", "SUB-23")
def test_a_webhook_is_no_ghost() -> None:
    """Of the same name as a new socket's, verified or not, it stays."""
    world = Hooked()
    world.ask("a", name="App")
    world.hook("b", callback=CALLBACK + "2", name="App")
    world.subscribe("chart", PATIENT, name="App")
    assert world.subscriptions().keys() == {"a", "b", "chart"}


@pytest.mark.req("WHK-3", "WHK-7", "SUB-14", "SUB-22", "WHK-12", "SES-4")
@pytest.mark.parametrize(
    "how", ["it makes room", "the topic is full", "it asks anew", "its time is over", "its lease ends", "the end"]
)
def test_who_goes_before_it_is_verified_is_asked_no_more(how: str) -> None:
    """However it went, and without a word to its callback; else its callback could hang for nothing."""
    world = Hooked(max_subscriptions=1) if how == "the topic is full" else Hooked()
    world.ask("a", lease=30 if how == "its lease ends" else None)
    world.done()
    match how:
        case "it makes room":
            world.do(Evict("a"))
        case "the topic is full":
            world.ask("b", callback=CALLBACK + "2")
        case "it asks anew":
            world.ask("b")
        case "its time is over":
            world.wait(60)
        case "its lease ends":
            world.wait(30)
        case "the end":
            world.do(EndSession("over"))
    (drop,) = world.drops()
    assert (drop.subscription_id, drop.numbers, drop.reason) == ("a", frozenset(), "")


@pytest.mark.req("SUB-22")
def test_who_is_not_verified_makes_room_and_who_is_does_not() -> None:
    """As with sockets that did not come yet."""
    world = Hooked()
    world.ask("a")
    world.hook("b", callback=CALLBACK + "2")
    world.do(Evict("a"))
    world.do(Evict("b"))
    assert world.subscriptions().keys() == {"b"}


@pytest.mark.req("WHK-7", "SYN-14")
@pytest.mark.parametrize("rules", [{"retained_messages": 2}, {"retained_bytes": 700}])
def test_too_much_waiting_ends_a_webhook(rules: dict[str, Any]) -> None:
    """Reported to the others, told to the callback, and nothing waits any more; whoever keeps up stays."""
    world = Hooked(**rules)
    world.join("chart", "SyncError")
    world.hook("a", name="Worklist")
    world.hook("b", callback=CALLBACK + "2")
    for number in range(3):
        world.publish("Patient-open", patient(f"p{number}"))
        for post in [effect for effect in world.hooked if isinstance(effect, Post) and effect.subscription_id == "b"]:
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


# Restarts


@pytest.mark.req("WHK-4", "SUB-23")
def test_after_a_restart_webhooks_go_on() -> None:
    """What was not answered is posted again, in order, with the same numbers; what comes is posted; nobody is lost."""
    world = Hooked()
    world.hook("a", secret=b"sealed")
    for number in range(3):
        world.publish("Patient-open", patient(f"p{number}"))
    first, *rest = world.posts()
    world.do(PostFinished(first.number, 200))
    world.restart()
    assert world.posts() == rest
    world.publish("Patient-open", patient("p4"))
    assert world.posted() == [("a", "Patient-open p4")]
    world.wait(100)
    assert world.subscriptions().keys() == {"a"}


@pytest.mark.req("WHK-2")
def test_after_a_restart_who_was_being_asked_is_asked_again() -> None:
    """With the lease that is left."""
    world = Hooked()
    world.ask("a", lease=100)
    world.now += 40
    world.restart()
    assert world.done() == [Verify(KEY, "a", CALLBACK, ("Patient-open", "Patient-close"), 60, "user:ann")]


@pytest.mark.req("WHK-11")
def test_strikes_and_leases_survive_a_restart() -> None:
    """What was counted is counted on."""
    world = Hooked(ack_strikes=2)
    world.hook("a", lease=600)
    for number in range(2):
        world.publish("Patient-open", patient(f"p{number}"))
    one, two = world.posts()
    world.do(PostFinished(one.number, 0))
    world.restart()
    world.done()
    world.do(PostFinished(two.number, 0))
    assert world.subscriptions() == {}


@pytest.mark.req("WHK-4")
def test_a_connection_is_called_after_its_subscription() -> None:
    """So that it is the same after a restart, and no socket's."""
    world = Hooked()
    world.hook("a")
    assert world.session is not None
    assert audiences.subscribed(world.session.audiences, "patient-open") == (connection_name("a"),)
    assert world.session.webhook_connections == {connection_name("a")}
    world.restart()
    assert audiences.subscribed(world.session.audiences, "patient-open") == (connection_name("a"),)
    assert world.session.webhook_connections == {connection_name("a")}


# Whose it is


@pytest.mark.req("SUB-19", "WHK-12")
def test_another_applications_callback_is_another_subscription() -> None:
    """A widget that names the callback of an EHR, with fewer events, takes nobody's place: both are posted to."""
    world = Hooked()
    world.hook("ehr", "Patient-open,Patient-close")
    world.hook("widget", "Patient-open", by=token(client="a-widget"))
    world.done()
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-close", patient("p1"))
    assert world.posted() == [("ehr", "Patient-open p1"), ("widget", "Patient-open p1"), ("ehr", "Patient-close p1")]


@pytest.mark.req("SUB-19", "WHK-5")
def test_another_application_may_not_end_a_webhook() -> None:
    """By the callback it ends its own, if it has one."""
    world = Hooked()
    world.hook("ehr")
    with pytest.raises(NotFound):
        world.unsubscribe(None, by=token(client="a-widget"), callback=CALLBACK)
    world.hook("widget", by=token(client="a-widget"))
    world.unsubscribe(None, by=token(client="a-widget"), callback=CALLBACK)
    world.done()
    world.publish("Patient-open", patient("p1"))
    assert world.posted() == [("ehr", "Patient-open p1")]


@pytest.mark.req("DER-3", "WHK-9")
def test_after_a_restart_a_webhook_is_told_what_it_may_not_show() -> None:
    """p2 was closed, and p1 is open again by an encounter: nobody knows any more what the webhook shows."""
    world = Hooked()
    world.hook("a", "Patient-open")
    for number in (1, 2):
        world.publish("Patient-open", patient(f"p{number}"))
    world.publish("Patient-close", patient("p2"))
    world.restart()
    world.done()
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    assert world.posted() == [("a", "Patient-open p1")]


@pytest.mark.req("DER-9", "WHK-12", "WHK-4")
@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize("how", ["stays", "renews", "restart"])
def test_what_a_webhook_shows_is_remembered(how: str, newer: bool) -> None:
    """An encounter told p1, a study of p1 was opened, the encounter closed; perhaps a study of nobody came. p1 ends with the study."""
    world = Hooked()
    events = f"{PATIENT},ImagingStudy-open,ImagingStudy-close"
    world.hook("a", events)
    world.publish("Encounter-open", encounter("e1"), patient("p1"))
    world.publish("ImagingStudy-open", study("s1"), patient("p1"))
    world.publish("Encounter-close", encounter("e1"))
    if newer:
        world.publish("ImagingStudy-open", study("s2"))
    if how == "renews":
        world.hook("b", events)
    elif how == "restart":
        world.restart()
    world.done()
    world.publish("ImagingStudy-close", study("s1"))
    assert [what for _, what in world.posted()] == ["ImagingStudy-close s1", "Patient-close p1"]
