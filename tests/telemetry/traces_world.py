"""Hubs with traces that go into memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fhircast_hub.service.tracing import TracedStore
from fhircast_hub.telemetry.spans import Spans
from tests.running import RunningHub
from tests.service.service_world import Moody

COLLECTOR = "http://collector.example:4318"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


def spans_of(hub: RunningHub) -> Spans:
    """What exports the hub's spans."""
    traces = hub.hub._traces
    assert traces is not None
    assert traces._spans is not None
    return traces._spans


class Exported:
    """The spans that hubs of this test exported, oldest first."""

    def __init__(self) -> None:
        self.memory = InMemorySpanExporter()

    def of(self, hub: RunningHub, name: str = "") -> list[ReadableSpan]:
        """The spans of this name, after those that wait were exported."""
        spans_of(hub)._processor.force_flush()
        return [span for span in self.memory.get_finished_spans() if name in ("", span.name)]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def moody(hub: RunningHub) -> Moody:
    """The hub's store from now on."""
    traced = hub.hub.service._store
    assert isinstance(traced, TracedStore)
    traced._store = made = Moody(traced._store)
    return made


def children(of: ReadableSpan, spans: Sequence[ReadableSpan]) -> list[ReadableSpan]:
    """The spans whose parent is `of`, by their beginning."""
    found = [span for span in spans if span.parent and of.context and span.parent.span_id == of.context.span_id]
    return sorted(found, key=lambda span: span.start_time or 0)


@asynccontextmanager
async def following(hub: RunningHub, endpoints: list[str]) -> AsyncIterator[None]:
    """A socket at each endpoint."""
    if not endpoints:
        yield
        return
    async with hub.follow(endpoints[0]), following(hub, endpoints[1:]):
        yield
