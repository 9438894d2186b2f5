"""A logout waits for nobody: nothing of the user who leaves may stay on a screen (FHIRcast 3.0.0, 3.2.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from clients.fakes import FAST, Heard, Wire, http_through, patient, study, until
from fhircast_client import Event, FHIRcastClient, HubError, Refuse
from fhircast_client.testing import FakeHub

pytestmark = [pytest.mark.usefixtures("nothing_left"), pytest.mark.req("CLT-33")]


class Busy:
    """A viewer whose handler of studies takes as long as it likes, and what its other handlers are called with."""

    def __init__(self, hub: FakeHub, heard: Heard) -> None:
        self.hub, self.heard = hub, heard
        self.client: FHIRcastClient = hub.client("viewer", timings=FAST)
        self.fetching, self.may = asyncio.Event(), asyncio.Event()
        self.client.on("ImagingStudy-open", self._fetch)
        for name in ("Patient-open", "UserLogout"):
            self.client.on(name, heard)

    async def _fetch(self, _: Event) -> None:
        self.fetching.set()
        await self.may.wait()


@asynccontextmanager
async def busy(heard: Heard) -> AsyncIterator[Busy]:
    """It fetches a study, and a patient waits."""
    async with FakeHub() as hub:
        viewer = Busy(hub, heard)
        async with viewer.client:
            await hub.publish("ImagingStudy-open", study("s1"), patient("p1"))
            await viewer.fetching.wait()
            yield viewer


async def test_its_handler_is_called_at_once_and_what_waited_is_not() -> None:
    heard = Heard()
    async with busy(heard) as viewer:
        waiting = await viewer.hub.publish("Patient-open", patient("p2"))
        logout = await viewer.hub.publish("UserLogout")
        assert (await viewer.hub.acknowledged(logout)).status == 200
        assert (await viewer.hub.acknowledged(waiting)).status == 200
        assert [event.name for event in heard.events] == ["UserLogout"]
        assert "has logged out" in viewer.client.status.why
        viewer.may.set()
        await viewer.hub.publish("Patient-open", patient("p3"))
        await until(lambda: viewer.client.status.in_sync, lambda: viewer.client.status)
        assert heard.anchors == ["", "Patient/p3"]


async def test_what_comes_after_it_waits_until_it_is_handled() -> None:
    leaves = asyncio.Event()

    async def leave() -> None:
        await leaves.wait()

    heard = Heard(lambda event: leave() if event.name == "UserLogout" else None)
    async with busy(heard) as viewer:
        await viewer.hub.publish("UserLogout")
        await until(lambda: heard.events)
        viewer.may.set()
        await until(lambda: viewer.client.context and viewer.client.context.anchor == "ImagingStudy/s1")
        wire = Wire(viewer.client)
        await viewer.hub.publish("Patient-open", patient("p3"))
        await until(lambda: wire.of("in", "event"))
        for _ in range(9):
            await asyncio.sleep(0)
        assert len(heard.events) == 1
        leaves.set()
        await until(lambda: heard.anchors == ["", "Patient/p3"])


async def test_who_does_not_log_out_is_shown_what_waited() -> None:
    def refuse(event: Event) -> None:
        if event.name == "UserLogout":
            raise Refuse("unsaved notes")

    heard = Heard(refuse)
    async with busy(heard) as viewer:
        await viewer.hub.publish("Patient-open", patient("p2"))
        logout = await viewer.hub.publish("UserLogout")
        assert (await viewer.hub.acknowledged(logout)).status == 409
        viewer.may.set()
        await until(lambda: heard.anchors == ["", "Patient/p2"])
        assert viewer.client.context is not None
        assert viewer.client.context.anchor == "Patient/p2"


async def test_a_client_that_is_stopped_by_it_waits_for_no_other_handler() -> None:
    ended: list[str] = []

    async def leave(_: Event) -> None:
        await viewer.client.stop()
        ended.append("after stop")

    heard = Heard(lambda event: leave(event) if event.name == "UserLogout" else None)
    async with busy(heard) as viewer:
        await viewer.hub.publish("UserLogout")
        await viewer.client.run()
        assert ended == ["after stop"]
        assert viewer.client.status.connection == "ended"


async def test_it_waits_for_no_publication_and_what_waits_for_one_is_not_shown() -> None:
    posted, may = asyncio.Event(), asyncio.Event()

    async def slowly(usual: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        if b"Patient-open" in request.content and b'"own"' in request.content:
            posted.set()
            await may.wait()
            return httpx.Response(400, text="not here")
        return await usual.send(request)

    async with FakeHub() as hub:
        heard = Heard()
        client = hub.client("viewer", timings=FAST, http=http_through(hub, "viewer", slowly))
        for name in ("Patient-open", "UserLogout"):
            client.on(name, heard)
        async with client:
            opening = asyncio.create_task(client.open(patient("own")))
            await posted.wait()
            await hub.publish("Patient-open", patient("p2"))
            logout = await hub.publish("UserLogout")
            assert (await hub.acknowledged(logout)).status == 200
            may.set()
            with pytest.raises(HubError):
                await opening
            await hub.publish("Patient-open", patient("p3"))
            await until(lambda: heard.anchors == ["", "Patient/p3"], lambda: heard.anchors)
