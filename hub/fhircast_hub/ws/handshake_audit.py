"""Entries of the audit trail about handshakes of WebSockets (AUD-3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from msgspec.structs import replace
from websockets.http11 import Request

from fhircast_hub.audit.event import Act, AuditEntry
from fhircast_hub.core.state.session import Subscription
from fhircast_hub.edge.client_addresses import address_key
from fhircast_hub.service.ports import Clock

#: How `Principal.subscriber` begins for a user.
_USER = "user:"


class HandshakeAudit:
    """Records handshakes. `address_of` gets the connection's address and the X-Forwarded-For headers, and returns the client's."""

    def __init__(
        self, audit: Callable[[AuditEntry], None], address_of: Callable[[str, Sequence[str]], str], clock: Clock
    ) -> None:
        self._audit = audit
        self._clock = clock
        self._address_of = address_of

    def address(self, request: Request, transport: asyncio.Transport) -> str:
        """The client's address; "" if unknown."""
        peer = transport.get_extra_info("peername")
        return self._address_of(str(peer[0]) if peer else "", request.headers.get_all("X-Forwarded-For"))

    def record(
        self, address: str, status: int, topic: str, subscription: Subscription | None, reason: str = ""
    ) -> None:
        """Record a handshake, and a second entry if the subscription was made from another address.

        `status` is the HTTP status of the answer. A handshake names an endpoint only.
        Without a subscription, just its address is known. `reason`: why the handshake was refused.
        """
        at = self._clock()
        if subscription is None:
            self._audit(AuditEntry(Act.CONNECT, at, address=address, status=status, reason=reason))
            return
        user = subscription.subscriber
        entry = AuditEntry(
            act=Act.CONNECT,
            at=at,
            topic=topic,
            issuer=subscription.issuer,
            user=user.removeprefix(_USER) if user.startswith(_USER) else "",
            client=subscription.client,
            address=address,
            event=",".join(subscription.events),
            status=status,
        )
        self._audit(entry)
        # Subscriptions stored by an older hub have no address.
        if subscription.address and address_key(subscription.address) != address_key(address):
            elsewhere = f"the subscription was made from {subscription.address}"
            self._audit(replace(entry, act=Act.ELSEWHERE, reason=elsewhere))
