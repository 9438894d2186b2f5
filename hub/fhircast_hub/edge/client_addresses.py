"""From which address a request or handshake comes: its connection's, or what a trusted proxy says of it (RAT-1, AUD-1)."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address, ip_address, ip_network

import structlog

_log = structlog.get_logger()
#: Addresses of which is remembered whether they are a proxy's.
_REMEMBERED = 4096


class ClientAddresses:
    """Tells addresses apart. `trusted` are the addresses or networks of proxies (FHIRCAST_TRUSTED_PROXIES)."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._networks = tuple(map(ip_network, trusted))
        #: whether an address is a proxy's
        self.trusts = functools.lru_cache(_REMEMBERED)(self._is_proxy)
        self._warned = False

    def of(self, peer: str, forwarded: Sequence[str]) -> str:
        """The address of who asks, by the connection's `peer` and the values of its headers X-Forwarded-For.

        A proxy appends who asked it, so the last counts, as long as who wrote it is trusted. Reading stops at a text that is no address.
        """
        if not forwarded:
            return peer
        if not self._warned and not self.trusts(peer):
            self._warned = True
            _log.warning("X-Forwarded-For is not believed", host=peer, reason=_UNTRUSTED)
        address = peer
        for said in reversed(",".join(forwarded).split(",")):
            if not self.trusts(address) or not (before := _plain(said.strip())):
                break
            address = before
        return address

    def _is_proxy(self, address: str) -> bool:
        plain = _plain(address)
        return plain != "" and any(ip_address(plain) in network for network in self._networks)


_UNTRUSTED = (
    "this address is not in FHIRCAST_TRUSTED_PROXIES: if it is a proxy, all behind it share one rate limit, and one address"
    " in the audit trail"
)


def address_key(address: str) -> bytes:
    """What counts as one address: of IPv6 the 64 bits that name a network, for a client has the others to choose from."""
    if ":" in address:
        try:
            parsed = IPv6Address(address.partition("%")[0])
        except ValueError:
            return address.encode()
        return parsed.ipv4_mapped.exploded.encode() if parsed.ipv4_mapped else parsed.packed[:8]
    return address.encode()


def _plain(text: str) -> str:
    """The address in its usual spelling, without a port; "" where there is none."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ip_address(text)
    except ValueError:
        return ""
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
