"""What the sockets of a hub share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

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
from fhircast_hub.ws.handshake_audit import Handshakes
from fhircast_hub.ws.registry import Registry

_log = structlog.get_logger()
#: websockets would log handshakes and frames, with endpoints and patients in them (SEC-1).
QUIET = logging.getLogger("fhircast_hub.websockets")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False
QUIET.setLevel(logging.CRITICAL)

#: Names and values.
Headers = Iterable[tuple[bytes, bytes]]


class SocketContext:
    """What all sockets of a hub share. Sizes in bytes, times in seconds.

    `resolve` finds the digest of the endpoint in a request's path, or None; `log_hash` makes of a topic what may be logged of it.
    `wait` is how many seconds an address has to wait for its next handshake.
    """

    def __init__(
        self,
        *,
        service: Service,
        ack_timer: AckTimer,
        registry: Registry,
        resolve: Callable[[str], str | None],
        log_hash: Callable[[str], str],
        request_ids: Iterator[str],
        clock: Clock,
        metrics: Metrics,
        accounts: Accounts,
        turns: Turns,
        wait: Callable[[str], float],
        queue_bytes: int,
        queue_messages: int,
        ping_seconds: float,
        trail: Handshakes,
        log: Log = _log,
    ) -> None:
        self.service = service
        self.ack_timer = ack_timer
        self.registry = registry
        self.resolve = resolve
        self.log_hash = log_hash
        self.request_ids = request_ids
        self.clock = clock
        self.metrics = metrics
        self.accounts = accounts
        self.turns = turns
        self.wait = wait
        self.handshakes = LeakyBuckets(HANDSHAKES.most, HANDSHAKES.most / 60)
        self.queue_bytes = queue_bytes
        self.queue_messages = queue_messages
        self.ping_seconds = ping_seconds
        self.trail = trail
        self.log = log

    def begins(self, begin: Callable[[], object], path: str, address: str) -> bool:
        """Begin to answer a handshake for this path: at once, or in the turn of the session that its endpoint is of, else of its address.

        False where too many wait already.
        """
        if self.turns.claim_step():
            begin()
            return True
        key = self.service.usage.find(self.resolve(path) or "")
        return self.turns.queue_step(key or begin, begin, address_key=None if key else address_key(address))
