"""Nothing is posted after a subscription has ended, except the denial."""

from __future__ import annotations

import asyncio

import pytest

from tests.running import event
from tests.webhook.callback_server import (
    OK,
    PATIENT,
    Answer,
    ask,
    hub_and_callbacks,
    quiet,
    subscribe,
    unsubscribe,
)
from tests.webhook.deliver_world import opens, publish


@pytest.mark.req("WHK-5", "UNS-6")
async def test_unsubscribed_is_told_nothing_more() -> None:
    """202 without any verification or denial; later events are not posted, and a second time it is unknown."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        await publish(hub, 1)
        await server.posted(1)
        answer = await unsubscribe(hub, server.url())
        assert (answer.status_code, answer.json()) == (202, {})
        await publish(hub, 1, 2)
        await quiet(hub)
        assert len(server.requests) == 2
        assert (await unsubscribe(hub, server.url())).status_code == 404


@pytest.mark.req("WHK-5")
async def test_unsubscribing_ends_retries_and_the_queue(waits: list[float]) -> None:
    """The current post is abandoned, and waiting ones are not posted. No error is reported."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        gate = asyncio.Event()
        server.say("POST", "/callback", Answer(500, gate=gate))
        async with hub.follow(await hub.subscribe("SyncError")) as follower:
            await publish(hub, 3)
            await server.posted(1)
            assert (await unsubscribe(hub, server.url())).status_code == 202
            gate.set()
            await quiet(hub)
            assert await follower.silent()
        assert server.news() == opens(1)


@pytest.mark.req("WHK-5", "WHK-8")
@pytest.mark.parametrize("late", [OK, Answer(409), Answer(500)], ids=["200", "409", "500"])
async def test_unsubscribing_from_one_topic_leaves_the_other(late: Answer) -> None:
    """A callback of two topics has one queue. The end of one topic leaves the other's posts."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        await subscribe(hub, server, hub__topic="other")
        gate = asyncio.Event()
        server.say("POST", "/callback", late._replace(gate=gate), OK)
        await publish(hub, 2)
        await server.posted(1)
        for number in (3, 4):
            await hub.publish(event("Patient-open", f"p{number}", topic="other"))
        assert (await unsubscribe(hub, server.url())).status_code == 202
        gate.set()
        await server.posted(3)
        await quiet(hub)
        assert server.news() == [*opens(1), *opens(2, 3)]


@pytest.mark.req("WHK-5", "WHK-12")
async def test_unsubscribing_ends_also_what_waited_since_before_a_renewal() -> None:
    """Posts that the new subscription took over from the old one are its own: they end with it."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        gate = asyncio.Event()
        server.say("POST", "/callback", Answer(gate=gate), OK)
        await publish(hub, 3)
        await server.posted(1)
        await subscribe(hub, server)
        assert (await unsubscribe(hub, server.url())).status_code == 202
        gate.set()
        await quiet(hub)
        assert server.news() == opens(1)


@pytest.mark.req("WHK-5", "WHK-12")
async def test_unsubscribing_ends_also_a_renewal_that_is_not_verified_yet() -> None:
    """After the 202 nothing is posted, whatever the callback was still being asked."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        gate = asyncio.Event()
        server.say("GET", "/callback", Answer(body=None, gate=gate))
        await ask(hub, server.url())
        await server.asked(2)
        assert (await unsubscribe(hub, server.url())).status_code == 202
        gate.set()
        await quiet(hub)
        await publish(hub, 1)
        await quiet(hub)
        assert server.posts() == []


@pytest.mark.req("WHK-5", "UNS-3")
async def test_another_users_callback_cannot_be_unsubscribed() -> None:
    """404, as for an unknown subscription or another topic's. The subscription still receives events."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        other = hub.token("user-2")
        foreign = await unsubscribe(hub, server.url(), other)
        unknown = await unsubscribe(hub, server.url("/unknown"))
        elsewhere = await unsubscribe(hub, server.url(), topic="elsewhere")
        assert foreign.status_code == unknown.status_code == elsewhere.status_code == 404
        assert foreign.text == unknown.text
        assert server.url() not in foreign.text
        await publish(hub, 1)
        await server.posted(1)


@pytest.mark.req("WHK-11", "LEA-4")
async def test_at_its_end_the_lease_is_denied() -> None:
    """GET with hub.mode=denied, topic, events and reason; no SyncError; and nothing after it."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, "/callback?a=b+c", hub__lease_seconds="60")
        async with hub.follow(await hub.subscribe("SyncError")) as follower:
            hub.clock.now += 61
            await hub.hub.service.tick()
            (denied,) = await server.asked(mode="denied")
            assert denied.target.startswith("/callback?a=b+c&hub.mode=denied&hub.topic=")
            assert denied.query["hub.events"] == PATIENT
            assert "lease" in denied.query["hub.reason"]
            await publish(hub, 1)
            await quiet(hub)
            assert await follower.silent()
        assert [each.method for each in server.requests] == ["GET", "GET"]
        assert (await unsubscribe(hub, server.url("/callback?a=b+c"))).status_code == 404


@pytest.mark.req("SES-5", "WHK-11")
async def test_a_logout_that_ends_the_session_is_posted_before_it_ends() -> None:
    """Behind what waited; then nothing is posted any more, and the callback is told that it is over."""
    async with hub_and_callbacks(logout_ends_session=True) as (hub, server):
        gate = asyncio.Event()
        await subscribe(hub, server, events="Patient-open,UserLogout")
        server.say("POST", "/callback", Answer(gate=gate), OK)
        await publish(hub, 1)
        await server.posted(1)
        assert (await hub.publish(event("UserLogout", "x"))).status_code == 202
        await publish(hub, 1, first=2)
        (denied,) = await server.asked(mode="denied")
        assert denied.query["hub.reason"] == "the user has logged out"
        gate.set()
        await quiet(hub)
        assert server.news() == ["Patient-open p1", "UserLogout x"]


@pytest.mark.req("WHK-11")
async def test_at_the_leases_end_nothing_is_tried_again() -> None:
    """Posts that wait, or failed and would be posted again, are over with it."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, hub__lease_seconds="60")
        gate = asyncio.Event()
        server.say("POST", "/callback", Answer(500, gate=gate))
        await publish(hub, 3)
        await server.posted(1)
        hub.clock.now += 61
        await hub.hub.service.tick()
        await server.asked(mode="denied")
        gate.set()
        await quiet(hub)
        assert server.news() == opens(1)


@pytest.mark.req("WHK-11")
@pytest.mark.parametrize("answer", [Answer(404), Answer(302), OK], ids=["404", "302", "200"])
async def test_a_denial_is_said_once(answer: Answer) -> None:
    """Whatever is answered."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server, hub__lease_seconds="60")
        server.say("GET", "/callback", answer)
        hub.clock.now += 61
        await hub.hub.service.tick()
        await quiet(hub)
        assert len(server.gets(mode="denied")) == 1
