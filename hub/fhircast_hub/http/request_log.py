"""One log line and one audit entry for each HTTP request. The answer and all lines of a request share an id (OPS-2).

`RequestLog.begin` and `end` are for every adapter: the middleware below, and the direct way (http/direct.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

from fhircast_hub.audit.event import AuditEntry
from fhircast_hub.budgets.meter import MeteredCoroutine
from fhircast_hub.http.errors import refuse, stopping
from fhircast_hub.http.exchange import EXCHANGE, Exchange
from fhircast_hub.http.request import Headers, Message, Receive, Scope, Send, respond
from fhircast_hub.service.ports import Clock
from fhircast_hub.service.request_id import REQUEST_ID
from fhircast_hub.telemetry.logs import log_request
from fhircast_hub.telemetry.metrics import Metrics
from fhircast_hub.telemetry.traces import Traces


class RequestLog:
    """Logs, counts and meters each request. ASGI middleware around `app`. `on_step` gets the seconds of each step.

    `audit` gets the audit entries. None: there is no audit trail. `traces`: None where traces are off.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]],
        request_ids: Iterator[str],
        metrics: Metrics,
        clock: Clock,
        audit: Callable[[AuditEntry], None] | None,
        on_step: Callable[[float], None],
        traces: Traces | None = None,
    ) -> None:
        self._app = app
        self._on_step = on_step
        self._request_ids = request_ids
        self._metrics = metrics
        self._clock = clock
        self._audit = audit
        self._traces = traces

    def begin(self, address: str, headers: Iterable[tuple[bytes, bytes]]) -> Exchange:
        """A request begins. `address` is its client's, "" where there is none."""
        request_id = next(self._request_ids)
        REQUEST_ID.set(request_id)
        exchange = Exchange(request_id, address, self._on_step)
        if self._traces is not None:
            exchange.recording = self._traces.begin(request_id, headers)
        return exchange

    def end(self, exchange: Exchange, method: str, status: int) -> None:
        """The request was answered with this status."""
        fields = exchange.log_fields
        self._metrics.answered(str(fields["route"]), status)
        if refused := exchange.refused_token:
            self._metrics.token_refused(*refused)
        milliseconds = round((time.perf_counter() - exchange.began) * 1000, 3)
        log_request(exchange.request_id, method, status, milliseconds, fields)
        if self._audit is not None:
            entry = exchange.audit_fields.entry(self._clock(), status, fields)
            if entry is not None:
                self._audit(entry)
        if exchange.recording is not None:
            exchange.recording.end(method, status, fields)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self.begin(str(scope["client"][0]) if scope.get("client") else "", scope["headers"])
        scope[EXCHANGE] = exchange
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", exchange.request_id.encode())]
            await send(message)

        try:
            await MeteredCoroutine(self._app(scope, receive, send_with_id), exchange.meter)
        except asyncio.CancelledError:  # the server stops, and does not wait any longer
            if status:
                raise
            await respond(send_with_id, refuse(stopping(), exchange, Headers(scope["headers"])))
        finally:
            if status:  # otherwise the client disconnected
                self.end(exchange, scope["method"], status)
