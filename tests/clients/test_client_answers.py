"""The client answers each event, and reports a refusal that comes late."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from fhircast_client import Event, Refuse, Status, Timings
from fhircast_client.events import context_of, make_event
from fhircast_client.inbox import MOST_WAITING
from fhircast_client.testing import Answer, FakeHub
from tests.clients.fakes import FAST, Heard, observation, patient, report, until

pytestmark = pytest.mark.usefixtures("nothing_left")
SOON = Timings(backoff_first=0.01, backoff_most=0.05, settle=0.05, accept_after=0.05, give_up=0.3)


def refuse(event: Event) -> None:
    """The application does not follow."""
    raise Refuse("unsaved notes")


def fail(event: Event) -> None:
    """A mistake."""
    raise LookupError("patient p1 is not here")


@pytest.mark.req("CLT-2", "CLT-13", "CLT-45")
@pytest.mark.parametrize(("then", "status", "reason"), [(refuse, 409, "unsaved notes"), (fail, 500, "")])
async def test_who_refuses_or_fails_says_so_and_is_out_of_sync(
    then: Any, status: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        client.on("Patient-open", Heard(then))
        statuses: list[Status] = []
        client.on_status(statuses.append)
        async with client:
            event = await hub.publish("Patient-open", patient("p1"))
            answer = await hub.acknowledged(event)
            assert (answer.status, answer.reason) == (status, reason)
            assert not client.status.in_sync
            assert reason in client.status.why
            assert client.context is None
        assert [one.in_sync for one in statuses] == [True, False, False]
    assert "p1" not in caplog.text


@pytest.mark.req("CLT-2")
async def test_without_a_handler_the_answer_is_200() -> None:
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        client.on("Patient-open", Heard())
        async with client:
            event = await hub.publish("Patient-close", patient("p1"))
            assert (await hub.acknowledged(event)).status == 200


@pytest.mark.req("CLT-2", "CLT-13", "CLT-34")
async def test_who_refuses_after_202_posts_a_sync_error_with_name_and_reason() -> None:
    async with FakeHub() as hub:
        viewer = hub.client("viewer", timings=SOON)

        async def decide(event: Event) -> None:
            await hub.acknowledged(event)
            raise Refuse("unsaved notes")

        viewer.on("Patient-open", decide)
        ehr = hub.client("ehr", timings=FAST)
        async with viewer, ehr:
            event = await ehr.open(patient("p1"))
            await until(lambda: ehr.status.behind == ("viewer",))
            assert "unsaved notes" in ehr.status.why
            assert not viewer.status.in_sync
            assert viewer.status.behind == (), "its own SyncError is no news to it"
        told = next(message["event"] for message in hub.messages if message["event"]["hub.event"] == "SyncError")
        issue = told["context"][0]["resource"]["issue"][0]
        assert (issue["severity"], issue["code"]) == ("warning", "processing")
        codes = {coding["system"].rpartition("/")[2]: coding["code"] for coding in issue["details"]["coding"]}
        assert codes == {
            "eventid": event.id,
            "eventname": "Patient-open",
            "subscribername": "viewer",
            "subscriber": "viewer",
        }


@pytest.mark.req("CLT-2", "CLT-34")
async def test_a_sync_error_is_posted_in_time_once_and_what_is_done_late_is_followed() -> None:
    go_on = asyncio.Event()

    async def slow(event: Event) -> None:
        await go_on.wait()

    async with FakeHub() as hub:
        viewer = hub.client("viewer", timings=SOON)
        viewer.on("Patient-open", slow)
        ehr = hub.client("ehr", timings=FAST)
        async with viewer, ehr:
            await ehr.open(patient("p1"))
            await until(lambda: ehr.status.behind == ("viewer",))
            assert viewer.context is None
            go_on.set()
            await until(lambda: viewer.status.in_sync and viewer.context)
        assert [message["event"]["hub.event"] for message in hub.messages].count("SyncError") == 1


@pytest.mark.req("CLT-2")
async def test_a_sync_error_that_cannot_be_posted_at_once_is_posted_later() -> None:
    async with FakeHub() as hub:
        viewer = hub.client("viewer", timings=SOON)

        async def decide(event: Event) -> None:
            await hub.acknowledged(event)
            hub.answer_next("publish", Answer(503, "not now"), Answer(500))
            raise Refuse("unsaved notes")

        viewer.on("Patient-open", decide)
        async with viewer:
            await hub.publish("Patient-open", patient("p1"))
            await until(lambda: [message["event"]["hub.event"] for message in hub.messages][-1] == "SyncError")


@pytest.mark.req("CLT-2", "CLT-45")
async def test_an_update_that_is_refused_is_nobodys_failure() -> None:
    """ "SyncError is not used when a Subscriber responds to an *-update or *-select event" (3.2.1)."""
    async with FakeHub() as hub:
        viewer = hub.client("viewer", timings=SOON)

        async def decide(event: Event) -> None:
            await hub.acknowledged(event, "viewer")
            raise Refuse("unsaved notes")

        viewer.on("DiagnosticReport-update", decide)
        viewer.on("DiagnosticReport-open", Heard())
        other = hub.client("other", timings=FAST)
        async with viewer, other:
            await other.open(report("r1"), patient("p1"))
            event = await other.update([observation("o1")], report("r1"))
            assert (await hub.acknowledged(event, "viewer")).status == 202
            done = await hub.publish("DiagnosticReport-open", report("r2"), patient("p1"))
            await hub.acknowledged(done, "viewer")
            await until(lambda: viewer.context and viewer.context.anchor == "DiagnosticReport/r2")
            assert viewer.status.in_sync
        assert "SyncError" not in [message["event"]["hub.event"] for message in hub.messages]


@pytest.mark.req("CLT-2")
async def test_more_events_than_can_wait_are_answered_503() -> None:
    go_on = asyncio.Event()
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        client.on("Patient-open", Heard(lambda event: go_on.wait()))
        async with client:
            await hub.publish("Patient-open", patient("first"))
            events = [await hub.publish("Patient-open", patient(f"p{number}")) for number in range(MOST_WAITING + 5)]
            assert (await hub.acknowledged(events[-1])).status == 503
            assert "too many" in client.status.why
            go_on.set()
            last = await hub.publish("Patient-open", patient("last"))
            await hub.acknowledged(last)
            await until(lambda: client.status.in_sync and client.context)


@pytest.mark.req("CLT-26")
async def test_an_older_open_is_acknowledged_and_not_followed() -> None:
    async with FakeHub("STU2") as hub:
        client = hub.client("viewer", timings=FAST)
        heard = Heard()
        client.on("Patient-open", heard)
        async with client:
            await hub.publish("Patient-open", patient("p1"))
            old = make_event(hub.topic, "Patient-open", context_of([patient("p2")]), timestamp="2020-01-01T00:00:00Z")
            await hub.publish(old)
            assert (await hub.acknowledged(old)).status == 200
            assert heard.anchors == ["Patient/p1"]
            assert client.context
            assert client.context.anchor == "Patient/p1"


@pytest.mark.req("CLT-30")
@pytest.mark.parametrize("debug", [False, True])
async def test_a_handlers_error_is_in_the_log_whole_with_debug_only(
    debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Event) -> None:
        raise LookupError("Åse Nordmann has no chart")

    caplog.set_level(logging.DEBUG if debug else logging.INFO, "fhircast_client")
    async with FakeHub() as hub:
        client = hub.client("viewer")
        client.on("Patient-open", fail)
        async with client:
            await hub.acknowledged(await hub.publish("Patient-open", patient("p1")))
    assert "the handler of Patient-open failed: LookupError in" in caplog.text
    assert ("Åse Nordmann has no chart" in caplog.text) is debug
    assert ("Traceback" in caplog.text) is debug
