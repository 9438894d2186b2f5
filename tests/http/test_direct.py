"""Which requests take the direct way, and that the client cannot tell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from fhircast_hub.budgets.table import BODY_SECONDS, HEADER_SECONDS
from fhircast_hub.http import protocol
from fhircast_hub.http import request as request_module
from fhircast_hub.http.direct import DirectAnswer
from fhircast_hub.http.request import Request
from tests.counted import alive, connections_of
from tests.http.wire import Wire, request, wire
from tests.running import TOPIC, RunningHub, event, running_hub, to_the_end, until

JSON = {"Content-Type": "application/json"}


@pytest.fixture(params=["direct"], autouse=True)
def adapter(request: pytest.FixtureRequest) -> str:
    """These tests are about the direct way alone."""
    return str(request.param)


class Asgi:
    """Counts the requests that take the way of ASGI."""

    def __init__(self, hub: RunningHub) -> None:
        self.count, self._http = 0, hub.hub._http
        hub.hub._http = self  # type: ignore[assignment]  # called like a RequestLog

    async def __call__(self, *asgi: Any) -> None:
        self.count += 1
        await self._http(*asgi)


@asynccontextmanager
async def known(**settings: Any) -> AsyncIterator[tuple[RunningHub, Asgi, Wire]]:
    """A hub that has verified the token, and a connection to the hub."""
    async with running_hub(**settings) as hub, wire(hub) as connection:
        assert (await hub.publish(event("Patient-open", "p0"))).status_code == 202
        yield hub, Asgi(hub), connection


def post(hub: RunningHub, body: bytes | None = None, **more: str) -> bytes:
    """A POST of an event by the token of every test."""
    content = body if body is not None else json.dumps(event("Patient-open", "p1")).encode()
    return request("POST", "/api/hub", hub.headers() | JSON | more, content)


@pytest.mark.req("EVT-1", "EVT-24")
async def test_a_small_post_with_a_remembered_token_needs_no_asgi() -> None:
    async with known() as (hub, asgi, connection), hub.follow(await hub.subscribe()) as follower:
        assert (await follower.next())["id"] == "Patient-open-p0"
        await connection.send(post(hub))
        reply = await connection.reply()
        assert (reply.status, reply.body, asgi.count) == (202, b"{}", 0)
        assert (await follower.next())["id"] == "Patient-open-p1"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-store"
    assert {"date", "x-request-id", "content-type"} <= reply.headers.keys()


@pytest.mark.req("EVT-1")
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Authorization": "Bearer unknown"}, b"{}"),
        ({"Origin": "https://ehr.example"}, None),
        ({"Expect": "100-continue"}, None),
        ({}, b""),
        ({}, b'{"a":"%b"}' % (b"a" * 70_000)),
    ],
    ids=["unknown token", "browser", "expect", "no body", "long body"],
)
async def test_another_request_goes_by_asgi(headers: dict[str, str], body: bytes | None) -> None:
    async with known() as (hub, asgi, connection):
        await connection.send(post(hub, body, **headers))
        while (await connection.reply()).status == 100:
            pass
        assert asgi.count == 1


@pytest.mark.req("EVT-1")
@pytest.mark.parametrize(("patience", "by_asgi"), [(60.0, 0), (0.02, 1)])
async def test_a_body_by_itself(monkeypatch: pytest.MonkeyPatch, patience: float, by_asgi: int) -> None:
    """Many clients send the body after the head. One that comes late goes by ASGI, which has other limits for bodies."""
    monkeypatch.setattr(protocol, "DIRECT_SECONDS", patience)
    async with known() as (hub, asgi, connection):
        whole = post(hub)
        await connection.send(whole[:-7])
        await asyncio.sleep(0.1)  # the hub reads the first part by itself
        assert asgi.count == by_asgi
        await connection.send(whole[-7:])
        assert ((await connection.reply()).status, asgi.count) == (202, by_asgi)


@pytest.mark.req("AUT-1")
async def test_an_unknown_token_is_refused_before_its_body() -> None:
    async with known() as (hub, asgi, connection):
        await connection.send(post(hub, Authorization="Bearer unknown")[:-7])
        assert ((await connection.reply()).status, asgi.count) == (401, 1)


@pytest.mark.req("AUT-21")
async def test_a_token_without_scopes_is_refused_before_its_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the hub remembers the token."""
    monkeypatch.setattr(protocol, "DIRECT_SECONDS", 60.0)
    async with known() as (hub, asgi, connection):
        headers = hub.headers(hub.token(scope="openid"))
        assert (await hub.publish(event("Patient-open"), hub.token(scope="openid"))).status_code == 403
        await connection.send(post(hub, None, **headers)[:-7])
        assert ((await connection.reply()).status, asgi.count) == (403, 2)


@pytest.mark.req("EVT-1", "LIM-3")
@pytest.mark.parametrize("left_out", [0, 7], ids=["with its body", "without its body"])
async def test_a_path_that_is_not_ascii_is_refused(left_out: int) -> None:
    """The parser refuses the path. uvicorn would raise for one, and nobody would answer."""
    async with known() as (hub, asgi, connection):
        whole = post(hub).replace(b"POST /api/hub ", "POST /api/hub/tøpic ".encode())
        await connection.send(whole[: len(whole) - left_out])
        assert ((await connection.reply()).status, asgi.count) == (400, 0)
        assert await connection.ended()


@pytest.mark.req("LIM-3")
async def test_a_body_that_never_ends_is_refused_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "DIRECT_SECONDS", 0.02)
    monkeypatch.setattr(request_module, "BODY_SECONDS", BODY_SECONDS._replace(most=0.1))
    async with known() as (hub, _, connection):
        await connection.send(post(hub)[:-7])
        assert (await connection.reply()).status == 408
        assert await connection.ended()


@pytest.mark.req("OPS-3")
async def test_a_server_that_stops_still_takes_a_body_under_way() -> None:
    async with known() as (hub, asgi, connection):
        whole = post(hub)
        await connection.send(whole[:-7])
        await until(lambda: any(each._small_body is not None for each in connections_of(hub)))
        for each in connections_of(hub):
            each.shutdown()
        await connection.send(whole[-7:])
        assert ((await connection.reply()).status, asgi.count) == (202, 1)
        assert await connection.ended()


@pytest.mark.req("EVT-1", "LIM-3")
async def test_a_body_longer_than_a_slice_takes_the_direct_way() -> None:
    """The connection is read in slices, of which a body may take several."""
    message = event("Patient-open", "p1")
    message["event"]["context"][0]["resource"]["text"] = "a" * 40_000
    async with known() as (hub, asgi, connection):
        for count in range(5):  # a slow machine may read the body in two parts now and then
            await connection.send(post(hub, json.dumps(message | {"id": str(count)}).encode()))
            assert (await connection.reply()).status == 202
        assert asgi.count < 5


@pytest.mark.req("EVT-1")
async def test_pipelined_requests_are_answered_in_their_order() -> None:
    """The first goes directly. The others wait for its answer, whatever their way."""
    async with known() as (hub, _, connection):
        get = request("GET", "/api/hub/none", hub.headers())
        bad = post(hub, b"{}")
        await connection.send(post(hub) + bad + get + post(hub) + bad)
        assert [(await connection.reply()).status for _ in range(5)] == [202, 400, 200, 202, 400]


@pytest.mark.req("EVT-1")
async def test_a_connection_ends_where_the_client_wants_it_to() -> None:
    async with known() as (hub, asgi, connection):
        await connection.send(post(hub, Connection="close"))
        reply = await connection.reply()
        assert (reply.status, reply.headers["connection"], asgi.count) == (202, "close", 0)
        assert await connection.ended()


@pytest.mark.req("EVT-1")
async def test_a_request_that_waits_goes_on_in_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    async with known() as (hub, asgi, connection):
        submit = hub.hub.service.submit

        async def later(*command: Any) -> object:
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            async with asyncio.timeout(5):  # there is a task by now
                return await submit(*command)

        monkeypatch.setattr(hub.hub.service, "submit", later)
        await connection.send(post(hub) + post(hub, b"{}"))
        assert [(await connection.reply()).status for _ in range(2)] == [202, 400]
        assert asgi.count == 1


@pytest.mark.req("EVT-1")
async def test_a_fault_of_the_hub_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async with known() as (hub, asgi, connection):

        async def fail(*_: Any) -> object:
            raise ZeroDivisionError

        monkeypatch.setattr(hub.hub.service, "submit", fail)
        with capture_logs() as lines:
            await connection.send(post(hub))
            assert ((await connection.reply()).status, asgi.count) == (500, 0)
        assert [line["event"] for line in lines] == ["request failed", "request"]


@pytest.mark.req("AUD-1", "OPS-2")
async def test_an_event_whose_client_is_gone_leaves_its_trail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody publishes without an audit entry by hanging up."""
    trail = tmp_path / "trail.jsonl"
    async with known(audit=f"file://{trail}") as (hub, _, connection):
        submit, gone = hub.hub.service.submit, asyncio.Event()

        async def late(*command: Any) -> object:
            await gone.wait()
            return await submit(*command)

        monkeypatch.setattr(hub.hub.service, "submit", late)
        with capture_logs() as lines:
            await connection.send(post(hub))
            await until(lambda: any(isinstance(each.cycle, DirectAnswer) for each in connections_of(hub)))
            connection.writer.transport.abort()
            await until(lambda: not any(isinstance(each.cycle, DirectAnswer) for each in connections_of(hub)))
            gone.set()
            await until(lambda: len(lines) == 1)
        assert [(line["event"], line["status"]) for line in lines] == [("request", 202)]
        assert (await hub.context()).json()["context"][0]["resource"]["id"] == "p1"
    assert trail.read_text().count('"code":"Patient-open"') == 2


@pytest.mark.req("AUD-1", "OPS-2")
async def test_a_handshake_behind_an_unanswered_event_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Otherwise the answer would come among the frames of the socket."""
    async with known(store=f"sqlite:///{tmp_path}/hub.db") as (hub, _, connection):
        path = (await hub.subscribe()).partition(str(hub.port))[2]
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        with capture_logs() as lines:
            await connection.send(post(hub) + request("GET", path, upgrade | key))
            assert await to_the_end(connection.reader) == b""
            await until(lambda: len(lines) == 1)
        assert [(line["event"], line["status"]) for line in lines] == [("request", 202)]


@pytest.mark.req("OPS-6", "LIM-3")
async def test_each_request_has_a_step_of_its_own() -> None:
    """Of a slice only the first request takes the direct way. The others claim their steps, and only so many may wait."""
    async with known() as (hub, asgi, connection):
        await connection.send(post(hub, b"{}") * 5)
        assert [(await connection.reply()).status for _ in range(5)] == [400] * 5
        assert asgi.count == 4


@pytest.mark.req("WHK-2")
async def test_a_webhook_with_a_remembered_token() -> None:
    """The name of the callback is looked up, in a task."""
    async with known(allow_insecure=True) as (hub, asgi, _):
        form = {
            "hub.channel.type": "webhook",
            "hub.mode": "subscribe",
            "hub.topic": TOPIC,
            "hub.events": "Patient-open",
        }
        answer = await hub.client.post(
            hub.url, json=form | {"hub.callback": "http://x.invalid/"}, headers=hub.headers()
        )
        assert answer.status_code in {202, 400}, answer.text
        assert asgi.count == 0


@pytest.mark.req("EVT-1")
async def test_http_1_0_is_for_asgi() -> None:
    async with known() as (hub, asgi, connection):
        await connection.send(post(hub, Connection="keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        reply = await connection.reply()
        assert (reply.status, reply.headers["connection"], asgi.count) == (202, "close", 1)


@pytest.mark.req("EVT-1")
@pytest.mark.parametrize("after", ["Transfer-Encoding: chunked", "Content-Length: 9\r\nOrigin: https://ehr.example"])
async def test_who_expects_to_be_told_to_go_on_is_told(after: str) -> None:
    async with known() as (hub, _, connection):
        head = request("POST", "/api/hub", hub.headers() | JSON | {"Expect": "100-continue"})
        await connection.send(head.removesuffix(b"\r\n") + after.encode() + b"\r\n\r\n")
        assert (await connection.reply()).status == 100


@pytest.mark.req("LIM-3")
async def test_an_answered_request_keeps_no_body() -> None:
    async with known() as (hub, _, connection):
        body = b'{"a":"%b"}' % (b"a" * 3000)
        await connection.send(post(hub, body))
        assert (await connection.reply()).status == 400
        await until(lambda: not [each for each in alive(Request) if each.body == body])


@pytest.mark.req("EVT-1")
async def test_a_fault_after_the_answer_makes_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with known() as (hub, _, connection):

        def fail(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(protocol.HttpProtocol, "on_response_complete", fail)
        await connection.send(post(hub, b"{}"))
        assert (await to_the_end(connection.reader)).count(b"HTTP/1.1") <= 1


@pytest.mark.req("LIM-3")
async def test_a_refusal_at_once_leaves_the_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for the headers of the next request has not begun: the connection is idle."""
    monkeypatch.setattr(protocol, "HEADER_SECONDS", HEADER_SECONDS._replace(most=0.2))
    async with known() as (hub, _, connection):
        await connection.send(post(hub, b"{}"))
        assert (await connection.reply()).status == 400
        await asyncio.sleep(0.4)  # twice the time for headers
        await connection.send(post(hub))
        assert (await connection.reply()).status == 202
