"""Traces of a hub in a process of its own, at a collector that takes them, hangs or is not there."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import pytest

from tests.collector import attributes, collector
from tests.ports import free_port
from tests.process.hub_process import HubProcess, IssuerThread, Visitor, hub_process
from tests.process.test_workers import crowd
from tests.process.workers_world import WorkersProcess, settings_of
from tests.running import event, until

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
#: Seconds that the hub has to end (OPS-3).
END = 10
#: Spans are exported at once: the end has a second for those that wait, which a busy machine may need for less.
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


async def publish_to_a_socket(hub: HubProcess, issuer: IssuerThread, events: int = 1) -> None:
    """Events, which a subscriber gets."""
    async with Visitor(hub, issuer.idp) as visitor:
        visitor.client.headers["traceparent"] = TRACEPARENT
        async with visitor.follow(await visitor.subscribe()) as follower:
            for number in range(events):
                assert (await visitor.publish(event("Patient-open", f"p{number}"))).status_code == 202
            assert len(await follower.names(events)) == events


@pytest.mark.req("OPS-26", "OPS-27", "OPS-28", "OPS-29", "SEC-11")
async def test_a_collector_gets_the_spans(tmp_path: Path, issuer: IssuerThread) -> None:
    """By OTLP over HTTP, at the path of the standard, and past a proxy."""
    with collector() as traces:
        proxy = f"http://127.0.0.1:{free_port()}"
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"{traces.url}/base?key=hunter2", "HTTP_PROXY": proxy}
        environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"{traces.url}/base/v1/traces"
        environ |= SOON
        with hub_process(tmp_path, environ=environ, issuers=issuer.settings) as hub:
            await publish_to_a_socket(hub, issuer)
            await until(lambda: {"publish", "decide", "commit", "write"} <= {span.name for span in traces.spans()})
            assert hub.stop() == 0
    assert traces.paths == {"/base/v1/traces"}
    [publish] = traces.spans("publish")
    assert (publish.trace_id.hex(), publish.parent_span_id.hex()) == tuple(TRACEPARENT.split("-")[1:3])
    steps = [span for span in traces.spans() if span.parent_span_id == publish.span_id]
    assert {(span.name, str(attributes(span.attributes))) for span in steps} == {
        ("decide", "{}"),
        ("commit", str({"fhircast.store": "sqlite"})),
        ("write", str({"fhircast.subscribers": 1})),
    }
    [line] = [line for line in hub.lines("request") if line.get("name") == "Patient-open"]
    told = attributes(publish.attributes)
    assert (told["fhircast.request_id"], told["fhircast.topic"]) == (line["request_id"], line["topic"])
    [started] = hub.lines("traces are on")
    assert started["url"] == traces.url
    assert {resource["service.name"] for resource in traces.resources()} == {"fhircast-hub"}
    assert "hunter2" not in hub.stdout


@pytest.mark.req("OPS-29", "OPS-3")
async def test_a_dead_collector_costs_one_line(tmp_path: Path, issuer: IssuerThread) -> None:
    """The hub serves as ever. Spans beyond the queue are dropped, and the end waits for nobody."""
    environ = {
        **{"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"},
        **{"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_BSP_MAX_QUEUE_SIZE": "16", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"},
        "OTEL_EXPORTER_OTLP_TIMEOUT": "0.01",
    }
    with hub_process(tmp_path, environ=environ, issuers=issuer.settings) as hub:
        await publish_to_a_socket(hub, issuer, 40)
        began = time.monotonic()
        assert hub.stop() == 0
        assert time.monotonic() - began < END
    assert len(hub.lines("traces are lost")) == 1
    assert hub.lines("library message") == []
    assert hub.stderr == ""


@pytest.mark.req("OPS-29", "OPS-3")
async def test_a_collector_that_hangs_holds_nothing_up(tmp_path: Path, issuer: IssuerThread) -> None:
    """It takes the connection, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        with hub_process(tmp_path, environ=environ, issuers=issuer.settings) as hub:
            await publish_to_a_socket(hub, issuer, 10)
            hub.send(signal.SIGTERM)
            began = time.monotonic()
            assert hub.ended() == 0
            assert time.monotonic() - began < END
    assert hub.stderr == ""


@pytest.mark.req("OPS-26", "NOD-15")
async def test_each_worker_exports_its_own_spans(tmp_path: Path, issuer: IssuerThread, database: str) -> None:
    with collector() as traces:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.url, "OTEL_SERVICE_NAME": "hub-east"} | SOON
        settings = settings_of(database, issuer)
        with WorkersProcess(tmp_path, 2, environ=environ, **settings) as workers:
            async with Visitor(workers.hub, issuer.idp) as visitor, crowd(workers, visitor):
                pass
            await until(lambda: {resource["fhircast.worker"] for resource in traces.resources()} == {0, 1})
            await until(lambda: bool(traces.spans("commit")))
            assert workers.hub.stop() == 0
    resources = traces.resources()
    assert {resource["fhircast.worker"] for resource in resources} == {0, 1}
    assert len({resource["service.instance.id"] for resource in resources}) == 2
    assert {resource["service.name"] for resource in resources} == {"hub-east"}
    assert {attributes(span.attributes)["fhircast.store"] for span in traces.spans("commit")} == {"postgresql"}
