"""Counters and histograms that cost little to count, for the way of an event.

Those of prometheus_client check their arguments and take a lock each time. The hub counts in one thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class Count(Collector):
    """A number that only grows. `about` says what is counted."""

    def __init__(self, name: str, about: str, registry: CollectorRegistry) -> None:
        self.name = name
        self._about = about
        self._value = 0
        registry.register(self)

    @property
    def value(self) -> int:
        """The number so far."""
        return self._value

    def inc(self, amount: int = 1) -> None:
        """Count one more, or `amount` more."""
        self._value += amount

    def collect(self) -> Iterable[Metric]:
        """The number, as prometheus_client asks for it."""
        return [CounterMetricFamily(self.name, self._about, self._value)]


class LabelledCount(Collector):
    """A number for each combination of the values of `labels`."""

    def __init__(self, name: str, about: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name = name
        self._about = about
        self._labels = labels
        self._counts: dict[tuple[str, ...], CountOf] = {}
        registry.register(self)

    def of(self, *values: str) -> CountOf:
        """The number for these values of the labels. Keep it: to find it costs more than to count."""
        return self._counts.setdefault(values, CountOf())

    def collect(self) -> Iterable[Metric]:
        """All numbers, as prometheus_client asks for them."""
        family = CounterMetricFamily(self._name, self._about, labels=self._labels)
        for values, count in self._counts.items():
            family.add_metric(values, count.value)
        return [family]


class CountOf:
    """One number of a LabelledCount."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        """Count one more."""
        self.value += 1


class LabelledGauge(Collector):
    """Numbers of the present, one for each value of `label`. There are none before `set_function`."""

    def __init__(self, name: str, about: str, label: str, registry: CollectorRegistry) -> None:
        self._name = name
        self._about = about
        self._label = label
        self._numbers: Callable[[], Mapping[str, float]] = dict
        registry.register(self)

    def set_function(self, numbers: Callable[[], Mapping[str, float]]) -> None:
        """`numbers` returns the present number for each value of the label."""
        self._numbers = numbers

    def collect(self) -> Iterable[Metric]:
        """All numbers, as prometheus_client asks for them."""
        family = GaugeMetricFamily(self._name, self._about, labels=(self._label,))
        for value, number in self._numbers().items():
            family.add_metric((value,), number)
        return [family]


class Durations(Collector):
    """A histogram of durations. `bounds` are the upper bounds of its buckets, in seconds."""

    def __init__(self, name: str, about: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._about = about
        self._bounds = bounds
        #: Durations in each bucket; the last are longer than all bounds.
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterable[Metric]:
        """The histogram, as prometheus_client asks for it: each bucket counts the shorter durations too."""
        buckets, total = [], 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return [HistogramMetricFamily(self._name, self._about, buckets, self._sum)]
