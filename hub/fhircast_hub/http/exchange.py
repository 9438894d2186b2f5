"""One request and its answer, as the log line, the audit entry and the user's budget need them. request_log.py begins and ends each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from fhircast_hub.audit.event import Act, AuditEntry
from fhircast_hub.budgets.meter import Meter
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import HubError, Unauthenticated
from fhircast_hub.telemetry.traces import Recording

#: Key of an ASGI scope. The application fills the fields of the Exchange, and sets the account of its meter.
EXCHANGE = "fhircast.exchange"
#: Key of an ASGI scope: a function that cuts the connection, because it is beyond a budget.
CUT = "fhircast.cut"


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
        #: Issuer and client of a refused request. "": unknown.
        self.issuer = self.client = ""
        #: Why the request was refused. "": it was not.
        self.reason = ""
        #: hub.topic, once it is known to be one.
        self.topic = ""

    def entry(self, at: float, status: int, log_fields: Mapping[str, object]) -> AuditEntry | None:
        """The entry for an answer with this status, or None. `at` is in epoch seconds."""
        if self.act is None:
            return None
        principal = self.principal
        return AuditEntry(
            act=self.act,
            at=at,
            topic=self.topic,
            issuer=principal.issuer if principal else self.issuer,
            user=(principal.user or "") if principal else "",
            client=principal.client if principal else self.client,
            address=self.address,
            event=self.event,
            patients=self.patients,
            status=status,
            reason=self.reason,
        )


class Exchange:
    """One request and its answer, as its log line, its audit entry and its user's budget need them."""

    __slots__ = ("audit_fields", "began", "log_fields", "meter", "recording", "refused_token", "request_id")

    def __init__(self, request_id: str, address: str, on_step: Callable[[float], None]) -> None:
        self.request_id = request_id
        #: Seconds of time.perf_counter.
        self.began = time.perf_counter()
        self.log_fields: dict[str, object] = {"route": "other"}
        self.audit_fields = AuditFields(address)
        self.meter = Meter(on_step)
        #: The steps for the request's trace. None: the request is not traced.
        self.recording: Recording | None = None
        #: Issuer and reason of a refused token. None: the token was taken.
        self.refused_token: tuple[str, str] | None = None

    def refuse(self, error: HubError) -> None:
        """Note why the request is refused, for log and audit trail: with issuer and client, where they are known (OPS-17)."""
        audit = self.audit_fields
        self.log_fields["reason"], audit.reason = error.logged, str(error)
        who = audit.principal
        audit.issuer, audit.client = (who.issuer, who.client) if who else (error.issuer, error.client)
        self.log_fields |= {"issuer": audit.issuer} if audit.issuer else {}
        self.log_fields |= {"client_id": audit.client} if audit.client else {}
        if isinstance(error, Unauthenticated):  # the error itself would keep the request alive, in a cycle
            self.refused_token = audit.issuer, error.logged

    def set_topic(self, topic: str, log_hash: Callable[[str], str]) -> None:
        """The request names this topic: the log gets its keyed hash, and the audit trail the topic itself (AUD-8)."""
        self.log_fields["topic"] = log_hash(topic)
        self.audit_fields.topic = topic


def exchange_of(scope: Mapping[str, Any]) -> Exchange:
    """The exchange of an ASGI request."""
    exchange: Exchange = scope[EXCHANGE]
    return exchange
