"""HTTP by way of the proxies that the environment names (SEC-6): HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

httpx reads them too, and raises at the start where others understand an entry, or where a package is missing. Here an
entry of NO_PROXY that nobody understands is left out, and a proxy that cannot be used refuses only what would go through.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.request import getproxies

import httpx
import structlog

_PORTS = {"http": 80, "https": 443}
_log = structlog.get_logger()


class UnusableProxy(httpx.ProxyError):
    """A request would go through a proxy that cannot be used. The message is one sentence, without the proxy's address."""


class _Exempt(NamedTuple):
    """An entry of NO_PROXY. An empty `host` is every one; no `port` is every one."""

    scheme: str
    host: str | IPv4Network | IPv6Network
    port: int | None

    def covers(self, url: httpx.URL) -> bool:
        """Whether `url` is asked directly."""
        if self.scheme not in ("", "all", url.scheme):
            return False
        if self.port not in (None, url.port or _PORTS.get(url.scheme)):
            return False
        host = url.raw_host.decode()
        if isinstance(self.host, str):
            return not self.host or host == self.host or host.endswith(f".{self.host}")
        try:
            return ip_address(host) in self.host
        except ValueError:
            return False  # a name; what it resolves to is the proxy's business


class Proxies:
    """What the environment says when this is made. `direct` is exempt beside the entries of NO_PROXY."""

    def __init__(self, direct: Iterable[str] = ()) -> None:
        self._found = getproxies()
        entries = (*direct, *self._found.get("no", "").split(","))
        self._exempt = [exempt for exempt in map(_read, entries) if exempt]

    def of(self, url: httpx.URL) -> tuple[str, str] | None:
        """The variable that names the proxy for `url`, and what it says; None where the host is asked directly."""
        if any(exempt.covers(url) for exempt in self._exempt):
            return None
        for scheme in (url.scheme, "all"):
            if address := self._found.get(scheme, "").strip():
                return f"{scheme.upper()}_PROXY", address
        return None


class ProxiedTransport(httpx.AsyncBaseTransport):
    """Sends each request directly, or by way of the environment's proxy for it. Raises as httpx does, and UnusableProxy."""

    def __init__(self, direct: Iterable[str] = ()) -> None:
        self._proxies = Proxies(direct)
        self._tls = httpx.create_ssl_context()
        self._direct = httpx.AsyncHTTPTransport(verify=self._tls)
        self._by_way_of: dict[str, httpx.AsyncHTTPTransport] = {}
        self._said: set[str] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx.AsyncBaseTransport."""
        return await self._transport(request.url).handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in (self._direct, *self._by_way_of.values()):
            await transport.aclose()

    def _transport(self, url: httpx.URL) -> httpx.AsyncHTTPTransport:
        found = self._proxies.of(url)
        if found is None:
            return self._direct
        variable, address = found
        if variable not in self._by_way_of:
            try:
                self._by_way_of[variable] = _through(variable, address, self._tls)
            except UnusableProxy as error:
                if variable not in self._said:  # each request fails, and says so; why, the operator is told once
                    self._said.add(variable)
                    _log.error("proxy cannot be used", reason=str(error))
                raise
        return self._by_way_of[variable]


def _through(variable: str, address: str, tls: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
    try:
        proxy = httpx.Proxy(address if "://" in address else f"http://{address}")
        # httpx takes any text for a host, and any number for a port.
        if not proxy.url.host or "%" in proxy.url.host or (proxy.url.port or 1) > 65535:
            raise ValueError
        return httpx.AsyncHTTPTransport(verify=tls, proxy=proxy)
    except ImportError:
        raise UnusableProxy(
            f"{variable} names a SOCKS proxy, and the Python package socksio is not installed"
        ) from None
    except (ValueError, httpx.InvalidURL):
        expected = "the URL of a proxy (http, https, socks5 or socks5h)"
        raise UnusableProxy(f"{variable}: expected {expected}, got a text of length {len(address)}") from None


def _read(entry: str) -> _Exempt | None:
    """An entry of NO_PROXY: `*`, a host (of that port) with all below it, an address or a network; None for anything else.

    An IPv6 address may stand in brackets, as in a URL. `.example.org` and `*.example.org` are `example.org`, as for curl.
    """
    scheme, _, rest = entry.strip().lower().rpartition("://")
    if rest == "*":
        return _Exempt(scheme, "", None)
    if network := _network(rest):
        return _Exempt(scheme, network, None)
    host, _, port = rest.rpartition(":") if ":" in rest else (rest, "", "")
    if ":" in rest and not re.fullmatch("[0-9]{1,5}", port):
        return None
    try:
        name = httpx.URL(scheme="http", host=host.removeprefix("*").strip(".")).raw_host.decode()
    except httpx.InvalidURL:
        return None
    found = _network(host) or name
    return _Exempt(scheme, found, int(port) if port else None) if found else None


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(re.sub(r"^\[(.*)\](/[0-9]+)?$", r"\1\2", text), strict=False)
    except ValueError:
        return None
