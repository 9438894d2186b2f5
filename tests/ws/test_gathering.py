"""The frames of one commit for one socket leave in one write, in order, before a close."""

from __future__ import annotations

import socket
import sys
from typing import cast

import pytest

from fhircast_hub.budgets.table import BIG_FRAME
from fhircast_hub.budgets.turns import Turns
from fhircast_hub.core.state.effects import Close, Send
from fhircast_hub.ws.frames import text_frame
from fhircast_hub.ws.socket import HubSocket
from tests.running import RunningHub, event, running_hub
from tests.ws.socket_world import stuck_socket

#: Place of tcpi_data_segs_out in Linux's struct tcp_info: packets with data that were sent.
_DATA_SEGMENTS_OUT = 156


def packets(hub: RunningHub) -> int:
    """The packets that the hub has sent on its only socket."""
    (connection,) = hub.hub.registry._connections.values()
    server: socket.socket = cast(HubSocket, connection)._transport.get_extra_info("socket")
    info = server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _DATA_SEGMENTS_OUT + 4)
    return int.from_bytes(info[_DATA_SEGMENTS_OUT:], sys.byteorder)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the packets of a socket")
async def test_two_opens_derived_of_one_event_are_one_packet() -> None:
    """Two events in two commits are two packets."""
    also = [
        {"key": type_.lower(), "resource": {"resourceType": type_, "id": "1"}} for type_ in ("Patient", "Encounter")
    ]
    async with running_hub() as hub, hub.follow(await hub.subscribe("Patient-open,Encounter-open")) as follower:
        sent = [packets(hub)]
        await hub.publish(event("ImagingStudy-open", "i1", also=also))
        assert await follower.names(2) == ["Patient-open", "Encounter-open"]
        sent.append(packets(hub))
        await hub.publish(event("Patient-open", "p2"))
        await hub.publish(event("Patient-open", "p3"))
        assert await follower.names(2) == ["Patient-open"] * 2
        sent.append(packets(hub))
        assert [sent[1] - sent[0], sent[2] - sent[1]] == [1, 2]


async def test_gathered_frames_come_in_order_and_before_a_close() -> None:
    """A frame that one socket gets alone waits for none."""
    async with stuck_socket() as (hub, socket_, transport):
        registry = hub.hub.registry
        socket_.resume_writing()
        transport.written.clear()
        to = (socket_._name,)
        registry.deliver([Send(to, b"one"), Send(to, b"two"), Close(socket_._name, 1000, "over")])
        close = b"\x88\x06\x03\xe8over"
        assert transport.written == [text_frame(b"one") + text_frame(b"two"), close]


async def test_a_replay_is_written_as_a_whole() -> None:
    """Frames that waited for the peer are written together."""
    async with stuck_socket() as (_, socket_, transport):
        waiting = socket_.queued[0]
        transport.written.clear()
        socket_.resume_writing()
        assert (waiting, len(transport.written)) == (4, 1)
        assert socket_.queued == (0, 0)
        assert socket_._outbox.frames is None, "an idle socket holds no empty queue"


@pytest.mark.req("SYN-14")
async def test_a_close_for_slow_reading_comes_after_gathered_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one commit, a short frame is gathered, and then two big ones are too many for the queue."""
    async with stuck_socket(queue_bytes=1500) as (hub, socket_, transport):
        socket_.resume_writing()
        monkeypatch.setattr(Turns, "claim_step", lambda self: False)
        transport.written.clear()
        to = (socket_._name,)
        hub.hub.registry.deliver([Send(to, b"one"), Send(to, b"x" * 70_000), Send(to, b"x" * 70_000)])
        close = b"\x88\x0a\x03\xf5too slow"
        assert transport.written == [text_frame(b"one"), close]


async def test_gathered_frames_are_no_longer_than_a_big_frame() -> None:
    """A peer that stops reading meanwhile is noticed: the other frames wait in the socket's queue, which is bounded."""
    async with stuck_socket(queue_messages=64) as (hub, socket_, transport):
        socket_.resume_writing()
        transport.written.clear()
        transport.pauses = socket_
        hub.hub.registry.deliver([Send((socket_._name,), b"x" * 20_000)] * 9)
        (written,) = transport.written
        assert BIG_FRAME.most < len(written) < BIG_FRAME.most + 20_100
        assert socket_.queued[0] == 5


async def test_a_fault_among_the_effects_holds_no_later_frame() -> None:
    async with stuck_socket() as (hub, socket_, transport):
        socket_.resume_writing()
        transport.pauses = None
        transport.written.clear()
        to = (socket_._name,)
        with pytest.raises(TypeError):
            hub.hub.registry.deliver([Send(to, b"one"), Send(to, b"two"), Send(to, cast(bytes, None))])
        hub.hub.registry.deliver([Send(to, b"three")])
        assert b"".join(transport.written) == text_frame(b"one") + text_frame(b"two") + text_frame(b"three")
