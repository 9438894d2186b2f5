"""Everything that the sockets of a hub share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import structlog

from fhircast_hub.acknowledgements.timer import AckTimer
from fhircast_hub.budgets.accounts import Accounts
from fhircast_hub.budgets.leaky_bucket import LeakyBuckets
from fhircast_hub.budgets.table import HANDSHAKES
from fhircast_hub.budgets.turns import Turns
from fhircast_hub.edge.client_addresses import address_key
from fhircast_hub.service.ports import Clock, Log
from fhircast_hub.service.service import Service
from fhircast_hub.telemetry.metrics import Metrics
from fhircast_hub.telemetry.traces import Traces
from fhircast_hub.ws.handshake_audit import HandshakeAudit
from fhircast_hub.ws.registry import Registry

_log = structlog.get_logger()
#: For websockets, whose log lines would hold endpoints and patients (SEC-1): nothing is logged.
QUIET = logging.getLogger("fhircast_hub.websockets")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False
QUIET.setLevel(logging.CRITICAL)

#: Names and values.
Headers = Iterable[tuple[bytes, bytes]]


@dataclass(kw_only=True, slots=True)
class SocketServices:
    """Services, limits and counters of all sockets."""

    service: Service
    ack_timer: AckTimer
    registry: Registry
    #: Path of a request -> subscription id of its endpoint. None: no endpoint has this path.
    resolve: Callable[[str], str | None]
    #: Topic -> keyed hash that may be logged.
    log_hash: Callable[[str], str]
    #: Values of X-Request-Id, each used once.
    request_ids: Iterator[str]
    clock: Clock
    metrics: Metrics
    accounts: Accounts
    turns: Turns
    #: Address -> seconds until the next handshake from there is allowed; 0: now.
    handshake_wait: Callable[[str], float]
    #: Bytes that may wait for one socket.
    queue_bytes: int
    #: Frames that may wait for one socket.
    queue_messages: int
    #: Seconds between two pings (SYN-34).
    ping_seconds: float
    handshake_audit: HandshakeAudit
    log: Log = _log
    #: None: traces are off.
    traces: Traces | None = None
    #: Handshakes of each endpoint.
    endpoint_handshakes: LeakyBuckets = field(
        default_factory=lambda: LeakyBuckets(HANDSHAKES.most, HANDSHAKES.most / 60)
    )

    def begin_in_turn(self, begin: Callable[[], object], path: str, address: str) -> bool:
        """Call `begin` at once if a step is free, else in the turn of the endpoint's session.

        A path without a session waits among the handshakes of its address. False: too many wait already.
        """
        if self.turns.claim_step():
            begin()
            return True
        key = self.service.usage.find(self.resolve(path) or "")
        return self.turns.queue_step(key or begin, begin, address_key=None if key else address_key(address))
