"""Spans of opentelemetry, and their way to the collector. The only module that imports opentelemetry, and only when traces are on.

Spans go to the collector from the thread of a BatchSpanProcessor, in batches. While no collector answers, at most as many spans
wait as OTEL_BSP_MAX_QUEUE_SIZE says, and later ones are dropped.

A Span of the SDK can be changed by any thread, and takes seven times as long as a ReadableSpan. Here a request is over when its
spans are made. So each is a ReadableSpan from the start.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from ipaddress import ip_address
from urllib.parse import urlsplit

import requests
import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation import set_span_in_context

from fhircast_hub.telemetry.steps import Parent, Step, Trace

#: Seconds in which waiting spans are exported when the hub stops.
STOP_SECONDS = 1.0
#: Seconds between two lines about a collector that does not answer, at least.
SAID_SECONDS = 60.0
#: Loggers of what goes wrong with a batch, many times a minute. `_Reported` says that once.
_LOUD = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
_log = structlog.get_logger()


class Spans:
    """Samples requests, and exports their spans. `endpoint` is the collector's URL, `worker` the number of this process.

    Sampler, limits and headers come from the variables of OpenTelemetry. Raises ValueError for a wrong one.
    """

    def __init__(self, endpoint: str, worker: int | None = None, exporter: SpanExporter | None = None) -> None:
        provider = TracerProvider(resource=_resource(worker), shutdown_on_exit=False)
        self._sampler, self._ids, self._resource = provider.sampler, provider.id_generator, provider.resource
        self._scope = InstrumentationScope("fhircast_hub", version("fhircast-hub"))
        self._exporter = _Reported(exporter or OTLPSpanExporter(session=_session(endpoint)), endpoint)
        self._processor = BatchSpanProcessor(self._exporter)
        for name in _LOUD:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    def sample(self, parent: Parent | None) -> int | None:
        """The id of the trace of a request that begins. None: the request is not sampled."""
        context, trace_id = None, self._ids.generate_trace_id()
        if parent is not None:
            context, trace_id = _context(parent), parent.trace_id
        result = self._sampler.should_sample(context, trace_id, "request", SpanKind.SERVER)
        return trace_id if result.decision is Decision.RECORD_AND_SAMPLE else None

    def export_request(self, trace: Trace, whole: Step, steps: Iterable[Step], is_error: bool) -> None:
        """Export the span of a request, and those of its steps. Waits for nobody."""
        parent = _remote(trace.parent) if trace.parent else None
        span = self._export(trace, whole, parent, SpanKind.SERVER, is_error)
        for step in steps:
            self._export(trace, step, span, SpanKind.INTERNAL)

    def export_callback(self, trace: Trace, whole: Step, is_error: bool) -> None:
        """Export the span of a request to a callback."""
        self._export(trace, whole, None, SpanKind.CLIENT, is_error)

    async def stop(self) -> None:
        """Export what waits, within STOP_SECONDS. The rest is dropped."""
        # The processor waits for half a minute. A daemon thread does not hold up the end of the process.
        stopping = threading.Thread(target=self._processor.shutdown, daemon=True)
        stopping.start()
        deadline = time.monotonic() + STOP_SECONDS
        while stopping.is_alive() and time.monotonic() < deadline:  # noqa: ASYNC110  # until a thread has ended
            await asyncio.sleep(0.01)
        if stopping.is_alive():
            self._exporter.shutdown()

    def _export(
        self, trace: Trace, step: Step, parent: SpanContext | None, kind: SpanKind, is_error: bool = False
    ) -> SpanContext:
        context = SpanContext(trace.trace_id, self._ids.generate_span_id(), is_remote=False, trace_flags=_SAMPLED)
        span = ReadableSpan(
            step.name,
            context,
            parent,
            self._resource,
            step.attributes,
            kind=kind,
            status=_ERROR if is_error else _UNSET,
            start_time=trace.epoch + step.began,
            end_time=trace.epoch + step.ended,
            instrumentation_scope=self._scope,
        )
        self._processor.on_end(span)
        return context


class _Reported(SpanExporter):
    """An exporter whose failures are two log lines a minute at most, with nothing of an answer or a URL's path."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter, self._endpoint = exporter, endpoint
        #: Spans that were lost since the last line.
        self._lost = 0
        #: When a line last said that spans are lost, of time.monotonic. Whether no later line says otherwise.
        self._said_at, self._is_said = -math.inf, False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export spans, in the processor's thread."""
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self._lost += len(spans)
            if not self._is_said and time.monotonic() - self._said_at >= SAID_SECONDS:
                self._said_at, self._is_said = time.monotonic(), True
                _log.warning("traces are lost", reason="the collector did not take them", url=self._endpoint)
        elif self._is_said:
            _log.info("traces are taken again", url=self._endpoint, count=self._lost)
            self._lost, self._is_said = 0, False
        return result

    def shutdown(self) -> None:
        """Give up attempts that are under way."""
        self._exporter.shutdown()


def _resource(worker: int | None) -> Resource:
    """What this process is. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win; the SDK adds a random service.instance.id."""
    ours: dict[str, str | int] = {"service.name": "fhircast-hub", "service.version": version("fhircast-hub")}
    if worker is not None:
        ours["fhircast.worker"] = worker
    given = OTELResourceDetector().detect().attributes
    return Resource.create({name: value for name, value in ours.items() if name not in given})


def _session(endpoint: str) -> requests.Session | None:
    """A session that goes past proxies where the collector is on this machine (SEC-11). None: the exporter's own."""
    host = urlsplit(endpoint).hostname or ""
    try:
        is_here = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return None
    if not is_here:
        return None
    session = requests.Session()
    session.trust_env = False
    return session


def _context(parent: Parent) -> Context:
    return set_span_in_context(NonRecordingSpan(_remote(parent)), Context())


def _remote(parent: Parent) -> SpanContext:
    return SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=TraceFlags(parent.flags))
