"""What the audit trail says of a WebSocket's handshake (AUD-3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from msgspec.structs import replace
from websockets.http11 import Request

from fhircast_hub.audit.event import Act, AuditEntry
from fhircast_hub.core.state.session import Subscription
from fhircast_hub.edge.client_addresses import address_key
from fhircast_hub.service.ports import Clock

_USER = "user:"  # see core.principal.Principal.subscriber


class Handshakes:
    """Tells `audit` of them. `address_of` says where one comes from, by its connection's address and its headers X-Forwarded-For."""

    def __init__(
        self, audit: Callable[[AuditEntry], None], address_of: Callable[[str, Sequence[str]], str], clock: Clock
    ) -> None:
        self._audit = audit
        self._clock = clock
        self._address_of = address_of

    def address(self, request: Request, transport: asyncio.Transport) -> str:
        """Where a handshake comes from; "" where nobody knows."""
        peer = transport.get_extra_info("peername")
        return self._address_of(str(peer[0]) if peer else "", request.headers.get_all("X-Forwarded-For"))

    def record(self, address: str, status: int, topic: str, subscription: Subscription | None) -> None:
        """One entry; of a socket that comes from another address than its subscription, a second one.

        `status` is the HTTP status of the answer, `topic` a keyed hash. Without a subscription nothing is
        known but the address: an endpoint is all that a handshake says.
        """
        at = self._clock()
        if subscription is None:
            self._audit(AuditEntry(Act.CONNECT, at, address=address, status=status))
            return
        subscriber = subscription.subscriber
        entry = AuditEntry(
            act=Act.CONNECT,
            at=at,
            topic=topic,
            issuer=subscription.issuer,
            user=subscriber.removeprefix(_USER) if subscriber.startswith(_USER) else "",
            client=subscription.client,
            address=address,
            event=",".join(subscription.events),
            status=status,
        )
        self._audit(entry)
        # A subscription that an older hub stored has no address.
        if subscription.address and address_key(subscription.address) != address_key(address):
            elsewhere = f"the subscription was made from {subscription.address}"
            self._audit(replace(entry, act=Act.ELSEWHERE, reason=elsewhere))
