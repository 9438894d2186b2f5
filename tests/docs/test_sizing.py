"""docs/how-to/sizing.md: its figures are those that docs/benchmarks.md measured, and its example is computed from these."""

from __future__ import annotations

import re

import pytest

from fhircast_hub.telemetry.metrics import Metrics
from tools.site import ROOT

SIZING = (ROOT / "docs" / "how-to" / "sizing.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
#: How far a figure may be from that of the last measurement, which differs from run to run.
TOLERANCE = 0.25


def number(pattern: str, text: str) -> float:
    """The number in the group of the pattern, which stands once in the text."""
    (found,) = re.findall(pattern, text)
    return float(found.replace(",", ""))


def quoted(row: str) -> float:
    """The figure of a row of the table of measurements, or of a table of the example."""
    return number(rf"\| {re.escape(row)} \|(?:[^|\n]*\|)? ([\d.,]+)", SIZING)


#: By row of the page: where docs/benchmarks.md has the figure, and what the page's unit is of that unit.
MEASURED = {
    "sessions with 4 applications each, at the same time": (r"carries ([\d,]+) sessions", 1.0),
    "open WebSockets, at the same time": (r"sessions with ([\d,]+) sockets", 1.0),
    "events a second, each to 4 applications, with p99 below 50 ms": (r"and ([\d,]+) events a second", 1.0),
    "CPU for one event and its 4 deliveries": (r"250 topics \|[^:]*: ([\d,]+) \(", 1e-3),
    "CPU for the pings of 10,000 idle WebSockets": (r"the pings took ([\d]+)% of the core", 1.0),
    "memory of the process without WebSockets": (r"MB of the process without \| ([\d.]+) ", 1.0),
    "memory for each WebSocket": (r"kB per connection \| ([\d.]+) ", 1.0),
    "memory after 1,000,000 events, with 250 sessions": (r"after a tenth of the events \|[^:]*: ([\d]+) / ", 1.0),
}


@pytest.mark.parametrize("row", MEASURED)
def test_a_figure_is_the_measured_one(row: str) -> None:
    pattern, unit = MEASURED[row]
    assert quoted(row) == pytest.approx(number(pattern, BENCHMARKS) * unit, rel=TOLERANCE)


def test_the_example_is_computed_from_the_figures() -> None:
    sessions, applications = quoted("of these with a session at the same time"), quoted("applications in each session")
    sockets = sessions * applications
    events = sessions * quoted("patients that each opens in a minute") * 2 / 60
    assert quoted("WebSockets") == sockets
    assert quoted("events a second") == round(events)
    assert quoted("CPU for events") == round(events * quoted("CPU for one event and its 4 deliveries") / 10)
    pings = quoted("CPU for the pings of 10,000 idle WebSockets")
    assert quoted("CPU for pings") == round(sockets / 10_000 * pings)
    memory = quoted("memory of the process without WebSockets") + sockets * quoted("memory for each WebSocket") / 1000
    assert quoted("memory") == round(memory)
    assert quoted("lines of the log, at 200 bytes for each request") == round(events * 200 / 1000)
    used = quoted("CPU for events") + quoted("CPU for pings")
    assert 100 / 6 - 3 < used < 100 / 6  # "five sixths to spare"


def test_the_metrics_exist() -> None:
    known = Metrics().render().decode()
    for name in re.findall(r"`((?:fhircast|process)_\w+)`", SIZING):
        assert f"# TYPE {name} " in known, name
