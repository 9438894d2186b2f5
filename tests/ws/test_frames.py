"""The hub reads frames in any pieces, and limits the frames of a client."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest
from websockets.asyncio.client import connect

from fhircast_hub.budgets.table import FRAMES_A_TURN
from tests.counted import counted
from tests.running import event, running_hub, until
from tests.ws.socket_world import stuck_socket


@pytest.mark.req("SYN-15", "SYN-28")
@pytest.mark.parametrize(
    "frame",
    [
        "",
        "not json",
        '{"id":"unknown","status":200}',
        '{"hub.channel.endpoint":"wss://x"}',
        b"\x00\xff",
        "x" * 60_000,
        "y" * 200,
    ],
)
async def test_odd_frames_are_ignored_and_their_sender_kept(frame: Any) -> None:
    """A client may send anything short of 64 KiB, and stays connected."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        await follower.connection.send(frame)
        await follower.connection.send(iter(["in ", "three ", "pieces"]))
        await hub.publish(event("Patient-open"))
        assert await follower.names(1) == ["Patient-open"]


async def test_frames_that_come_byte_by_byte() -> None:
    """Frame boundaries and packets have nothing to do with each other."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        path = endpoint.partition(str(hub.port))[2]
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        masked = (
            b"\x81\x85\x00\x00\x00\x00hello"
            + b"\x81\xfe\x00\x80\x00\x00\x00\x00"
            + b"x" * 128
            + b"\x89\x82\x00\x00\x00\x00hi"
        )
        for byte in masked:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert b"\x8a\x02hi" in await asyncio.wait_for(reader.readuntil(b"\x8a\x02hi"), 5)
        writer.close()


@pytest.mark.req("SYN-15", "SYN-29")
async def test_a_frame_over_64_kib_closes_with_1009() -> None:
    """An acknowledgement takes a hundred bytes. A longer frame is refused before all of it has arrived."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        await follower.connection.send("x" * 70_000)
        assert await follower.closed() == 1009


@pytest.mark.parametrize("first", [b"\x01", b"\xf1", b"\x83"])
async def test_a_broken_frame_closes_with_1002(first: bytes) -> None:
    """Reserved bits, reserved opcodes and unmasked frames are protocol errors."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        follower.connection.transport.write(first + b"\x05hello")
        assert await follower.closed() == 1002


async def test_compression_is_not_negotiated() -> None:
    """The hub declines permessage-deflate: one frame is written to all sockets."""
    async with running_hub() as hub, connect(await hub.subscribe(), proxy=None, compression="deflate") as connection:
        assert connection.response is not None
        assert "Sec-WebSocket-Extensions" not in connection.response.headers


async def test_an_event_of_a_megabyte_is_delivered_whole() -> None:
    """Frames of all three lengths arrive as they were sent."""
    async with running_hub() as hub, hub.follow(await hub.subscribe("Patient-open"), max_size=2**21) as follower:
        for size in (1, 200, 70_000, 900_000):
            message = event(
                "Patient-open", "p", also=[{"key": "extension", "data": "ø" * (size // 2)}], event_id=str(size)
            )
            assert (await hub.publish(message)).status_code == 202
            assert (await follower.next())["event"]["context"] == message["event"]["context"]


async def test_a_large_frame_in_two_pieces_leaves_the_next_one_whole() -> None:
    """65,530 bytes are within 64 KiB, however they come; the ping behind them is answered."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        frame = b"\x82\xff" + (65_530).to_bytes(8) + bytes(4) + bytes(65_530)
        follower.connection.transport.write(frame[:30_000])
        await asyncio.sleep(0.05)  # another packet
        follower.connection.transport.write(frame[30_000:])
        await asyncio.wait_for(await follower.connection.ping(), 5)


async def test_a_flood_of_pings_ends_its_socket_only() -> None:
    """Forty thousand pings in one write would keep everybody else waiting."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as other:
        async with hub.follow(await hub.subscribe()) as follower:
            follower.connection.transport.write(b"\x89\x80\x00\x00\x00\x00" * 40_000)
            assert await follower.closed() == 1008
        await hub.publish(event("Patient-open"))
        assert await other.names(1) == ["Patient-open"]


@pytest.mark.req("SYN-15")
async def test_a_message_in_empty_frames_without_end_takes_no_memory() -> None:
    """Slow pings are no flood, and the message between them stays whole."""
    async with stuck_socket() as (hub, socket, transport):
        socket.data_received(b"\x01\x80\x00\x00\x00\x00")
        tracemalloc.start()
        for second in range(400):
            socket._allowance.others.use(-1000, second)  # a long time passes
            socket.data_received(b"\x00\x80\x00\x00\x00\x00" * 10)
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        socket.data_received(b"\x80\x80\x00\x00\x00\x00")
        assert (transport.aborted, counted(hub.hub.metrics.frames_ignored)) == (False, 1)
        assert grown < 30_000


@pytest.mark.req("SYN-17")
async def test_as_many_acknowledgements_as_events_are_no_flood() -> None:
    """A client that was busy answers everything in one write, late or not; other sockets are read in between."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        for number in range(100):
            await hub.publish(event("Patient-open", event_id=str(number)))
            await follower.next()
        hub.clock.now += 60  # nobody waits for these any more
        hub.hub.ack_timer.check()
        frame = b"\x81\xfe\x01\x2c" + bytes(4) + b"x" * 300
        follower.connection.transport.write(frame * 101)
        await asyncio.wait_for(await follower.connection.ping(), 5)
        assert counted(hub.hub.metrics.frames_ignored) == 101


@pytest.mark.req("SYN-17")
async def test_acknowledging_more_than_was_sent_ends_the_socket() -> None:
    """One event can be acknowledged once; a repeated acknowledgement is a frame like any other."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        await hub.publish(event("Patient-open"))
        await follower.next()
        text = b'{"id":"Patient-open-1","status":200}'
        follower.connection.transport.write((b"\x81" + bytes((0x80 | len(text),)) + bytes(4) + text) * 1000)
        assert await follower.closed() == 1008
        assert counted(hub.hub.metrics.acknowledgements) < 100


@pytest.mark.req("SYN-17", "SYN-30")
async def test_long_frames_weigh_more() -> None:
    """Frames of 64 KiB that acknowledge nothing are few a second."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        follower.connection.transport.write((b"\x81\xfe\xff\xff" + bytes(4) + b"x" * 65535) * 20)
        assert await follower.closed() == 1008
        assert counted(hub.hub.metrics.frames_ignored) < 8


@pytest.mark.req("SYN-17")
async def test_frames_of_one_read_are_shared_out_over_turns() -> None:
    """A read with many frames is left after a few of them, and read on in the next turn."""
    async with stuck_socket() as (hub, socket, _):
        socket._allowance.credit = 100
        socket.data_received(b"\x81\x82\x00\x00\x00\x00{}" * 100)
        heard = [counted(hub.hub.metrics.frames_ignored)]
        await asyncio.sleep(0)
        heard.append(counted(hub.hub.metrics.frames_ignored))
        await until(lambda: counted(hub.hub.metrics.frames_ignored) == 100)
        assert heard[0] == FRAMES_A_TURN.most < heard[1] < 100


@pytest.mark.req("SYN-17", "SYN-33")
async def test_a_text_that_is_no_utf8_closes_with_1007() -> None:
    """In whatever framing; an acknowledgement in it counts before."""
    text = b'{"id":"Patient-open-1","status":200,"reason":"\xff"}'
    whole = b"\x81" + bytes((0x80 | len(text),)) + bytes(4) + text
    parts = b"\x01\x8a" + bytes(4) + text[:10] + b"\x80" + bytes((0x80 | (len(text) - 10),)) + bytes(4) + text[10:]
    async with running_hub() as hub:
        for count, frames in enumerate((whole, parts), 1):
            async with hub.follow(await hub.subscribe()) as follower:
                await hub.publish(event("Patient-open"))
                follower.connection.transport.write(frames)
                assert await follower.closed() == 1007
                assert counted(hub.hub.metrics.acknowledgements) == count
