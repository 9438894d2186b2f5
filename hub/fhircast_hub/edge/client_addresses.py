"""The client's address of a request or handshake: that of its connection, or one that a trusted proxy reports (RAT-1, AUD-1)."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address, ip_address, ip_network

import structlog

_log = structlog.get_logger()
#: Addresses in the cache of `trusts`.
_REMEMBERED = 4096


class ClientAddresses:
    """Finds the client's address. `trusted` has the addresses or networks of proxies (FHIRCAST_TRUSTED_PROXIES)."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._networks = tuple(map(ip_network, trusted))
        #: Whether an address is that of a trusted proxy.
        self.trusts = functools.lru_cache(_REMEMBERED)(self._is_proxy)
        self._warned = False

    def of(self, peer: str, forwarded: Sequence[str]) -> str:
        """The client's address, from the connection's `peer` and the values of its X-Forwarded-For headers.

        Each proxy appends the address of its client, so the list is read from its end. Reading stops at an untrusted proxy, and at
        a text that is no address.
        """
        if not forwarded:
            return peer
        if not self._warned and not self.trusts(peer):
            self._warned = True
            _log.warning("X-Forwarded-For is not believed", host=peer, reason=_UNTRUSTED)
        address = peer
        for entry in reversed(",".join(forwarded).split(",")):
            if not self.trusts(address) or not (client := _normal(entry.strip())):
                break
            address = client
        return address

    def _is_proxy(self, address: str) -> bool:
        normal = _normal(address)
        return normal != "" and any(ip_address(normal) in network for network in self._networks)


_UNTRUSTED = (
    "this address is not in FHIRCAST_TRUSTED_PROXIES: if it is a proxy, all behind it share one rate limit, and one address"
    " in the audit trail"
)


def address_key(address: str) -> bytes:
    """The key under which limits and the audit trail count an address: of IPv6 its /64 network, whose addresses a client may choose."""
    if ":" in address:
        try:
            parsed = IPv6Address(address.partition("%")[0])
        except ValueError:
            return address.encode()
        return parsed.ipv4_mapped.exploded.encode() if parsed.ipv4_mapped else parsed.packed[:8]
    return address.encode()


def _normal(text: str) -> str:
    """The address in its canonical spelling, without a port. "": the text is no address."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ip_address(text)
    except ValueError:
        return ""
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
