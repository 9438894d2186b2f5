"""The client goes on at a hub that is away, is busy or sends garbage."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from fhircast_client import FHIRcastClient, HubError, Timings
from fhircast_client.events import encode
from fhircast_client.testing import Answer, FakeHub
from tests.clients.connection_world import back_again, viewer
from tests.clients.fakes import PATIENCE, Sockets, Through, patient, until

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.mark.req("CLT-9", "CLT-42")
@pytest.mark.parametrize("status", [400, 403, 404])
async def test_a_hub_that_says_never_ends_it(status: int) -> None:
    async with FakeHub() as hub:
        client, _, wire = viewer(hub)
        hub.answer_next("subscribe", Answer(status, "not for you"))
        with pytest.raises(HubError, match="not for you") as failed:
            await client.start()
        assert failed.value.status == status
        assert client.status.connection == "ended"
        assert "not for you" in client.status.why
        assert len(wire.of("out", "subscribe")) == 1
        with pytest.raises(HubError):
            await client.run()


@pytest.mark.req("CLT-9", "CLT-42")
async def test_a_hub_that_says_never_later_is_raised_by_run() -> None:
    async with FakeHub() as hub:
        client, _, _ = viewer(hub)
        await client.start()
        hub.answer_next("subscribe", Answer(403, "the session has ended"))
        hub.deny()
        with pytest.raises(HubError, match="the session has ended"):
            await client.run()
        assert client.status.connection == "ended"
        await client.start()
        await back_again(client)
        await client.stop()


@pytest.mark.req("CLT-9", "CLT-13")
async def test_start_waits_for_a_hub_that_is_away_and_says_so() -> None:
    async with FakeHub() as hub:
        client, _, _ = viewer(hub)
        hub.cut()
        start = asyncio.create_task(client.start())
        await until(lambda: "cannot be reached" in client.status.why, lambda: client.status)
        hub.restore()
        await asyncio.wait_for(start, PATIENCE)
        await client.stop()


@pytest.mark.req("CLT-9")
@pytest.mark.parametrize(
    "answer",
    [
        Answer(202, "no JSON at all"),
        Answer(202, "[]"),
        Answer(202, '{"hub.channel.endpoint": 7}'),
        Answer(202, '{"hub.channel.endpoint": "' + "[" * 5000 + '"}'),
        Answer(202, "[" * 100_000),
        Answer(500, "\x00\x01"),
        Answer(502, "<html>"),
        Answer(301, ""),
    ],
)
async def test_garbage_is_no_subscription_and_is_tried_again(answer: Answer) -> None:
    async with FakeHub() as hub:
        client, _, wire = viewer(hub)
        hub.answer_next("subscribe", answer)
        hub.answer_next("configuration", Answer(200, "[" * 100_000))
        async with client:
            assert client.status.connection == "connected"
        assert len(wire.of("out", "subscribe")) >= 2


@pytest.mark.req("CLT-9")
async def test_frames_that_make_no_sense_hold_up_nothing() -> None:
    async with FakeHub() as hub:
        client, heard, _ = viewer(hub)
        async with client:
            frames = (
                "",
                "no JSON",
                "[" * 100_000,
                "7",
                "null",
                "[]",
                "{}",
                '{"event": {}}',
                '{"id": 1, "event": {"hub.event": "x"}}',
            )
            odd = '{"id": "1", "timestamp": 5, "event": {"hub.event": "Patient-open", "context": [3, {"key": 4, "resource": 5}]}}'
            for frame in (*frames, odd):
                hub.send_frame(frame, "viewer")
            await hub.publish("Patient-open", patient("p1"))
            await until(lambda: heard.anchors == ["Patient/p1"])
            await until(lambda: client.status.in_sync)


@pytest.mark.req("CLT-9")
async def test_events_before_the_confirmation_are_heard() -> None:
    async with FakeHub() as hub:
        event = await hub.publish("Patient-open", patient("p1"))
        hub.replays = False
        early = Sockets(hub.connector("viewer"), lambda socket: Through(socket, encode(event.body).decode()))
        client, heard, _ = viewer(hub, connect=early)
        async with client:
            await until(lambda: heard.anchors == ["Patient/p1"])


@pytest.mark.req("CLT-9")
async def test_a_hub_that_does_not_confirm_is_asked_for_another_endpoint() -> None:
    async with FakeHub() as hub:
        timings = Timings(backoff_first=0.01, backoff_most=0.02, settle=0.05, confirmation=0.05)
        sockets = Sockets(hub.connector("viewer"), lambda socket: Through(socket, also=False))
        client, _, wire = viewer(hub, timings=timings, connect=sockets)
        start = asyncio.create_task(client.start())
        await until(lambda: len(wire.of("out", "subscribe")) >= 2)
        assert "did not confirm" in client.status.why
        sockets.made = Through
        await asyncio.wait_for(start, PATIENCE)
        await client.stop()


@pytest.mark.req("CLT-11")
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_waited_for(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float, *more: Any) -> Any:
        delays.append(seconds)
        return await sleep(min(seconds, 0.01), *more)

    async with FakeHub() as hub:
        client, _, _ = viewer(hub)
        hub.answer_next("subscribe", Answer(status, "too many", retry_after=17))
        monkeypatch.setattr("fhircast_client.connection.asyncio.sleep", noted)
        async with client:
            assert 17 in delays
        hub.answer_next("publish", Answer(status, "too many", retry_after=17))
        with pytest.raises(HubError) as failed:
            await client.open(patient("p1"))
        assert failed.value.retry_after == 17
        await client.stop()


def refused(status: int, body: bytes = b"", *headers: tuple[str, str]) -> InvalidStatus:
    """How websockets says that a handshake was refused."""
    return InvalidStatus(Response(status, "", Headers(headers), body))


@pytest.mark.req("CLT-9", "CLT-11")
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("retry_after", ["17", None])
async def test_an_endpoint_of_a_hub_that_is_busy_is_kept(
    status: int, retry_after: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    delays: list[float] = []
    whys: list[str] = []
    sleep = asyncio.sleep

    async def noted(seconds: float, *more: Any) -> Any:
        delays.append(seconds)
        return await sleep(min(seconds, 0.01), *more)

    headers = [("Content-Type", "text/plain"), *([("Retry-After", retry_after)] if retry_after else [])]
    errors = [refused(status, "handshakes: expected 60, Åse".encode(), *headers) for _ in range(5)]

    async with FakeHub() as hub:
        usual, endpoints = hub.connector("viewer"), set[str]()

        async def connect(endpoint: str) -> Any:
            endpoints.add(endpoint)
            if wire.of("in", "confirmation") and errors:
                raise errors.pop()
            return await usual(endpoint)

        client, _, wire = viewer(hub, connect=connect)
        client.on_status(lambda status: whys.append(status.why))
        monkeypatch.setattr("fhircast_client.connection.asyncio.sleep", noted)
        async with client:
            hub.cut()
            hub.restore()
            await until(lambda: not errors)
            await back_again(client)
        assert len(endpoints) == len(wire.of("out", "subscribe")) == 1
        assert delays.count(17) == (5 if retry_after else 0)
        assert f"the hub refused the connection ({status}): handshakes: expected 60, Åse" in whys
        assert f"the hub refused the connection ({status}); it is tried again" in caplog.text
        assert "Åse" not in caplog.text


@pytest.mark.parametrize(
    ("value", "expected"), [("7", 7), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", None), ("-1", None), ("٣", None)]
)
async def test_retry_after_is_read_as_seconds_or_a_date(value: str, expected: float | None) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503, headers=[(b"Retry-After", value.encode())])

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        client = FHIRcastClient("http://hub.invalid", "t", http=http)
        with pytest.raises(HubError) as failed:
            await client.fetch()
        assert failed.value.retry_after == expected
