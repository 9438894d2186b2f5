"""Frames that wait for a client have a limit."""

from __future__ import annotations

import pytest

from fhircast_hub.budgets.accounts import Account
from fhircast_hub.budgets.table import QUEUED
from fhircast_hub.ws import socket_writer
from tests.counted import counted
from tests.running import event
from tests.ws.socket_world import stuck_socket


@pytest.mark.req("SYN-14")
async def test_a_replay_longer_than_the_queue_is_no_slow_reader() -> None:
    """Replays to a joiner may have any length. Only later frames are bounded."""
    async with stuck_socket(queue_bytes=1500, queue_messages=2) as (hub, socket, _):
        assert socket.queued[0] == 4
        await hub.publish(event("Patient-open"))
        assert socket.queued[0] == 5
        for number in range(3):
            await hub.publish(event("Patient-open", f"p{number}"))
        assert socket.queued == (0, 0)
        assert counted(hub.hub.metrics.slow_readers_closed) == 1


async def test_a_socket_that_is_taken_over_keeps_nothing() -> None:
    """Frames that waited for the old socket are sent to the new one. They must not stay in memory."""
    async with stuck_socket() as (_, socket, _):
        assert socket.queued[0] == 4
        socket.close(1008, "taken over")
        assert socket.queued == (0, 0)


@pytest.mark.req("SYN-14")
async def test_all_sockets_of_a_user_share_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each queue is within its limit, but all are too much together. The last to grow is closed."""
    monkeypatch.setattr(socket_writer, "QUEUED", QUEUED._replace(most=10_000))
    account = Account(lambda: 0.0)
    boxes = [socket_writer.Outbox((256, 1 << 20)) for _ in range(3)]
    for box in boxes:
        box.opened(account)
        box.put(bytes(2000), None)
        box.put(bytes(1500), None)
    assert [box.over for box in boxes] == [True, True, True]
    boxes[0].clear()
    assert account.queued == 7000
    assert not boxes[1].over
    boxes[1].take()
    assert account.queued == 5000
