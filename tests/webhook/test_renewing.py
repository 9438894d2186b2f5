"""The old subscription works until the callback has verified the new subscription."""

from __future__ import annotations

import asyncio

import pytest

from fhircast_hub.webhook.sealing import signature
from tests.running import event, until
from tests.webhook.callback_server import (
    Answer,
    active,
    ask,
    hub_and_callbacks,
    quiet,
    subscribe,
)
from tests.webhook.deliver_world import publish


@pytest.mark.req("WHK-12")
async def test_the_old_subscription_works_until_the_new_one_is_verified() -> None:
    """Until then as it was granted; from then on as the new one was, each event once, signed by the new secret."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, events="Patient-open", hub__secret="old")
        gate = asyncio.Event()
        server.say("GET", "/callback", Answer(body=None, gate=gate))
        await ask(hub, server.url(), "Patient-open,Encounter-open", hub__secret="new", hub__lease_seconds="500")
        await server.asked(2)
        await publish(hub, 1)
        await hub.publish(event("Encounter-open", "e1"))
        (post,) = await server.posted(1)
        assert post.headers["x-hub-signature"] == signature(b"old", post.body)
        gate.set()
        await server.posted(3)  # and what is current
        await publish(hub, 1, 2)
        *_, post = await server.posted(4)
        assert post.headers["x-hub-signature"] == signature(b"new", post.body)
        await quiet(hub)
        assert server.news().count("Patient-open p2") == 1
        assert server.gets(mode="denied") == []
        assert hub.hub.service.usage.subscriptions == 1


@pytest.mark.req("WHK-12", "WHK-11")
async def test_the_new_lease_counts() -> None:
    """The end of the old one passes without a denial."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, hub__lease_seconds="60")
        await subscribe(hub, server, hub__lease_seconds="600")
        hub.clock.now += 61
        await hub.hub.service.tick()
        await publish(hub, 1)
        await server.posted(1)
        assert server.gets(mode="denied") == []


@pytest.mark.req("WHK-12", "WHK-3")
async def test_a_renewal_that_is_not_verified_changes_nothing() -> None:
    """The callback refuses the new subscription. The old one stays unchanged."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, events="Patient-open")
        server.say("GET", "/callback", Answer(404))
        await ask(hub, server.url(), "Encounter-open")
        await server.asked(2)
        await until(lambda: hub.hub.service.usage.subscriptions == 1)
        await publish(hub, 1)
        await server.posted(1)


@pytest.mark.req("WHK-12", "WHK-20")
async def test_of_two_that_are_being_verified_the_newer_counts() -> None:
    """The last request before the verification counts, in whichever order the answers come."""
    async with hub_and_callbacks() as (hub, server):
        gate = asyncio.Event()
        server.say("GET", "/callback", Answer(body=None, gate=gate))
        await ask(hub, server.url(), "Patient-open")
        await server.asked(1)
        await ask(hub, server.url(), "Encounter-open")
        await server.asked(2)
        gate.set()
        await quiet(hub)
        await publish(hub, 1)
        await hub.publish(event("Encounter-open", "e1"))
        await quiet(hub)
        assert server.news() == ["Encounter-open e1"]


@pytest.mark.req("WHK-12")
@pytest.mark.parametrize("limit", ["max_subscriptions_per_topic", "max_subscriptions_per_user"])
async def test_at_the_limit_a_callback_can_renew_itself(limit: str) -> None:
    """A renewal replaces its own subscription at the limit. A webhook has no other way to renew."""
    async with hub_and_callbacks(**{limit: 1}) as (hub, server):
        await subscribe(hub, server)
        assert (await ask(hub, server.url())).status_code == 202


@pytest.mark.req("WHK-12")
async def test_other_callbacks_topics_and_users_live_beside() -> None:
    """Only the same callback of the same user in the same topic is replaced."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        await subscribe(hub, server, "/callback?2")
        await subscribe(hub, server, hub__topic="elsewhere")
        await subscribe(hub, server, hub__topic="theirs", token=hub.token("user-2"))
        assert len(active(hub)) == 4
        await publish(hub, 1)
        await server.posted(2)
        await quiet(hub)
        assert len(server.posts()) == 2
