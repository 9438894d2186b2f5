"""The value of one of the hub's numbers."""

from __future__ import annotations

from prometheus_client import Gauge

from fhircast_hub.telemetry.counting import Count


def counted(metric: Count | Gauge) -> float:
    """The value of a metric without labels, as /metrics shows the value."""
    (family,) = metric.collect()
    return family.samples[0].value
