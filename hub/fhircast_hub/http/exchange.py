"""One request and its answer, as the log line, the audit entry and the user's budget need them. request_log.py begins and ends each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from fhircast_hub.audit.event import Act, AuditEntry
from fhircast_hub.budgets.meter import Meter
from fhircast_hub.core.access.principal import Principal

#: Key of an ASGI scope. The application fills the fields of the Exchange, and sets the account of its meter.
EXCHANGE = "fhircast.exchange"


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


class Exchange:
    """One request and its answer, as its log line, its audit entry and its user's budget need them."""

    __slots__ = ("audit_fields", "began", "log_fields", "meter", "request_id")

    def __init__(self, request_id: str, address: str, on_step: Callable[[float], None]) -> None:
        self.request_id = request_id
        #: Seconds of time.perf_counter.
        self.began = time.perf_counter()
        self.log_fields: dict[str, object] = {"route": "other"}
        self.audit_fields = AuditFields(address)
        self.meter = Meter(on_step)


def exchange_of(scope: Mapping[str, Any]) -> Exchange:
    """The exchange of an ASGI request."""
    exchange: Exchange = scope[EXCHANGE]
    return exchange
