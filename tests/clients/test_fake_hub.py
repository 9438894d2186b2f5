"""The fake hub answers as the real hub does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhircast_client import Event, FHIRcastClient, HubError, Refuse, Timings
from fhircast_client.events import context_of, make_event
from fhircast_client.testing import FakeHub
from tests.clients import virtual_time
from tests.clients.fake_hub_world import P1, P2, names, viewer
from tests.clients.fakes import FAST, Sockets, Through, Wire, observation, patient, report, study, until


def refuse(_: Event) -> None:
    """The application does not follow."""
    raise Refuse("unsaved notes")


class Mute(Through):
    """A socket whose application stops answering."""

    is_mute = False

    async def send(self, message: str) -> None:
        if not self.is_mute:
            await super().send(message)


# What the hub says


@pytest.mark.req("CLT-27")
@pytest.mark.parametrize(
    ("name", "context", "said"),
    [
        ("nonsense", [], "not nonsense"),
        ("Patient-open", [], "must have one item with the key patient"),
        ("DiagnosticReport-open", context_of([report("r1")]), "key patient"),
        ("SyncError", [], "operationoutcome"),
        ("heartbeat", [], "which only the hub sends"),
    ],
)
@pytest.mark.parametrize("version", ["STU3", "STU2"])
async def test_an_event_that_the_hub_refuses_is_refused(version: Any, name: str, context: Any, said: str) -> None:
    async with FakeHub(version) as hub, hub.client("ehr", timings=FAST) as client:
        with pytest.raises(HubError, match=said) as refused:
            await client.publish(name, context)
        assert refused.value.status == 400
        with pytest.raises(HubError, match=said):
            await hub.publish(make_event(hub.topic, name, context))
        assert hub.messages == []


@pytest.mark.req("CLT-27")
@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"[]", 400), (b'"event"', 400), (b"[" * 100_000, 400), (b" " * (2 << 20), 413)]
)
async def test_what_is_no_event_is_refused(body: bytes, status: int) -> None:
    async with FakeHub() as hub:
        answer = await hub.http("ehr").post(hub.url, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, list(answer.json())) == (status, ["message"])


@pytest.mark.req("CLT-27")
async def test_another_topic_is_not_this_sessions() -> None:
    async with FakeHub() as hub:
        stranger = FHIRcastClient(hub.url, "another", http=hub.http("x"), connect=hub.connector("x"))
        with pytest.raises(HubError) as refused:
            await stranger.start()
        assert refused.value.status == 403
        assert (await hub.http("x").get("http://hub.invalid/elsewhere")).status_code == 404


@pytest.mark.req("CLT-27", "CLT-59")
async def test_who_refuses_is_named_to_the_others_by_the_hub() -> None:
    async with FakeHub() as hub:
        chart, ehr = hub.client("chart", timings=FAST), hub.client("ehr", timings=FAST)
        chart.on("Patient-open", refuse)
        async with chart, ehr:
            event = await ehr.open(patient("p1"))
            await until(lambda: ehr.status.behind == ("chart",))
            assert ehr.status.why == "chart refused to follow Patient-open (status 409): unsaved notes"
            answer = await hub.acknowledged(event)
            assert (answer.client, answer.event, answer.status) == ("chart", "Patient-open", 409)
            assert chart.status.behind == ()


@pytest.mark.req("CLT-27")
def test_who_is_silent_is_named_to_the_others_by_the_hub() -> None:
    async def play() -> None:
        async with FakeHub() as hub:
            mute = Sockets(hub.connector("chart"), Mute)
            ehr = hub.client("ehr")
            async with viewer(hub, "chart", connect=mute), ehr:
                await hub.acknowledged(await ehr.open(patient("p1")))
                (socket,) = mute.opened
                assert isinstance(socket, Mute)
                socket.is_mute = True
                await ehr.open(patient("p2"))
                await asyncio.sleep(11)
                assert ehr.status.why == "chart did not acknowledge Patient-open within 10 seconds"

    virtual_time.run(play())


@pytest.mark.req("CLT-27", "CLT-59")
def test_who_waits_for_an_acknowledgement_of_what_nobody_is_subscribed_to_is_told_so() -> None:
    async def play() -> None:
        async with FakeHub() as hub, viewer(hub, "chart"):
            for name, resources, said in (
                ("DiagnosticReport-open", [report("r1"), patient("p1")], "within 15 s, and nobody is subscribed to it"),
                ("patient-OPEN", [patient("p1")], "within 15 s"),
            ):
                hub.lose_next(1)
                event = await hub.publish(name, *resources)
                with pytest.raises(TimeoutError, match=f"{said}$"):
                    await hub.acknowledged(event)

    virtual_time.run(play())


@pytest.mark.req("CLT-27")
@pytest.mark.parametrize(("silently", "seconds"), [(False, 4), (True, 40)])
def test_who_is_cut_off_is_named_to_the_others_by_the_hub(silently: bool, seconds: float) -> None:
    async def play() -> None:
        async with FakeHub() as hub:
            ehr = hub.client("ehr")
            async with viewer(hub, "chart"), ehr:
                hub.cut("chart", silently=silently)
                await asyncio.sleep(seconds)
                assert ehr.status.why == "chart lost its connection and has not come back"
                hub.restore("chart")
                await asyncio.sleep(120)
                assert hub.subscribed("chart")

    virtual_time.run(play())


@pytest.mark.req("CLT-27")
def test_a_hub_to_which_nothing_passes_learns_by_its_pings() -> None:
    async def play() -> None:
        async with FakeHub() as hub:
            ehr, chart = hub.client("ehr"), viewer(hub, "chart")
            async with chart, ehr:
                hub.heartbeat(1)
                hub.cut("chart", silently=True)
                await asyncio.sleep(12)
                assert chart.status.connection == "connecting"
                assert ehr.status.in_sync
                await asyncio.sleep(30)
                assert ehr.status.why == "chart lost its connection and has not come back"

    virtual_time.run(play())


@pytest.mark.req("CLT-27")
async def test_who_knows_only_patients_is_told_the_patient_of_a_study() -> None:
    async with FakeHub() as hub, viewer(hub, timings=FAST) as client:
        event = await hub.publish("ImagingStudy-open", study("s1"), patient("p1"))
        await until(lambda: client.context and client.context.anchor == P1)
        assert names(hub) == ["Patient-open", "ImagingStudy-open"]
        assert (event.name, hub.current) == ("ImagingStudy-open", "ImagingStudy/s1")


@pytest.mark.req("CLT-27")
async def test_of_two_updates_of_one_version_the_hub_takes_one() -> None:
    async with FakeHub() as hub:
        ehr = hub.client("ehr", timings=FAST)
        opened = await hub.publish("DiagnosticReport-open", report("r1"), patient("p1"))
        assert opened.version
        await ehr.update([observation("o1")], report("r1"))
        update = make_event(
            hub.topic, "DiagnosticReport-update", hub.messages[-1]["event"]["context"], version=opened.version
        )
        with pytest.raises(HubError) as refused:
            await hub.publish(update)
        assert refused.value.status == 409
        made = hub.messages[-1]["event"]
        assert made["context.priorVersionId"] == opened.version
        assert made["context.versionId"] in str(refused.value)
        await ehr.stop()


@pytest.mark.req("CLT-27")
def test_a_lease_ends_when_the_hub_says() -> None:
    async def play() -> None:
        async with FakeHub(lease_seconds=100_000) as hub:
            client = viewer(hub, timings=Timings(backoff_first=1))
            wire = Wire(client)
            async with client:
                assert wire.of("in", "confirmation")[0].body["hub.lease_seconds"] >= 99_999
                hub.deny("viewer", "enough")
                await asyncio.sleep(1)
                assert wire.of("in", "denial")[0].body["hub.reason"] == "enough"
                await asyncio.sleep(10)
                assert client.status.in_sync

    virtual_time.run(play())


@pytest.mark.req("CLT-27", "CLT-56")
async def test_a_hub_goes_by_the_clock_of_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeHub() as hub:
        later = datetime.now(UTC) + timedelta(hours=1)
        event = make_event(hub.topic, "Patient-open", context_of([patient("p1")]), timestamp=later.isoformat())
        with pytest.raises(HubError, match="ahead of the hub's clock"):
            await hub.publish(event)
        monkeypatch.setattr("time.time", later.timestamp)
        await hub.publish(event)
        assert hub.current == P1


# STU2


@pytest.mark.req("CLT-27", "CLT-57")
async def test_a_hub_of_stu2_tells_and_declares_less() -> None:
    async with FakeHub("STU2") as hub:
        await hub.publish("Patient-open", patient("p1"))
        client = viewer(hub, lease_seconds=1, timings=FAST)
        wire = Wire(client)
        async with client:
            await until(lambda: len(wire.of("in", "subscribe")) == 2)
            assert len(wire.of("in", "confirmation")) == 1
            granted = wire.of("in", "confirmation")[0].body["hub.events"]
            assert sorted(granted) == ["patient-close", "patient-open", "syncerror"]
            assert not client.contexts
            answer = await hub.http("viewer").get(f"{hub.url}/{hub.topic}")
            assert answer.status_code == 404
            await hub.publish("ImagingStudy-open", study("s1"), patient("p2"))
            event = await hub.publish("Patient-open", patient("p2"))
            assert (await hub.acknowledged(event)).status == 200
            assert client.context
            assert (client.context.anchor, client.context.version) == (P2, None)
        declared = (await hub.http("viewer").get(f"{hub.url}/.well-known/fhircast-configuration")).json()
        assert "capabilities" not in declared
        assert "heartbeat" not in declared["eventsSupported"]
    assert names(hub) == ["Patient-open", "ImagingStudy-open", "Patient-open"]


@pytest.mark.req("CLT-27")
async def test_a_hub_of_stu2_takes_updates_without_versions_and_spells_as_it_does() -> None:
    async with FakeHub("STU2") as hub:
        ehr, chart = hub.client("ehr", timings=FAST), hub.client("chart", timings=FAST)
        chart.on("DiagnosticReport-open", refuse)
        async with ehr, chart:
            await ehr.open(report("r1"), patient("p1"))
            await until(lambda: ehr.status.behind == ("chart",))
            for number in (1, 2):
                made = await ehr.update([observation(f"o{number}")], report("r1"))
                assert made.version is None
        assert names(hub) == ["DiagnosticReport-open", "syncerror", *["DiagnosticReport-update"] * 2]
        assert not [message for message in hub.messages if "context.versionId" in message["event"]]
