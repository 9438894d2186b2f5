"""Traces: which variables ask for them, and what a span never holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fhircast_hub.telemetry.traces import Traces, wanted_traces
from tests.process.hub_process import environment
from tests.telemetry.traces_world import (
    COLLECTOR,
    Exported,
    attributes,
)


@pytest.mark.req("OPS-26")
@pytest.mark.parametrize(
    ("environ", "is_on"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "hub"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{COLLECTOR}/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": COLLECTOR}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": " OTLP "}, True),
        ({"OTEL_TRACES_EXPORTER": "", "OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR}, False),
        ({"OTEL_SDK_DISABLED": "True", "OTEL_TRACES_EXPORTER": "otlp"}, False),
        ({"OTEL_SDK_DISABLED": "false", "OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_the_variables_of_opentelemetry_ask_for_traces(environ: dict[str, str], is_on: bool) -> None:
    assert (wanted_traces(environ, lambda: None, None) is not None) == is_on


@pytest.mark.req("OPS-26")
@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER must be otlp or none"),
        ({"OTEL_TRACES_EXPORTER": "otlp,console"}, "OTEL_TRACES_EXPORTER must be otlp or none"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL must be http/protobuf",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "user:hunter2@collector:4317"},
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_EXPORTER_OTLP_ENDPOINT must be http or https URLs",
        ),
    ],
)
def test_what_the_hub_cannot_export_is_said(environ: dict[str, str], reason: str) -> None:
    """One line says so, and the hub serves without traces."""
    traces = wanted_traces(environ, lambda: "r-1", None)
    assert traces is not None
    with capture_logs() as lines:
        traces.start()
    assert lines == [{"log_level": "warning", "event": "traces are off", "reason": reason}]
    assert traces.begin("r-1", []) is None


@pytest.mark.req("OPS-26")
def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API of opentelemetry is there as somebody's dependency, and its SDK is not."""
    monkeypatch.delitem(sys.modules, "fhircast_hub.telemetry.spans")
    for name in [name for name in sys.modules if name.startswith("opentelemetry.sdk")]:
        monkeypatch.setitem(sys.modules, name, None)
    traces = Traces({"OTEL_TRACES_EXPORTER": "otlp"}, lambda: None, None)
    with capture_logs() as lines:
        traces.start()
    reason = "opentelemetry-sdk is missing: pip install 'fhircast-hub[otel]'"
    assert lines == [{"log_level": "warning", "event": "traces are off", "reason": reason}]


@pytest.mark.req("OPS-26")
def test_a_wrong_variable_stops_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1")
    traces = Traces({"OTEL_TRACES_EXPORTER": "otlp"}, lambda: None, None)
    with capture_logs() as lines:
        traces.start()
    assert [(line["event"], line["reason"]) for line in lines] == [
        ("traces are off", "opentelemetry refuses a variable OTEL_...")
    ]


@pytest.mark.req("OPS-26")
def test_without_these_variables_opentelemetry_is_not_imported(tmp_path: Path) -> None:
    """The SDK would take a quarter of a second."""
    program = (
        "import sys; from fhircast_hub.starting import Hub; from fhircast_hub.settings.settings import Settings;"
        "hub = Hub(Settings(store='memory:'));"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'requests'))])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")


@pytest.mark.req("OPS-27")
def test_what_is_no_hash_is_hidden(exported: Exported) -> None:
    """A topic in clear, by a mistake of the hub, does not leave the process."""
    traces = Traces({}, lambda: "r-1", None)
    traces.start()
    recording = traces.begin("r-1", [])
    assert recording is not None
    recording.end("Quastenflosser", 200, {"route": "publish", "topic": "Quastenflosser"})
    assert traces._spans is not None
    traces._spans._processor.force_flush()
    [span] = exported.memory.get_finished_spans()
    assert attributes(span)["fhircast.topic"] == "hidden"
    assert attributes(span)["http.request.method"] == "_OTHER"
    assert "Quastenflosser" not in span.to_json()
