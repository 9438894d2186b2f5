"""What is shared, where the hub's answer to a question and what comes by itself overtake each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from fhircast_client import FHIRcastClient
from fhircast_client.content import Contents
from fhircast_client.contexts import MOST_CONTEXTS
from fhircast_client.engine import Engine
from fhircast_client.events import encode
from fhircast_client.testing import FakeHub
from fhircast_client.update_bundle import Entries
from tests.clients.fakes import FAST, Heard, http_through, observation, patient, report, until
from tests.clients.test_client_engine import NOW, engine_with_report, event, opened, shared_at, sync_error, update

R1 = "DiagnosticReport/r1"


class LateAnswers:
    """An answer to what is current is made, and arrives when `meanwhile` is done."""

    def __init__(self, hub: FakeHub) -> None:
        self.http = http_through(hub, "viewer", self._pass)
        self.meanwhile: Callable[[], Awaitable[Any]] | None = None

    async def _pass(self, usual: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        answer = await usual.send(request)
        if request.url.path == "/hub/session" and self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return answer


def content(client: FHIRcastClient) -> Any:
    """What it knows to be shared."""
    return client.contexts[R1].content


async def reporting(hub: FakeHub, late: LateAnswers) -> FHIRcastClient:
    """A client that follows a report in which o1 is shared."""
    client = hub.client("viewer", timings=FAST, http=late.http)
    for name in ("open", "update", "close"):
        client.on(f"DiagnosticReport-{name}", Heard())
    await client.start()
    await client.open(report("r1"), patient("p1"))
    await client.update([observation("o1")])
    await until(lambda: content(client) == {"Observation/o1": observation("o1")}, lambda: client.contexts)
    return client


@pytest.mark.req("CLT-6")
async def test_an_answer_that_an_update_overtook_changes_nothing() -> None:
    async with FakeHub() as hub:
        late = LateAnswers(hub)
        client = await reporting(hub, late)

        async def update_it() -> None:
            version = client.contexts[R1].version
            told = update(str(version), "newer", observation("o2"))
            hub.send_frame(encode(told.body).decode())

        late.meanwhile = update_it
        await client.fetch()
        await until(lambda: client.contexts[R1].version == "newer", lambda: client.contexts[R1])
        assert content(client) == {"Observation/o1": observation("o1"), "Observation/o2": observation("o2")}
        await client.stop()


@pytest.mark.req("CLT-6")
async def test_an_answer_that_a_close_overtook_is_not_shown_when_it_is_opened_again() -> None:
    async with FakeHub() as hub:
        late = LateAnswers(hub)
        client = await reporting(hub, late)
        late.meanwhile = lambda: hub.publish("DiagnosticReport-close", report("r1"))
        await client.fetch()
        await until(lambda: not client.contexts)
        await client.open(report("r1"), patient("p1"))
        await until(lambda: content(client) is not None, lambda: client.contexts)
        assert content(client) == {}
        await client.stop()


@pytest.mark.req("CLT-6")
def test_an_answer_counts_where_what_came_since_did_not_fit() -> None:
    engine = engine_with_report()
    asked = engine.content.moment
    engine.received(update("v7", "v8", observation("o8")))
    engine.content.fetched(R1, "v7", Entries({"Observation/o7": observation("o7")}), asked=asked)
    assert shared_at(engine) == ("v8", ["Observation/o7", "Observation/o8"])


def test_closes_that_are_remembered_are_bounded() -> None:
    contents = Contents()
    for number in range(1000):
        contents.closed(f"DiagnosticReport/r{number}")
    assert len(contents._closed) == MOST_CONTEXTS


@pytest.mark.req("CLT-13")
def test_those_who_are_behind_are_bounded() -> None:
    engine = Engine()
    one = opened("p1", at=1)
    engine.received(one)
    for number in range(100):
        sync_error(engine, one, subscriber=f"viewer {number}")
    assert len(engine.sync.status.behind) == 64
    assert engine.sync.status.behind[-1] == "viewer 99"
    engine.followed(event("Patient-open", {"resourceType": "Patient", "id": "p2"}, at=2), NOW)
    assert engine.sync.status.behind == ()
