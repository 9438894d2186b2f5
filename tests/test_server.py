"""What uvicorn's HTTP is not asked to take: headers, trailers, pipelined requests and patience without end."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from fhircast_hub.audit.sink import STOP_SECONDS
from fhircast_hub.budgets.table import BODY_SECONDS, CHUNKS, CONNECTIONS, HEADER_SECONDS, STALLED
from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.http import connections, protocol, request
from fhircast_hub.http.protocol import HttpProtocol
from fhircast_hub.server import BACKLOG, COLLECTOR, GRACE_SECONDS, make_server
from fhircast_hub.workers import END_SECONDS, IN_TURN_SECONDS, Worker
from tests.counted import alive, counted
from tests.running import TOPIC, event, opened, running_hub, to_the_end, until
from tests.storage.sqlite_world import FULL
from tests.storage.sqlite_world import opened as opened_store

UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"GET /health/live HTTP/1.1\r\nHost: x\r\n", id="headers"),
        pytest.param(
            b"POST /health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", id="trailers"
        ),
    ],
)
async def test_headers_have_an_end(start: bytes) -> None:
    """More than 64 KiB of them, or of trailers, end the connection."""
    async with running_hub() as hub, opened(hub) as (reader, writer):
        writer.write(start + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 4000)
        assert b"200 OK" not in await to_the_end(reader)


async def test_a_connection_that_asks_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request is not waited for; a connection kept alive between two requests is."""
    monkeypatch.setattr(protocol, "HEADER_SECONDS", HEADER_SECONDS._replace(most=0.1))
    async with running_hub() as hub, opened(hub) as (reader, writer):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"live\n")
        await asyncio.sleep(0.2)  # longer than headers may take
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n")
        assert await to_the_end(reader) == b""


async def test_a_body_that_does_not_come_is_answered_with_408(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever declares a body and does not send it is told so."""
    monkeypatch.setattr(request, "BODY_SECONDS", BODY_SECONDS._replace(most=0.1))
    async with running_hub() as hub, opened(hub) as (reader, writer):
        head = f"POST /api/hub HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {hub.token()}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 10\r\n\r\n{{".encode())
        assert b" 408 " in await to_the_end(reader)


async def test_pipelined_requests_have_an_end() -> None:
    """Thousands of requests in one write end their connection; others are served meanwhile."""
    async with running_hub() as hub, opened(hub) as (reader, writer):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)
        assert (await hub.publish(event("Patient-open"))).status_code == 202
        assert (await to_the_end(reader)).count(b"200 OK") < 2000


@pytest.mark.req("SEC-7")
@pytest.mark.parametrize(
    "hosts",
    [
        pytest.param("", id="none"),
        pytest.param("Host: x\r\nHost: x\r\n", id="two"),
        pytest.param("Host: x\r\nhost: y\r\n", id="two that differ"),
        pytest.param("Host: x/y\r\n", id="a path"),
        pytest.param("Host: x y\r\n", id="a space"),
        pytest.param("Host: x@y\r\n", id="a user"),
    ],
)
@pytest.mark.parametrize("start", ["GET /health/live HTTP/1.1\r\n", "GET /api/hub/ws/x HTTP/1.1\r\n" + UPGRADE])
async def test_one_host(hosts: str, start: str) -> None:
    """HTTP/1.1 without exactly one Host that can be one is refused, in words; so is a WebSocket's handshake."""
    async with running_hub() as hub, opened(hub) as (reader, writer):
        writer.write(f"{start}{hosts}\r\n".encode())
        answer = await to_the_end(reader)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert re.search(rb"Host (is required once, not [02] times|must be a host )", answer)


@pytest.mark.req("SEC-7")
async def test_older_http_needs_no_host() -> None:
    """As probes of load balancers speak."""
    async with running_hub() as hub, opened(hub) as (reader, writer):
        writer.write(b"GET /health/live HTTP/1.0\r\n\r\n")
        assert b" 200 OK" in await to_the_end(reader)


@pytest.mark.req("SEC-7", "SEC-12")
@pytest.mark.parametrize("path", ["/health/live", "/api/hub/metadata", "/nothing", "/api/hub/ws/x"])
async def test_no_browser_guesses_a_type(path: str) -> None:
    """Every answer says nosniff; without TLS none says that TLS is to be used."""
    async with running_hub() as hub:
        answer = await hub.client.get(hub.origin + path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "strict-transport-security" not in answer.headers


@pytest.mark.req("LIM-3")
async def test_chunks_have_an_end() -> None:
    """A body in thousands of pieces is taken, one in ever more is not."""
    async with running_hub() as hub, opened(hub) as (reader, writer):
        head = f"POST /api/hub HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {hub.token()}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        body = json.dumps(event("Patient-open")).encode().ljust(int(CHUNKS.most) - 1)
        writer.write(b"".join(b"1\r\n%b\r\n" % bytes((byte,)) for byte in body) + b"0\r\n\r\n")
        assert b" 202 " in await reader.readuntil(b"{}")
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"1\r\n \r\n" * 100_000)
        answer = await to_the_end(reader)
        assert b" 400 " in answer
        assert b"the body may have at most %d chunks" % CHUNKS.most in answer


@pytest.mark.req("LIM-3")
async def test_large_bodies_one_after_the_other() -> None:
    """What came at once is taken whole, each request in its turn."""
    async with running_hub() as hub, opened(hub) as (reader, writer):
        message = json.dumps(event("Patient-open", also=[{"key": "extension", "data": "x" * 900_000}])).encode()
        head = f"POST /api/hub HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {hub.token()}\r\nContent-Type: application/json\r\n"
        request = f"{head}Content-Length: {len(message)}\r\n\r\n".encode() + message
        writer.write(request * 3)
        for _ in range(3):
            assert b" 202 " in await reader.readuntil(b"{}")
        assert (await hub.context()).json()["context"][1]["data"] == "x" * 900_000


@pytest.mark.req("LIM-3", "LIM-15")
@pytest.mark.parametrize("how", ["1.1\r\nHost: x", "1.1\r\nHost: x\r\nConnection: close", "1.0"])
async def test_an_answer_that_nobody_takes_is_cut(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Whether or not its connection would be closed behind it."""
    monkeypatch.setattr(protocol, "STALLED", STALLED._replace(most=0.2))
    async with running_hub(max_body_bytes=16 << 20) as hub, opened(hub) as (_, writer):
        await hub.publish(event("Patient-open", also=[{"key": "extension", "data": "x" * (7 << 20)}]))
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is one that reads too
        writer.write(f"GET /api/hub/{TOPIC} HTTP/{how}\r\nAuthorization: Bearer {hub.token()}\r\n\r\n".encode())
        account = hub.hub.accounts.of_user(hub.idp.issuer, "user:user-1")
        await until(lambda: account.answers > 0)
        await until(lambda: account.answers == 0 and counted(hub.hub.metrics.connections_cut) == 1)
        assert (await hub.publish(event("Patient-open"))).status_code == 202
        writer.transport.abort()


@pytest.mark.req("SEC-7", "SEC-12")
async def test_a_refused_handshake_says_so_too() -> None:
    """A WebSocket's answers are not uvicorn's."""
    async with running_hub() as hub, opened(hub) as (reader, writer):
        writer.write(f"GET /api/hub/ws/x HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode())
        answer = await to_the_end(reader)
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"x-content-type-options: nosniff" in answer.lower()


@pytest.mark.req("LIM-3")
@pytest.mark.parametrize(
    "between", [b"X: " + b"a" * 1000, b"1;" + b"x" * 1000 + b"\r\nx"], ids=["trailers", "extensions"]
)
async def test_what_is_no_body_has_an_end(between: bytes) -> None:
    """Trailers, and extensions of chunks, are parsed as slowly as one likes to send them."""
    async with running_hub() as hub, opened(hub) as (reader, writer):
        head = f"POST /api/hub HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {hub.token()}\r\nContent-Type: application/json\r\n"
        last = b"0\r\n" if between.startswith(b"X") else b""
        writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + last)
        writer.write((between + b"\r\n") * 2000)
        await to_the_end(reader)
        assert counted(hub.hub.metrics.connections_cut) >= 1


@pytest.mark.req("LIM-3")
async def test_line_ends_keep_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes behind an answer is the start of a request, and must become one in time."""
    monkeypatch.setattr(protocol, "HEADER_SECONDS", HEADER_SECONDS._replace(most=0.1))
    async with running_hub() as hub, opened(hub) as (reader, writer):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"live\n")
        writer.write(b"\r\n")
        assert await to_the_end(reader) == b""


@pytest.mark.req("LIM-3")
async def test_connections_that_went_leave_nothing() -> None:
    """However they ended; nothing waits for the collector of garbage."""
    async with running_hub() as hub:
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                async with opened(hub) as (reader, writer):
                    writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 18)
                    await to_the_end(reader)
            await until(lambda: not counted(hub.hub.metrics.sockets) and len(alive(HttpProtocol)) <= 1)
            assert len(alive(RequestResponseCycle)) <= 1
        finally:
            gc.enable()


@pytest.mark.req("NOD-16")
async def test_many_connections_may_wait() -> None:
    """uvicorn listens anew on the listener, and would let fewer wait."""
    async with running_hub() as hub:
        assert make_server(hub.hub).config.backlog == BACKLOG


@pytest.mark.req("NOD-18")
async def test_a_worker_that_is_told_last_ends_in_time() -> None:
    """The hub needs some more seconds for its audit trail and its webhooks."""
    async with running_hub() as hub:
        worker = Worker(1, 2, Path(), 0, 0)
        grace = make_server(hub.hub, worker=worker).config.timeout_graceful_shutdown
        assert IN_TURN_SECONDS + (grace or 0) + STOP_SECONDS < END_SECONDS
        assert make_server(hub.hub).config.timeout_graceful_shutdown == GRACE_SECONDS


#: A hub that stops once it serves. The program prints the collector's thresholds, and the number of objects of a full collection.
COLLECTED = """
import gc, sys
from fhircast_hub import server
from fhircast_hub.app import Hub
from fhircast_hub.settings.reading import load

async def stop(self, counter):
    print("collector", *gc.get_threshold(), len(gc.get_objects()))
    return True

server.Server.on_tick = stop
settings = load(None, {"FHIRCAST_STORE": f"sqlite:///{sys.argv[1]}", "FHIRCAST_ISSUERS": '[{"issuer": "http://127.0.0.1:9", "audience": "hub"}]'})
server.serve(Hub(settings), server.listen("127.0.0.1", 0))
"""


async def test_the_collector_looks_at_nothing_of_the_start(tmp_path: Path) -> None:
    """Neither at modules, nor at sessions that the store has read."""
    store = await opened_store(tmp_path / "hub.db")
    for number in range(300):
        topic = f"topic-{number}"
        await store.commit_and_deliver(SessionKey("r", topic), 0, None, replace(FULL, realm="r", topic=topic), ())
    await store.close()
    command = (sys.executable, "-c", COLLECTED, str(tmp_path / "hub.db"))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    (line,) = (line for line in printed.decode().splitlines() if line.startswith("collector"))
    *thresholds, objects = map(int, line.split()[1:])
    assert tuple(thresholds) == COLLECTOR
    assert objects < 2000


@pytest.mark.req("LIM-3", "LIM-16")
async def test_of_an_addresss_connections_the_longest_idle_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes is served, whoever came before."""
    monkeypatch.setattr(connections, "CONNECTIONS", CONNECTIONS._replace(most=3))
    async with running_hub() as hub, opened(hub) as (first, _), opened(hub) as (_, asks), opened(hub):
        asks.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.05)
        async with opened(hub) as (reader, writer):
            writer.write(b"GET /health/live HTTP/1.0\r\n\r\n")
            assert b" 200 OK" in await to_the_end(reader)
        assert await to_the_end(first) == b""
