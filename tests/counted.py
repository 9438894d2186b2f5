"""The value of one of the hub's numbers, the living objects of a type, and a hub's connections."""

from __future__ import annotations

import gc
from typing import TypeVar

from prometheus_client import Gauge

from fhircast_hub.http.protocol import HttpProtocol
from fhircast_hub.telemetry.counting import Count
from tests.running import RunningHub

Kind = TypeVar("Kind")


def counted(metric: Count | Gauge) -> float:
    """The value of a metric without labels, as /metrics shows the value."""
    (family,) = metric.collect()
    return family.samples[0].value


def alive(kind: type[Kind]) -> list[Kind]:
    """The objects of this very type that the garbage collector knows, garbage too."""
    return [each for each in gc.get_objects() if type(each) is kind]  # isinstance asks a weak proxy for what is gone


def connections_of(hub: RunningHub) -> list[HttpProtocol]:
    """The hub's connections that have not ended."""
    return [each for each in alive(HttpProtocol) if each.app is hub.hub and not each._ended]
