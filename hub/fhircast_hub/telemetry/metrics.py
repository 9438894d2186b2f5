"""The hub's numbers for Prometheus. No label holds a topic, a name or an endpoint (SEC-1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric

from fhircast_hub.telemetry.counting import Count, CountOf, Durations, LabelledCount, LabelledGauge
from fhircast_hub.telemetry.logs import HIDDEN

#: Content type of Metrics.render().
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
#: Upper bounds of the histogram's buckets in seconds. A person notices no delay below the middle.
BOUNDS = (5e-05, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0)
#: A template such as /api/hub/{topic}. A path would bring a topic, and a time series for each topic.
_ROUTE = re.compile(r"[A-Za-z/{}_.:*-]{0,64}")

#: Numbers in a reason. Lengths of what came would bring a time series each.
_NUMBER = re.compile(r"\d+")


class _Registry(CollectorRegistry):
    """A registry that adds `labels` to every sample."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        super().__init__()
        self._labels = labels

    def collect(self) -> Iterable[Metric]:
        """All metrics, in the order of their registration."""
        for metric in super().collect():
            metric.samples = [sample._replace(labels={**sample.labels, **self._labels}) for sample in metric.samples]
            yield metric


class Metrics:
    """The hub's numbers, in a registry of their own: one process may run several hubs.

    A gauge is 0 until its `set_function()` is called.
    `worker` is the label of each sample where several workers are shown together.
    """

    def __init__(self, worker: int | None = None) -> None:
        self.registry = _Registry({} if worker is None else {"worker": str(worker)})
        # /metrics lists the numbers in this order.
        self._count_events()
        self._count_connections()
        self._count_nodes()
        self._measure()
        self._requests = LabelledCount("fhircast_requests", "Requests answered", ("route", "status"), self.registry)
        self._tokens_refused = LabelledCount(
            "fhircast_tokens_refused", "Requests refused with 401", ("issuer", "reason"), self.registry
        )
        about_issuer = partial(LabelledCount, labels=("issuer", "about"), registry=self.registry)
        self.issuer_requests = about_issuer(
            "fhircast_issuer_requests", "Times that an issuer was asked, for keys or about opaque tokens"
        )
        self.issuer_failures = about_issuer("fhircast_issuer_failures", "Times that an issuer gave no usable answer")
        of_issuer = partial(LabelledGauge, label="issuer", registry=self.registry)
        self.issuer_keys = of_issuer("fhircast_issuer_keys", "Usable keys of issuers")
        self.issuer_keys_age = of_issuer("fhircast_issuer_keys_age_seconds", "Seconds since keys were fetched last")
        #: The number of each route and status.
        self._by_route: dict[tuple[str, int], CountOf] = {}
        self.accepted_to_written = Durations(
            "fhircast_accepted_to_written_seconds",
            "From the acceptance of an event to the write on its sockets",
            BOUNDS,
            self.registry,
        )
        ProcessCollector(registry=self.registry)

    def _count_events(self) -> None:
        counter = partial(Count, registry=self.registry)
        self.events_in = counter("fhircast_events_received", "Events accepted from applications")
        self.events_out = counter("fhircast_events_sent", "Frames meant for sockets: events, confirmations and denials")
        self.frames_ignored = counter(
            "fhircast_frames_ignored", "Frames from applications that mean nothing to the hub"
        )
        self.acknowledgements = counter("fhircast_acknowledgements", "Acknowledgements of events, of any status")
        self.refusals = counter("fhircast_refusals", "Events that a subscriber refused or could not follow")
        self.unanswered = counter("fhircast_unanswered", "Times that a subscriber did not acknowledge an event in time")
        self.posts = counter("fhircast_posts", "Events that callbacks answered, or failed to in time")
        self.posts_failed = counter("fhircast_posts_failed", "Events that callbacks did not answer with 2xx")
        self.callbacks_refused = counter(
            "fhircast_callbacks_refused", "Subscriptions refused because their user brought many new callbacks"
        )

    def _count_nodes(self) -> None:
        counter = partial(Count, registry=self.registry)
        self.abandoned = counter(
            "fhircast_sessions_abandoned", "Sessions whose sockets were closed because this node missed a change"
        )
        self.unreadable = counter("fhircast_rows_unreadable", "Sessions or changes in the database that cannot be read")

    def _count_connections(self) -> None:
        counter = partial(Count, registry=self.registry)
        self.sockets_opened = counter("fhircast_sockets_opened", "WebSocket handshakes that were asked for")
        self.sockets_closed = counter("fhircast_sockets_closed", "WebSockets that ended, whichever side closed them")
        self.slow_readers_closed = counter(
            "fhircast_slow_readers_closed", "WebSockets closed because their queue was full"
        )
        self.floods_closed = counter("fhircast_floods_closed", "WebSockets closed for frames that acknowledge nothing")
        self.connections_cut = counter(
            "fhircast_connections_cut", "HTTP connections ended because they went beyond a budget"
        )
        self.pings_unanswered = counter(
            "fhircast_pings_unanswered", "WebSockets given up because no answer to a ping came"
        )
        self.refused_by_user_bytes = counter(
            "fhircast_refused_by_user_bytes", "Requests refused for the bytes of their user"
        )
        self.refused_by_hub_bytes = counter(
            "fhircast_refused_by_hub_bytes", "Requests refused for the bytes of all users"
        )
        self.audit_lost = counter("fhircast_audit_lost", "Audit entries that did not reach their sink")

    def _measure(self) -> None:
        gauge = partial(Gauge, registry=self.registry)
        self.sessions = gauge("fhircast_topics", "Sessions that are held")
        self.session_bytes = gauge(
            "fhircast_session_bytes", "Bytes that sessions take of the memory, counted from above"
        )
        self.max_session_bytes = gauge(
            "fhircast_max_session_bytes", "Bytes that sessions may take of the memory (MAX_BYTES)"
        )
        self.subscriptions = gauge("fhircast_subscriptions", "Subscriptions whose lease runs")
        self.sockets = gauge("fhircast_sockets", "Open WebSockets")
        self.queued_messages = gauge("fhircast_queue_messages", "Frames waiting for a socket to take them")
        self.queued_posts = gauge("fhircast_queue_posts", "Events waiting for callbacks")
        self.questions = gauge(
            "fhircast_callback_questions", "Callbacks that are being asked whether they want to be subscribed"
        )
        self.queued_bytes = gauge("fhircast_queue_bytes", "Bytes of the frames that wait")
        self._build = gauge("fhircast_build_info", "What runs, always 1", ("version", "python", "store")).labels

    def set_build(self, version: str, python: str, store: str) -> None:
        """Show the versions of the hub and of Python, and the kind of the store: sqlite, postgresql or memory (OPS-32)."""
        self._build(version, python, store).set(1)

    def answered(self, route: str, status: int) -> None:
        """Count an answered request. `route` is a word of the hub or the template of a path, never the path."""
        count = self._by_route.get((route, status))
        if count is None:
            label = route if _ROUTE.fullmatch(route) else HIDDEN
            count = self._by_route[route, status] = self._requests.of(label, str(status))
        count.inc()

    def token_refused(self, issuer: str, reason: str) -> None:
        """Count a refused token. `issuer` is one of the settings or "", `reason` a sentence without the client's text (OPS-17)."""
        self._tokens_refused.of(issuer, _NUMBER.sub("…", reason)).inc()

    def requests_by_route(self) -> dict[str, int]:
        """Requests answered so far, by route. Those with the same route and another status count together."""
        totals: dict[str, int] = {}
        for (route, _), count in self._by_route.items():
            label = route if _ROUTE.fullmatch(route) else HIDDEN
            totals[label] = totals.get(label, 0) + count.value
        return totals

    def render(self) -> bytes:
        """The text for /metrics."""
        return generate_latest(self.registry)
