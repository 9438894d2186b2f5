"""What is no HTTP: refused with an id and a reason, which the log tells too."""

from __future__ import annotations

import asyncio
import json

import pytest
from structlog.testing import capture_logs

from fhircast_hub.budgets.table import SLICE
from fhircast_hub.http import parsing
from tests.http.sessions_world import administered
from tests.http.wire import request, wire
from tests.running import PATIENCE, RunningHub, event, running_hub, to_the_end

PATIENT = "Ola-Nordmann"
FAILURE = "the hub failed to read the request; its log says where"


async def refused(hub: RunningHub, data: bytes, before: bytes = b"") -> tuple[str, list[object]]:
    """The reason in the answer to `data`, and what the line in the log says. `before`: a request whose answer is awaited."""
    async with wire(hub) as connection:
        if before:
            await connection.send(before)
            assert (await connection.reply()).status == 404
        with capture_logs() as lines:
            await connection.send(data)
            reply = await connection.reply()
            assert reply.status == 400
            assert await connection.ended()
        (line,) = lines
        assert line["request_id"] == reply.headers["x-request-id"]
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
        return reply.body.decode().rstrip(), [line[name] for name in ("event", "method", "route", "reason")]


@pytest.mark.req("OPS-40", "OPS-17", "SEC-1")
@pytest.mark.parametrize(
    ("data", "method", "reason"),
    [
        ("\x16\x03\x01", "", "Invalid method encountered"),
        (f"{PATIENT} / HTTP/1.1\r\n\r\n", "", "Invalid method encountered"),
        (f"GET /{PATIENT}/\xff HTTP/1.1\r\n\r\n", "", "Invalid char in url path"),
        (f"GET http://[{PATIENT} HTTP/1.1\r\nHost: x\r\n\r\n", "GET", "Invalid URL"),
        (f"GET / HTTP/1.1\r\n{PATIENT}: \x00\r\n\r\n", "GET", "Invalid header value char"),
        (
            f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {PATIENT}\r\n\r\n",
            "POST",
            "Invalid character in Content-Length",
        ),
    ],
)
async def test_a_malformed_request(data: str, method: str, reason: str) -> None:
    """The words are the parser's own, and quote nothing."""
    async with running_hub() as hub:
        text, line = await refused(hub, data.encode("latin-1"))
        assert text == f"the request is malformed: {reason}"
        assert line == ["request", method, "other", text]
        metrics = (await hub.client.get(f"{hub.origin}/metrics")).text
        assert 'fhircast_requests_total{route="other",status="400"} 1.0' in metrics


@pytest.mark.req("OPS-40", "OPS-17")
async def test_a_malformed_request_behind_another() -> None:
    """The method is not that of the request before."""
    async with running_hub() as hub:
        text, line = await refused(hub, b"\x16\x03\x01", before=request("GET", "/nowhere", {}))
        assert line == ["request", "", "other", text]


@pytest.mark.req("OPS-40")
async def test_a_malformed_request_behind_an_unanswered_one() -> None:
    """Its 400 would be taken for the answer to the other, which may be an accepted event. So there is no answer."""
    async with running_hub() as hub, wire(hub) as connection:
        body = json.dumps(event("Patient-open")).encode()
        headers = hub.headers() | {"Content-Type": "application/json"}
        await connection.send(request("POST", "/api/hub", headers, body) + b"\x16\x03\x01")
        assert await to_the_end(connection.reader) == b""
        assert hub.hub.metrics.connections_cut.value == 1


@pytest.mark.req("OPS-40", "OPS-17", "LIM-3")
async def test_one_line_for_each_connection() -> None:
    """Whatever else comes, in slices of its own, for the connection ends. So a flood needs a connection for each line."""
    async with running_hub() as hub, wire(hub) as connection:
        with capture_logs() as lines:
            await connection.send(b"\x16\x03\x01" * int(SLICE.most))
            assert (await connection.reply()).status == 400
            assert await connection.ended()
        assert len(lines) == 1


@pytest.mark.req("OPS-40", "OPS-17")
async def test_a_refusal_of_the_hubs_own() -> None:
    async with running_hub() as hub:
        text, line = await refused(hub, b"GET / HTTP/1.1\r\n\r\n")
        assert line == ["request", "GET", "other", text]
        assert text == "the header Host is required once, not 0 times"


@pytest.mark.req("OPS-40")
async def test_a_fault_of_the_hub_is_not_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log says where."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(parsing.Parsing, "on_url", fail)
    async with running_hub() as hub, wire(hub) as connection:
        with capture_logs() as lines:
            await connection.send(request("GET", "/", {}))
            reply = await connection.reply()
            assert (reply.status, reply.body.decode().rstrip()) == (500, FAILURE)
        assert isinstance(lines[0]["exc_info"], ZeroDivisionError)


CHUNKED = {"Transfer-Encoding": "chunked"}


@pytest.mark.req("OPS-40")
@pytest.mark.parametrize("coding", ["xchunked", "gzip"])
async def test_a_malformed_request_changes_nothing(coding: str) -> None:
    """The parser knows no end of its body. The client reads 400, so the hub must not end the session."""
    async with administered() as sessions, wire(sessions.hub) as connection:
        topic = await sessions.begin()
        headers = sessions.hub.headers(sessions.ehr) | {"Transfer-Encoding": coding}
        with capture_logs() as lines:
            await connection.send(request("DELETE", f"/sessions/{topic}", headers))
            assert (await connection.reply()).status == 400
            assert await connection.ended()
            for _ in range(2):  # the hub has had time for the request
                assert (await sessions.look(topic)).status_code == 200
        assert [line["status"] for line in lines if line["method"] == "DELETE"] == [400]
        assert sessions.topics == 1


@pytest.mark.req("OPS-40")
@pytest.mark.parametrize("together", [True, False])
async def test_a_malformed_chunk(together: bool) -> None:
    """In the segment of the head, or while the hub waits for the body: one answer."""
    async with running_hub() as hub, wire(hub) as connection:
        head = request("POST", "/api/hub", hub.headers(**{"Content-Type": "application/json"}) | CHUNKED)
        await connection.send(head + b"zz\r\n" if together else head)
        if not together:
            await hub.client.get(f"{hub.origin}/health/live")
            await connection.send(b"zz\r\n")
        reply = await connection.reply()
        assert (reply.status, reply.body) == (400, b"the request is malformed: Invalid character in chunk size\n")
        assert await connection.ended()


@pytest.mark.req("OPS-40")
async def test_a_malformed_chunk_of_an_answered_request() -> None:
    """A second answer would be taken for that of the next request."""
    async with running_hub() as hub, wire(hub) as connection:
        await connection.send(request("POST", "/nowhere", CHUNKED))
        assert (await connection.reply()).status == 404
        with capture_logs() as lines:
            await connection.send(b"zz\r\n")
            assert await to_the_end(connection.reader) == b""
        assert lines == []


@pytest.mark.req("OPS-40")
@pytest.mark.parametrize("before", [b"", request("GET", "/health/live", {})], ids=["alone", "behind another"])
async def test_a_malformed_chunk_of_a_request_that_is_being_answered(before: bytes) -> None:
    """The client cannot know what was done, and so reads nothing."""
    async with running_hub() as hub, wire(hub) as connection:
        began, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> dict[str, str]:
            began.set()
            await go_on.wait()
            return {}

        hub.hub.add_root_route("/slow", slow)
        await connection.send(request("GET", "/slow", {} if before else CHUNKED))
        await asyncio.wait_for(began.wait(), PATIENCE)
        await connection.send(before and request("POST", "/nowhere", CHUNKED))
        await connection.send(b"zz\r\n")
        assert await to_the_end(connection.reader) == b""
        go_on.set()
        assert hub.hub.metrics.connections_cut.value == 1
