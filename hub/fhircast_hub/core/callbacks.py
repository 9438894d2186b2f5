"""Callbacks: where a webhook wants to be posted to, and where a hub may post to (WHK-10, SEC-5)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlencode, urlsplit

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.limits import MAX_CALLBACK

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: RFC 3986 section 2: all that a URL may consist of, without the fragment's sign. urlsplit() forgives more.
_URL = re.compile(r"https?://[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]+", re.ASCII | re.IGNORECASE)
#: IPv6 addresses that lead to an IPv4 address: NAT64 (RFC 6052), and its local-use prefix (RFC 8215).
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
#: IPv4-compatible addresses (RFC 4291 section 2.5.5.1), long deprecated.
_COMPATIBLE = ipaddress.IPv6Network("::/96")
#: A cloud's metadata and management service that has a public address.
_PLATFORMS = frozenset((ipaddress.IPv4Address("168.63.129.16"),))


def check_callback(url: str) -> str:
    """`url`, if it can be a callback: absolute, http or https, without credentials and fragment. Else BadRequest (WHK-10)."""
    if len(url) > MAX_CALLBACK:
        raise BadRequest(f"hub.callback: expected at most {MAX_CALLBACK} characters, got {len(url)}")
    try:
        parts = urlsplit(url)
        is_url = bool(_URL.fullmatch(url) and parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise BadRequest(
            f"hub.callback: expected an absolute http or https URL without a fragment, got {len(url)} characters that are not"
        )
    if "@" in urlsplit(url).netloc:
        raise BadRequest("hub.callback: expected a URL without credentials, got some")
    return url


def with_query(callback: str, parameters: dict[str, str]) -> str:
    """The callback with these parameters behind its own query, which stays as it is, byte for byte (WHK-2)."""
    mark = "?" if "?" not in callback else "" if callback.endswith(("?", "&")) else "&"
    return f"{callback}{mark}{urlencode(parameters)}"


def is_allowed(address: Address, networks: Iterable[Network]) -> bool:
    """Whether an address is of one of the networks that the settings allow."""
    real = _real(address)
    return any(real in network or address in network for network in networks)


def is_public(address: Address) -> bool:
    """Whether an address may be posted to by anybody's wish: one of the public internet, whatever its spelling."""
    real = _real(address)
    if isinstance(real, ipaddress.IPv6Address) and (real.sixtofour or real.teredo or real in _COMPATIBLE):
        return False
    return real.is_global and not real.is_multicast and not real.is_reserved and real not in _PLATFORMS


def _real(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if any(address in network for network in _NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
