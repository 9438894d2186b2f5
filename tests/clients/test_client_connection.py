"""A lost connection comes back to its endpoint, or to a new subscription."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from fhircast_client import FHIRcastClient, Timings
from fhircast_client.events import decode
from fhircast_client.fake_sockets import FakeClosed
from fhircast_client.socket import connect
from fhircast_client.testing import FakeHub
from tests.clients.connection_world import back_again, viewer
from tests.clients.fakes import HangsUp, Sockets, Through, patient, until

pytestmark = pytest.mark.usefixtures("nothing_left")


async def apart(client: FHIRcastClient) -> None:
    """Wait until it has noticed that its connection is lost."""
    await until(lambda: client.status.connection == "connecting", lambda: client.status)


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


@pytest.mark.req("CLT-5", "CLT-9", "CLT-38")
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


@pytest.mark.req("CLT-9", "CLT-43")
async def test_a_denial_that_was_not_asked_for_is_followed_by_a_new_subscription() -> None:
    async with FakeHub() as hub:
        client, heard, wire = viewer(hub)
        async with client:
            hub.deny()
            await until(lambda: len(wire.of("in", "confirmation")) == 2)
            await hub.publish("Patient-open", patient("p1"))
            await until(lambda: heard.anchors == ["Patient/p1"])
        assert wire.of("in", "denial")


@pytest.mark.req("CLT-9", "CLT-43")
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


@pytest.mark.req("CLT-9", "CLT-43")
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
            assert f"{why}; it is tried again" in caplog.text


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


@pytest.mark.req("CLT-9", "CLT-44")
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
