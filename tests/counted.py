"""The value of one of the hub's numbers, and the living objects of a type."""

from __future__ import annotations

import gc
from typing import TypeVar

from prometheus_client import Gauge

from fhircast_hub.telemetry.counting import Count

Kind = TypeVar("Kind")


def counted(metric: Count | Gauge) -> float:
    """The value of a metric without labels, as /metrics shows the value."""
    (family,) = metric.collect()
    return family.samples[0].value


def alive(kind: type[Kind]) -> list[Kind]:
    """The objects of this very type that the garbage collector knows, garbage too."""
    return [each for each in gc.get_objects() if type(each) is kind]  # isinstance asks a weak proxy for what is gone
