"""A standby without the last commits takes over: no node builds on what was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgresql.nodes_world import at, eventually, nodes, store_of
from tests.postgresql.programs import wait
from tests.postgresql.server import DATABASE, PostgresServer
from tests.running import RunningHub, event

pytestmark = pytest.mark.req("NOD-19")


@pytest.fixture
def servers(postgres_folder: Path) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary, and a standby for which no commit waits."""
    with (
        PostgresServer.make(postgres_folder / "primary") as primary,
        primary.standby(postgres_folder / "standby") as standby,
    ):
        yield primary, standby


def stop_following(primary: PostgresServer, standby: PostgresServer) -> None:
    """The standby has all commits of before, and gets no later one."""
    wal = primary.psql("select pg_current_wal_lsn()")
    follows = f"select pg_last_wal_replay_lsn() >= '{wal}'"
    wait(lambda: standby.psql(follows) == "t", lambda: "the standby does not follow")
    standby.psql("alter system set primary_conninfo = ''; select pg_reload_conf();")
    receives = "select count(*) from pg_stat_wal_receiver"
    wait(lambda: standby.psql(receives) == "0", lambda: "the standby follows still")


async def commits(hub: RunningHub, topic: str) -> bool:
    return (await hub.publish(event("Patient-open", topic=topic))).status_code == 202


async def test_nothing_is_committed_before_the_node_knows_of_the_loss(
    servers: tuple[PostgresServer, PostgresServer],
) -> None:
    """The node's reader of the log is asleep meanwhile. Then the node begins anew, and works on."""
    primary, standby = servers
    both = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    url = primary.url().replace(f"127.0.0.1:{primary.port}", both)
    async with nodes(url, 1) as [node], node.follow(await node.subscribe()) as follower:
        await asyncio.to_thread(stop_following, primary, standby)
        assert (await node.publish(event("Patient-open", "p1"))).status_code == 202
        assert (await follower.next())["id"] == "Patient-open-p1"
        reader = store_of(node)._follower
        assert reader._task
        reader._task.cancel()
        await asyncio.to_thread(primary.crash)
        await asyncio.to_thread(standby.promote)
        await eventually(lambda: _serves(standby))
        store = store_of(node)
        for _ in range(5):
            assert not await commits(node, "another-topic")
            assert (await node.context()).status_code == 503
            store._writer._link._not_before = store._reader._link._not_before = 0.0  # no pause between two connections
        assert standby.psql("select count(*) from fhircast.session where topic = 'another-topic'", DATABASE) == "0"
        reader.start()
        assert await follower.closed() == 1012
        await eventually(lambda: commits(node, "another-topic"))


async def _serves(server: PostgresServer) -> bool:
    """Whether the node gives signs of life at the server."""
    signs = "select count(*) from pg_stat_activity where application_name = 'fhircast-hub node'"
    return await asyncio.to_thread(server.psql, signs) == "1"


@pytest.mark.parametrize(
    "loss",
    ["delete from fhircast.log where position = $1", "update fhircast.log set written = now() where position = $1"],
    ids=["gone", "given again"],
)
async def test_an_own_commit_that_was_lost_is_noticed(database: str, loss: str) -> None:
    """The node has committed beyond what it has read. Its newest commit is not in the log, or another one has its position."""
    async with nodes(database) as (first, second), second.follow(at(second, await first.subscribe())) as follower:
        reader, asks = store_of(second)._follower, store_of(first)._asks
        await reader.catch_up()
        assert reader._task
        reader._task.cancel()
        assert await commits(first, "one")
        assert await commits(second, "two")
        [newest] = reader._own
        await asks.fetch(loss, newest)
        reader.start()
        assert await follower.closed() == 1012
