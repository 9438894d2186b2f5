"""The database did what a node asked for, and the node does not know: nothing is lost, doubled or overtaken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.commands import Command, ResumePosts
from fhircast_hub.nodes import Duties
from fhircast_hub.postgresql import follower, membership
from fhircast_hub.postgresql.database import Link, Lost
from tests.postgresql.nodes_world import at, eventually, nodes, store_of
from tests.postgresql.test_failures import is_verified, posts
from tests.running import RunningHub, event, until
from tests.webhook.callback_server import LOOPBACK, Answer, CallbackServer, ask, unsubscribe

CALLBACKS = {"webhook_allowed_networks": LOOPBACK, "allow_insecure": True}


def lose_answer(
    monkeypatch: pytest.MonkeyPatch, link: Link, is_it: Callable[[str], bool] = lambda statement: True
) -> None:
    """The database carries out the next such statement of this connection, and its answer is lost."""
    fetch = link.fetch

    async def lose(statement: str, *values: Any) -> list[Any]:
        rows = await fetch(statement, *values)
        if not is_it(statement):
            return rows
        monkeypatch.setattr(link, "fetch", fetch)
        raise Lost

    monkeypatch.setattr(link, "fetch", lose)


@pytest.mark.req("NOD-8")
async def test_a_node_that_cannot_know_whether_it_has_joined_joins_by_another_name(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is alone: nobody would mark the name that it may have."""
    async with nodes(database, 1) as [node]:
        store = store_of(node)
        beats = store.membership._link
        lose_answer(monkeypatch, beats, lambda statement: statement == membership._JOIN)
        store._begin_anew(store.node)
        await eventually(lambda: _accepts(node, "p1"))
        await eventually(lambda: _has_one_name(node))


async def _accepts(node: RunningHub, patient: str) -> bool:
    return (await node.publish(event("Patient-open", patient))).status_code == 202


async def _has_one_name(node: RunningHub) -> bool:
    return len(await store_of(node)._asks.fetch("select from fhircast.node where not dead")) == 1


@pytest.mark.req("NOD-5", "NOD-8")
async def test_a_node_that_alone_cannot_read_the_log_closes_its_sockets(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives signs of life, so no other node notices. Its sockets come back when it reads again."""
    monkeypatch.setattr(follower, "BLIND_SECONDS", 0.5)
    async with nodes(database) as (first, second):
        endpoint = at(second, await first.subscribe())
        async with second.follow(endpoint) as socket:
            link = store_of(second)._follower._link
            fetch = link.fetch

            async def fail(statement: str, *values: Any) -> list[Any]:
                raise Lost

            monkeypatch.setattr(link, "fetch", fail)
            assert await socket.closed() == 1012
            assert (await second.client.get(f"{second.origin}/health/ready")).status_code == 503
            monkeypatch.setattr(link, "fetch", fetch)
        await eventually(lambda: _accepts(second, "p1"))
        async with second.follow(endpoint) as back:
            assert (await back.next())["id"] == "Patient-open-p1"


@pytest.mark.req("NOD-10", "NOD-12", "WHK-8")
async def test_no_post_overtakes_one_whose_commit_had_no_answer(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node has yet to begin the first post anew, when the second event is accepted. The callback ends on the second."""
    async with (
        CallbackServer() as server,
        nodes(database, 1, webhook_allowed_networks=LOOPBACK, allow_insecure=True) as [node],
    ):
        assert (await ask(node, server.url())).status_code == 202
        await eventually(lambda: is_verified(node))
        link, submit, may_resume = store_of(node)._writer._link, Duties._submit, asyncio.Event()
        fetch = link.fetch

        async def lose(statement: str, *values: Any) -> list[Any]:
            monkeypatch.setattr(link, "fetch", fetch)
            await fetch(statement, *values)
            raise Lost

        async def wait(duties: Duties, key: SessionKey, command: Command) -> bool:
            if isinstance(command, ResumePosts):
                await may_resume.wait()
            return await submit(duties, key, command)

        monkeypatch.setattr(Duties, "_submit", wait)
        monkeypatch.setattr(link, "fetch", lose)
        assert (await node.publish(event("Patient-open", "p1"))).status_code == 503
        assert (await node.publish(event("Patient-open", "p2"))).status_code == 202
        may_resume.set()
        await until(lambda: posts(server)[-1:] == ["Patient-open p2"])
        assert [label for label in posts(server) if "-open" in label] == ["Patient-open p1", "Patient-open p2"]


@pytest.mark.req("NOD-12", "WHK-5")
async def test_nothing_more_is_posted_after_an_end_whose_commit_had_no_answer(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first post hangs, the second waits. The application unsubscribes, and the node does not know that it has."""
    gate = asyncio.Event()
    async with CallbackServer() as server, nodes(database, 1, **CALLBACKS) as [node]:
        server.say("POST", "/callback", Answer(gate=gate))
        assert (await ask(node, server.url("/callback"))).status_code == 202
        await eventually(lambda: is_verified(node))
        for patient in ("p1", "p2"):
            assert await _accepts(node, patient)
        await until(lambda: len(posts(server)) == 1)
        lose_answer(monkeypatch, store_of(node)._writer._link)
        assert (await unsubscribe(node, server.url("/callback"))).status_code == 503
        assert (await node.context()).status_code == 200  # the node hears of its own commit
        await until(lambda: node.hub._webhooks.queued() == 0)
        gate.set()
        await until(lambda: not node.hub._webhooks._tasks)
        assert posts(server) == ["Patient-open p1"]
