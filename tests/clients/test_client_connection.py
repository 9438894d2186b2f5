"""How a subscription is kept: reconnections, renewals, tokens, and hubs that do not behave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from fhircast_client import FHIRcastClient, HubError, Timings, TokenError
from fhircast_client.events import decode, encode
from fhircast_client.fake_sockets import FakeClosed
from fhircast_client.socket import connect
from fhircast_client.testing import Answer, FakeHub
from tests.clients import virtual_time
from tests.clients.fakes import FAST, PATIENCE, HangsUp, Heard, Sockets, Through, Wire, http_through, patient, until

pytestmark = pytest.mark.usefixtures("nothing_left")


async def apart(client: FHIRcastClient) -> None:
    """Wait until it has noticed that its connection is lost."""
    await until(lambda: client.status.connection == "connecting", lambda: client.status)


async def back_again(client: FHIRcastClient) -> None:
    """Wait until a lost connection is back."""
    await until(lambda: client.status.connection == "connected", lambda: client.status)


def viewer(hub: FakeHub, **options: Any) -> tuple[FHIRcastClient, Heard, Wire]:
    """A client that follows patients."""
    client = hub.client("viewer", **{"timings": FAST, **options})
    heard = Heard()
    client.on("Patient-open", heard)
    return client, heard, Wire(client)


@pytest.mark.req("CLT-9", "CLT-13")
async def test_a_lost_socket_comes_back_to_its_endpoint_and_to_what_is_open() -> None:
    async with FakeHub() as hub:
        client, heard, wire = viewer(hub)
        client.on("Patient-close", heard)
        async with client:
            await hub.publish("Patient-open", patient("p1"))
            hub.cut()
            await apart(client)
            assert (client.status.in_sync, client.status.why != "") == (False, True)
            await hub.publish("Patient-close", patient("p1"))
            await hub.publish("Patient-open", patient("p2"))
            hub.restore()
            await until(lambda: client.status.in_sync, lambda: client.status)
            assert [event.name for event in heard.events] == ["Patient-open", "Patient-close", "Patient-open"]
            assert client.context
            assert client.context.anchor == "Patient/p2"
        assert len(wire.of("out", "subscribe")) == 1


@pytest.mark.req("CLT-9")
async def test_an_endpoint_that_is_gone_gives_way_to_a_new_subscription() -> None:
    async with FakeHub() as hub:
        client, heard, wire = viewer(hub)
        async with client:
            await hub.publish("Patient-open", patient("p1"))
            await until(lambda: client.context)
            hub.cut()
            hub.deny()
            await apart(client)
            hub.restore()
            await until(lambda: client.status.in_sync, lambda: client.status)
            assert heard.anchors == ["Patient/p1"], "it is open still, and shown"
        assert len(wire.of("out", "subscribe")) == 2


@pytest.mark.req("CLT-5", "CLT-9")
async def test_what_was_closed_while_the_subscription_was_lost_is_closed_here() -> None:
    async with FakeHub() as hub:
        client, heard, _ = viewer(hub)
        client.on("Patient-close", heard)
        async with client:
            await hub.publish("Patient-open", patient("p1"))
            await until(lambda: client.context)
            hub.cut()
            hub.deny()
            await hub.publish("Patient-close", patient("p1"))
            await apart(client)
            hub.restore()
            await until(lambda: client.context is None and client.status.in_sync, lambda: client.status)
            assert [event.name for event in heard.events] == ["Patient-open", "Patient-close"]


@pytest.mark.req("CLT-5", "CLT-9")
async def test_what_was_opened_at_a_hub_that_only_answers_is_followed() -> None:
    async with FakeHub() as hub:
        hub.replays = False
        client, heard, _ = viewer(hub)
        async with client:
            await hub.publish("Patient-open", patient("p1"))
            hub.cut()
            await apart(client)
            await hub.publish("Patient-open", patient("p2"))
            hub.restore()
            await until(lambda: client.status.in_sync, lambda: client.status)
            assert heard.anchors == ["Patient/p1", "Patient/p2"]


@pytest.mark.req("CLT-9", "CLT-13")
async def test_a_hub_that_does_not_tell_what_is_open_leaves_the_client_out_of_sync_until_the_next_open() -> None:
    async with FakeHub("STU2") as hub:
        client, heard, _ = viewer(hub)
        async with client:
            await hub.publish("patient-open", patient("p1"))
            hub.cut()
            await hub.publish("patient-open", patient("p2"))
            hub.restore()
            await until(lambda: "does not tell" in client.status.why, lambda: client.status)
            assert not client.status.in_sync
            await hub.publish("patient-open", patient("p3"))
            await until(lambda: client.status.in_sync, lambda: client.status)
            assert heard.anchors == ["Patient/p1", "Patient/p3"]


@pytest.mark.req("CLT-9")
async def test_a_denial_that_was_not_asked_for_is_followed_by_a_new_subscription() -> None:
    async with FakeHub() as hub:
        client, heard, wire = viewer(hub)
        async with client:
            hub.deny()
            await until(lambda: len(wire.of("in", "confirmation")) == 2)
            await hub.publish("Patient-open", patient("p1"))
            await until(lambda: heard.anchors == ["Patient/p1"])
        assert wire.of("in", "denial")


@pytest.mark.req("CLT-9")
async def test_who_was_taken_over_subscribes_anew() -> None:
    async with FakeHub() as hub:
        sockets = Sockets(hub.connector("viewer"))
        client, _, wire = viewer(hub, connect=sockets)
        async with client:
            usurper = await hub.connector("usurper")(sockets.endpoints[0])
            await until(lambda: len(wire.of("out", "subscribe")) == 2)
            await back_again(client)
            assert decode(await usurper.recv())["hub.mode"] == "subscribe"
            assert usurper.close_code is None


@pytest.mark.req("CLT-9")
async def test_who_sent_more_than_acknowledges_comes_back_to_its_endpoint(caplog: pytest.LogCaptureFixture) -> None:
    """The hub closes with 1008 then too (SYN-17), and says why."""
    why = "the hub closed the connection: more frames came than acknowledge what was sent"
    whys: list[str] = []
    async with FakeHub() as hub:
        sockets = Sockets(hub.connector("viewer"))
        client, _, wire = viewer(hub, connect=sockets)
        client.on_status(lambda status: whys.append(status.why))
        async with client:
            for _ in range(200):
                with contextlib.suppress(FakeClosed):
                    await sockets.opened[0].send("{}")
            await until(lambda: len(sockets.endpoints) == 2)
            await back_again(client)
            assert len(set(sockets.endpoints)) == 1
            assert len(wire.of("out", "subscribe")) == 1
            assert why in whys
            assert f"{why}; the client reconnects" in caplog.text


@pytest.mark.req("CLT-9", "CLT-28")
@pytest.mark.parametrize(
    ("code", "reason", "why", "subscriptions"),
    [
        (1008, "", "another connection took over the subscription", 2),
        (1008, "Åse  is not\nwelcome", "the hub closed the connection (1008): Åse is not welcome", 2),
        (1001, "Åse is stopping", "the connection to the hub was lost: Åse is stopping", 1),
        (1001, None, "the connection to the hub was lost", 1),
    ],
)
async def test_what_the_hub_says_when_it_closes_is_shown_and_not_logged(
    code: int, reason: str | None, why: str, subscriptions: int, caplog: pytest.LogCaptureFixture
) -> None:
    whys: list[str] = []
    async with FakeHub() as hub:
        sockets = Sockets(hub.connector("viewer"), lambda socket: HangsUp(socket, frames=1, said=(code, reason)))
        client, _, wire = viewer(hub, connect=sockets)
        client.on_status(lambda status: whys.append(status.why))
        async with client:
            sockets.made = Through
            await until(lambda: len(sockets.endpoints) == 2)
            await back_again(client)
        assert why in whys, whys
        assert len(wire.of("out", "subscribe")) == subscriptions
        assert "Åse" not in caplog.text


class Unheard(Through):
    """A socket that the hub closed with 1008, which only who writes notices."""

    @property
    def close_code(self) -> int | None:
        return 1008

    async def send(self, message: str) -> None:
        raise FakeClosed


@pytest.mark.req("CLT-9")
async def test_who_was_taken_over_may_notice_by_writing() -> None:
    async with FakeHub() as hub:
        sockets = Sockets(hub.connector("viewer"), Unheard)
        client, _, wire = viewer(hub, connect=sockets)
        async with client:
            sockets.made = Through
            await hub.publish("Patient-open", patient("p1"))  # which is acknowledged
            await until(lambda: len(wire.of("out", "subscribe")) == 2)
            await back_again(client)


@pytest.mark.req("CLT-9")
async def test_three_heartbeats_missed_count_as_lost() -> None:
    async with FakeHub() as hub:
        client, _, wire = viewer(hub)
        async with client:
            hub.heartbeat(0.02)
            hub.cut(silently=True)
            await until(lambda: "three heartbeats" in client.status.why, lambda: client.status)
            hub.restore()
            await back_again(client)
        assert len(wire.of("in", "confirmation")) == 2


@pytest.mark.req("SYN-16")
async def test_a_socket_is_pinged_before_cloud_gateways_cut_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those cut what is idle for 20 s."""
    given: dict[str, Any] = {}

    async def opened(endpoint: str, **options: Any) -> None:
        given.update(options)

    monkeypatch.setattr("fhircast_client.socket.open_websocket", opened)
    await connect("wss://hub.example/ws/x")
    assert given["ping_interval"] == 15


@pytest.mark.req("CLT-9")
async def test_before_the_first_heartbeat_silence_is_no_sign() -> None:
    async with FakeHub() as hub:
        client, heard, wire = viewer(hub)
        async with client:
            await asyncio.sleep(0.3)
            await hub.publish("Patient-open", patient("p1"))
            await until(lambda: heard.events)
        assert len(wire.of("in", "confirmation")) == 1


@pytest.mark.req("CLT-9")
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


@pytest.mark.req("CLT-9")
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


@pytest.mark.req("CLT-9")
async def test_reconnections_never_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that confirms and hangs up at once is called ever more seldom."""
    delays: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float, *more: Any) -> Any:
        delays.append(seconds)
        return await sleep(min(seconds, 0.001), *more)

    async with FakeHub() as hub:
        sockets = Sockets(hub.connector("viewer"), lambda socket: HangsUp(socket, frames=1))
        client, _, wire = viewer(hub, timings=Timings(settle=1000), connect=sockets)
        monkeypatch.setattr("fhircast_client.connection.asyncio.sleep", noted)
        await client.start()
        await until(lambda: len(wire.of("in", "confirmation")) >= 10)
        await client.stop()
        waits = [delay for delay in delays if 0.1 < delay < 100]
        assert len(waits) >= 8
        assert waits[7] >= 15, waits
        assert max(waits) <= 30


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
async def test_a_renewal_that_fails_is_tried_again_and_the_end_of_the_lease_is_survived() -> None:
    async with FakeHub() as hub:
        client, _, wire = viewer(hub, lease_seconds=1)
        async with client:
            hub.answer_next("subscribe", Answer(503, "not now"), Answer(500), Answer(400, "no renewals here"))
            await until(lambda: wire.of("in", "denial"))
            await until(lambda: len(wire.of("in", "confirmation")) >= 2)
            await back_again(client)
        assert [message.status for message in wire.of("in", "subscribe")][:5] == [202, 503, 500, 400, 202]


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
        assert f"the hub refused the connection ({status}); the client reconnects" in caplog.text
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


async def test_no_token_endpoint_or_patient_is_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fhircast_client")
    async with FakeHub() as hub:
        sockets = Sockets(hub.connector("viewer"))
        client, heard, wire = viewer(hub, token="a-secret-token", lease_seconds=1, connect=sockets)
        heard.then = lambda event: dict[str, Any]()[event.anchor]
        async with client:
            (endpoint,) = sockets.endpoints
            await hub.publish("Patient-open", patient("patient-4711"))
            await until(lambda: len(wire.of("in", "subscribe")) >= 2)
            hub.cut()
            await apart(client)
            hub.restore()
            await back_again(client)
        shown = repr(wire.messages)
        assert "patient-4711" in shown
        for secret in ("a-secret-token", endpoint):
            assert secret not in shown
            assert secret not in repr(client.status)
        own = [record.getMessage() for record in caplog.records if record.name.startswith("fhircast_client")]
        assert own
        for secret in ("a-secret-token", endpoint, "patient-4711"):
            assert secret not in " ".join(own)
