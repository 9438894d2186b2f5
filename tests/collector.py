"""A collector of OpenTelemetry on the loopback interface: what hubs export by OTLP over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """`bodies` are the requests so far. While `open` is cleared, requests are kept waiting."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: set[str] = set()
        self.open = threading.Event()
        self.open.set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def requests(self) -> list[ExportTraceServiceRequest]:
        """What came, decoded."""
        return [ExportTraceServiceRequest.FromString(body) for body in list(self.bodies)]

    def resources(self) -> list[dict[str, Any]]:
        """The attributes of each resource that exported spans."""
        return [attributes(part.resource.attributes) for request in self.requests() for part in request.resource_spans]

    def spans(self, name: str = "") -> list[Span]:
        """The spans that came, or those of this name."""
        return [
            span
            for request in self.requests()
            for part in request.resource_spans
            for scope in part.scope_spans
            for span in scope.spans
            if name in ("", span.name)
        ]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.paths.add(self.path)
                collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                collector.open.wait()
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        return Handler


def attributes(pairs: Any) -> dict[str, Any]:
    """The attributes of a span or a resource. Values are texts and whole numbers."""

    def value(pair: KeyValue) -> Any:
        return pair.value.string_value if pair.value.HasField("string_value") else pair.value.int_value

    return {pair.key: value(pair) for pair in pairs}


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector that runs within the block."""
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        made.open.set()
        made.server.shutdown()
        thread.join()
        made.server.server_close()
