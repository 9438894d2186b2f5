"""What a client publishes: opens and closes, updates, selections, and what it sends again."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhircast_client import Event, FHIRcastClient, HubError, Refuse, Timings
from fhircast_client.testing import Answer, FakeHub
from fhircast_client.timing import instant
from tests.clients import virtual_time
from tests.clients.fakes import FAST, Heard, Wire, observation, patient, report, study, until

pytestmark = pytest.mark.usefixtures("nothing_left")

R1 = "DiagnosticReport/r1"
AGAIN = Timings(backoff_first=0.01, backoff_most=0.05, settle=0.05, resend=0.2)


def reporting(hub: FakeHub, name: str = "reporting") -> FHIRcastClient:
    """A client that shares."""
    client = hub.client(name, timings=FAST)
    for event in ("DiagnosticReport-open", "DiagnosticReport-update", "DiagnosticReport-select"):
        client.on(event, Heard())
    return client


def content(client: FHIRcastClient) -> dict[str, Any] | None:
    """What a client knows to be shared in the report."""
    context = client.contexts.get(R1)
    return context.content if context else None


async def test_an_open_has_its_anchor_first_and_the_keys_of_the_catalogue() -> None:
    async with FakeHub() as hub:
        client = hub.client("ehr", timings=FAST)
        event = await client.open(study("s1"), report("r1"), patient("p1"))
        assert (event.name, event.anchor, event.own) == ("ImagingStudy-open", "ImagingStudy/s1", True)
        assert [item["key"] for item in event.context] == ["study", "report", "patient"]
        assert uuid.UUID(event.id).version == 4
        assert event.timestamp.endswith("Z")
        assert len(event.timestamp) == len("2026-01-31T09:30:00.000Z")
        assert client.context
        assert client.context.event is event
        closed = await client.close(study("s1"))
        assert closed.name == "ImagingStudy-close"
        assert [client.context, *client.contexts] == [None]
        given = await client.publish("org.example.zoomed", [], id="1", timestamp="2026-01-31T09:30:00Z")
        assert (given.id, given.timestamp, hub.messages[-1]["id"]) == ("1", "2026-01-31T09:30:00Z", "1")
        await client.stop()


@pytest.mark.req("SUB-24")
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"message": "the anchor is missing"}', "the anchor is missing"),
        ("the anchor is missing\n", "the anchor is missing"),
        ('{"error": "invalid"}', "Bad Request"),
    ],
)
async def test_the_hubs_words_are_shown_without_the_json_around_them(body: str, words: str) -> None:
    async with FakeHub() as hub:
        client = hub.client("ehr", timings=FAST)
        hub.answer_next("publish", Answer(400, body))
        with pytest.raises(HubError, match=words) as refused:
            await client.open(patient("p1"))
        assert refused.value.status == 400
        assert "{" not in str(refused.value)
        await client.stop()


async def test_what_is_no_resource_is_not_published() -> None:
    async with FakeHub() as hub:
        client = hub.client("ehr", timings=FAST)
        for wrong in ((), ({"id": "p1"},), ({"resourceType": "Patient"},), (patient("p1"), {"id": "p2"})):
            with pytest.raises(ValueError, match="expected"):
                await client.open(*wrong)
        with pytest.raises(ValueError, match="anchor"):
            await client.update([])
        with pytest.raises((ValueError, TypeError)):
            await client.publish("org.example.zoomed", [{"key": "x", "value": float("nan")}])
        assert hub.messages == []
        await client.stop()


async def test_what_was_published_does_not_change_with_the_application() -> None:
    async with FakeHub() as hub:
        client = hub.client("ehr", timings=FAST)
        resource = patient("p1")
        await client.open(resource)
        resource["id"] = "p2"
        assert client.context
        assert client.context.resource("patient") == patient("p1")
        await client.stop()


@pytest.mark.req("CLT-26", "CLT-36")
async def test_an_open_is_newer_than_what_the_user_saw_though_another_clock_is_ahead() -> None:
    async with FakeHub() as hub:
        client = hub.client("ehr", timings=FAST)
        client.on("Patient-open", Heard())
        async with client:
            await client.open(patient("p0"))
            ahead = (datetime.now(UTC) + timedelta(seconds=50)).isoformat()
            await hub.publish(
                {
                    "id": "ahead",
                    "timestamp": ahead,
                    "event": {
                        "hub.topic": hub.topic,
                        "hub.event": "Patient-open",
                        "context": [{"key": "patient", "resource": patient("p1")}],
                    },
                }
            )
            await until(lambda: client.context and client.context.anchor == "Patient/p1")
            own = await client.open(patient("p2"))
            before, after = instant(ahead), instant(own.timestamp)
            assert before is not None
            assert after is not None
            assert after > before
            assert client.context
            assert client.context.anchor == "Patient/p2"


@pytest.mark.req("CLT-7")
async def test_an_update_has_the_form_of_the_specification() -> None:
    async with FakeHub() as hub:
        client = reporting(hub)
        async with client:
            await client.open(report("r1"), patient("p1"))
            await client.update([observation("o1")])
            event = await client.update([observation("o2"), "https://fhir.example/Observation/o1"], report("r1"))
            assert content(client) == {"Observation/o2": observation("o2")}
        items = {item["key"]: item for item in event.context}
        assert items["report"] == {"key": "report", "reference": {"reference": R1}}
        assert items["patient"] == {"key": "patient", "reference": {"reference": "Patient/p1"}}
        bundle = items["updates"]["resource"]
        assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "transaction")
        assert bundle["entry"] == [
            {
                "fullUrl": "Observation/o2",
                "request": {"method": "PUT", "url": "Observation/o2"},
                "resource": observation("o2"),
            },
            {"fullUrl": "Observation/o1", "request": {"method": "DELETE", "url": "Observation/o1"}},
        ]
        assert event.version is not None


@pytest.mark.req("CLT-7")
async def test_a_function_is_called_again_after_a_409_five_times_at_most_with_the_newest_content() -> None:
    async with FakeHub() as hub:
        client, other = reporting(hub), reporting(hub, "other")
        async with client, other:
            await client.open(report("r1"), patient("p1"))
            seen: list[list[str]] = []

            async def add(shared: dict[str, Any]) -> list[Any]:
                seen.append(sorted(shared))
                if len(seen) < 3:
                    hub.lose_next(1)  # this client learns of it by the 409
                    await other.update([observation(f"o{len(seen)}")], R1)
                return [observation("mine")]

            await client.update(add, R1)
            assert seen == [[], ["Observation/o1"], ["Observation/o1", "Observation/o2"]]
            await until(lambda: len(content(client) or ()) == 3)

            calls: list[Any] = []

            def again(shared: dict[str, Any]) -> list[Any]:
                calls.append(shared)
                return []

            hub.answer_next("publish", *[Answer(409, "somebody was faster")] * 9)
            with pytest.raises(HubError, match="faster"):
                await client.update(again)
            assert len(calls) == 5


@pytest.mark.req("CLT-7")
async def test_changes_that_are_no_function_are_not_made_again() -> None:
    async with FakeHub() as hub:
        client = reporting(hub)
        async with client:
            await client.open(report("r1"), patient("p1"))
            hub.answer_next("publish", Answer(409, "somebody was faster"))
            with pytest.raises(HubError) as failed:
                await client.update([observation("o1")])
            assert failed.value.status == 409
            await client.update([observation("o1")])
            assert content(client) == {"Observation/o1": observation("o1")}


@pytest.mark.req("CLT-7")
async def test_a_function_may_change_what_it_is_given() -> None:
    async with FakeHub() as hub:
        client = reporting(hub)
        async with client:
            await client.open(report("r1"), patient("p1"))
            await client.update([observation("o1", status="preliminary")])

            def finish(shared: dict[str, Any]) -> list[Any]:
                shared["Observation/o1"]["status"] = "final"
                return [shared["Observation/o1"]]

            hub.answer_next("publish", Answer(403, "not yours"))
            with pytest.raises(HubError):
                await client.update(finish)
            assert content(client) == {"Observation/o1": observation("o1", status="preliminary")}


@pytest.mark.req("CLT-7")
async def test_updates_at_the_same_time_are_made_one_after_the_other() -> None:
    async with FakeHub() as hub:
        client = reporting(hub)
        async with client:
            await client.open(report("r1"), patient("p1"))
            await asyncio.gather(*(client.update([observation(f"o{number}")]) for number in range(5)))
            assert len(content(client) or ()) == 5


@pytest.mark.req("CLT-7")
async def test_who_follows_no_updates_can_share_and_so_can_who_is_not_connected() -> None:
    async with FakeHub() as hub:
        client = hub.client("ehr", timings=FAST)
        await client.open(report("r1"), patient("p1"))
        for number in range(2):
            await client.update([observation(f"o{number}")])
        current = await client.fetch()
        assert current
        assert current.content
        assert list(current.content) == ["Observation/o0", "Observation/o1"]
        await client.stop()


@pytest.mark.req("CLT-7")
async def test_a_function_is_not_given_a_content_that_nobody_knows() -> None:
    async with FakeHub("STU2") as hub:
        client = hub.client("ehr", timings=FAST)
        await client.open(report("r1"), patient("p1"))
        with pytest.raises(HubError, match="not known"):
            await client.update(lambda shared: [observation("o1")])
        await client.update([observation("o1")])
        await client.stop()


@pytest.mark.req("CLT-7")
async def test_an_update_of_what_is_open_and_not_current_waits_for_what_it_missed() -> None:
    async with FakeHub() as hub:
        client, other = reporting(hub), reporting(hub, "other")
        async with client, other:
            await client.open(report("r1"), patient("p1"))
            await client.open(report("r2"), patient("p1"))
            hub.answer_next("publish", Answer(409, "somebody was faster"))
            late = asyncio.create_task(client.update(lambda shared: [observation("mine")], R1))
            await asyncio.sleep(0.1)
            await other.update([observation("theirs")], R1)
            await late
            await until(lambda: sorted(content(client) or ()) == ["Observation/mine", "Observation/theirs"])


@pytest.mark.req("CLT-8")
async def test_a_select_names_what_is_selected_or_nothing() -> None:
    async with FakeHub() as hub:
        client, other = reporting(hub), hub.client("other", timings=FAST)
        selected = Heard()
        other.on("DiagnosticReport-select", selected)
        async with client, other:
            await client.open(report("r1"), patient("p1"))
            await client.select([observation("o1"), "Observation/o2"])
            await client.select([])
            await until(lambda: len(selected.events) == 2)
        first, second = selected.events
        about = [
            {"key": "report", "reference": {"reference": R1}},
            {"key": "patient", "reference": {"reference": "Patient/p1"}},
        ]
        assert first.context == [
            *about,
            {"key": "select", "reference": {"reference": "Observation/o1"}},
            {"key": "select", "reference": {"reference": "Observation/o2"}},
        ]
        assert second.context == about


@pytest.mark.req("CLT-12", "CLT-13", "CLT-46")
async def test_an_own_open_that_was_not_followed_is_sent_again_until_it_is() -> None:
    async with FakeHub() as hub:
        ehr, chart = hub.client("ehr", timings=AGAIN), hub.client("chart", timings=FAST)
        wire, refusals = Wire(ehr), 2

        def decide(event: Event) -> None:
            nonlocal refusals
            refusals -= 1
            if refusals >= 0:
                raise Refuse("unsaved notes")

        heard = Heard(decide)
        chart.on("Patient-open", heard)
        async with ehr, chart:
            event = await ehr.open(patient("p1"))
            await until(lambda: ehr.status.behind == ("chart",))
            await until(lambda: len(heard.events) == 3 and chart.status.in_sync)
            await until(lambda: ehr.status.in_sync, lambda: ehr.status)
            assert len(heard.events) == 3, "nobody named it any more"
        sent = [message.body for message in wire.of("out", "publish")]
        assert sent == [event.body] * 3


@pytest.mark.req("CLT-12")
@pytest.mark.parametrize("timings", [AGAIN, Timings(settle=0.05, resend=None), Timings(settle=0.05, resend=0)])
async def test_nothing_is_sent_again_once_something_newer_came_or_where_it_is_not_wanted(timings: Timings) -> None:
    async with FakeHub() as hub:
        ehr, chart = hub.client("ehr", timings=timings), hub.client("chart", timings=FAST)
        ehr.on("Patient-open", Heard())
        wire = Wire(ehr)

        def decide(event: Event) -> None:
            if event.anchor == "Patient/p1":
                raise Refuse("unsaved notes")

        chart.on("Patient-open", Heard(decide))
        async with ehr, chart:
            first = await ehr.open(patient("p1"))
            await until(lambda: ehr.status.behind == ("chart",))
            if timings is AGAIN:
                await chart.open(patient("p2"))
            await asyncio.sleep(0.5)
        assert [message.body["id"] for message in wire.of("out", "publish")] == [first.id]


@pytest.mark.req("CLT-12", "CLT-13")
def test_who_does_not_send_again_is_told_for_as_long_as_nothing_newer_is_opened() -> None:
    async def play() -> None:
        async with FakeHub() as hub:
            ehr = hub.client("ehr", timings=Timings(resend=0))
            async with ehr:
                await hub.sync_error(await ehr.open(patient("p1")), subscriber="chart")
                await asyncio.sleep(600)
                assert ehr.status.behind == ("chart",)
                await ehr.open(patient("p2"))
                assert ehr.status.in_sync

    virtual_time.run(play())


@pytest.mark.req("CLT-12")
def test_an_open_that_the_hub_refuses_does_not_end_the_care_for_the_one_before() -> None:
    async def play() -> None:
        async with FakeHub() as hub:
            ehr = hub.client("ehr")
            async with ehr:
                first = await ehr.open(patient("p1"))
                hub.answer_next("publish", Answer(403, "not yours"))
                with pytest.raises(HubError):
                    await ehr.open(patient("p2"))
                await hub.sync_error(first, subscriber="chart")
                await asyncio.sleep(11)
                assert [message["id"] for message in hub.messages if message["id"] == first.id] == [first.id] * 2

    virtual_time.run(play())
