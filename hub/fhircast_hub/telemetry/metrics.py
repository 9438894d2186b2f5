"""The hub's numbers for Prometheus. No label holds a topic, a name or an endpoint (SEC-1)."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from fhircast_hub.telemetry.logs import HIDDEN

#: Content type of Metrics.render().
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


#: Attributes of Metrics that only grow, the name Prometheus knows them by, and what they count.
COUNTERS = (
    ("events_in", "fhircast_events_received", "Events accepted from applications"),
    ("events_out", "fhircast_events_sent", "Frames meant for sockets: events, confirmations and denials"),
    ("frames_ignored", "fhircast_frames_ignored", "Frames from applications that mean nothing to the hub"),
    ("acknowledgements", "fhircast_acknowledgements", "Acknowledgements of events, of whatever status"),
    ("refusals", "fhircast_refusals", "Events that a subscriber refused or could not follow"),
    ("unanswered", "fhircast_unanswered", "Times that a subscriber did not acknowledge what it was told"),
    ("posts", "fhircast_posts", "Events that callbacks answered, or failed to in time"),
    ("posts_failed", "fhircast_posts_failed", "Those of them that were not answered by 2xx"),
    (
        "callbacks_refused",
        "fhircast_callbacks_refused",
        "Subscriptions refused because their user brought many new callbacks",
    ),
    ("sockets_opened", "fhircast_sockets_opened", "WebSocket handshakes that were asked for"),
    ("sockets_closed", "fhircast_sockets_closed", "WebSockets ended, by whomever"),
    ("slow_readers_closed", "fhircast_slow_readers_closed", "WebSockets closed because their queue was full"),
    ("floods_closed", "fhircast_floods_closed", "WebSockets closed for frames that acknowledge nothing"),
    ("connections_cut", "fhircast_connections_cut", "HTTP connections ended because they went beyond a budget"),
    ("pings_unanswered", "fhircast_pings_unanswered", "WebSockets given up because they did not answer a ping"),
    ("refused_by_user_bytes", "fhircast_refused_by_user_bytes", "Requests refused for the bytes of their user"),
    ("refused_by_hub_bytes", "fhircast_refused_by_hub_bytes", "Requests refused for the bytes of all users"),
)


#: Attributes of Metrics that are asked when the numbers are read.
GAUGES = (
    ("sessions", "fhircast_topics", "Sessions that are held"),
    ("session_bytes", "fhircast_session_bytes", "Bytes that sessions take of the memory, counted from above"),
    ("max_session_bytes", "fhircast_max_session_bytes", "Bytes that they may take (MAX_BYTES)"),
    ("subscriptions", "fhircast_subscriptions", "Subscriptions whose lease runs"),
    ("sockets", "fhircast_sockets", "Open WebSockets"),
    ("queued_messages", "fhircast_queue_messages", "Frames waiting for a socket to take them"),
    ("queued_posts", "fhircast_queue_posts", "Events waiting for callbacks"),
    ("questions", "fhircast_callback_questions", "Callbacks that are being asked whether they want to be subscribed"),
    ("queued_bytes", "fhircast_queue_bytes", "Bytes of the frames that wait"),
)


#: Upper bounds in seconds, each about twice the one before; a person notices nothing below the middle.
BOUNDS = (5e-05, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0)


#: A template such as /api/hub/{topic}. A path that slipped in would bring a topic, and a time series for each.
_ROUTE = re.compile(r"[A-Za-z/{}_.:*-]{0,64}")


#: Answers how much there is now.
Gauge = Callable[[], int]


class Histogram:
    """How often a time fell between two of BOUNDS. Counting costs a bisection."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._sum += seconds

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        """As Prometheus wants it: each bucket includes those before it."""
        bounds = (*(str(bound) for bound in BOUNDS), "+Inf")
        return HistogramMetricFamily(
            name, text, buckets=[*zip(bounds, accumulate(self._counts), strict=True)], sum_value=self._sum
        )


class Metrics(Collector):
    """The hub's numbers: plain attributes, put in Prometheus' form only when it asks.

    Count with `metrics.events_in += 1` (COUNTERS), `metrics.requests[route, status] += 1` and
    `metrics.accepted_to_written.observe(seconds)`; whoever knows sets the gauges: `metrics.sockets = lambda: len(sockets)`.
    No label holds a topic, a name or an endpoint (SEC-1).
    """

    def __init__(self) -> None:
        self.events_in = 0
        self.events_out = 0
        self.frames_ignored = 0
        self.acknowledgements = 0
        self.refusals = 0
        self.unanswered = 0
        self.posts = 0
        self.posts_failed = 0
        self.callbacks_refused = 0
        self.sockets_opened = 0
        self.sockets_closed = 0
        self.slow_readers_closed = 0
        self.floods_closed = 0
        self.connections_cut = 0
        self.pings_unanswered = 0
        self.refused_by_user_bytes = 0
        self.refused_by_hub_bytes = 0
        #: by (route, status); the route is a word of ours or the template of a path, never the path
        self.requests: Counter[tuple[str, int]] = Counter()
        self.accepted_to_written = Histogram()
        self.audit_lost: Gauge = int
        self.sessions: Gauge = int
        self.session_bytes: Gauge = int
        self.max_session_bytes: Gauge = int
        self.subscriptions: Gauge = int
        self.sockets: Gauge = int
        self.queued_messages: Gauge = int
        self.queued_posts: Gauge = int
        self.questions: Gauge = int
        self.queued_bytes: Gauge = int
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client calls."""
        for attribute, name, text in COUNTERS:
            yield CounterMetricFamily(name, text, value=getattr(self, attribute))
        yield CounterMetricFamily(
            "fhircast_audit_lost", "Audit entries that did not reach their sink", value=self.audit_lost()
        )
        for attribute, name, text in GAUGES:
            yield GaugeMetricFamily(name, text, value=getattr(self, attribute)())
        yield self._requests()
        yield self.accepted_to_written.family(
            "fhircast_accepted_to_written_seconds", "From the acceptance of an event to the write on its sockets"
        )

    def _requests(self) -> CounterMetricFamily:
        totals: Counter[tuple[str, int]] = Counter()
        for (route, status), count in self.requests.items():
            totals[route if _ROUTE.fullmatch(route) else HIDDEN, status] += count
        family = CounterMetricFamily("fhircast_requests", "Requests answered", labels=("route", "status"))
        for (route, status), count in totals.items():
            family.add_metric((route, str(status)), count)
        return family

    def render(self) -> bytes:
        """The text for /metrics."""
        return generate_latest(self._registry)
