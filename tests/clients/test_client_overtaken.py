"""Who an event is about takes time to find out: what the application opens meanwhile must stay on its screen."""

from __future__ import annotations

import asyncio

import pytest

from fhircast_client import Event
from fhircast_client.events import parse_event
from fhircast_client.testing import FakeHub
from tests.clients.fakes import FAST, Heard, Wire, patient, until

pytestmark = pytest.mark.usefixtures("nothing_left")


class SlowIds:
    """Finds whom an event is about when it may."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may = asyncio.Event()

    async def find(self, event: Event) -> str:
        self.asked.append(event.anchor)
        await self.may.wait()
        return event.anchor


@pytest.mark.req("CLT-26", "IDM-4")
async def test_whom_an_own_open_overtook_is_not_shown() -> None:
    async with FakeHub() as hub:
        client, ids, heard = hub.client("viewer", timings=FAST), SlowIds(), Heard()
        client.on("Patient-open", heard, ids=ids)
        async with client:
            theirs = await hub.publish("Patient-open", patient("p1"))
            await until(lambda: ids.asked == ["Patient/p1"])
            await client.open(patient("p2"))
            ids.may.set()
            assert (await hub.acknowledged(theirs)).status == 200
            assert client.context
            assert (client.context.anchor, heard.anchors) == ("Patient/p2", [])
            assert client.status.in_sync


@pytest.mark.req("CLT-26")
async def test_what_is_closed_meanwhile_takes_nobody_elses_place() -> None:
    async with FakeHub() as hub:
        client, ids, heard = hub.client("viewer", timings=FAST), SlowIds(), Heard()
        client.on("Patient-open", heard, ids=ids)
        async with client:
            await client.open(patient("p0"))
            await hub.publish("Patient-open", patient("p1"))
            await until(lambda: ids.asked == ["Patient/p1"])
            await client.close(patient("p0"))
            ids.may.set()
            await until(lambda: heard.anchors == ["Patient/p1"])
            await until(lambda: client.context and client.context.anchor == "Patient/p1")


@pytest.mark.req("CLT-32", "CLT-66")
async def test_an_own_open_is_shown_again_where_a_slow_handler_showed_something_older_after_it() -> None:
    """The user chooses another patient while the handler still fetches the one before."""
    screen: list[str] = []
    asked, fetched = asyncio.Event(), asyncio.Event()

    async def show(event: Event) -> None:
        if event.anchor == "Patient/p1":
            asked.set()
            await fetched.wait()
        screen.append(event.anchor)

    async with FakeHub() as hub:
        client = hub.client("viewer")
        client.on("Patient-open", show)
        async with client:
            await hub.publish("Patient-open", patient("p1"))
            await asked.wait()
            await client.open(patient("p2"))
            screen.append("Patient/p2")
            fetched.set()
            await until(lambda: screen[-2:] == ["Patient/p1", "Patient/p2"], lambda: screen)
            await until(lambda: client.status.in_sync, lambda: client.status)
            assert client.context is not None
            assert client.context.anchor == "Patient/p2"


@pytest.mark.req("CLT-32", "CLT-69")
async def test_what_a_handler_itself_opens_is_handed_to_it_once_more() -> None:
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        heard = Heard(lambda event: client.open(patient("p2")) if event.anchor == "Patient/p1" else None)
        client.on("Patient-open", heard)
        async with client:
            await hub.publish("Patient-open", patient("p1"))
            await until(lambda: heard.anchors == ["Patient/p1", "Patient/p2"] and client.status.in_sync)
            assert [event.own for event in heard.events] == [False, True]


@pytest.mark.req("CLT-32", "CLT-67")
async def test_handlers_that_open_each_others_patients_make_no_storm() -> None:
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        wire = Wire(client)
        heard = Heard(lambda event: client.open(patient("p2" if event.anchor == "Patient/p1" else "p1")))
        client.on("Patient-open", heard)
        async with client:
            await hub.publish("Patient-open", patient("p1"))
            await until(lambda: len(heard.events) == 4)
            echo = hub.messages[-1]
            await until(lambda: any(message.body == echo for message in wire.of("in", "event")))
            await hub.acknowledged(parse_event(echo), "viewer")
            assert len(heard.events) == 4
            assert "was shown here after the newer" in client.status.why
