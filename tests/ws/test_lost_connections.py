"""The hub reports a lost connection, and no connection that its subscriber closed."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing, suppress
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.counted import counted
from tests.running import event, until
from tests.ws.acknowledgements_world import answered, error, gone, masked, passes, size, viewer, watched_hub


@pytest.mark.req("SYN-7")
async def test_a_connection_that_is_cut_is_reported() -> None:
    """After RECONNECT_GRACE, as nobody's event."""
    async with watched_hub() as (hub, monitor):
        async with viewer(hub) as follower:
            follower.connection.transport.abort()
        assert await gone(hub) == hub.clock.now + 3
        await passes(hub, 2.9)
        assert await monitor.silent()
        await passes(hub, 0.2)
        told = await error(monitor)
        assert (told.name, told.who) == ("syncerror", "Viewer")
        await passes(hub, 99)
        assert await monitor.silent()


@pytest.mark.req("SYN-7")
async def test_the_hub_itself_notices_who_does_not_come_back() -> None:
    """By its own timer."""
    async with watched_hub(reconnect_grace=1) as (hub, monitor):
        async with viewer(hub) as follower:
            follower.connection.transport.abort()
        await gone(hub)
        hub.clock.now += 1
        assert (await error(monitor)).name == "syncerror"


@pytest.mark.req("SYN-7", "SUB-12")
async def test_who_is_back_in_time_is_not_reported() -> None:
    """On the same endpoint, again and again."""
    async with watched_hub() as (hub, monitor):
        endpoint = await hub.subscribe(subscriber__name="Viewer")
        for _ in range(3):
            async with hub.follow(endpoint) as follower:
                follower.connection.transport.abort()
            await gone(hub)
            await passes(hub, 2)
        async with hub.follow(endpoint):
            await passes(hub, 99)
            assert await monitor.silent()


@pytest.mark.req("SYN-7", "SYN-8", "SYN-25")
@pytest.mark.parametrize(("code", "lost"), [(1000, False), (1001, False), (1011, True), (3001, True), (None, True)])
async def test_the_peers_code_says_whether_it_left(code: int | None, lost: bool) -> None:
    """1000 and 1001 are leaving; anything else, and a close without a code, is not."""
    async with watched_hub() as (hub, monitor):
        async with viewer(hub) as follower:
            if code is None:
                follower.connection.transport.write(masked(b"", first=0x88))
                await follower.connection.wait_closed()
            else:
                await follower.connection.close(code)
        assert bool(await gone(hub)) is lost
        await passes(hub, 4)
        if lost:
            assert (await error(monitor)).who == "Viewer"
        assert await monitor.silent()


@pytest.mark.req("SYN-7", "SYN-15", "SYN-29")
@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([masked(b"x" * 65_537, size=8)], 1009),
        ([masked(b"x" * 60_000, size=2, first=1), masked(b"x" * 60_000, size=2, first=0x80)], 1009),
        ([masked(b"x", first=0x83)], 1002),
        ([masked(b"x", first=1), masked(b"y")], 1002),
    ],
)
async def test_who_breaks_the_protocol_is_lost(frames: list[bytes], code: int) -> None:
    """Over 64 KiB, in one frame or in several, or no frame at all."""
    async with watched_hub() as (hub, monitor):
        async with viewer(hub) as follower:
            for frame in frames:
                follower.connection.transport.write(frame)
            assert await follower.closed() == code
        assert await gone(hub)
        await passes(hub, 4)
        assert (await error(monitor)).who == "Viewer"


@pytest.mark.req("SYN-14", "SYN-7", "SYN-4")
async def test_a_slow_reader_is_lost() -> None:
    """A slow reader is closed with 1013, and reported if it does not return. Frames not handed over are not timed."""
    padding = [{"key": "extension", "data": "x" * 200_000}]
    settings: dict[str, Any] = {"queue_bytes": 300_000, "queue_messages": 20, "ack_policy": "strict", "ack_strikes": 99}
    async with watched_hub(**settings) as (hub, monitor):
        endpoint = await hub.subscribe("Patient-open", subscriber__name="Viewer")
        async with connect(endpoint, proxy=None, max_queue=1, compression=None) as slow:
            slow.transport.pause_reading()
            for number in range(80):
                await hub.publish(event("Patient-open", f"p{number}", also=padding))
                if counted(hub.hub.metrics.slow_readers_closed):
                    break
            assert counted(hub.hub.metrics.slow_readers_closed) == 1
            slow.transport.resume_reading()
            with suppress(ConnectionClosed):
                async with asyncio.timeout(5):
                    while True:
                        await slow.recv()
            assert slow.close_code == 1013
        assert await gone(hub)
        await passes(hub, 4)
        told = await error(monitor)
        assert (told.name, told.who) == ("syncerror", "Viewer")
        await passes(hub, 99)
        assert await monitor.silent()


@pytest.mark.req("SYN-4", "SYN-14")
async def test_what_waits_for_a_slow_reader_is_not_timed() -> None:
    """The time begins when the socket took the frame."""
    padding = [{"key": "extension", "data": "x" * 200_000}]
    async with watched_hub(queue_bytes=10_000_000, ack_policy="strict") as (hub, monitor):
        endpoint = await hub.subscribe("Patient-open", subscriber__name="Viewer")
        async with connect(endpoint, proxy=None, max_queue=1, compression=None) as slow:
            slow.transport.pause_reading()
            for number in range(80):
                await hub.publish(event("Patient-open", f"p{number}", also=padding))
                slow.transport.write(masked(f'{{"id": "Patient-open-p{number}"}}'.encode()))
                if hub.hub.registry.queued()[0]:
                    break
            await until(lambda: counted(hub.hub.metrics.acknowledgements) == number + 1)
            await hub.publish(event("Patient-open", "waits"))
            await passes(hub, 99)
            assert await monitor.silent()
            slow.transport.resume_reading()
            async with asyncio.timeout(5):
                while json.loads(await slow.recv()).get("id") != "Patient-open-waits":
                    pass
            await passes(hub, 9)
            assert await monitor.silent()
            await passes(hub, 1)
            assert (await error(monitor)).id == "Patient-open-waits"


@pytest.mark.req("SYN-14", "SYN-7", "SYN-8", "SYN-25")
async def test_what_a_peer_answers_to_a_close_is_not_why() -> None:
    """The hub closed first, with 1013. The peer's 1000 is an answer to the close, and no leaving."""
    padding = [{"key": "extension", "data": "x" * 200_000}]
    async with watched_hub(queue_bytes=300_000) as (hub, _):
        endpoint = await hub.subscribe("Patient-open", subscriber__name="Viewer")
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        writer.write(
            f"GET {endpoint.partition(str(hub.port))[2]} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        with closing(writer):
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            for number in range(80):
                await hub.publish(event("Patient-open", f"p{number}", also=padding))
                if counted(hub.hub.metrics.slow_readers_closed):
                    break
            tail = b""
            async with asyncio.timeout(5):
                while (1013).to_bytes(2) + b"too slow" not in tail:
                    tail = tail[-20:] + await reader.read(1 << 16)
            writer.write(masked((1000).to_bytes(2), first=0x88))
            assert await gone(hub)


@pytest.mark.req("SYN-7", "SYN-13")
async def test_who_does_not_answer_pings_is_lost() -> None:
    """The connection is given up, and reported like any lost one."""
    async with watched_hub() as (hub, monitor):
        hub.hub.sockets.ping_seconds = 0.05
        async with viewer(hub) as follower:
            follower.connection.transport.pause_reading()
            await gone(hub)
            follower.connection.transport.abort()
        await passes(hub, 4)
        assert (await error(monitor)).who == "Viewer"


@pytest.mark.req("SUB-11", "SYN-7", "SUB-33")
async def test_who_is_taken_over_is_not_lost() -> None:
    """Answers on the new connection count, answers on the old one do not. Nobody is reported."""
    async with watched_hub() as (hub, monitor):
        endpoint = await hub.subscribe(subscriber__name="Viewer")
        async with hub.follow(endpoint) as old:
            await hub.publish(event("Patient-open"))
            await old.next()
            await answered(hub, old, {"id": "Patient-open-1", "status": 200})
            async with hub.follow(endpoint) as new:
                assert await old.closed() == 1008
                await new.next()
                await answered(hub, new, {"id": "Patient-open-1", "status": 409})
                await passes(hub, 99)
                assert (await error(monitor)).id == "Patient-open-1"
                assert await monitor.silent()


@pytest.mark.req("SUB-23", "SYN-7")
async def test_who_reconnects_every_second_leaves_nothing_behind() -> None:
    """OHIF's way, subscribing anew under its name, and Medplum's, to the same endpoint: no ghosts, no SyncErrors, no growth."""
    async with watched_hub(ack_timeout=5) as (hub, monitor):
        medplum, sizes = await hub.subscribe(subscriber__name="Medplum"), list[list[int]]()
        for second in range(60):
            ohif = await hub.subscribe(subscriber__name="OHIF")
            async with hub.follow(ohif) as one, hub.follow(medplum) as other:
                if second:
                    await asyncio.gather(one.next(), other.next())
                await hub.publish(event("Patient-open", f"p{second}"))
                await asyncio.gather(one.next(), other.next())
                await answered(hub, other, {"id": f"Patient-open-p{second}", "status": "200"})
                sizes.append(size(hub))
                for follower in (one, other):
                    follower.connection.transport.abort()
            await gone(hub, "OHIF")
            await gone(hub, "Medplum")
            await passes(hub, 1)
        assert sizes[20:] == [sizes[20]] * 40
        assert sizes[-1][:7] == [3, 1, 3, 3, 1, 3, 3]
        assert await monitor.silent()
        await passes(hub, 2)
        assert sorted([(await error(monitor)).who for _ in range(2)]) == ["Medplum", "OHIF"]
    await until(lambda: not len(hub.hub.registry))
    hub.hub.ack_timer._tracker.timed_out(hub.clock.now + 99)
    assert size(hub)[3:] == [0] * 6
