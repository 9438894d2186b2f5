"""The queue brings entries to a file or a FHIR server in order, and nothing waits for the sink."""

from __future__ import annotations

import asyncio
import gzip
import time
from pathlib import Path

import httpx
import pytest
from fhir.resources.R4B.auditevent import AuditEvent
from structlog.testing import capture_logs

from fhircast_hub.audit import sink as writing
from fhircast_hub.audit.sink import Auditor, FhirServerSink
from tests.audit.audit_world import FhirStub, audited, entry, number
from tests.counted import counted
from tests.running import NO_TLS, event, running_hub, until

# --- the queue ---


class Fake:
    """A sink that can be closed, or fail so many times."""

    def __init__(self, failures: int = 0, error: Exception | None = None) -> None:
        self.failures, self.error = failures, error or httpx.ConnectError("gone")
        self.open = asyncio.Event()
        self.open.set()
        self.asked: list[float] = []
        self.batches: list[list[int]] = []

    async def write(self, events: list[bytes]) -> int:
        self.asked.append(time.monotonic())
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise self.error
        self.batches.append([number(line) for line in events])
        return 0

    def got(self) -> list[int]:
        return [each for batch in self.batches for each in batch]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses in thousandths."""
    monkeypatch.setattr(writing, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(writing, "LONGEST_WAIT", 0.08)
    monkeypatch.setattr(writing, "STOP_SECONDS", 0.2)


async def test_without_a_sink_nothing_is_kept() -> None:
    """No setting, no task, no memory."""
    auditor = Auditor(None, "https://hub.example", str.upper)
    auditor.record(entry(1))
    await auditor.stop()
    assert (counted(auditor.metrics.audit_lost), len(auditor._waiting), auditor._task) == (0, 0, None)


@pytest.mark.req("AUD-2")
async def test_entries_go_in_order_and_in_batches() -> None:
    """At most BATCH at a time, each once."""
    sink = Fake()
    auditor = Auditor(sink, "https://hub.example", str.upper)
    for each in range(250):
        auditor.record(entry(each))
    await until(lambda: len(sink.got()) == 250)
    assert sink.got() == list(range(250))
    assert [len(batch) for batch in sink.batches] == [100, 100, 50]
    auditor.record(entry(250))
    await until(lambda: len(sink.got()) == 251)
    await auditor.stop()


@pytest.mark.req("AUD-2")
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("error", [httpx.ReadTimeout("slow"), OSError("disk"), RuntimeError("ours")], ids=repr)
async def test_a_sink_that_fails_is_tried_again(error: Exception) -> None:
    """With pauses that double up to a limit; nothing is lost or doubled, whatever went wrong."""
    sink = Fake(failures=5, error=error)
    auditor = Auditor(sink, "https://hub.example", str.upper)
    with capture_logs() as logs:
        for each in range(3):
            auditor.record(entry(each))
        await until(lambda: len(sink.got()) == 3)
        await auditor.stop()
    pauses = [after - before for before, after in zip(sink.asked, sink.asked[1:], strict=False)]
    for pause, expected in zip(pauses, (0.02, 0.04, 0.08, 0.08, 0.08), strict=True):
        assert expected * 0.9 < pause
    assert sink.got() == [0, 1, 2]
    assert [line["event"] for line in logs] == ["audit sink fails"] * 5
    assert {line["error"] for line in logs} == {type(error).__name__}
    assert counted(auditor.metrics.audit_lost) == 0


@pytest.mark.req("AUD-2")
async def test_what_does_not_fit_is_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue has an end; the first loss is a line, and how many there were is another when the sink is back."""
    monkeypatch.setattr(writing, "MAX_WAITING", 10)
    sink = Fake()
    sink.open.clear()
    auditor = Auditor(sink, "https://hub.example", str.upper)
    with capture_logs() as logs:
        for each in range(17):
            auditor.record(entry(each))
        assert counted(auditor.metrics.audit_lost) == 7
        assert [line["event"] for line in logs] == ["audit entries are being lost"]
        sink.open.set()
        await until(lambda: len(logs) == 2)
        auditor.record(entry(99))
        await auditor.stop()
    assert sink.got() == [*range(10), 99]
    assert [(line["event"], line.get("count")) for line in logs[1:]] == [("audit entries lost", 7)]


@pytest.mark.req("AUD-2")
async def test_stopping_brings_what_waits() -> None:
    """Entries of the last moment reach the sink."""
    sink = Fake()
    auditor = Auditor(sink, "https://hub.example", str.upper)
    for each in range(300):
        auditor.record(entry(each))
    await auditor.stop()
    assert sink.got() == list(range(300))


@pytest.mark.req("AUD-2")
async def test_stopping_tries_a_sink_that_failed_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, however long the pause would have been."""
    monkeypatch.setattr(writing, "FIRST_WAIT", 1000.0)
    sink = Fake(failures=1)
    auditor = Auditor(sink, "https://hub.example", str.upper)
    auditor.record(entry(1))
    await until(lambda: sink.failures == 0)
    await auditor.stop()
    assert sink.got() == [1]


@pytest.mark.req("AUD-2")
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("hangs", [True, False])
async def test_stopping_does_not_wait_for_a_sink_that_is_gone(hangs: bool) -> None:
    """Within STOP_SECONDS; what could not be brought is counted and told, and what comes after it too."""
    sink = Fake(failures=1000)
    if hangs:
        sink.open.clear()
    auditor = Auditor(sink, "https://hub.example", str.upper)
    with capture_logs() as logs:
        for each in range(5):
            auditor.record(entry(each))
        async with asyncio.timeout(10):  # the sink fails for longer, or for ever
            await auditor.stop()
    assert {"event": "audit entries lost", "count": 5, "log_level": "error"} in logs
    auditor.record(entry(6))
    assert counted(auditor.metrics.audit_lost) == 6


# --- a FHIR server ---


@pytest.mark.req("AUD-2")
async def test_a_fhir_server_is_brought_batches() -> None:
    """POST at its base, FHIR+JSON, a Bundle of type batch with one AuditEvent to create in each entry."""
    stub = FhirStub()
    async with stub.running() as base, running_hub(audit=base) as hub:
        await hub.publish(event("Patient-open", "p1"))
        await until(lambda: sum(len(bundle["entry"]) for _, bundle in stub.requests) == 2)
    head, bundle = stub.requests[0]
    assert head.startswith("post /fhir http/1.1")
    assert "content-type: application/fhir+json" in head
    assert "authorization" not in head
    assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "batch")
    for each in (each for _, bundle in stub.requests for each in bundle["entry"]):
        AuditEvent.model_validate(each["resource"])
        assert each["request"] == {"method": "POST", "url": "AuditEvent"}


@pytest.mark.req("AUD-2")
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("status", [301, 401, 422, 500, 503])
async def test_a_batch_that_is_refused_is_brought_again(status: int) -> None:
    """Whatever the server's reason, an operator can mend it; and no redirect is followed."""
    stub = FhirStub()
    stub.status = status
    async with stub.running() as base, httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        auditor = Auditor(FhirServerSink(base, client), "https://hub.example", str.upper)
        auditor.record(entry(1))
        await until(lambda: len(stub.requests) >= 2)
        stub.status = 200
        await until(lambda: not auditor._waiting)
        await auditor.stop()
    assert counted(auditor.metrics.audit_lost) == 0
    assert stub.requests[0][1] == stub.requests[-1][1]


@pytest.mark.req("AUD-2")
async def test_entries_that_are_refused_each_are_lost_and_told() -> None:
    """A batch may succeed while some of it does not: those are counted, and do not come again."""
    stub = FhirStub()
    stub.statuses = lambda count: ["201", "422 Unprocessable Entity", "500"][:count]
    with capture_logs() as logs:
        async with stub.running() as base, httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
            auditor = Auditor(FhirServerSink(base, client), "https://hub.example", str.upper)
            for each in range(3):
                auditor.record(entry(each))
            await auditor.stop()
    assert (counted(auditor.metrics.audit_lost), len(stub.requests)) == (2, 1)
    assert [(line["event"], line["count"]) for line in logs] == [("audit entries lost", 2)]


@pytest.mark.req("AUD-2")
@pytest.mark.usefixtures("hasty")
async def test_an_answer_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is always about to say something does not hold up the trail: it is asked again."""
    monkeypatch.setattr(writing, "ANSWER_SECONDS", 0.2)
    stub = FhirStub()
    stub.endless = (1, 0.01)
    async with stub.running() as base, httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        auditor = Auditor(FhirServerSink(base, client), "https://hub.example", str.upper)
        auditor.record(entry(1))
        await until(lambda: len(stub.requests) >= 2)
        stub.endless = None
        await until(lambda: not auditor._waiting)
        await auditor.stop()
    assert counted(auditor.metrics.audit_lost) == 0


@pytest.mark.req("AUD-2")
async def test_an_answer_without_end_is_not_read() -> None:
    """The batch was taken; what more there is to say of it must fit."""
    stub = FhirStub()
    stub.endless = (1 << 16, 0.0)
    async with stub.running() as base, httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        auditor = Auditor(FhirServerSink(base, client), "https://hub.example", str.upper)
        auditor.record(entry(1))
        await until(lambda: not auditor._waiting)
        await auditor.stop()
        stub.endless = None
    assert (counted(auditor.metrics.audit_lost), len(stub.requests)) == (0, 1)


@pytest.mark.req("AUD-2")
async def test_an_answer_is_not_inflated() -> None:
    """No encoding is asked for, and an encoded answer is not read: few bytes may stand for many. The batch was taken."""
    stub = FhirStub()
    stub.statuses = lambda count: ["422"] * count
    stub.encode = lambda body: (b"gzip", gzip.compress(body))
    async with stub.running() as base, httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
        assert await FhirServerSink(base, client).write([b"{}"]) == 0
        stub.encode = lambda body: (b"identity", body)
        assert await FhirServerSink(base, client).write([b"{}"]) == 1
    assert all("accept-encoding: identity\r\n" in head for head, _ in stub.requests)


@pytest.mark.req("AUD-2", "OPS-1")
async def test_what_is_lost_is_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that somebody is woken up by it."""
    (tmp_path / "trail.jsonl").mkdir()  # nothing can be written there
    monkeypatch.setattr(writing, "MAX_WAITING", 2)
    async with audited(tmp_path) as (hub, _):
        for _ in range(5):
            await hub.context()
        metrics = (await hub.client.get(f"{hub.origin}/metrics")).text
        assert "\nfhircast_audit_lost_total 3.0\n" in metrics


@pytest.mark.req("AUD-2")
async def test_a_sink_that_hangs_delays_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes a batch and never answers: events are distributed as ever, in any number."""
    monkeypatch.setattr(writing, "ANSWER_SECONDS", 1000.0)
    stub = FhirStub()
    stub.open.clear()
    async with stub.running() as base, running_hub(audit=base) as hub:
        hub.hub._client.timeout = httpx.Timeout(None)
        async with hub.follow(await hub.subscribe()) as follower:
            await until(lambda: len(stub.requests) == 1)
            for each in range(50):
                assert (await hub.publish(event("Patient-open", f"p{each}"))).status_code == 202
                assert (await follower.next())["id"] == f"Patient-open-p{each}"
            assert len(stub.requests) == 1, "the batch is still on its way"
        stub.open.set()
        await until(lambda: sum(len(bundle["entry"]) for _, bundle in stub.requests) >= 50)


@pytest.mark.req("AUD-2")
async def test_the_trail_is_complete_when_the_hub_has_stopped(tmp_path: Path) -> None:
    """Every answer that was given is in the file."""
    async with audited(tmp_path) as (hub, asked):
        answers = [await hub.publish(event("Patient-open", f"p{each}")) for each in range(150)]
    assert {answer.status_code for answer in answers} == {202}
    assert len(await asked.of("publish", 150)) == 150
