"""The hub pings a client, and cuts a client off that does not answer."""

from __future__ import annotations

import pytest

from tests.counted import counted
from tests.running import event, running_hub, until
from tests.ws.socket_world import stuck_socket


@pytest.mark.req("SYN-13", "SYN-34")
async def test_a_peer_that_does_not_answer_pings_is_cut_off() -> None:
    """A socket whose peer is gone without a word is noticed by its pings."""
    async with running_hub() as hub:
        hub.hub.sockets.ping_seconds = 0.05
        async with hub.follow(await hub.subscribe()) as follower:
            follower.connection.transport.pause_reading()
            await until(lambda: not len(hub.hub.registry))
            follower.connection.transport.abort()
        assert counted(hub.hub.metrics.pings_unanswered) == 1


@pytest.mark.req("SYN-13", "SYN-34")
async def test_a_peer_that_answers_pings_stays() -> None:
    """Three pings later the socket is still there."""
    async with running_hub() as hub:
        hub.hub.sockets.ping_seconds = 0.05
        endpoint = await hub.subscribe()
        async with hub.follow(endpoint) as follower:
            (connection,) = hub.hub.registry._connections.values()
            await until(lambda: connection._pings._number >= 3)  # type: ignore[attr-defined]
            await hub.publish(event("Patient-open"))
            assert await follower.names(1) == ["Patient-open"]


@pytest.mark.req("SYN-13")
async def test_a_ping_that_could_not_be_sent_is_not_missed() -> None:
    """A peer that reads slowly is not cut off for a ping it never got; one that reads nothing at all is."""
    async with stuck_socket() as (hub, socket, transport):
        transport.held_back = 1000
        socket._send_ping()
        transport.held_back = 900
        socket._send_ping()
        aborted = [transport.aborted]
        socket._send_ping()
        aborted.append(transport.aborted)
        assert aborted == [False, True]
        assert counted(hub.hub.metrics.pings_unanswered) == 1
