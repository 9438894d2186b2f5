"""Callback URLs of webhooks, and the addresses that the hub may post to (WHK-10, SEC-5)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlencode, urlsplit

from fhircast_hub.core.errors import BadRequest
from fhircast_hub.core.limits import MAX_CALLBACK

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: The characters of a URL (RFC 3986 section 2), without the fragment's sign. urlsplit() accepts more.
_URL = re.compile(r"https?://[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]+", re.ASCII | re.IGNORECASE)
#: IPv4 networks outside of the public internet (the IANA special-purpose registry), and the address of Azure's own services.
#: Listed here because ipaddress.is_global differs by the version of Python.
_FORBIDDEN_4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
            *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
        ),
    )
)
#: IPv6: global unicast is public. Its networks for documentation and protocols, and those that lead to IPv4 (Teredo, 6to4), are not.
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
_FORBIDDEN_6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
#: IPv6 addresses that stand for the IPv4 address in their last 32 bits: NAT64 (RFC 6052).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def check_callback(url: str) -> str:
    """Return `url`. Raises BadRequest unless it is absolute, http or https, without credentials and fragment (WHK-10)."""
    if len(url) > MAX_CALLBACK:
        raise BadRequest(f"hub.callback may have at most {MAX_CALLBACK} characters, and this one has {len(url)}")
    try:
        parts = urlsplit(url)
        is_url = bool(_URL.fullmatch(url) and parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        actual = f"{len(url)} characters of something else"
        raise BadRequest(f"hub.callback must be an absolute http or https URL without a fragment, not {actual}")
    if "@" in urlsplit(url).netloc:
        raise BadRequest("hub.callback must be a URL without credentials, and this one has some")
    return url


def with_query(callback: str, parameters: dict[str, str]) -> str:
    """The callback with these parameters added. Its own query stays as it is, byte for byte (WHK-2)."""
    _, has_query, query = callback.partition("?")
    mark = "?" if not has_query else "&" if query and not query.endswith("&") else ""
    return f"{callback}{mark}{urlencode(parameters)}"


def origin_of(callback: str) -> str:
    """Scheme, host and port of a callback, in lower case."""
    return re.split("[/?]", callback.replace("://", ":", 1), maxsplit=1)[0].lower()


def is_allowed(address: Address, allowed: Iterable[Network], forbidden: Iterable[Network] = ()) -> bool:
    """Whether the settings allow an address explicitly.

    The narrowest network with the address counts. Of two equally narrow ones the forbidden counts.
    """
    return _narrowest(address, allowed) > _narrowest(address, forbidden)


def _narrowest(address: Address, networks: Iterable[Network]) -> int:
    """The prefix length of the narrowest network with the address, as IPv6 prefix length. -1: none has the address."""
    spellings = address, real_address(address)
    bits = [
        network.prefixlen + 128 - network.max_prefixlen
        for network in map(_real_network, networks)
        if any(spelling in network for spelling in spellings)
    ]
    return max(bits, default=-1)


def is_public(address: Address) -> bool:
    """Whether an address is of the public internet, however the address is written. The hub may post to it for any subscriber."""
    real = real_address(address)
    if isinstance(real, ipaddress.IPv4Address):
        return not any(real in network for network in _FORBIDDEN_4)
    return real in _GLOBAL_6 and not any(real in network for network in _FORBIDDEN_6)


def real_address(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for; any other address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


def _real_network(network: Network) -> Network:
    """The IPv4 network that an IPv6 network stands for; any other network itself."""
    real = real_address(network.network_address)
    if network.version == real.version or network.prefixlen < _NAT64.prefixlen:
        return network
    return ipaddress.IPv4Network((int(real), network.prefixlen - _NAT64.prefixlen))
