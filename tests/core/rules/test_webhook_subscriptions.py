"""A webhook is verified, renewed and ended by its application."""

from __future__ import annotations

import pytest

from fhircast_hub.core.errors import NotFound
from fhircast_hub.core.rules.webhook_outbox import connection_name
from fhircast_hub.core.state.commands import (
    Connected,
    EndSession,
    Evict,
    PostFinished,
    Unsubscribe,
    VerificationFailed,
)
from fhircast_hub.core.state.effects import EndWebhook, Verify
from tests.core.rules.webhook_world import CALLBACK, KEY, Hooked
from tests.core.world import NOON, TOPIC, encounter, frozen, patient, study, token

PATIENT = "Patient-open,Patient-close"


@pytest.mark.req("WHK-2")
def test_a_new_webhook_is_asked() -> None:
    """The verification has the granted events and lease. An unverified subscription is in no audience."""
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
    """A callback ends only its own subscription, of this topic and this exact URL, and is told nothing."""
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
    """The new subscription takes over waiting posts and their answers. Then current opens are posted."""
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


@pytest.mark.req("WHK-12", "WHK-20")
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


@pytest.mark.req("SUB-19", "SUB-30", "WHK-12")
def test_another_applications_callback_is_another_subscription() -> None:
    """A widget that names the callback of an EHR, with fewer events, takes nobody's place: both are posted to."""
    world = Hooked()
    world.hook("ehr", "Patient-open,Patient-close")
    world.hook("widget", "Patient-open", by=token(client="a-widget"))
    world.done()
    world.publish("Patient-open", patient("p1"))
    world.publish("Patient-close", patient("p1"))
    assert world.posted() == [("ehr", "Patient-open p1"), ("widget", "Patient-open p1"), ("ehr", "Patient-close p1")]


@pytest.mark.req("SUB-19", "SUB-30", "WHK-5")
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
