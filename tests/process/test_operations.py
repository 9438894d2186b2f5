"""What operators see of a running hub: health, metrics, log lines, and how it ends."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.ports import free_port
from tests.process.hub_process import PATIENCE, HubProcess, IssuerThread, Visitor, hub_process
from tests.running import TOPIC, Follower, event, until

#: Seconds that the hub has to end (OPS-3).
END = 10


def requests(hub: HubProcess) -> list[dict[str, Any]]:
    return hub.lines("request")


async def stalled(visitor: Visitor, endpoint: str) -> socket.socket:
    """A subscriber that shakes hands and then never reads."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.to_thread(reader.connect, ("127.0.0.1", visitor.port))
    path = endpoint.partition(str(visitor.port))[2]
    reader.sendall(
        f"GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert await asyncio.to_thread(reader.recv, 12) == b"HTTP/1.1 101"
    return reader


async def metric(visitor: Visitor, name: str) -> float:
    """A number of /metrics."""
    text = (await visitor.client.get(f"{visitor.origin}/metrics")).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, name
    return float(found[1])


@pytest.mark.req("OPS-1")
async def test_health_and_metrics_need_no_token_and_are_at_the_root(hub: HubProcess) -> None:
    """At the root they answer 200 to anybody; under hub.url the same paths are topics, and those need a token."""
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, base_url=hub.origin) as client:
        for path in ("/health/live", "/health/ready", "/metrics"):
            assert (await client.get(path)).status_code == 200
            assert (await client.get(f"/api/hub{path}")).status_code == 401
        assert "# TYPE fhircast_sockets gauge" in (await client.get("/metrics")).text


@pytest.mark.req("OPS-1")
async def test_a_hub_at_the_root_has_health_and_all_topics(tmp_path: Path, issuer: IssuerThread) -> None:
    """With a hub.url without a path, health and metrics still answer, and a topic may begin like them."""
    port = free_port()
    with hub_process(tmp_path, port=port, public_url=f"http://127.0.0.1:{port}", issuers=issuer.settings) as hub:
        async with Visitor(hub, issuer.idp) as visitor:
            get = visitor.client.get
            for path in ("/health/live", "/health/ready", "/metrics"):
                assert (await get(hub.origin + path)).status_code == 200
            for topic in ("health", "metrics-of-the-ward", "metrics2", "room"):
                answer = await get(f"{hub.origin}/{topic}", headers=visitor.headers())
                assert (topic, answer.status_code) == (topic, 200)
                assert (await get(f"{hub.origin}/{topic}")).status_code == 401


@pytest.mark.req("OPS-2")
async def test_one_line_of_json_for_each_request(hub: HubProcess, issuer: IssuerThread) -> None:
    """Whatever the answer is, one line says method and status, under the id that the answer has in X-Request-Id."""
    async with Visitor(hub, issuer.idp) as visitor:
        client, url, token = visitor.client, visitor.url, visitor.headers()
        answers = [
            await visitor.form(hub__events="Patient-open"),
            await visitor.form(hub__events=""),
            await visitor.publish(event("Patient-open")),
            await visitor.publish(b"{"),
            await visitor.publish(b"x" * 2_000_000),
            await visitor.context(),
            await client.get(f"{url}/{TOPIC}"),
            await client.get(f"{url}/.well-known/fhircast-configuration"),
            await client.put(url, headers=token),
            await client.post(url, content=b"x", headers=token | {"Content-Type": "text/plain"}),
        ]
    ids = [answer.headers["X-Request-Id"] for answer in answers]
    await until(lambda: {line["request_id"] for line in requests(hub)}.issuperset(ids))
    assert [answer.status_code for answer in answers] == [202, 400, 202, 400, 413, 200, 401, 200, 405, 415]
    lines = [line for line in requests(hub) if line["request_id"] in ids]
    told = [(line["request_id"], line["status"], line["method"]) for line in lines]
    assert told == [(answer.headers["X-Request-Id"], answer.status_code, answer.request.method) for answer in answers]
    assert len({line["request_id"] for line in requests(hub)}) == len(requests(hub))
    assert all(line["timestamp"] and line["level"] and line["event"] for line in hub.lines())


@pytest.mark.req("OPS-2")
@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        pytest.param("GET", "/elsewhere", {}, 404, id="unknown path"),
        pytest.param(
            "GET", "/api/hub/ws/x", {"Upgrade": "websocket", "Connection": "Upgrade"}, 400, id="bad handshake"
        ),
        pytest.param(
            "OPTIONS",
            "/api/hub",
            {"Origin": "https://x.example", "Access-Control-Request-Method": "POST"},
            200,
            id="preflight",
        ),
    ],
)
async def test_requests_that_reach_no_session_have_their_line_too(
    hub: HubProcess, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    """Somebody who knocks at doors is seen, with an id in the answer."""
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, base_url=hub.origin) as client:
        answer = await client.request(method, path, headers=headers)
    assert answer.status_code == status
    await until(lambda: answer.headers.get("X-Request-Id") in [line["request_id"] for line in requests(hub)])


@pytest.mark.req("OPS-2")
async def test_a_line_for_each_change_of_a_session(hub: HubProcess, issuer: IssuerThread) -> None:
    """A socket that comes, one that goes, and a lease that ends: each is a line with the session's keyed hash and an id."""
    async with Visitor(hub, issuer.idp) as visitor:
        form = {"hub__topic": "changing", "hub__events": "Patient-open"}
        answer = await visitor.form(**form)

        def asked() -> list[dict[str, Any]]:
            return [line for line in requests(hub) if line["request_id"] == answer.headers["X-Request-Id"]]

        await until(lambda: bool(asked()))
        [topic] = {line["topic"] for line in asked()}
        before = len(hub.lines())
        endpoint = answer.json()["hub.channel.endpoint"]
        async with visitor.follow(endpoint) as follower:
            short = {"hub.channel.endpoint": endpoint, "hub__lease_seconds": "3"}
            assert (await visitor.form(**form, **short)).status_code == 202
            assert (await follower.next())["hub.lease_seconds"] == 3
            assert (await follower.next())["hub.mode"] == "denied"
            assert await follower.closed() == 1000

    def told() -> list[dict[str, Any]]:
        return [line for line in hub.lines()[before:] if line.get("topic") == topic]

    await until(lambda: len(told()) >= 2)
    assert all("request_id" in line for line in told())


@pytest.mark.req("OPS-3")
async def test_sigterm_ends_the_hub_in_order(tmp_path: Path, issuer: IssuerThread) -> None:
    """An open socket gets 1001 at once; a stalled reader's backlog, half a handshake and a request that never ends delay the
    end, but not beyond ten seconds; the exit code is 0; port and store are free right after, and the socket may come back."""
    settings = {"issuers": issuer.settings, "queue_bytes": 1 << 26, "queue_messages": 10_000}
    with hub_process(tmp_path, **settings) as hub:
        async with Visitor(hub, issuer.idp) as visitor:
            endpoint = await visitor.subscribe()
            lazy = await stalled(visitor, await visitor.subscribe(hub__topic="lazy"))
            big = event("Patient-open", topic="lazy", padding="x" * 500_000)
            for number in range(20):
                assert (await visitor.publish(big | {"id": str(number)})).status_code == 202
            assert await metric(visitor, "fhircast_queue_messages") > 0
            await visitor.publish(event("Patient-open", "p1"))
            _, shaking = await asyncio.open_connection("127.0.0.1", hub.port)
            shaking.write(b"GET /api/hub/ws/x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
            _, slow = await asyncio.open_connection("127.0.0.1", hub.port)
            headers = "".join(f"{name}: {value}\r\n" for name, value in visitor.headers().items())
            slow.write(
                f"POST /api/hub HTTP/1.1\r\nHost: hub\r\n{headers}Content-Type: application/json\r\n"
                "Content-Length: 100\r\n\r\n{".encode()
            )
            async with visitor.follow(endpoint) as follower:
                await follower.names(1)
                started = time.monotonic()
                hub.send(signal.SIGTERM)
                assert await follower.closed() == 1001
                with pytest.raises(ConnectionError):
                    await asyncio.open_connection("127.0.0.1", hub.port)
            assert await asyncio.to_thread(hub.ended) == 0
            assert time.monotonic() - started < END
            lazy.close()
            slow.close()
            shaking.close()
            assert hub.stderr == ""
            with hub_process(tmp_path, port=hub.port, **settings):
                async with visitor.follow(endpoint) as follower:
                    assert await follower.names(1) == ["Patient-open"]


@pytest.mark.req("OPS-3")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_an_idle_hub_at_once(tmp_path: Path, issuer: IssuerThread, number: signal.Signals) -> None:
    """With sockets, idle connections and half a request line: 1001, exit code 0, and nothing went wrong."""
    with hub_process(tmp_path, issuers=issuer.settings, webhooks=False) as hub:
        async with Visitor(hub, issuer.idp) as visitor:
            _, half = await asyncio.open_connection("127.0.0.1", hub.port)
            half.write(b"POST /api/hub HT")
            endpoints = [await visitor.subscribe() for _ in range(3)]
            sockets = [await connect(endpoint, proxy=None) for endpoint in endpoints]
            followers = [Follower(socket) for socket in sockets]
            for follower in followers:
                await follower.next()
            started = time.monotonic()
            hub.send(number)
            assert [await follower.closed() for follower in followers] == [1001] * 3
            assert await asyncio.to_thread(hub.ended) == 0
            assert time.monotonic() - started < END  # what OPS-3 promises
            half.close()
    assert hub.stderr == ""
    assert {line["level"] for line in hub.lines()} == {"info"}
    assert [line["code"] for line in hub.lines("socket closed")] == [1001] * 3
