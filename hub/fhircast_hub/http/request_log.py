"""One log line and one audit entry for each HTTP request. The answer and all lines of a request share an id (OPS-2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

import structlog

from fhircast_hub.audit.event import Act, AuditEntry
from fhircast_hub.budgets.meter import Meter, MeteredCoroutine
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.http.request import Message, Receive, Scope, Send
from fhircast_hub.service.ports import Clock
from fhircast_hub.service.request_id import REQUEST_ID
from fhircast_hub.telemetry.metrics import Metrics

_log = structlog.get_logger()
#: Keys of an ASGI scope. The application fills the log's fields and the AuditFields, and sets the account of the Meter.
LOG_FIELDS, AUDIT_FIELDS, METER = "fhircast.log", "fhircast.audit", "fhircast.meter"


class AuditFields:
    """The audit entry of a request, as far as the request has been read."""

    def __init__(self, address: str = "") -> None:
        #: The client's address.
        self.address = address
        #: None: the request needs no audit entry.
        self.act: Act | None = None
        #: None: no principal is known.
        self.principal: Principal | None = None
        #: The event's name, or the names of a subscription with commas between them.
        self.event = ""
        #: References such as Patient/1.
        self.patients: tuple[str, ...] = ()

    def entry(self, at: float, status: int, log_fields: Mapping[str, object]) -> AuditEntry | None:
        """The entry for an answer with this status, or None. `at` is in epoch seconds."""
        if self.act is None:
            return None
        principal = self.principal
        return AuditEntry(
            act=self.act,
            at=at,
            topic=str(log_fields.get("topic", "")),
            issuer=principal.issuer if principal else "",
            user=(principal.user or "") if principal else "",
            client=principal.client if principal else "",
            address=self.address,
            event=self.event,
            patients=self.patients,
            status=status,
            reason=str(log_fields.get("reason", "")),
        )


class RequestLog:
    """ASGI middleware that logs, counts and meters each request. `on_step` gets the seconds of each step."""

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]],
        request_ids: Iterator[str],
        metrics: Metrics,
        clock: Clock,
        audit: Callable[[AuditEntry], None],
        on_step: Callable[[float], None],
    ) -> None:
        self._app = app
        self._on_step = on_step
        self._request_ids = request_ids
        self._metrics = metrics
        self._clock = clock
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request_id = next(self._request_ids)
        REQUEST_ID.set(request_id)
        scope[LOG_FIELDS] = {"route": "other"}
        scope[AUDIT_FIELDS] = AuditFields(str(scope["client"][0]) if scope.get("client") else "")
        scope[METER] = meter = Meter(self._on_step)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await MeteredCoroutine(self._app(scope, receive, send_with_id), meter)
        finally:
            if status:  # otherwise the client disconnected
                self._record(scope, started, status)

    def _record(self, scope: Scope, started: float, status: int) -> None:
        fields = scope[LOG_FIELDS]
        self._metrics.answered(fields["route"], status)
        milliseconds = round((time.perf_counter() - started) * 1000, 3)
        _log.info(
            "request", request_id=REQUEST_ID.get(), method=scope["method"], status=status, ms=milliseconds, **fields
        )
        audit_fields: AuditFields = scope[AUDIT_FIELDS]
        if (entry := audit_fields.entry(self._clock(), status, fields)) is not None:
            self._audit(entry)
