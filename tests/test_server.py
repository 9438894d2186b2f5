"""What uvicorn's HTTP is not asked to take: headers, trailers, pipelined requests and patience without end."""

from __future__ import annotations

import asyncio

import pytest

from fhircast_hub import server
from fhircast_hub.api import http
from running import event, opened, running_hub, to_the_end


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"GET /health/live HTTP/1.1\r\n", id="headers"),
        pytest.param(b"POST /health/live HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", id="trailers"),
    ],
)
async def test_headers_have_an_end(start: bytes) -> None:
    """More than 64 KiB of them, or of trailers, end the connection."""
    async with running_hub() as hub, opened(hub) as (reader, writer):
        writer.write(start + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 4000)
        assert b"200 OK" not in await to_the_end(reader)


async def test_a_connection_that_asks_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request is not waited for; a connection kept alive between two requests is."""
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.1)
    async with running_hub() as hub, opened(hub) as (reader, writer):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b"live\n")
        await asyncio.sleep(0.2)  # longer than headers may take
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n")
        assert await to_the_end(reader) == b""


async def test_a_body_that_does_not_come_is_answered_with_408(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever declares a body and does not send it is told so."""
    monkeypatch.setattr(http, "BODY_SECONDS", 0.1)
    async with running_hub() as hub, opened(hub) as (reader, writer):
        head = f"POST /api/hub HTTP/1.1\r\nAuthorization: Bearer {hub.token()}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 10\r\n\r\n{{".encode())
        assert b" 408 " in await to_the_end(reader)


async def test_pipelined_requests_have_an_end() -> None:
    """Thousands of requests in one write end their connection; others are served meanwhile."""
    async with running_hub() as hub, opened(hub) as (reader, writer):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)
        assert (await hub.publish(event("Patient-open"))).status_code == 202
        assert (await to_the_end(reader)).count(b"200 OK") < 2000
