"""A slow callback delays no other subscriber."""

from __future__ import annotations

import asyncio

import pytest

from fhircast_hub.webhook import deliver, verify
from tests.running import until
from tests.webhook.callback_server import (
    ECHO,
    HANG,
    OK,
    Answer,
    active,
    ask,
    hub_and_callbacks,
    quiet,
    subscribe,
    unsubscribe,
)
from tests.webhook.deliver_world import opens, publish, sync_error


@pytest.mark.req("WHK-7", "WHK-8")
async def test_a_hanging_callback_delays_nobody() -> None:
    """Sockets, other callbacks of the same server, and new subscriptions go on as ever."""
    async with hub_and_callbacks() as (hub, server):
        for path in ("/slow", "/fast"):
            await subscribe(hub, server, path)
        server.say("POST", "/slow", HANG)
        async with hub.follow(await hub.subscribe()) as follower:
            await publish(hub, 20)
            assert await follower.names(20) == ["Patient-open"] * 20
            await server.posted(20, "/fast")
        await subscribe(hub, server, "/new")
        assert server.news("/fast") == opens(20)
        assert server.news("/slow") == opens(1)


@pytest.mark.req("WHK-7")
async def test_many_hanging_callbacks_delay_nobody() -> None:
    """Sixty of them, in one topic."""
    async with hub_and_callbacks() as (hub, server):
        for number in range(60):
            server.say("POST", f"/slow{number}", HANG)
            await ask(hub, server.url(f"/slow{number}"))
        await subscribe(hub, server, "/fast")
        await until(lambda: len(active(hub)) == 61)
        await publish(hub, 3)
        await server.posted(3, "/fast")
        assert server.news("/fast") == opens(3)


@pytest.mark.req("WHK-7")
async def test_who_only_asks_to_be_asked_delays_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hanging verifications and denials of one user use only places for such requests."""
    monkeypatch.setattr(deliver, "POSTS_AT_ONCE", 2)
    monkeypatch.setattr(verify, "AT_ONCE", 2)
    async with hub_and_callbacks(max_subscriptions_per_topic=8) as (hub, server):
        await subscribe(hub, server)
        for number in range(4):
            server.say("GET", f"/over{number}", ECHO, HANG)
            await subscribe(hub, server, f"/over{number}", hub__lease_seconds="1", hub__topic="another")
        hub.clock.now += 1
        await hub.hub.service.tick()
        for number in range(4):
            server.say("GET", f"/hangs{number}", HANG)
            await ask(hub, server.url(f"/hangs{number}"), hub__topic="another")
        await until(lambda: len(server.requests) == 1 + 4 + 1)
        await publish(hub, 3)
        await server.posted(3)


@pytest.mark.req("WHK-7", "SUB-22", "WHK-24")
async def test_who_subscribes_without_end_has_no_more_questions_than_subscriptions() -> None:
    """The question to the callback of a subscription that went ends with it."""
    async with hub_and_callbacks(max_subscriptions_per_topic=3) as (hub, server):
        for number in range(12):
            server.say("GET", f"/hangs{number}", HANG)
            await ask(hub, server.url(f"/hangs{number}"))
        await until(lambda: server.gets("/hangs9") != [] and len(hub.hub._webhooks._tasks) == 3)
        assert hub.hub._webhooks._verifying.keys() == {
            subscription_id
            for session in hub.hub.service._store.sessions()
            for subscription_id in session.subscriptions
        }
        await unsubscribe(hub, server.url("/hangs9"))
        await until(lambda: len(hub.hub._webhooks._tasks) == 2 and server.gets("/hangs10") != [])


@pytest.mark.req("WHK-7", "WHK-11")
async def test_denials_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than so many that hang, the rest are not told."""
    monkeypatch.setattr(deliver, "MAX_DENIALS", 12)  # of which one user has two
    async with hub_and_callbacks() as (hub, server):
        for number in range(4):
            server.say("GET", f"/over{number}", ECHO, HANG)
            await subscribe(hub, server, f"/over{number}", hub__lease_seconds="1")
        hub.clock.now += 1
        await hub.hub.service.tick()
        await until(lambda: len(server.requests) == 4 + 1)
        assert len(hub.hub._webhooks._tasks) == 2


@pytest.mark.req("WHK-7", "SYN-14", "WHK-19")
@pytest.mark.parametrize("bound", [{"queue_messages": 3}, {"queue_bytes": 1000}])
async def test_a_queue_over_its_bound_ends_the_subscription(bound: dict[str, int]) -> None:
    """The callback gets a SyncError and a denial. Its waiting posts are dropped, and others get all theirs."""
    async with hub_and_callbacks(**bound) as (hub, server):
        await subscribe(hub, server, "/slow", subscriber__name="Worklist")
        await subscribe(hub, server, "/fast")
        gate = asyncio.Event()
        server.say("POST", "/slow", Answer(gate=gate), OK)
        async with hub.follow(await hub.subscribe("SyncError")) as follower:
            for number in range(1, 7):
                await publish(hub, 1, number)
                await server.posted(number, "/fast")
            text, _ = await sync_error(follower)
            assert text.startswith("Worklist was unsubscribed: ")
            assert await follower.silent()
        (denied,) = await server.asked(path="/slow", mode="denied")
        assert "too much" in denied.query["hub.reason"]
        gate.set()
        await quiet(hub)
        assert server.news("/slow") == opens(1)
        assert server.news("/fast") == opens(6)


@pytest.mark.req("WHK-7", "OPS-1")
async def test_what_waits_is_counted() -> None:
    """Posts that wait, those answered, and those of them that failed."""
    async with hub_and_callbacks() as (hub, server):
        await subscribe(hub, server)
        gate = asyncio.Event()
        server.say("POST", "/callback", Answer(gate=gate), Answer(409), OK)
        await publish(hub, 3)
        await server.posted(1)
        assert "fhircast_queue_posts 3.0" in (await hub.client.get(hub.origin + "/metrics")).text
        gate.set()
        await quiet(hub)
        metrics = (await hub.client.get(hub.origin + "/metrics")).text
        assert "fhircast_queue_posts 0.0" in metrics
        assert "fhircast_posts_total 3.0" in metrics
        assert "fhircast_posts_failed_total 1.0" in metrics
