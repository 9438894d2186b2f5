"""The client calls handlers in order, and follows its own and earlier events."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from fhircast_client import Event, HubError, Refuse, Status, Timings
from fhircast_client.events import context_of, make_event
from fhircast_client.testing import Answer, FakeHub
from tests.clients.fakes import FAST, Heard, Wire, http_through, observation, patient, report, study, until

pytestmark = pytest.mark.usefixtures("nothing_left")
_EARLIER = "2026-01-01T00:00:00.000Z"


@pytest.mark.req("CLT-1")
@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (
            "STU3",
            {
                "patient-open",
                "patient-close",
                "careplan-open",
                "careplan-close",
                "org.example.zoomed",
                "syncerror",
                "heartbeat",
            },
        ),
        (
            "STU2",
            {"patient-open", "patient-close", "careplan-open", "careplan-close", "org.example.zoomed", "syncerror"},
        ),
    ],
)
async def test_it_subscribes_to_what_it_handles_the_closes_syncerror_and_heartbeat(
    version: Any, expected: set[str]
) -> None:
    async with FakeHub(version) as hub:
        client = hub.client("viewer", timings=FAST)
        assert list(client.events) == []
        for name in ("Patient-open", "CarePlan-open", "org.example.zoomed"):
            client.on(name, Heard())
        async with client:
            assert {name.lower() for name in client.events} == expected
            assert {name.lower() for name in hub.subscribed("viewer")} == expected
        assert list(client.events) == []


async def test_a_name_has_one_handler_given_before_the_start() -> None:
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST, heartbeat=False)
        client.on("Patient-open", Heard())
        with pytest.raises(ValueError, match="one handler"):
            client.on("patient-OPEN", Heard())
        async with client:
            assert "heartbeat" not in client.events
            with pytest.raises(RuntimeError):
                client.on("Patient-close", Heard())
            with pytest.raises(RuntimeError):
                await client.start()


@pytest.mark.req("CLT-1", "CLT-2")
async def test_handlers_are_found_by_name_in_any_case_and_may_be_functions() -> None:
    heard: list[str] = []
    async with FakeHub("STU2") as hub:
        client = hub.client("viewer", timings=FAST)

        @client.on("Patient-open")
        def follow(event: Event) -> None:
            heard.append(event.name)

        async with client:
            event = await hub.publish("patient-open", patient("p1"))
            assert (await hub.acknowledged(event)).status == 200
        assert heard == ["patient-open"]


@pytest.mark.req("CLT-2")
async def test_handlers_run_one_after_the_other_and_who_waits_is_answered_in_time() -> None:
    running: list[str] = []
    go_on = asyncio.Event()

    async def slow(event: Event) -> None:
        running.append(f"begin {event.anchor}")
        await go_on.wait()
        running.append(f"end {event.anchor}")

    async with FakeHub() as hub:
        client = hub.client("viewer", timings=Timings(accept_after=0.05, settle=0.05))
        client.on("Patient-open", slow)
        async with client:
            events = [await hub.publish("Patient-open", patient(f"p{number}")) for number in (1, 2)]
            assert [(await hub.acknowledged(event)).status for event in events] == [202, 202]
            assert running == ["begin Patient/p1"]
            go_on.set()
            await until(lambda: len(running) == 4)
            assert running == ["begin Patient/p1", "end Patient/p1", "begin Patient/p2", "end Patient/p2"]
            await until(lambda: client.context and client.context.anchor == "Patient/p2")
        assert len(hub.acknowledgements) == 2, "202 is the answer"


@pytest.mark.req("CLT-4", "CLT-37")
async def test_what_comes_while_an_own_open_is_on_its_way_waits_for_the_answer() -> None:
    async with FakeHub() as hub:
        before = make_event(hub.topic, "Patient-open", context_of([patient("before")]), timestamp=_EARLIER)

        async def first_another(usual: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
            if b"Patient-open" in request.content and b"hub.mode" not in request.content:
                await hub.publish(before)
            return await usual.send(request)

        http = http_through(hub, "ehr", first_another)
        client = hub.client("ehr", timings=FAST, http=http)
        heard = Heard()
        client.on("Patient-open", heard)
        async with http, client:
            own = await client.open(patient("p1"))
            assert (await hub.acknowledged(own)).status == 200
            assert heard.events == [], "what came first is older than what the application shows"
            assert client.context
            assert client.context.event.id == own.id


@pytest.mark.req("CLT-4")
async def test_an_own_open_calls_the_handler_when_something_else_is_shown() -> None:
    async with FakeHub() as hub:
        client = hub.client("ehr", timings=FAST)
        heard = Heard()
        client.on("Patient-open", heard)
        async with client:
            hub.answer_next("publish", Answer(500, "the store is away"))
            with pytest.raises(HubError):
                await client.open(patient("p1"))
            assert client.context is None
            # The hub had taken it after all.
            assert client._session.engine.untold.newest
            own = client._session.engine.untold.newest
            await hub.publish(own)
            await hub.acknowledged(own)
            assert [(event.anchor, event.own) for event in heard.events] == [("Patient/p1", True)]


@pytest.mark.req("CLT-4")
async def test_a_handler_may_publish_and_share() -> None:
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)

        async def follow(event: Event) -> None:
            await client.update([observation("o1")], event.anchor)
            await client.open(study("s1"))

        client.on("DiagnosticReport-open", follow)
        client.on("DiagnosticReport-update", Heard())
        async with client:
            event = await hub.publish("DiagnosticReport-open", report("r1"), patient("p1"))
            assert (await hub.acknowledged(event)).status == 200
            assert client.context
            assert client.context.anchor == "ImagingStudy/s1", "it is newer than what the handler was called for"
            content = client.contexts["DiagnosticReport/r1"].content
            assert content is not None
            assert list(content) == ["Observation/o1"]


@pytest.mark.req("CLT-4")
async def test_events_that_come_twice_call_the_handler_once() -> None:
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        heard = Heard()
        for name in ("Patient-open", "Patient-close", "org.example.zoomed"):
            client.on(name, heard)
        async with client:
            for name in ("Patient-open", "Patient-close", "org.example.zoomed"):
                event = make_event(hub.topic, name, context_of([patient("p1")]))
                for _ in range(2):
                    await hub.publish(event)
            last = await hub.publish("Patient-open", patient("p2"))
            await hub.acknowledged(last)
        assert [event.name for event in heard.events] == [
            "Patient-open",
            "Patient-close",
            "org.example.zoomed",
            "Patient-open",
        ]


@pytest.mark.req("CLT-5", "CLT-38")
async def test_a_hub_that_does_not_tell_is_asked_once() -> None:
    async with FakeHub() as hub:
        await hub.publish("Patient-open", patient("p1"))
        hub.replays = False
        client = hub.client("viewer", timings=FAST)
        heard = Heard()
        client.on("Patient-open", heard)
        wire = Wire(client)
        async with client:
            await until(lambda: client.context)
            assert heard.anchors == ["Patient/p1"]
            newer = make_event(hub.topic, "Patient-open", context_of([patient("p2")]), timestamp=_EARLIER)
            await hub.publish(newer)
            await hub.acknowledged(newer)
            assert heard.anchors == ["Patient/p1", "Patient/p2"], "when the first was opened is not known"
        assert len(wire.of("out", "context")) == 1


@pytest.mark.req("CLT-5", "CLT-38")
async def test_a_hub_that_tells_is_not_asked() -> None:
    async with FakeHub() as hub:
        await hub.publish("Patient-open", patient("p1"))
        client = hub.client("viewer", timings=FAST)
        client.on("Patient-open", Heard())
        wire = Wire(client)
        async with client:
            await until(lambda: client.context)
            await asyncio.wait_for(_settled(client), 15)
        assert wire.of("out", "context") == []


async def _settled(client: Any) -> None:
    await asyncio.wait((client._session._settling,))


@pytest.mark.req("CLT-5")
async def test_fetch_asks_without_calling_handlers() -> None:
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        assert await client.fetch() is None
        await hub.publish("Patient-open", patient("p1"))
        context = await client.fetch()
        assert context is not None
        assert (context.anchor, context.content, client.context) == ("Patient/p1", {}, None)
        assert context.resource("patient") == patient("p1")
        hub.answer_next("context", Answer(200, '{"context.type": "Patient", "context": "none"}'))
        with pytest.raises(HubError, match="cannot be read"):
            await client.fetch()
        await client.stop()


@pytest.mark.req("CLT-6")
async def test_content_is_fetched_where_an_update_does_not_fit() -> None:
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        seen: list[Any] = []
        client.on("DiagnosticReport-open", Heard())
        client.on("DiagnosticReport-update", lambda event: seen.append(client.context and client.context.content))
        other = hub.client("other", timings=FAST)
        async with client, other:
            await other.open(report("r1"), patient("p1"))
            await until(lambda: client.context)
            hub.lose_next(1)
            await other.update([observation("o1")], report("r1"))
            await other.update([observation("o2")], report("r1"))
            await until(lambda: client.context and client.context.content and len(client.context.content) == 2)
            await until(lambda: [len(content) for content in seen] == [2], lambda: seen)


@pytest.mark.req("CLT-13")
async def test_status_is_told_at_every_change_and_a_listener_that_fails_harms_nobody() -> None:
    told: list[Status] = []

    def broken(status: Status) -> None:
        raise ValueError("a listener's mistake")

    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        client.on_status(broken)
        client.on_status(told.append)
        assert (client.status.connection, client.status.in_sync) == ("connecting", False)
        async with client:
            about = await hub.publish("Patient-open", patient("p1"))
            await hub.sync_error(about, subscriber="chart", reason="unsaved notes")
            await until(lambda: client.status.behind == ("chart",))
        assert [(status.connection, status.in_sync) for status in told] == [
            ("connected", True),
            ("connected", False),
            ("ended", False),
        ]


async def test_ids_are_found_before_the_handler_is_called() -> None:
    class Ids:
        async def find(self, event: Event) -> str:
            if event.anchor != "Patient/p1":
                raise Refuse("no such patient here")
            return "local 1"

    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        heard = Heard()
        client.on("Patient-open", heard, ids=Ids())
        async with client:
            known = await hub.publish("Patient-open", patient("p1"))
            assert (await hub.acknowledged(known)).status == 200
            unknown = await hub.publish("Patient-open", patient("p2"))
            answer = await hub.acknowledged(unknown)
            assert (answer.status, answer.reason) == (409, "no such patient here")
        assert [event.local for event in heard.events] == ["local 1"]
