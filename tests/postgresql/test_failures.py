"""Nodes die, sleep and lose the database: what was answered stays true, and everybody is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from fhircast_hub.core.state.effects import Effect
from fhircast_hub.postgresql import commits, membership
from fhircast_hub.postgresql.database import Lost
from fhircast_hub.postgresql.log import encode_effects
from tests.nodes.proxy import Proxy
from tests.postgresql.nodes_world import at, die, eventually, hurry, nodes, store_of
from tests.running import RunningHub, event, until
from tests.webhook.callback_server import LOOPBACK, CallbackServer, ask

EVENTS = "Patient-open,Patient-close,SyncError"


async def names_of_nodes(hub: RunningHub) -> set[str]:
    return {row[0] for row in await store_of(hub)._asks.fetch("select name from fhircast.node where not dead")}


@asynccontextmanager
async def proxied(database: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before the database, and the database's URL through it."""
    parts = urlsplit(database)
    assert parts.port
    proxy = Proxy(parts.port)
    await proxy.start()
    yield proxy, database.replace(f":{parts.port}/", f":{proxy.port}/")
    await proxy.stop()


@pytest.mark.req("NOD-1", "NOD-2", "SYN-7")
async def test_sockets_of_a_dead_node_are_lost_once(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes find the dead one. The observer at one of them hears of each lost application once."""
    hurry(monkeypatch)
    async with nodes(database, 3, reconnect_grace=1) as (first, second, third), AsyncExitStack() as stack:
        observer = await stack.enter_async_context(first.follow(await first.subscribe(EVENTS, subscriber__name="EHR")))
        endpoint = at(third, await first.subscribe(EVENTS, subscriber__name="PACS"))
        await stack.enter_async_context(third.follow(endpoint))
        other = await stack.enter_async_context(
            second.follow(at(second, await first.subscribe("Patient-open", subscriber__name="Chart")))
        )
        await die(third)
        told = await observer.next()
        assert told["event"]["hub.event"] == "SyncError"
        assert "PACS" in str(told)
        assert await observer.silent()
        assert (await second.publish(event("Patient-open", "p1"))).status_code == 202
        assert (await observer.next())["id"] == (await other.next())["id"] == "Patient-open-p1"
        await eventually(lambda: _is_forgotten(first, store_of(third).node))


async def _is_forgotten(hub: RunningHub, node: str) -> bool:
    return not await store_of(hub)._asks.fetch("select from fhircast.node where name = $1", node)


@pytest.mark.req("NOD-1", "SUB-23")
async def test_who_is_back_in_time_is_not_reported(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket of the dead node comes back at the other node, and gets what it missed."""
    hurry(monkeypatch)
    async with nodes(database, reconnect_grace=2) as (first, second), AsyncExitStack() as stack:
        observer = await stack.enter_async_context(first.follow(await first.subscribe(EVENTS, subscriber__name="EHR")))
        endpoint = await first.subscribe(EVENTS, subscriber__name="PACS")
        await stack.enter_async_context(second.follow(at(second, endpoint)))
        await die(second)
        assert (await first.publish(event("Patient-open", "p1"))).status_code == 202
        assert (await observer.next())["id"] == "Patient-open-p1"
        async with first.follow(endpoint) as back:
            assert (await back.next())["id"] == "Patient-open-p1"
            await asyncio.sleep(3.5)  # the node dies, and the grace passes
            assert await observer.silent()


@pytest.mark.req("NOD-8")
async def test_a_node_that_was_marked_dead_begins_anew(database: str) -> None:
    """Its sockets are closed with 1012. Under another name it serves them again."""
    async with nodes(database) as (first, second):
        endpoint = at(second, await first.subscribe())
        async with second.follow(endpoint) as follower:
            name = store_of(second).node
            await store_of(first)._asks.fetch("select fhircast.mark_1($1, null)", name)
            assert (await second.publish(event("Patient-open", "p1"))).status_code == 503
            assert await follower.closed() == 1012
        await eventually(lambda: _joined(second))
        assert store_of(second).node != name
        async with second.follow(endpoint) as follower:
            assert (await first.publish(event("Patient-open", "p2"))).status_code == 202
            assert (await follower.next())["id"] == "Patient-open-p2"
            assert (await second.context()).status_code == 200


async def _joined(hub: RunningHub) -> bool:
    return store_of(hub).membership.joined


@pytest.mark.req("NOD-8")
async def test_a_handshake_that_began_under_the_old_name_is_refused(database: str) -> None:
    """No session has a socket of a node that is gone."""
    async with nodes(database, 1) as (hub,):
        endpoint = await hub.subscribe()
        store = store_of(hub)
        (key,) = [key for key, _ in store._cache]
        subscription_id = endpoint.rsplit("/", 1)[1]
        store._begin_anew(store.node)
        await eventually(lambda: _joined(hub))
        known = await store._asks.fetch("select id from fhircast.subscription")
        with pytest.raises(Exception, match="begins anew"):
            await hub.hub.service.connected(known[0][0], "an-earlier-name-1", 0.0)
        session, _ = await store.load(key)
        assert session
        assert [each.connection for each in session.subscriptions.values()] == [""], subscription_id


@pytest.mark.req("NOD-9", "LEA-1")
async def test_leases_of_a_dead_nodes_sessions_end(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else serves the session; another node ends its subscription in time."""
    hurry(monkeypatch)
    async with nodes(database) as (first, second):
        assert (await first.form(hub__events="Patient-open", hub__lease_seconds="2")).status_code == 202
        await die(first)
        await eventually(lambda: _has_no_subscription(second), 12)


async def _has_no_subscription(hub: RunningHub) -> bool:
    return not await store_of(hub)._asks.fetch("select from fhircast.subscription")


@pytest.mark.req("NOD-11")
async def test_while_the_database_is_away_requests_are_refused_and_sockets_stay(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes live, and are not ready. Afterwards all is as before, and everybody hears what comes."""
    hurry(monkeypatch, dead=2.0)
    async with proxied(database) as (proxy, url), nodes(url) as (first, second):
        endpoint = at(second, await first.subscribe())
        async with second.follow(endpoint) as follower:
            assert (await first.publish(event("Patient-open", "p1"))).status_code == 202
            assert (await follower.next())["id"] == "Patient-open-p1"
            proxy.cut(refusing=True)
            for answer in (
                await first.publish(event("Patient-open", "p2")),
                await second.form(hub__events="Patient-open"),
                await first.context(),
            ):
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["Retry-After"]) > 0
            assert await follower.silent()
            assert (await first.client.get(f"{first.origin}/health/live")).status_code == 200
            await eventually(lambda: _has_status(first, "/health/ready", 503))
            proxy.release()
            await eventually(lambda: _has_status(first, "/health/ready", 200))
            await eventually(lambda: _accepts(first, "p3"))
            assert (await follower.next())["id"] == "Patient-open-p3"


async def _has_status(hub: RunningHub, path: str, status: int) -> bool:
    return (await hub.client.get(hub.origin + path)).status_code == status


async def _accepts(hub: RunningHub, patient: str) -> bool:
    return (await hub.publish(event("Patient-open", patient))).status_code == 202


@pytest.mark.req("NOD-12", "EVT-17")
@pytest.mark.parametrize("committed", [True, False])
async def test_a_repeat_finds_out_what_became_of_an_unknown_commit(
    database: str, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """The answer of the commit is lost, or the commit itself. The repeat is accepted, and subscribers have the event."""
    async with nodes(database) as (first, second), AsyncExitStack() as stack:
        here = await stack.enter_async_context(first.follow(await first.subscribe(EVENTS)))
        there = await stack.enter_async_context(second.follow(at(second, await first.subscribe(EVENTS))))
        link = store_of(first)._writer._link
        fetch, lost = link.fetch, [True]

        async def lose(statement: str, *values: Any) -> list[Any]:
            if lost.pop() if lost else False:
                if committed:
                    await fetch(statement, *values)
                raise Lost
            return await fetch(statement, *values)

        monkeypatch.setattr(link, "fetch", lose)
        assert (await first.publish(event("Patient-open", "p1"))).status_code == 503
        assert (await first.publish(event("Patient-open", "p1"))).status_code == 202
        for follower in (here, there):
            assert (await follower.next())["id"] == "Patient-open-p1"
        assert (await second.context()).json()["context"][0]["resource"]["id"] == "p1"


@pytest.mark.req("NOD-14")
async def test_a_change_that_cannot_be_read_closes_its_sockets(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The follower comes back, and has the context. Other sessions are not disturbed."""
    encode = encode_effects

    def spoiled(effects: Sequence[Effect]) -> bytes:
        return b"\xc1" if b'"p1"' in b"".join(getattr(each, "frame", b"") for each in effects) else encode(effects)

    monkeypatch.setattr(commits, "encode_effects", spoiled)
    async with nodes(database) as (first, second):
        endpoint = at(second, await first.subscribe())
        other = at(second, await first.subscribe(hub__topic="another"))
        async with second.follow(endpoint) as follower, second.follow(other) as undisturbed:
            assert (await first.publish(event("Patient-open", "p1"))).status_code == 202
            assert await follower.closed() == 1012
            assert (await first.publish(event("Patient-open", "p2", topic="another"))).status_code == 202
            assert (await undisturbed.next())["id"] == "Patient-open-p2"
        async with second.follow(endpoint) as back:
            assert (await back.next())["id"] == "Patient-open-p1"
        metrics = (await second.client.get(f"{second.origin}/metrics")).text
        assert "fhircast_rows_unreadable_total 1.0" in metrics
        assert "fhircast_sessions_abandoned_total 1.0" in metrics


@pytest.mark.req("NOD-3", "NOD-10")
async def test_posts_of_a_dead_node_are_taken_over_in_order(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The callback does not answer the first node. All posts come again from the other node, and later ones after them."""
    hurry(monkeypatch)
    async with (
        CallbackServer() as server,
        nodes(database, webhook_allowed_networks=LOOPBACK, allow_insecure=True) as (first, second),
    ):
        assert (await ask(first, server.url())).status_code == 202
        await eventually(lambda: is_verified(second))
        assert (await second.publish(event("Patient-open", "p1"))).status_code == 202
        await until(lambda: len(posts(server)) == 1)
        await die(first)
        for number in range(2, 5):
            assert (await second.publish(event("Patient-open", f"p{number}"))).status_code == 202
        await until(lambda: posts(server)[-1:] == ["Patient-open p4"])
        labels = [label for label in posts(server) if "-open" in label]
        assert labels == [f"Patient-open p{number}" for number in range(1, 5)]


def posts(server: CallbackServer) -> list[str]:
    return [request.label for request in server.requests if request.method == "POST"]


async def is_verified(hub: RunningHub) -> bool:
    return bool(await store_of(hub)._asks.fetch("select from fhircast.subscription where connected"))


@pytest.mark.req("NOD-19")
async def test_a_database_that_lost_commits_is_noticed(database: str) -> None:
    """A standby without the last commits took over, and gives their positions again: sockets come back."""
    async with nodes(database) as (first, second), second.follow(at(second, await first.subscribe())) as follower:
        assert (await first.publish(event("Patient-open", "p1"))).status_code == 202
        assert (await follower.next())["id"] == "Patient-open-p1"
        # The row at the node's position is another one now.
        await store_of(first)._asks.fetch("update fhircast.log set written = written - interval '1 hour'")
        store_of(second)._follower._wake.set()
        assert await follower.closed() == 1012


async def test_a_clock_that_steps_marks_nobody(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database's clock jumps by an hour between two looks."""
    hurry(monkeypatch)
    assert membership.DEAD_SECONDS == 1.0
    async with nodes(database) as (first, second):
        before = await names_of_nodes(first)
        await store_of(first)._asks.fetch("update fhircast.node set seen = seen - interval '1 hour'")
        await asyncio.sleep(1.5)
        assert await names_of_nodes(second) == before
