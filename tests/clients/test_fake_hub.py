"""The fake hub of Python: what it takes and says is the hub's own, and nothing is left of it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from fhircast_client import Event, FHIRcastClient, HubError, Refuse, Timings
from fhircast_client.events import context_of, make_event
from fhircast_client.testing import Answer, FakeHub
from tests.clients import virtual_time
from tests.clients.fakes import FAST, Heard, Sockets, Through, Wire, observation, patient, report, study, until

P1, P2 = "Patient/p1", "Patient/p2"


def refuse(_: Event) -> None:
    """The application does not follow."""
    raise Refuse("unsaved notes")


class Mute(Through):
    """A socket whose application stops answering."""

    is_mute = False

    async def send(self, message: str) -> None:
        if not self.is_mute:
            await super().send(message)


def viewer(hub: FakeHub, name: str = "viewer", **options: Any) -> FHIRcastClient:
    """A client that follows patients."""
    client = hub.client(name, **options)
    client.on("Patient-open", Heard())
    return client


def names(hub: FakeHub) -> list[str]:
    """Of what was distributed."""
    return [message["event"]["hub.event"] for message in hub.messages]


# What the hub says


@pytest.mark.req("CLT-27")
@pytest.mark.parametrize(
    ("name", "context", "said"),
    [
        ("nonsense", [], "got nonsense"),
        ("Patient-open", [], "expected one item with the key patient"),
        ("DiagnosticReport-open", context_of([report("r1")]), "key patient"),
        ("SyncError", [], "operationoutcome"),
        ("heartbeat", [], "sent by the hub only"),
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


@pytest.mark.req("CLT-27")
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


@pytest.mark.req("CLT-27")
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


@pytest.mark.req("CLT-27")
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


@pytest.mark.req("CLT-27")
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


# What can be seen of it


@pytest.mark.req("CLT-27")
async def test_what_nobody_asked_for_is_seen_too() -> None:
    async with FakeHub() as hub:
        opened = make_event(hub.topic, "Patient-open", context_of([patient("p1")]))
        versions = {(await hub.publish(opened)).version for _ in range(2)}
        assert len(versions - {None}) == 1, "a repeat of the newest is told again"
        await hub.publish("Patient-open", patient("p2"))
        assert (hub.current, hub.opened) == (P2, [P1, P2])
        await hub.publish(opened)
        assert [message["event"]["context"][0]["resource"]["id"] for message in hub.messages] == ["p1", "p1", "p2"]
        await hub.publish("Home-open")
        await hub.publish("Patient-close", patient("p1"))
        assert (hub.current, hub.opened) == ("", [P2])
        assert names(hub)[-2:] == ["Home-open", "Patient-close"]


@pytest.mark.req("CLT-27")
async def test_a_thousand_events_come_in_their_order() -> None:
    async with FakeHub() as hub:
        heard = Heard()
        client = hub.client("viewer", timings=FAST)
        client.on("Patient-open", heard)
        async with client:
            for number in range(1000):
                event = await hub.publish("Patient-open", patient(f"p{number % 10}"))
                if number % 50 == 49:
                    await hub.acknowledged(event)
            assert heard.anchors == [f"Patient/p{number % 10}" for number in range(1000)]
            assert client.status.in_sync
        assert len(hub.messages) == len(hub.acknowledgements) == 1000


# Nothing is shared, and nothing is left


@pytest.mark.req("CLT-27")
async def test_hubs_share_nothing() -> None:
    async with (
        FakeHub() as one,
        FakeHub() as other,
        viewer(one, timings=FAST) as here,
        viewer(other, timings=FAST) as there,
    ):
        await one.acknowledged(await one.publish("Patient-open", patient("p1")))
        await other.acknowledged(await other.publish("Patient-open", patient("p2")))
        shown = [client.context.anchor for client in (here, there) if client.context]
        assert shown == [one.current, other.current] == [P1, P2]
        one.cut()
        await until(lambda: not here.status.in_sync)
        assert there.status.in_sync


class Timed(virtual_time.VirtualLoop):
    """A loop that remembers its timers."""

    def __init__(self) -> None:
        self.timers: list[asyncio.TimerHandle] = []
        super().__init__()

    def call_at(  # type: ignore[override]  # its own types every argument of the callback
        self, when: float, callback: Callable[..., Any], *args: Any, **more: Any
    ) -> asyncio.TimerHandle:
        self.timers.append(super().call_at(when, callback, *args, **more))
        return self.timers[-1]

    @property
    def running(self) -> list[asyncio.TimerHandle]:
        """The timers that still will go off."""
        return [timer for timer in self.timers if not timer.cancelled() and timer.when() > self.time()]


@pytest.mark.req("CLT-27")
@pytest.mark.parametrize("silently", [None, False, True])
def test_nothing_is_left_of_a_hub(silently: bool | None) -> None:
    async def play() -> None:
        async with FakeHub() as hub:
            client, ehr = viewer(hub), hub.client("ehr")
            await client.start()
            await ehr.start()
            await hub.publish("Patient-open", patient("p1"))
            await asyncio.sleep(1)
            if silently is not None:
                hub.cut("viewer", silently=silently)
            await client.stop()
            await ehr.stop()
            await hub.publish("Patient-open", patient("p2"))
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Timed)
        assert loop.running == []

    with asyncio.Runner(loop_factory=Timed) as runner:
        runner.run(play())
    gc.collect()  # what is forgotten in a bad state warns here


@pytest.mark.req("CLT-27")
async def test_a_hub_that_has_gone_is_away() -> None:
    async with FakeHub() as hub:
        sockets = Sockets(hub.connector("viewer"))
        client = viewer(hub, timings=FAST, connect=sockets)
        await client.start()
    await until(lambda: client.status.connection == "connecting")
    assert [socket.close_code for socket in sockets.opened] == [1001]
    with pytest.raises((httpx.ConnectError, RuntimeError)):
        await hub.http("viewer").get(hub.url)
    await client.stop()


@pytest.mark.req("CLT-27")
async def test_a_cut_comes_at_any_moment_of_a_subscription() -> None:
    for silently in (False, True):
        for turns in range(25):
            async with FakeHub() as hub:
                client = viewer(hub, timings=Timings(request=0.05, confirmation=0.05, backoff_first=0.01, settle=0.01))
                start = asyncio.create_task(client.start())
                for _ in range(turns):
                    await asyncio.sleep(0)
                hub.cut(silently=silently)
                await asyncio.sleep(0)
                hub.restore()
                await asyncio.wait_for(start, 10)
                event = await hub.publish("Patient-open", patient("p1"))
                if not silently:
                    assert (await hub.acknowledged(event)).status == 200
                await client.stop()


PLAIN = """
import asyncio
from fhircast_client.testing import Answer, FakeHub

hub = FakeHub()


async def main():
    client = hub.client("viewer")
    client.on("Patient-open", lambda event: None)
    await client.start()
    event = await hub.publish("Patient-open", {"resourceType": "Patient", "id": "p1"})
    assert (await hub.acknowledged(event)).status == 200
    hub.cut("viewer")
    hub.restore("viewer")
    await client.stop()


asyncio.run(main(), debug=True)
"""
WITHOUT_THE_HUB = """
import sys
sys.modules["fhircast_hub"] = None
import fhircast_client
import fhircast_client.testing
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run a program in which warnings are errors."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.req("CLT-27")
def test_it_prints_nothing_and_needs_no_async_with() -> None:
    result = run(PLAIN)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.req("CLT-27")
def test_without_the_hub_installed_it_says_what_to_install() -> None:
    result = run(WITHOUT_THE_HUB)
    assert result.returncode == 1
    assert "pip install 'fhircast-client[testing]'" in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].startswith("ImportError")
    assert "ModuleNotFoundError" in result.stderr


@pytest.mark.req("CLT-27")
async def test_mistakes_of_a_test_are_errors_at_once() -> None:
    with pytest.raises(ValueError, match="version must be STU2 or STU3, not 'STU9'"):
        FakeHub("STU9")  # type: ignore[arg-type]
    async with FakeHub() as hub:
        hub.client("viewer")
        with pytest.raises(ValueError, match=r"the kind of request must be one of subscribe, .*, not 'foo'"):
            hub.answer_next("foo", Answer(503))
        with pytest.raises(TypeError, match=r"answers must be objects such as Answer\(503\)"):
            hub.answer_next("publish", 503)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"no client of this hub is called 'Nobody', there is viewer"):
            hub.cut("Nobody")
