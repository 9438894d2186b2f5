"""The console of a hub with two nodes on one database."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import structlog

from fhircast_hub.postgresql import session_list
from fhircast_hub.postgresql.database import DatabaseError, Link
from tests.console.console_world import Operated
from tests.postgresql.nodes_world import at, eventually, nodes, store_of
from tests.running import TOPIC, event

pytestmark = pytest.mark.req("CSL-13")

EVENTS = "Patient-open,Patient-close,SyncError"


async def test_each_node_shows_the_sessions_of_all_and_its_own_events(database: str) -> None:
    """A subscriber is at the first node; the second, which has nothing of the session, shows who takes part."""
    async with nodes(database, console=True) as hubs:
        first, second = map(Operated, hubs)
        endpoint = await first.hub.subscribe(EVENTS, **{"subscriber.name": "Chart"})
        async with first.hub.follow(endpoint) as follower:
            await first.open()
            await follower.next()

            async def shown() -> bool:
                rows = (await second.state())["sessions"]["rows"]
                return [(row["hash"], row["subscribers"]) for row in rows] == [(first.hash(), 1)]

            await eventually(shown)
            assert first.hash() == second.hash()
            session = await second.session()
            (chart,) = session["participants"]
            assert (chart["name"], chart["node"], chart["waiting"]) == ("Chart", store_of(first.hub).node, None)
            assert session["events"] == []  # the second node was told nothing of it
            assert [each["name"] for each in (await first.session())["events"]] == ["Patient-open"]
            parts = await second.state()
            found = {each["name"]: each for each in parts["nodes"]["nodes"]}
            names = [store_of(each.hub).node for each in (first, second)]
            assert set(found) == set(names)
            assert parts["nodes"]["own"] == parts["hub"]["node"] == names[1]
            assert (found[names[0]]["sessions"], found[names[0]]["sockets"], found[names[1]]["sockets"]) == (1, None, 0)
            assert not found[names[0]]["dead"]
            assert found[names[0]]["seenAt"] >= found[names[0]]["startedAt"] > 1_700_000_000
            (largest,) = parts["budgets"]["largest"]
            assert (largest["sessions"], largest["isFound"]) == (1, True)
            assert (largest["user"], largest["realm"]) == (second.user_hash("user-1", "hospital"), "hospital")


async def test_a_node_shows_what_others_committed_while_it_follows(database: str) -> None:
    """The sender is not known there."""
    async with nodes(database, console=True) as hubs:
        first, second = map(Operated, hubs)
        endpoint = await first.hub.subscribe(EVENTS)
        async with second.hub.follow(at(second.hub, endpoint)) as follower:
            await first.open("canary")
            await follower.next()
            (seen,) = (await second.session())["events"]
            assert (seen["name"], seen["sender"], seen["told"]) == ("Patient-open", None, 1)
            (seen,) = (await first.session())["events"]
            assert (seen["sender"], seen["told"]) == ("app", 1)
            assert "canary" not in json.dumps(await second.state(session=second.hash()))


async def test_a_session_that_another_node_begins_anew_has_no_history(database: str) -> None:
    """The first node follows neither the end nor the beginning."""
    async with nodes(database, console=True) as hubs:
        first, second = map(Operated, hubs)
        await first.open()
        assert (await first.session())["events"]
        assert (await second.end({"topic": TOPIC, "reason": "x"})).status_code == 204
        await second.open()

        async def forgotten() -> bool:
            return (await first.session()).get("events") == []

        await eventually(forgotten)
        assert (await second.session())["events"]


async def test_a_session_is_found_and_ended_at_any_node(database: str) -> None:
    """By hash, a part of the topic, the user; of many sessions, those used last."""
    async with nodes(database, console=True, max_topics_per_user=1000) as hubs:
        first, second = map(Operated, hubs)
        await first.open()
        for number in range(5):
            await first.open(topic=f"other-{number}")
        await first.hub.publish(event("Patient-open", topic="theirs"), first.hub.token("user-2"))

        async def found(search: str) -> list[str]:
            return [row["topic"] for row in (await second.state(search=search))["sessions"]["rows"]]

        assert await found(second.hash()) == await found(TOPIC[3:-3]) == [TOPIC]
        assert await found("user-2") == await found(second.user_hash("user-2", "hospital")) == ["theirs"]
        assert await found("0" * 12) == []
        assert await found("other-") == [f"other-{number}" for number in (4, 3, 2, 1, 0)]
        assert (await second.state())["sessions"]["total"] == 7
        assert (await second.end({"topic": TOPIC, "reason": "x"})).status_code == 204
        assert (await first.session())["gone"]
        limited = second.hub.token("operator", "fhircast-hub/console.read", **{"hub.topic": "theirs"})
        assert [row["topic"] for row in (await second.state(limited))["sessions"]["rows"]] == ["theirs"]


async def test_without_its_database_a_node_says_so_and_goes_on(database: str) -> None:
    """The parts of the store are unavailable; all others are there."""
    async with nodes(database, 1, console=True) as (hub,):
        console = Operated(hub)
        await console.open()
        store = store_of(hub)

        async def fail(*_: object) -> list[object]:
            raise DatabaseError

        store._usage.lists.fetch = fail  # type: ignore[assignment]
        parts = await console.state(session=console.hash())
        assert parts["sessions"]["unavailable"]
        assert parts["nodes"]["unavailable"]
        assert parts["budgets"]["unavailable"]
        assert parts["hub"]["eventsReceived"] == 1


async def test_a_search_holds_nobody_else_up(database: str) -> None:
    """The console has a connection of its own. While a search waits for the database, an application subscribes."""
    async with nodes(database, 1, console=True) as (hub,):
        console = Operated(hub)
        link = store_of(hub)._usage.lists
        assert link.pid is None  # nobody has looked yet
        blocked = asyncio.create_task(link.fetch("select pg_sleep(2)"))
        await eventually(lambda: is_open(link))
        looking = asyncio.create_task(console.state(search="x"))
        async with asyncio.timeout(1.5):
            await store_of(hub)._asks.fetch("select 1")
            await hub.subscribe(EVENTS)
        assert not blocked.done()
        assert not looking.done()
        await blocked
        assert (await looking)["sessions"]["rows"] == []


async def is_open(link: Link) -> bool:
    """Whether the connection was made."""
    return link.pid is not None


async def test_the_server_ends_a_search_that_takes_too_long(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection stays, and the operator is told. No other connection has such a limit."""
    monkeypatch.setattr(session_list, "MOST_MILLISECONDS", 50)
    monkeypatch.setattr(
        session_list, "_ROWS", f"select pg_sleep(2), {session_list._ROWS.strip().removeprefix('select')}"
    )
    async with nodes(database, 1, console=True) as (hub,):
        console = Operated(hub)
        await console.open()
        with structlog.testing.capture_logs() as captured:
            sessions = (await console.state())["sessions"]
        assert sessions["unavailable"] == "the hub's database is busy; repeat the request"
        link = store_of(hub)._usage.lists
        process = link.pid
        assert process
        assert (await console.state())["nodes"]["nodes"]
        assert link.pid == process
        assert await store_of(hub)._asks.fetch("show statement_timeout") == [("0",)]
        assert not [line for line in captured if line["event"] == "database refused"]


async def test_a_hash_is_found_among_all_sessions(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long ago the session was used: all are looked at, some at a time. Also by the hash of the user."""
    monkeypatch.setattr(session_list, "STEP", 2)
    async with nodes(database, 1, console=True) as (hub,):
        console = Operated(hub)
        await console.open()
        await hub.publish(event("Patient-open", topic="theirs"), hub.token("user-2"))
        for number in range(5):
            await console.open(topic=f"other-{number}")
        asked = list[str]()
        link = store_of(hub)._usage.lists
        fetch = link.fetch

        async def listen(statement: str, *values: Any) -> list[Any]:
            asked.append(statement)
            return await fetch(statement, *values)

        monkeypatch.setattr(link, "fetch", listen)
        assert (await console.session())["topic"] == TOPIC
        for name in (console.hash("user:user-2"), console.user_hash("user-2", "hospital")):
            console.console.sessions._users.clear()
            rows = (await console.state(search=name))["sessions"]["rows"]
            assert [row["topic"] for row in rows] == ["theirs"]
        assert asked.count(session_list._NEXT) >= 2 * 4


async def test_a_row_has_no_states_of_another_time(database: str) -> None:
    """Where this node knows another revision of the session than the row's, the states are left out."""
    async with nodes(database, 1, console=True) as (hub,):
        console = Operated(hub)
        await hub.subscribe(EVENTS)
        ((_, entry),) = store_of(hub)._cache
        (row,) = (await console.state())["sessions"]["rows"]
        assert row["states"] == {"not connected yet": 1}
        entry.revision -= 1
        (row,) = (await console.state(search=TOPIC))["sessions"]["rows"]
        assert (row["states"], row["subscribers"]) == (None, 1)
