"""Webhooks go on after a restart of the hub."""

from __future__ import annotations

import pytest

from fhircast_hub.core.state.commands import (
    PostFinished,
)
from fhircast_hub.core.state.effects import Verify
from tests.core.rules.webhook_world import CALLBACK, KEY, Hooked
from tests.core.world import encounter, patient, study

PATIENT = "Patient-open,Patient-close"


@pytest.mark.req("WHK-4", "SUB-23")
def test_after_a_restart_webhooks_go_on() -> None:
    """Unanswered posts are posted again, in order, with the same numbers. New events are posted. Nobody is lost."""
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
    """Missed acknowledgements from before the restart still count."""
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


@pytest.mark.req("SYN-13", "WHK-11")
def test_after_a_restart_a_webhook_hears_heartbeats_and_its_lease_ends() -> None:
    """The session has no socket, so the webhook alone decides when the session wants a Tick."""
    world = Hooked(heartbeat_seconds=30)
    world.hook("a", "heartbeat", lease=100)
    world.restart()
    world.wait(90)
    assert world.posted() == [("a", "heartbeat")] * 3
    world.wait(11)
    assert world.subscriptions() == {}


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
