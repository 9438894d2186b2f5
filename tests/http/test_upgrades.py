"""Upgrades to other protocols than WebSocket: ignored, and the request is answered. Java's client asks for h2c each time."""

from __future__ import annotations

import json

import pytest
from structlog.testing import capture_logs

from tests.http.wire import request, wire
from tests.running import TOPIC, RunningHub, event, running_hub

H2C = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}


def publication(hub: RunningHub, **headers: str) -> bytes:
    """A publication of Patient-open, as Java's client sends it."""
    body = json.dumps(event("Patient-open")).encode()
    return request("POST", "/api/hub", hub.headers(**{"Content-Type": "application/json"}) | H2C | headers, body)


@pytest.mark.req("SEC-16")
@pytest.mark.parametrize("cut", [None, -20, -400, 30], ids=["whole", "in the body", "in the head", "in the first line"])
async def test_a_publication_that_asks_for_h2c(cut: int | None) -> None:
    """The body counts, in however many segments it comes. The connection stays."""
    async with running_hub() as hub, wire(hub) as connection, hub.follow(await hub.subscribe()) as follower:
        with capture_logs() as lines:
            for _ in range(2):
                data = publication(hub)
                await connection.send(data[:cut])
                if cut is not None:
                    await hub.client.get(f"{hub.origin}/health/live")  # the first segment was read
                    await connection.send(data[cut:])
                reply = await connection.reply()
                assert (reply.status, reply.body) == (202, b"{}")
                assert "upgrade" not in reply.headers
        assert (await follower.next())["id"] == "Patient-open-1"
    requests = [line["status"] for line in lines if line["event"] == "request" and line["method"] == "POST"]
    assert requests == [202, 202]


@pytest.mark.req("SEC-16")
async def test_what_comes_behind_is_answered_too() -> None:
    """In one segment, in their order."""
    async with running_hub() as hub, wire(hub) as connection:
        read = request("GET", f"/api/hub/{TOPIC}", hub.headers() | H2C)
        live = request("GET", "/health/live", {})
        await connection.send(read + live + publication(hub) + read + live)
        replies = [await connection.reply() for _ in range(5)]
        assert [reply.status for reply in replies] == [200, 200, 202, 200, 200]
        assert replies[1].body == replies[4].body == b"live\n"
        assert b'"context.type":""' in replies[0].body.replace(b" ", b"")
        assert b'"Patient"' in replies[3].body


@pytest.mark.req("SEC-16")
async def test_a_body_in_chunks_that_asks_for_h2c() -> None:
    """As Java's client sends a stream. What comes behind the body is the next request."""
    async with running_hub() as hub, wire(hub) as connection:
        body = json.dumps(event("Patient-open")).encode()
        headers = hub.headers(**{"Content-Type": "application/json", "Transfer-Encoding": "chunked"}) | H2C
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        await connection.send(request("POST", "/api/hub", headers) + chunks + request("GET", "/health/live", {}))
        assert [(await connection.reply()).status for _ in range(2)] == [202, 200]


@pytest.mark.req("SEC-16")
async def test_a_subscription_that_asks_for_h2c() -> None:
    async with running_hub() as hub, wire(hub) as connection:
        form = {
            "hub.channel.type": "websocket",
            "hub.mode": "subscribe",
            "hub.topic": TOPIC,
            "hub.events": "Patient-open",
        }
        body = "&".join(f"{name}={value}" for name, value in form.items()).encode()
        headers = hub.headers(**{"Content-Type": "application/x-www-form-urlencoded"}) | H2C
        await connection.send(request("POST", "/api/hub", headers, body))
        reply = await connection.reply()
        assert (reply.status, list(json.loads(reply.body))) == (202, ["hub.channel.endpoint"])


@pytest.mark.req("OPS-40")
async def test_connect_is_refused() -> None:
    """What follows is no HTTP for the hub. The connection ends."""
    async with running_hub() as hub, wire(hub) as connection:
        await connection.send(request("CONNECT", "/api/hub", {}) + b"\x16\x03\x01")
        reply = await connection.reply()
        assert (reply.status, reply.body) == (400, b"the method must not be CONNECT: the hub is no proxy\n")
        assert await connection.ended()
