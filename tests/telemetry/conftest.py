"""Fixtures of the tests of traces."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from fhircast_hub.http.protocol import HttpProtocol
from fhircast_hub.telemetry import spans as spans_module
from tests.running import RunningHub
from tests.telemetry.traces_world import Exported


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The levels of loggers belong to the process, which other tests share."""
    yield
    for name in spans_module._LOUD:
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Exported:
    """Hubs of this test have traces, which go into memory."""
    made = Exported()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setattr(spans_module, "OTLPSpanExporter", lambda session: made.memory)
    return made


@pytest.fixture(params=["direct", "asgi"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests take the direct way, or that of ASGI."""
    if request.param == "direct":
        monkeypatch.setattr(RunningHub, "remembers_all", True)
    else:
        monkeypatch.setattr(HttpProtocol, "_may_be_direct", lambda self: False)
