"""Start and stop, at any moment, and what is left behind then: nothing."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from fhircast_client import Event, FHIRcastClient, HubError, Refuse, Status, Timings
from fhircast_client.testing import Answer, FakeHub
from tests.clients.fakes import FAST, PATIENCE, Heard, Sockets, Wire, patient, until

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.mark.req("CLT-14")
async def test_stop_unsubscribes_and_closes_with_1000() -> None:
    async with FakeHub() as hub:
        sockets = Sockets(hub.connector("viewer"))
        client = hub.client("viewer", timings=FAST, connect=sockets)
        client.on("Patient-open", Heard())
        wire = Wire(client)
        await client.start()
        await client.stop()
        assert [message.status for message in wire.of("in", "unsubscribe")] == [202]
        assert hub.subscribed("viewer") == ()
        assert [socket.close_code for socket in sockets.opened] == [1000]
        assert (client.status.connection, client.status.why) == ("ended", "Stopped")
        await client.stop()


@pytest.mark.req("CLT-14")
async def test_a_hub_that_is_away_does_not_keep_it_from_stopping_with_1000() -> None:
    async with FakeHub() as hub:
        sockets = Sockets(hub.connector("viewer"))
        client = hub.client("viewer", timings=FAST, connect=sockets)
        await client.start()
        hub.answer_next("unsubscribe", Answer(500))
        await client.stop()
        assert [socket.close_code for socket in sockets.opened] == [1000]


@pytest.mark.req("CLT-14")
async def test_stop_comes_at_any_moment_of_a_start() -> None:
    for turns in range(30):
        async with FakeHub() as hub:
            client = hub.client("viewer", timings=FAST)
            client.on("Patient-open", Heard())
            start = asyncio.create_task(client.start())
            for _ in range(turns):
                await asyncio.sleep(0)
            await asyncio.wait_for(client.stop(), PATIENCE)
            await asyncio.wait((start,), timeout=PATIENCE)
            failed = start.exception()
            assert failed is None or (isinstance(failed, HubError) and failed.status == 0)
            await client.stop()
            assert client.status.connection in ("ended", "connecting")


@pytest.mark.req("CLT-14")
async def test_a_start_can_be_cancelled_at_any_moment() -> None:
    for turns in range(30):
        async with FakeHub() as hub:
            client = hub.client("viewer", timings=FAST)
            start = asyncio.create_task(client.start())
            for _ in range(turns):
                await asyncio.sleep(0)
            start.cancel()
            await asyncio.wait((start,))
            if not start.cancelled():
                await client.stop()
            assert client._main is None


@pytest.mark.req("CLT-14")
@pytest.mark.parametrize("silently", [False, True])
async def test_stop_during_the_backoff_and_while_nothing_passes(silently: bool) -> None:
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=Timings(request=0.1, settle=0.05))
        await client.start()
        hub.cut(silently=silently)
        if not silently:
            await until(lambda: client.status.connection == "connecting")
        await asyncio.wait_for(client.stop(), PATIENCE)
        assert client.status.connection == "ended"


@pytest.mark.req("CLT-14")
async def test_a_handler_may_stop_the_client_and_is_let_finish() -> None:
    finished: list[str] = []
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)

        @client.on("UserLogout")
        async def leave(event: Event) -> None:
            await asyncio.wait_for(client.stop(), PATIENCE)
            await asyncio.sleep(0.01)
            finished.append(event.name)

        await client.start()
        running = asyncio.create_task(client.run())
        await hub.publish("UserLogout")
        await asyncio.wait_for(running, PATIENCE)
        assert finished == ["UserLogout"]
        assert client.status.connection == "ended"
        assert hub.subscribed("viewer") == ()


@pytest.mark.req("CLT-14")
async def test_stop_ends_a_handler_that_runs_and_what_waits_behind_it() -> None:
    ended = asyncio.Event()

    async def slow(event: Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with FakeHub() as hub:
        client = hub.client("viewer", timings=Timings(settle=0.05, accept_after=0.05, give_up=0.1))
        client.on("Patient-open", slow)
        async with client:
            for number in range(3):
                await hub.publish("Patient-open", patient(f"p{number}"))
            await until(lambda: len(hub.acknowledgements) == 3)
        assert ended.is_set()


@pytest.mark.req("CLT-14")
async def test_a_stop_that_is_cancelled_stops_nevertheless() -> None:
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        await client.start()
        hub.cut(silently=True)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.stop(), 0.05)
        await until(lambda: client.status.connection == "ended")


@pytest.mark.req("CLT-14")
async def test_several_stop_at_once() -> None:
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        wire = Wire(client)
        await client.start()
        await asyncio.gather(*(client.stop() for _ in range(5)))
        assert len(wire.of("out", "unsubscribe")) == 1


@pytest.mark.req("CLT-14")
async def test_run_starts_ends_with_stop_and_stops_when_it_is_cancelled() -> None:
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        for cancelled in (False, True):
            running = asyncio.create_task(client.run())
            await until(lambda: client.status.connection == "connected")
            if cancelled:
                running.cancel()
            else:
                await client.stop()
            await asyncio.wait((running,), timeout=PATIENCE)
            assert running.cancelled() is cancelled
            assert hub.subscribed("viewer") == ()


@pytest.mark.req("CLT-14", "CLT-13", "CLT-48")
async def test_catch_up_hands_the_refused_event_to_its_handler_again() -> None:
    unsaved = True

    def decide(event: Event) -> None:
        if unsaved:
            raise Refuse("unsaved notes")

    async with FakeHub() as hub:
        client = hub.client("chart", timings=FAST)
        heard = Heard(decide)
        client.on("Patient-open", heard)
        with pytest.raises(RuntimeError):
            await client.catch_up()
        async with client:
            assert await client.catch_up() is False, "there is nothing to catch up with"
            await hub.acknowledged(await hub.publish("Patient-open", patient("p1")))
            assert await client.catch_up() is False
            assert not client.status.in_sync
            unsaved = False
            assert await client.catch_up() is True
            assert client.status == Status("connected", True, "")
            assert [client.context and client.context.anchor] == ["Patient/p1"]
            assert await client.catch_up() is False
            assert heard.anchors == ["Patient/p1"] * 3


@pytest.mark.req("CLT-14")
async def test_catch_up_passes_over_what_something_newer_has_overtaken() -> None:
    async with FakeHub() as hub:
        client = hub.client("chart", timings=FAST)

        def decide(event: Event) -> None:
            raise Refuse("unsaved notes")

        client.on("Patient-open", Heard(decide))
        async with client:
            await hub.acknowledged(await hub.publish("Patient-open", patient("p1")))
            await hub.acknowledged(await hub.publish("Patient-close", patient("p1")))
            assert await client.catch_up() is False


@pytest.mark.req("CLT-14")
async def test_catch_up_within_a_handler_would_wait_for_itself_and_says_so() -> None:
    async with FakeHub() as hub:
        client = hub.client("chart", timings=FAST)
        raised: list[str] = []

        async def decide(event: Event) -> None:
            try:
                await client.catch_up()
            except RuntimeError as error:
                raised.append(str(error))

        client.on("Patient-open", decide)
        async with client:
            await hub.acknowledged(await hub.publish("Patient-open", patient("p1")))
        assert len(raised) == 1


async def test_a_handler_that_is_cancelled_by_itself_counts_as_failed() -> None:
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)

        async def cancels(event: Event) -> None:
            task = asyncio.create_task(asyncio.sleep(1000))
            task.cancel()
            await task

        client.on("Patient-open", cancels)
        async with client:
            event = await hub.publish("Patient-open", patient("p1"))
            assert (await hub.acknowledged(event)).status == 500
            later = await hub.publish("Patient-close", patient("p1"))
            assert (await hub.acknowledged(later)).status == 200


async def test_a_client_that_was_never_started_publishes_and_leaves_nothing_open() -> None:
    client = FHIRcastClient("http://127.0.0.1:9/hub", "topic", timings=Timings(request=2))
    with pytest.raises(HubError) as failed:
        await client.open(patient("p1"))
    assert failed.value.status == 0
    await asyncio.gather(client.stop(), client.stop())


async def test_a_client_of_its_own_is_not_closed() -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda request: httpx.Response(202))) as http:
        client = FHIRcastClient("http://hub.invalid", "topic", http=http)
        await client.open(patient("p1"))
        await client.stop()
        assert not http.is_closed


async def test_a_session_can_be_joined_again() -> None:
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        heard = Heard()
        client.on("Patient-open", heard)
        for number in (1, 2):
            async with client:
                await hub.acknowledged(await hub.publish("Patient-open", patient(f"p{number}")))
                await until(lambda: client.status.in_sync)
        assert heard.anchors == ["Patient/p1", "Patient/p2"]
