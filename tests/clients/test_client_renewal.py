"""The client renews a lease, and asks for a new token after a 401."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest

from fhircast_client import TokenError
from fhircast_client.testing import Answer, FakeHub
from tests.clients import virtual_time
from tests.clients.connection_world import back_again, viewer
from tests.clients.fakes import FAST, Sockets, http_through, patient, until

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.mark.req("CLT-10")
@pytest.mark.parametrize("version", ["STU3", "STU2"])
def test_a_lease_is_renewed_on_its_endpoint_with_a_fresh_token(version: Any) -> None:
    """In virtual time: a machine that stands still for longer than what is left of a lease does lose it."""

    async def play() -> None:
        numbers = iter(range(1000))
        async with FakeHub(version) as hub:
            sockets = Sockets(hub.connector("viewer"))
            token: Any = lambda: f"token-{next(numbers)}"  # noqa: E731
            client, heard, wire = viewer(hub, lease_seconds=3600, token=token, connect=sockets)
            async with client:
                await asyncio.sleep(3 * 3600)
                assert len(wire.of("in", "subscribe")) == 4
                assert len(sockets.endpoints) == 1
                await hub.publish("Patient-open", patient("p1"))
                await until(lambda: heard.events)
                assert not wire.of("in", "denial")
            assert list(dict.fromkeys(hub.tokens)) == ["token-0", "token-1", "token-2", "token-3"]

    virtual_time.run(play())


@pytest.mark.req("CLT-10")
def test_a_renewal_that_fails_is_tried_again_and_the_end_of_the_lease_is_survived() -> None:
    """The end is a denial. tests/clients/test_lease.py has a hub that says nothing at the end."""

    async def play() -> None:
        async with FakeHub() as hub:
            client, _, wire = viewer(hub, lease_seconds=100)
            async with client:
                hub.answer_next("subscribe", Answer(503, "not now"), Answer(500), Answer(400, "no renewals here"))
                await asyncio.sleep(95)
                assert [message.status for message in wire.of("in", "subscribe")] == [202, 503, 500, 400]
                assert len(wire.of("in", "confirmation")) == 1
                hub.deny("viewer", "the lease has ended")
                await until(lambda: len(wire.of("in", "confirmation")) >= 2)
                await back_again(client)
            assert wire.of("in", "denial")[0].body["hub.reason"] == "the lease has ended"
            assert [message.status for message in wire.of("in", "subscribe")] == [202, 503, 500, 400, 202]

    virtual_time.run(play())


@pytest.mark.req("CLT-10")
async def test_an_endpoint_that_the_hub_moved_is_followed() -> None:
    async with FakeHub() as hub:

        async def anew(usual: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
            form = dict(parse_qsl(request.content.decode()))
            if form.get("hub.mode") != "subscribe":
                return await usual.send(request)
            given = {name: value for name, value in form.items() if name != "hub.channel.endpoint"}
            return await usual.post(request.url, data=given)

        http = http_through(hub, "viewer", anew)
        client, heard, wire = viewer(hub, lease_seconds=1, http=http)
        async with http, client:
            await until(lambda: len(wire.of("in", "confirmation")) >= 2)
            await back_again(client)
            await hub.publish("Patient-open", patient("p1"))
            await until(lambda: heard.events)


@pytest.mark.req("CLT-11")
async def test_a_401_asks_for_a_new_token_once_and_a_second_is_final() -> None:
    tokens: list[str] = []

    async def token() -> str:
        tokens.append(f"token-{len(tokens)}")
        return tokens[-1]

    async with FakeHub() as hub:
        client, _, _ = viewer(hub, token=token, heartbeat=False)
        hub.answer_next("subscribe", Answer(401, "expired"))
        await client.start()
        assert hub.tokens == ["token-0", "token-1"]
        hub.answer_next("publish", Answer(401), Answer(401, "a bad token"))
        with pytest.raises(TokenError, match="a bad token"):
            await client.open(patient("p1"))
        assert client.status.connection == "connected"
        hub.answer_next("subscribe", Answer(401), Answer(401, "no more tokens"))
        hub.deny()
        with pytest.raises(TokenError, match="no more tokens"):
            await client.run()


@pytest.mark.req("CLT-11")
async def test_a_token_that_is_a_text_is_refused_once() -> None:
    async with FakeHub() as hub:
        client, _, wire = viewer(hub)
        hub.answer_next("subscribe", Answer(401, "expired"))
        with pytest.raises(TokenError, match="expired"):
            await client.start()
        assert len(wire.of("out", "subscribe")) == 1


@pytest.mark.req("CLT-11")
async def test_requests_that_are_refused_at_once_ask_for_one_new_token() -> None:
    calls = 0

    async def token() -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        return f"token-{calls}"

    async with FakeHub() as hub:
        client = hub.client("ehr", token=token, timings=FAST)
        await client.publish("org.example.first", [])
        hub.answer_next("publish", *[Answer(401)] * 5)
        await asyncio.gather(*(client.publish(f"org.example.n{number}", []) for number in range(5)))
        assert calls == 2
        await client.stop()


@pytest.mark.req("CLT-11")
async def test_a_token_function_that_fails_is_asked_again_and_one_that_gives_up_is_final(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: list[Callable[[], str]] = [lambda: str(1 / 0), lambda: "", lambda: "a-good-token"]
    async with FakeHub() as hub:
        client, _, _ = viewer(hub, token=lambda: answers.pop(0)())
        async with client:
            assert answers == []

        def over() -> str:
            raise TokenError("the user has logged out")

        client, _, _ = viewer(hub, token=over)
        with pytest.raises(TokenError, match="logged out"):
            await client.start()
    assert "ZeroDivisionError" in caplog.text
    assert "division by zero" not in caplog.text
