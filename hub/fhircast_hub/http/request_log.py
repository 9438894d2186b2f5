"""One log line for each HTTP request, and an id that its answer, its line and those of what it led to share (OPS-2)."""

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
from fhircast_hub.service.service import REQUEST_ID
from fhircast_hub.telemetry.metrics import Metrics

_log = structlog.get_logger()
#: Where in its ASGI scope a request's log fields are; whoever answers it adds what it learns.
LOG_FIELDS = "fhircast.log"
#: And where its AuditFields is, and its Meter.
AUDIT_FIELDS, METER = "fhircast.trail", "fhircast.meter"


class AuditFields:
    """What the audit trail will say of a request; whoever answers it adds what it learns."""

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.act: Act | None = None
        self.principal: Principal | None = None
        self.event = ""
        self.patients: tuple[str, ...] = ()

    def entry(self, at: float, status: int, fields: Mapping[str, object]) -> AuditEntry | None:
        """The entry, if there is one: of whatever was done here, and of every refusal."""
        if self.act is None:
            return None
        principal = self.principal
        return AuditEntry(
            act=self.act,
            at=at,
            topic=str(fields.get("topic", "")),
            issuer=principal.issuer if principal else "",
            user=(principal.user or "") if principal else "",
            client=principal.client if principal else "",
            address=self.address,
            event=self.event,
            patients=self.patients,
            status=status,
            reason=str(fields.get("reason", "")),
        )


class RequestLog:
    """An ASGI application around another."""

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]],
        request_ids: Iterator[str],
        metrics: Metrics,
        clock: Clock,
        audit: Callable[[AuditEntry], None],
        took: Callable[[float], None],
    ) -> None:
        self._app = app
        self._took = took
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
        scope[METER] = meter = Meter(self._took)
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
            self._tell(scope, started, status)

    def _tell(self, scope: Scope, started: float, status: int) -> None:
        fields = scope[LOG_FIELDS]
        if status:  # else the client went away
            self._metrics.answered(fields["route"], status)
            milliseconds = round((time.perf_counter() - started) * 1000, 3)
            _log.info(
                "request", request_id=REQUEST_ID.get(), method=scope["method"], status=status, ms=milliseconds, **fields
            )
            trail: AuditFields = scope[AUDIT_FIELDS]
            if (entry := trail.entry(self._clock(), status, fields)) is not None:
                self._audit(entry)
