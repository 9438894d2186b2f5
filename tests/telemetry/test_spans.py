"""The process that exports, and a collector that does not answer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib.metadata import version
from types import SimpleNamespace

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from fhircast_hub.telemetry import spans as spans_module
from fhircast_hub.telemetry.spans import Spans
from tests.running import event, running_hub
from tests.telemetry.traces_world import (
    COLLECTOR,
    Exported,
    spans_of,
)


@pytest.mark.req("OPS-26")
@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "fhircast-hub"),
        ({"OTEL_SERVICE_NAME": "hub-east"}, "hub-east"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=hub-west,deployment.environment.name=test"}, "hub-west"),
    ],
)
def test_the_process_is_named(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], name: str) -> None:
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    spans = Spans(COLLECTOR, 3, InMemorySpanExporter())
    told = spans._resource.attributes
    spans._exporter.shutdown()
    assert (told["service.name"], told["service.version"], told["fhircast.worker"]) == (
        name,
        version("fhircast-hub"),
        3,
    )
    assert len(str(told["service.instance.id"])) == 36


class Collector(SpanExporter):
    """Takes spans, or not. Waits while `open` is cleared."""

    def __init__(self) -> None:
        self.takes, self.raises, self.open, self.ended = True, False, threading.Event(), threading.Event()
        self.open.set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.open.wait()
        if self.raises:
            raise ValueError("Quastenflosser")
        return SpanExportResult.SUCCESS if self.takes else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.ended.set()
        self.open.set()


@pytest.mark.req("OPS-29")
@pytest.mark.parametrize("how", ["refuses", "raises"])
def test_an_outage_is_two_lines(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """However long. Outages in quick succession are two lines a minute."""
    now = [1000.0]
    monkeypatch.setattr(spans_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    collector = Collector()
    reported = spans_module._Reported(collector, COLLECTOR)

    def export(*, is_taken: bool) -> list[tuple[str, object]]:
        collector.takes, collector.raises = is_taken, not is_taken and how == "raises"
        with capture_logs() as lines:
            reported.export([None, None])  # type: ignore[list-item]  # nobody looks at them
        assert "Quastenflosser" not in str(lines)
        return [(line["event"], line.get("count")) for line in lines]

    lost, taken = ("traces are lost", None), "traces are taken again"
    assert export(is_taken=True) == []
    assert [export(is_taken=False) for _ in range(3)] == [[lost], [], []]
    now[0] += 3600
    assert export(is_taken=False) == []
    assert export(is_taken=True) == [(taken, 8)]
    assert export(is_taken=False) == [lost]
    assert export(is_taken=True) == [(taken, 2)]
    now[0] += spans_module.SAID_SECONDS - 1
    assert [export(is_taken=False), export(is_taken=True)] == [[], []]
    now[0] += 1
    assert [export(is_taken=False), export(is_taken=True)] == [[lost], [(taken, 4)]]


@pytest.mark.req("OPS-29")
async def test_a_collector_that_hangs_delays_no_event_and_no_stop(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More spans than the queue holds are dropped. The hub ends after STOP_SECONDS, and gives the attempt up."""
    collector = Collector()
    collector.open.clear()
    monkeypatch.setattr(spans_module, "OTLPSpanExporter", lambda session: collector)
    monkeypatch.setattr(spans_module, "STOP_SECONDS", 0.05)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    async with running_hub() as hub:
        async with hub.follow(await hub.subscribe()) as follower:
            for number in range(20):
                assert (await hub.publish(event("Patient-open", f"p{number}"))).status_code == 202
            assert len(await follower.names(20)) == 20
        waiting = spans_of(hub)._processor._batch_processor._queue
        assert len(waiting) == 4
        assert not collector.ended.is_set()
    assert collector.ended.is_set()


@pytest.mark.req("OPS-29")
async def test_what_waits_is_exported_at_the_end(exported: Exported) -> None:
    async with running_hub() as hub:
        await hub.context()
        assert exported.memory.get_finished_spans() == ()
    assert [span.name for span in exported.memory.get_finished_spans()] == ["context"]


@pytest.mark.req("SEC-11")
@pytest.mark.parametrize(
    ("endpoint", "is_direct"),
    [
        ("http://localhost:4318", True),
        ("http://127.0.0.2:4318/v1/traces", True),
        ("http://[::1]:4318", True),
        ("https://collector.example:4318", False),
        ("http://10.0.0.1:4318", False),
        ("http://localhost.example", False),
    ],
)
def test_a_collector_on_this_machine_is_asked_past_proxies(endpoint: str, is_direct: bool) -> None:
    session = spans_module._session(endpoint)
    assert (session is not None and not session.trust_env) == is_direct
