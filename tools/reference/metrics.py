"""docs/reference/metrics.md: the metrics of the hub, from its own registry, and what an operator watches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from prometheus_client import ProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from fhircast_hub.telemetry.gathering import _UP
from fhircast_hub.telemetry.metrics import BOUNDS, Metrics
from tools.reference.markdown import code, codes, head, table

#: By metric, what its numbers say to an operator. Each metric has an entry.
WATCH = {
    "fhircast_events_received_total": "The load. None over a working day means that no application publishes.",
    "fhircast_events_sent_total": "Divided by the events received: how many follow each event.",
    "fhircast_frames_ignored_total": "A rise after an update of an application: the application sends other messages.",
    "fhircast_acknowledgements_total": "The load. Any status counts.",
    "fhircast_refusals_total": "Unsaved work is a refusal. A sudden rise is worth a look.",
    "fhircast_unanswered_total": "A rise: an application hangs, or a network is slow.",
    "fhircast_posts_total": "The load of callbacks.",
    "fhircast_posts_failed_total": "More than one post in five: a server-side application is down.",
    "fhircast_callbacks_refused_total": "Above 0: an application makes a new callback for each subscription.",
    "fhircast_sockets_opened_total": "A high rate beside few open sockets: applications reconnect again and again.",
    "fhircast_sockets_closed_total": "A high rate beside few open sockets: applications reconnect again and again.",
    "fhircast_slow_readers_closed_total": "Above a few: applications do not read what they are sent.",
    "fhircast_floods_closed_total": "Above 0: an application sends what no hub reads.",
    "fhircast_connections_cut_total": "Above a few: a proxy keeps connections open, or somebody attacks.",
    "fhircast_pings_unanswered_total": "A steady rate: wireless networks, sleeping machines, or a gateway that cuts connections.",
    "fhircast_refused_by_user_bytes_total": "Above 0: an application of one user shares too much.",
    "fhircast_refused_by_hub_bytes_total": "Above 0: page somebody. Raise FHIRCAST_MAX_BYTES.",
    "fhircast_audit_lost_total": "Above 0: page somebody. The trail has gaps.",
    "fhircast_sessions_abandoned_total": "Rises when a node or the database fails. Else 0.",
    "fhircast_rows_unreadable_total": "Above 0 outside of an upgrade: somebody else writes into the tables.",
    "fhircast_topics": "Some for each user at work. A steady rise over days: applications do not unsubscribe.",
    "fhircast_session_bytes": "Over 80 % of the next metric: raise FHIRCAST_MAX_BYTES in time.",
    "fhircast_max_session_bytes": "The bound of the metric before.",
    "fhircast_subscriptions": "Above the sockets and callbacks: applications that left without unsubscribing. They count until their lease ends.",
    "fhircast_sockets": "Half of them gone within ten minutes: a proxy or the network failed.",
    "fhircast_queue_messages": "Near 0. A steady rise: readers are slow.",
    "fhircast_queue_posts": "Near 0. A steady rise: callbacks are slow.",
    "fhircast_callback_questions": "Near 0. A steady number: callbacks do not answer the verification.",
    "fhircast_queue_bytes": "As the frames that wait.",
    "fhircast_build_info": "Which versions run where, during an upgrade.",
    "fhircast_requests_total": "Statuses 5xx: page somebody. Statuses 429: an application works too fast.",
    "fhircast_tokens_refused_total": "A rise at one issuer: new keys, another audience, or a wrong clock. The reason says which.",
    "fhircast_issuer_requests_total": "The load that the hub makes at an issuer.",
    "fhircast_issuer_failures_total": "Above a few: the issuer, or the way there, fails.",
    "fhircast_issuer_keys": "0: no JWT of this issuer can be verified.",
    "fhircast_issuer_keys_age_seconds": "Over an hour: the refresh fails. Known keys go on working.",
    "fhircast_accepted_to_written_seconds": "The 99th percentile over 0.5 s: look at the processor and at the database.",
    "fhircast_worker_up": "0 for two minutes: the log has the reason.",
}


class Known(NamedTuple):
    """A metric: its name at /metrics, its type, its labels and its help text."""

    name: str
    kind: str
    labels: Sequence[str]
    about: str


def known() -> list[Known]:
    """The hub's own metrics, in the order of /metrics. Last, the one that only several workers have."""
    (up,) = text_string_to_metric_families(_UP.decode())
    found = [*_of(Metrics()), Known(up.name, up.type, ["worker"], up.documentation)]
    return [metric for metric in found if metric.name.startswith("fhircast_")]


def _of(metrics: Metrics) -> Iterator[Known]:
    collectors: dict[Any, Any] = metrics.registry._collector_to_names
    for collector in collectors:
        yield from _of_collector(collector)


def _of_collector(collector: Any) -> Iterator[Known]:
    for family in collector.collect():
        labels = getattr(collector, "_labelnames", None) or getattr(family, "_labelnames", None) or ()
        suffix = "_total" if family.type == "counter" else ""
        yield Known(f"{family.name}{suffix}", family.type, list(labels), family.documentation)


def of_the_process() -> list[Known]:
    """Those that prometheus_client adds about the process. Their names are the same in each program."""
    return list(_of_collector(ProcessCollector(registry=None)))


def page() -> str:
    """The page. Raises LookupError for a metric without an entry in WATCH."""
    metrics = known()
    rows = [
        (code(metric.name), metric.kind, codes(metric.labels), f"{metric.about}.", WATCH[metric.name])
        for metric in metrics
    ]
    process = [(code(metric.name), f"{metric.about.removesuffix('.')}.") for metric in of_the_process()]
    return (
        head("Metrics", "tools/reference/metrics.py")
        + _INTRO
        + table(("metric", "type", "labels", "meaning", "what to watch"), rows)
        + _MORE.format(bounds=", ".join(f"{bound:g}" for bound in BOUNDS))
        + table(("metric", "meaning"), process)
        + _END
    )


_INTRO = """
The hub shows these numbers at `/metrics`, at the root and without a token ([OPS-1](../behaviour.md#ops-1)).
The format is Prometheus text. No label holds a topic, a user, an endpoint or a patient ([SEC-1](../behaviour.md#sec-1)).
[Alerts with Prometheus](../how-to/alerts.md) has rules for the numbers that matter.

A counter begins with 0 at each start of the hub, so use `rate()` or `increase()`. Metrics with labels are there once they have a value.
"""
_MORE = """Several workers are shown together ([OPS-15](../behaviour.md#ops-15)). Each sample then has the label `worker` as well.

## Labels

- `route` is a word of the hub, or the template of a path.
- `status` is the HTTP status of the answer.
- `issuer` is the issuer as the settings name it. The label is empty where a token names no known issuer.
- `reason` is the refusal without the client's text. `…` stands for numbers.
- `about` is `keys` or `introspection`.
- `store` is `sqlite`, `postgresql` or `memory`.

## Buckets

`fhircast_accepted_to_written_seconds` has buckets up to these seconds: `{bounds}`.
The time begins when the hub has accepted an event. The time ends when the frames were handed to the sockets.

## The process

The library of Prometheus adds these numbers about the process, on Linux:
"""
_END = """Watch `process_open_fds` beside `process_max_fds`: each WebSocket takes a descriptor.
"""
