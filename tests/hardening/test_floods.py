"""Who sends slowly, without end, or ever again: it costs them their connection, and nobody else a thing."""

from __future__ import annotations

import asyncio

import pytest

from fhircast_hub.budgets.table import BODY_SECONDS, HEADER_SECONDS
from fhircast_hub.http import protocol, request
from tests.running import RunningHub, event, opened, running_hub, to_the_end

#: Connections of a flood: more than any application has, fewer than a process may have files.
MANY = 300


async def works(hub: RunningHub) -> None:
    """Somebody else is told of an event."""
    async with hub.follow(await hub.subscribe()) as follower:
        assert (await hub.publish(event("Patient-open"))).status_code == 202
        assert await follower.names(1) == ["Patient-open"]


@pytest.mark.req("SEC-2")
async def test_slow_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not keep a connection: the time is for all of them."""
    monkeypatch.setattr(protocol, "HEADER_SECONDS", HEADER_SECONDS._replace(most=0.2))
    async with running_hub() as hub, opened(hub) as (reader, writer):
        writer.write(b"GET /health/live HTTP/1.1\r\nX-Slow: ")
        ended = asyncio.create_task(to_the_end(reader))
        while not ended.done():
            writer.write(b"x")
            await asyncio.wait((ended,), timeout=0.05)
        assert b"200" not in await ended
        await works(hub)


@pytest.mark.req("SEC-2")
async def test_slow_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise the bytes of a body, of a known user too."""
    monkeypatch.setattr(request, "BODY_SECONDS", BODY_SECONDS._replace(most=0.2))
    async with running_hub() as hub, opened(hub) as (reader, writer):
        head = f"POST /api/hub HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {hub.token()}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 100000\r\n\r\n{{".encode())
        ended = asyncio.create_task(to_the_end(reader))
        while not ended.done():
            writer.write(b" ")
            await asyncio.wait((ended,), timeout=0.05)
        assert b" 408 " in await ended
        await works(hub)


@pytest.mark.req("SEC-2")
async def test_connection_flood() -> None:
    """Hundreds that say nothing, half a request, or half a handshake."""
    starts = (b"", b"GET /api/hub/x HTTP/1.1\r\nX-Slow:", b"GET /api/hub/ws/x HTTP/1.1\r\nUpgrade: websocket\r\n")
    async with running_hub() as hub:
        flood = [await asyncio.open_connection("127.0.0.1", hub.port) for _ in range(MANY)]
        for number, (_, writer) in enumerate(flood):
            writer.write(starts[number % len(starts)])
        await works(hub)
        for _, writer in flood:
            writer.close()


@pytest.mark.req("SYN-15", "SYN-17")
@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"\x89\x80\x00\x00\x00\x00", id="pings"),
        pytest.param(b"\x82\x81\x00\x00\x00\x00x", id="binary"),
        pytest.param(b"\x81\x82\x00\x00\x00\x00{}", id="texts"),
        pytest.param(b"\x00\x80\x00\x00\x00\x00", id="empty parts"),
    ],
)
async def test_frame_flood(frame: bytes) -> None:
    """Forty thousand in one write end their socket; the other socket of the session hears what it should."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as other:
        async with hub.follow(await hub.subscribe()) as follower:
            follower.connection.transport.write(frame * 40_000)
            assert (await hub.publish(event("Patient-open"))).status_code == 202
            assert await other.names(1) == ["Patient-open"]
            assert await follower.closed() in (1002, 1008)
        await works(hub)
