"""Which requests take the direct way, and that the client cannot tell."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from fhircast_hub.budgets.table import BODY_SECONDS, HEADER_SECONDS
from fhircast_hub.http import protocol
from fhircast_hub.http import request as request_module
from tests.http.wire import Wire, request, wire
from tests.running import RunningHub, event, running_hub, until

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
        token = hub.token()
        hub.token = lambda *_, **__: token  # type: ignore[method-assign]  # a further call would sign another token
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
        ({"Connection": "Upgrade", "Upgrade": "h2c"}, None),
        ({}, b""),
        ({}, b'{"a":"%b"}' % (b"a" * 70_000)),
    ],
    ids=["unknown token", "browser", "expect", "upgrade", "no body", "long body"],
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


def connections_of(hub: RunningHub) -> list[protocol.HttpProtocol]:
    """The hub's connections, from the one that is idle for longest."""
    return [each for each in gc.get_objects() if isinstance(each, protocol.HttpProtocol) and not each._ended]


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


@pytest.mark.req("EVT-1")
async def test_a_client_that_is_gone_hurts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its event counts. Its answer is neither written nor logged."""
    async with known() as (hub, _, connection):
        submit, gone = hub.hub.service.submit, asyncio.Event()

        async def late(*command: Any) -> object:
            await gone.wait()
            return await submit(*command)

        monkeypatch.setattr(hub.hub.service, "submit", late)
        with capture_logs() as lines:
            await connection.send(post(hub))
            await asyncio.sleep(0.05)  # the hub reads the request by itself
            connection.writer.transport.abort()
            await asyncio.sleep(0.05)
            gone.set()
            monkeypatch.undo()
            assert (await hub.publish(event("Patient-open", "p2"))).status_code == 202
        assert [line["status"] for line in lines if line["event"] == "request"] == [202]
        assert (await hub.context()).json()["context"][0]["resource"]["id"] == "p2"


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
