"""Metrics: the hub's numbers as Prometheus reads them."""

from __future__ import annotations

import http
import re
from functools import partial

import pytest
from prometheus_client import Gauge
from prometheus_client.parser import text_string_to_metric_families

from fhircast_hub.telemetry.counting import Count
from fhircast_hub.telemetry.logs import HIDDEN
from fhircast_hub.telemetry.metrics import BOUNDS, CONTENT_TYPE, Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Each sample's value by name and labels, as Prometheus reads them."""
    families = text_string_to_metric_families(metrics.render().decode())
    read = [sample for family in families for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in read}


@pytest.mark.req("OPS-1")
def test_each_counter_and_gauge_is_read_as_it_is_counted() -> None:
    metrics = Metrics()
    counters = [each for each in vars(metrics).values() if isinstance(each, Count)]
    gauges = [each for each in vars(metrics).values() if isinstance(each, Gauge)]
    for number, counter in enumerate(counters, 1):
        counter.inc(number)
    for number, gauge in enumerate(gauges, 100):
        gauge.set_function(partial(float, number))
    read = {name: value for (name, labels), value in samples(metrics).items() if not labels}
    assert [read[f"{counter.name}_total"] for counter in counters] == [*range(1, len(counters) + 1)]
    assert [read[gauge._name] for gauge in gauges] == [*range(100, 100 + len(gauges))]
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


#: The names and types of all metrics of the hub. Operators' dashboards rely on them.
LISTED = """
    acknowledgements_total=counter audit_lost_total=counter build_info=gauge callback_questions=gauge callbacks_refused_total=counter
    connections_cut_total=counter events_received_total=counter events_sent_total=counter floods_closed_total=counter
    frames_ignored_total=counter max_session_bytes=gauge pings_unanswered_total=counter posts_failed_total=counter
    posts_total=counter queue_bytes=gauge queue_messages=gauge queue_posts=gauge refusals_total=counter
    rows_unreadable_total=counter sessions_abandoned_total=counter
    refused_by_hub_bytes_total=counter refused_by_user_bytes_total=counter requests_total=counter session_bytes=gauge
    slow_readers_closed_total=counter sockets=gauge sockets_closed_total=counter sockets_opened_total=counter
    subscriptions=gauge topics=gauge unanswered_total=counter accepted_to_written_seconds=histogram
    issuer_failures_total=counter issuer_keys=gauge issuer_keys_age_seconds=gauge issuer_requests_total=counter
    tokens_refused_total=counter
"""


@pytest.mark.req("OPS-1")
def test_the_numbers_keep_their_names_and_types() -> None:
    """The library's `_created` series stay out too. Two hubs of one process leave the process's other metrics alone."""
    found = re.findall("^# TYPE fhircast_([a-z_]+) ([a-z]+)$", Metrics().render().decode(), re.MULTILINE)
    assert sorted(f"{name}={kind}" for name, kind in found) == sorted(LISTED.split())
    assert "_created" not in Metrics().render().decode()


@pytest.mark.req("OPS-1")
def test_metrics_without_anything_counted_are_zero() -> None:
    read = samples(Metrics())
    assert {value for (name, _), value in read.items() if name.startswith("fhircast_")} == {0.0}
    assert read["process_open_fds", ()] > 0


@pytest.mark.req("OPS-32")
@pytest.mark.parametrize("worker", [None, 3])
def test_what_runs_is_a_label_of_one(worker: int | None) -> None:
    metrics = Metrics(worker)
    metrics.set_build("1.2.3", "3.11.9", "sqlite")
    labels = {"version": "1.2.3", "python": "3.11.9", "store": "sqlite"} | ({"worker": "3"} if worker else {})
    shown = {key: value for key, value in samples(metrics).items() if key[0] == "fhircast_build_info"}
    assert shown == {("fhircast_build_info", tuple(sorted(labels.items()))): 1.0}


@pytest.mark.req("SEC-1")
def test_a_path_does_not_become_a_label() -> None:
    metrics = Metrics()
    for route in ("/api/hub/{topic}", "/api/hub/{topic}", "/api/hub/fdb2f928-5546", "/api/hub/room-12"):
        metrics.answered(route, 200)
    for _ in range(3):
        metrics.answered("publish", http.HTTPStatus.ACCEPTED)
    counted = {labels: value for (name, labels), value in samples(metrics).items() if name == "fhircast_requests_total"}
    assert counted == {
        (("route", "/api/hub/{topic}"), ("status", "200")): 2,
        (("route", "publish"), ("status", "202")): 3,
        (("route", HIDDEN), ("status", "200")): 2,
    }


def test_the_histogram_counts_a_time_in_its_bucket_and_all_above() -> None:
    metrics = Metrics()
    for seconds in (0.0, 5e-05, 6e-05, 1.0, 1.5):
        metrics.accepted_to_written.observe(seconds)
    read = samples(metrics)
    name = "fhircast_accepted_to_written_seconds"
    assert read[f"{name}_bucket", (("le", "5e-05"),)] == 2
    assert read[f"{name}_bucket", (("le", "0.0001"),)] == 3
    assert read[f"{name}_bucket", (("le", "1.0"),)] == 4
    assert read[f"{name}_bucket", (("le", "+Inf"),)] == read[f"{name}_count", ()] == 5
    assert read[f"{name}_sum", ()] == pytest.approx(2.50011)
    assert sorted(BOUNDS) == list(BOUNDS)
