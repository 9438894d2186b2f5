"""Traces of requests, for OpenTelemetry: what took how long. No span holds a token, an endpoint, a patient or a URL (SEC-1).

OpenTelemetry's own variables ask for traces (docs/traces.md). Without them this module is not used, and opentelemetry is not
imported. A request's steps are noted while it is answered. Its spans are made at its end (spans.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from weakref import WeakValueDictionary

import structlog

from fhircast_hub.telemetry.logs import text_of
from fhircast_hub.telemetry.steps import Attributes, Step, Trace, parent_in

if TYPE_CHECKING:
    from fhircast_hub.telemetry.spans import Spans

#: Steps of one request, at most: a command is decided on again and again while others change its session.
MOST_STEPS = 32
#: Methods that a span names (semantic conventions of HTTP). Any other text is a client's own.
_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))
_OTHER_METHOD = "_OTHER"
_SERVER_ERROR, _CLIENT_ERROR = 500, 400
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_INSTALL = "opentelemetry-sdk is missing: pip install 'fhircast-hub[otel]'"

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_log = structlog.get_logger()


class Recording:
    """The steps of one sampled request, until its end."""

    __slots__ = ("__weakref__", "_began", "_traces", "request_id", "steps", "trace")

    def __init__(self, traces: Traces, request_id: str, trace: Trace) -> None:
        self._traces, self._began = traces, time.perf_counter_ns()
        self.request_id, self.trace = request_id, trace
        self.steps: list[Step] = []

    def add(self, name: str, began: int, attributes: Attributes, ended: int = 0) -> None:
        """Note a step that began then, and has ended then or now. After MOST_STEPS nothing is noted."""
        if len(self.steps) < MOST_STEPS:
            self.steps.append(Step(name, began, ended or time.perf_counter_ns(), attributes))

    def end(self, method: str, status: int, fields: Mapping[str, object]) -> None:
        """The request was answered with this status. `fields` are those of its log line."""
        route = text_of("route", fields["route"])
        optional = {
            "fhircast.topic": text_of("topic", fields.get("topic")),
            "fhircast.event": text_of("name", fields.get("name")),
            "fhircast.reason": text_of("reason", fields.get("reason")),
            "error.type": str(status) if status >= _SERVER_ERROR else "",
        }
        attributes: Attributes = {
            **_exchange(method, status),
            "http.route": route,
            "fhircast.request_id": self.request_id,
            **{name: value for name, value in optional.items() if value},
        }
        self._traces.end(self, Step(route, self._began, time.perf_counter_ns(), attributes), status >= _SERVER_ERROR)


class Traces:
    """The traces of this process. `request_id()` is the id of the request that is being answered, None where there is none.

    `worker`: the number of this process, where several serve.
    """

    def __init__(self, environ: Mapping[str, str], request_id: Callable[[], str | None], worker: int | None) -> None:
        self._environ, self._request_id, self._worker = environ, request_id, worker
        #: None: not started, or nothing can be exported.
        self._spans: Spans | None = None
        #: The recordings of unanswered requests. A request whose client is gone has no end.
        self._recordings: WeakValueDictionary[str, Recording] = WeakValueDictionary()

    def start(self) -> None:
        """Import opentelemetry, and start its thread. The log says where traces go, or why there are none. Raises nothing."""
        if reason := _unsupported(self._environ):
            _log.warning("traces are off", reason=reason)
            return
        try:
            from fhircast_hub.telemetry.spans import Spans

            self._spans = Spans(_endpoint(self._environ), self._worker)
        except ImportError:
            _log.warning("traces are off", reason=_INSTALL)
        except Exception as error:  # a variable of OpenTelemetry's with a wrong value
            _log.warning("traces are off", reason="opentelemetry refuses a variable OTEL_...", exc_info=error)
        else:
            _log.info("traces are on", url=_endpoint(self._environ))

    async def stop(self) -> None:
        """Export what waits, as far as a second suffices."""
        spans, self._spans = self._spans, None
        if spans is not None:
            await spans.stop()

    def begin(self, request_id: str, headers: Iterable[tuple[bytes, bytes]]) -> Recording | None:
        """A request begins. None: it is not sampled."""
        if self._spans is None:
            return None
        parent = parent_in(headers)
        trace_id = self._spans.sample(parent)
        if trace_id is None:
            return None
        recording = self._recordings[request_id] = Recording(self, request_id, Trace.begin(trace_id, parent))
        return recording

    def end(self, recording: Recording, whole: Step, is_error: bool) -> None:
        """A request was answered. `whole` is its span, without the steps."""
        self._recordings.pop(recording.request_id, None)
        if self._spans is not None:
            self._spans.export_request(recording.trace, whole, recording.steps, is_error)

    def current(self) -> Recording | None:
        """The recording of the request that is being answered. None: there is none."""
        request_id = self._request_id()
        return self._recordings.get(request_id) if request_id is not None else None

    def timed(self, name: str, work: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        """The function `work`, which adds a step `name` to the request that calls it."""

        def run(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            recording = self.current()
            if recording is None:
                return work(*args, **kwargs)
            began, error = time.perf_counter_ns(), ""
            try:
                return work(*args, **kwargs)
            except BaseException as failure:
                error = type(failure).__name__
                raise
            finally:
                recording.add(name, began, {"error.type": error} if error else {})

        return run

    def asked_callback(self, method: str, began: int, status: int, error: str) -> None:
        """A callback was asked since then, and has answered with this status. 0: there is no answer; `error` says why."""
        if self._spans is None or (trace_id := self._spans.sample(None)) is None:
            return
        is_error = status >= _CLIENT_ERROR or not status
        attributes = _exchange(method, status) | ({"error.type": error or str(status)} if is_error else {})
        whole = Step("callback", began, time.perf_counter_ns(), attributes)
        self._spans.export_callback(Trace.begin(trace_id), whole, is_error)


def wanted_traces(
    environ: Mapping[str, str], request_id: Callable[[], str | None], worker: int | None
) -> Traces | None:
    """The traces that the environment asks for, not started yet. None: it asks for none."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporters = _exporters(environ)
    is_asked = exporters != ["none"] if exporters else bool(_endpoint(environ, default=""))
    return Traces(environ, request_id, worker) if is_asked else None


def _exchange(method: str, status: int) -> dict[str, str | int]:
    named = {"http.request.method": method if method in _METHODS else _OTHER_METHOD}
    return named | ({"http.response.status_code": status} if status else {})


def _exporters(environ: Mapping[str, str]) -> Sequence[str]:
    names = (name.strip().lower() for name in environ.get("OTEL_TRACES_EXPORTER", "").split(","))
    return [name for name in names if name]


def _endpoint(environ: Mapping[str, str], default: str = "http://localhost:4318") -> str:
    """The URL of the collector, or its base."""
    return next((environ[name] for name in _ENDPOINTS if environ.get(name)), default)


def _unsupported(environ: Mapping[str, str]) -> str:
    """What the environment asks for and the hub does not have, "" for nothing."""
    if _exporters(environ) not in ([], ["otlp"]):
        return "OTEL_TRACES_EXPORTER must be otlp or none"
    if not _endpoint(environ).startswith(("http://", "https://")):
        return f"{' and '.join(_ENDPOINTS)} must be http or https URLs"
    name = next((name for name in _PROTOCOLS if environ.get(name)), "")
    return f"{name} must be http/protobuf" if name and environ[name].strip().lower() != "http/protobuf" else ""
