"""Several nodes are one hub: what one accepts, all tell; and a reader at any of them sees it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.postgresql.nodes_world import all_names, at, nodes, store_of
from tests.running import event, until

OPENS = "Patient-open,Patient-close,SyncError"


@pytest.mark.req("NOD-6", "EVT-13")
async def test_an_endpoint_works_at_every_node(database: str) -> None:
    """Subscribed at the first node, connected at the second, and told what came to the first."""
    async with nodes(database) as (first, second):
        endpoint = await first.subscribe()
        async with second.follow(at(second, endpoint)) as follower:
            assert (await first.publish(event("Patient-open", "p1"))).status_code == 202
            assert (await follower.next())["id"] == "Patient-open-p1"
            assert (await second.publish(event("Patient-close", "p1"))).status_code == 202
            assert (await follower.next())["id"] == "Patient-close-p1"


@pytest.mark.req("NOD-7")
async def test_a_reader_at_another_node_sees_what_was_answered(database: str) -> None:
    """Each GET comes right after the 202 of the other node. Half of the readers know an older version."""
    async with nodes(database) as (first, second):
        for number in range(20):
            writer, reader = (first, second) if number % 2 else (second, first)
            assert (await writer.publish(event("Patient-open", f"p{number}"))).status_code == 202
            context = (await reader.context()).json()
            assert context["context"][0]["resource"]["id"] == f"p{number}"


@pytest.mark.req("NOD-7")
async def test_a_refusal_is_decided_on_the_newest_session(database: str) -> None:
    """The second node knows the session without the patient; its next answers know better."""
    async with nodes(database) as (first, second):
        assert (await first.publish(event("Patient-open", "p1"))).status_code == 202
        assert (await second.publish(event("Patient-close", "p1"))).status_code == 202
        assert (await first.publish(event("Patient-open", "p2"))).status_code == 202
        assert (await second.publish(event("Patient-close", "p2"))).status_code == 202
        assert (await first.context()).json()["context"] == []


@pytest.mark.req("NOD-5", "EVT-13", "EVT-14")
async def test_subscribers_of_all_nodes_are_told_in_one_order(database: str) -> None:
    """Ten events at a time, at three nodes; each subscriber hears all of them in the order of the first."""
    async with nodes(database, 3) as hubs, AsyncExitStack() as stack:
        followers = []
        for hub in hubs:
            for other in hubs:
                endpoint = at(other, await hub.subscribe(subscriber__name=f"{hub.port}-{other.port}"))
                followers.append(await stack.enter_async_context(other.follow(endpoint)))
        for round_ in range(2):
            published = [
                hub.publish(event("Patient-open", f"p{round_}-{number}-{hub.port}"))
                for hub in hubs
                for number in range(10)
            ]
            assert {answer.status_code for answer in await asyncio.gather(*published)} == {202}
        orders = [await all_names(follower, 60) for follower in followers]
        assert len(set(orders[0])) == 60
        assert all(order == orders[0] for order in orders)


@pytest.mark.req("NOD-5")
async def test_a_lost_notice_delays_and_loses_nothing(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No notice arrives; each second the node reads without one."""
    monkeypatch.setattr("fhircast_hub.postgresql.follower.Follower._on_notice", lambda *_: None)
    async with nodes(database) as (first, second), second.follow(at(second, await first.subscribe())) as follower:
        for number in range(5):
            assert (await first.publish(event("Patient-open", f"p{number}"))).status_code == 202
        assert await all_names(follower, 5) == [f"Patient-open-p{number}" for number in range(5)]


@pytest.mark.req("NOD-5", "CTX-5")
async def test_a_joiner_at_another_node_gets_the_context_and_what_follows(database: str) -> None:
    """While events come to the first node, many join at the second: none misses one after its first, none hears one twice."""
    async with nodes(database) as (first, second), AsyncExitStack() as stack:
        endpoints = [await first.subscribe(subscriber__name=f"viewer {number}") for number in range(10)]
        assert (await first.publish(event("Patient-open", "p0"))).status_code == 202

        async def publish() -> None:
            for number in range(1, 41):
                assert (await first.publish(event("Patient-open", f"p{number}"))).status_code == 202

        publishing = asyncio.create_task(publish())
        followers = [await stack.enter_async_context(second.follow(at(second, each))) for each in endpoints]
        await publishing
        for follower in followers:
            heard = [int((await follower.next())["id"].removeprefix("Patient-open-p"))]
            while heard[-1] != 40:
                heard.append(int((await follower.next())["id"].removeprefix("Patient-open-p")))
            assert heard == list(range(heard[0], 41))


@pytest.mark.req("NOD-5", "SYN-1")
async def test_a_refusal_at_one_node_is_told_at_the_other(database: str) -> None:
    """The SyncError names the event and comes once."""
    async with nodes(database) as (first, second), AsyncExitStack() as stack:
        here = await stack.enter_async_context(first.follow(await first.subscribe(OPENS, subscriber__name="EHR")))
        there = await stack.enter_async_context(
            second.follow(at(second, await first.subscribe(OPENS, subscriber__name="PACS")))
        )
        assert (await first.publish(event("Patient-open", "p1"))).status_code == 202
        assert (await there.next())["id"] == (await here.next())["id"] == "Patient-open-p1"
        await there.connection.send('{"id": "Patient-open-p1", "status": 409}')
        assert (await here.next())["event"]["hub.event"] == "SyncError"
        assert await here.silent()


@pytest.mark.req("NOD-13", "LIM-1")
async def test_limits_of_a_user_hold_over_all_nodes(database: str) -> None:
    """Thirty topics are begun at once at two nodes. Twelve of them may be."""
    async with nodes(database, max_topics_per_user=12) as hubs:
        begun = [
            hubs[number % 2].publish(event("Patient-open", topic=f"topic-{number}"), hubs[0].token())
            for number in range(30)
        ]
        codes = [answer.status_code for answer in await asyncio.gather(*begun)]
        assert sorted(codes) == [202] * 12 + [429] * 18


@pytest.mark.req("NOD-13", "SUB-22")
async def test_subscriptions_of_a_user_hold_over_all_nodes(database: str) -> None:
    """Twelve sockets connect, each to a subscription of its own, at two nodes at once. Three may be."""
    async with nodes(database, max_subscriptions_per_user=3) as hubs:

        async def subscribe(number: int) -> int:
            hub = hubs[number % 2]
            answer = await hub.form(hub__events="Patient-open", hub__topic=f"topic-{number}")
            if answer.status_code == 202:
                await stack.enter_async_context(hub.follow(answer.json()["hub.channel.endpoint"]))
            return answer.status_code

        async with AsyncExitStack() as stack:
            assert await subscribe(0) == await subscribe(1) == 202
            codes = await asyncio.gather(*(subscribe(number) for number in range(2, 12)), return_exceptions=True)
            counted = await store_of(hubs[0])._asks.fetch("select count(*) from fhircast.subscription")
            assert counted[0][0] == 3
            assert codes.count(429) >= 1


@pytest.mark.req("NOD-13", "LIM-2")
async def test_bytes_of_a_user_hold_over_all_nodes(database: str) -> None:
    """Many large contexts are opened at once at two nodes, in topics of their own. Older ones make room, or they are refused."""
    note = [{"key": "basic", "resource": {"resourceType": "Basic", "id": "b", "code": {"text": "x" * 20_000}}}]
    async with nodes(database, max_bytes_per_user=200_000) as hubs:
        begun = [
            hubs[number % 2].publish(event("Patient-open", topic=f"topic-{number}", also=note)) for number in range(16)
        ]
        codes = [answer.status_code for answer in await asyncio.gather(*begun)]
        assert set(codes) <= {202, 413}
        held = await store_of(hubs[0])._asks.fetch("select sum(bytes)::bigint, max(bytes) from fhircast.owner")
        counted = await store_of(hubs[0])._asks.fetch("select sum(bytes)::bigint from fhircast.session")
        assert held[0][0] == counted[0][0] <= 200_000


@pytest.mark.req("NOD-6")
async def test_starting_reads_no_session_and_the_unused_leave(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new node knows nothing of the others' sessions, and forgets what nobody uses there."""
    monkeypatch.setattr("fhircast_hub.postgresql.cache.KEPT_SECONDS", 0.0)
    monkeypatch.setattr("fhircast_hub.postgresql.store.SWEEP_SECONDS", 0.05)
    async with nodes(database) as (first, second), first.follow(await first.subscribe()):
        for number in range(5):
            assert (await second.publish(event("Patient-open", topic=f"topic-{number}"))).status_code == 202
        assert (await second.context()).status_code == 200
        await until(lambda: second.hub.service.usage.topics == 0)
        assert first.hub.service.usage.topics == 1
        assert second.hub.service._deadlines.next() is None
