"""HTTP and WebSockets through the proxies of the environment: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

httpx and websockets read these variables differently. httpx raises at its start for some entries of NO_PROXY, or where
a package is missing. Here, unknown entries of NO_PROXY are ignored, and HTTP and WebSockets use the same proxy. An
unusable proxy fails only the requests that need it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.request import getproxies, proxy_bypass

import httpx
from websockets.exceptions import InvalidProxy
from websockets.proxy import parse_proxy

_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
#: The variables to try for a scheme, in this order. RFC 6455, 4.1: "use ... a SOCKS5 proxy if available, else favor the
#: proxy for HTTPS connections over the proxy for HTTP connections". Operating systems name their proxy "socks".
_VARIABLES = {
    "http": ("http", "all"),
    "https": ("https", "all"),
    "ws": ("ws", "socks", "https", "http", "all"),
    "wss": ("wss", "socks", "https", "all"),
}
#: Operating systems give a SOCKS proxy the scheme http, or none.
_SOCKS = "SOCKS_PROXY"


class UnusableProxy(httpx.ProxyError):
    """The request would need a proxy that cannot be used. The message is one sentence, without the proxy's address."""


def http_client(
    timeout: float, certificates: Callable[[], ssl.SSLContext] = ssl.create_default_context
) -> httpx.AsyncClient:
    """An httpx client that uses the environment's proxies. `timeout` is in seconds. `certificates` returns the trusted
    ones, by default those of the system, or of SSL_CERT_FILE. The first request over TLS, or through each proxy, calls
    `certificates`.

    Its requests raise the exceptions of httpx, and UnusableProxy.
    """
    return httpx.AsyncClient(transport=_ProxiedTransport(certificates), timeout=timeout)


class Proxy(NamedTuple):
    """A proxy of the environment: the variable, and the address as written there."""

    variable: str
    address: str

    @property
    def url(self) -> str:
        """The address, with a scheme."""
        address = self.address.removeprefix("http://") if self.variable == _SOCKS else self.address
        return address if "://" in address else f"{'socks5h' if self.variable == _SOCKS else 'http'}://{address}"

    @property
    def speaks_tls(self) -> bool:
        """Whether the connection to the proxy itself uses TLS."""
        return self.url.startswith("https://")


def proxy_of(url: str) -> Proxy | None:
    """The proxy for `url`, None for a direct connection."""
    try:
        return _Proxies().of(httpx.URL(url))
    except httpx.InvalidURL:
        return None  # connecting reports the error


def websocket_proxy(endpoint: str) -> str | None:
    """The proxy's address for a WebSocket to `endpoint`, None for a direct connection. Raises UnusableProxy."""
    found = proxy_of(endpoint)
    if found is None:
        return None
    url = httpx.URL(endpoint)
    # The exceptions of an operating system count too, as in websockets.
    if proxy_bypass(f"{url.host}:{url.port or _PORTS.get(url.scheme)}"):
        return None
    try:
        proxy = parse_proxy(found.url)
        if _is_odd(proxy.host):
            raise ValueError
    except (InvalidProxy, ValueError):
        raise _no_proxy(found) from None
    if proxy.scheme.startswith("socks") and find_spec("python_socks") is None:
        raise _missing(found, "python-socks")
    return found.url


class _Exempt(NamedTuple):
    """An entry of NO_PROXY. Empty `host`: all hosts. `port` None: all ports."""

    scheme: str
    host: str | IPv4Network | IPv6Network
    port: int | None

    def covers(self, url: httpx.URL) -> bool:
        """Whether `url` is reached without a proxy."""
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
            return False  # a host name, which only the proxy resolves


class _Proxies:
    """The proxies of the environment, read when the object is made."""

    def __init__(self) -> None:
        self._found = getproxies()
        self._exempt = [exempt for exempt in map(_read, self._found.get("no", "").split(",")) if exempt]

    def of(self, url: httpx.URL) -> Proxy | None:
        """The proxy for `url`, None for a direct connection."""
        if any(exempt.covers(url) for exempt in self._exempt):
            return None
        for scheme in _VARIABLES.get(url.scheme, ()):
            if address := self._found.get(scheme, "").strip():
                return Proxy(f"{scheme.upper()}_PROXY", address)
        return None


class _ProxiedTransport(httpx.AsyncBaseTransport):
    """Sends each request directly, or through the environment's proxy."""

    def __init__(self, certificates: Callable[[], ssl.SSLContext]) -> None:
        self._proxies, self._certificates = _Proxies(), certificates
        #: For http:// alone. The context trusts nobody, and takes no time.
        self._plain = httpx.AsyncHTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        #: The others, by the variable of their proxy. "": directly, with TLS.
        self._by_way_of: dict[str, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transport(request.url).handle_async_request(request)

    async def aclose(self) -> None:
        for transport in (self._plain, *self._by_way_of.values()):
            await transport.aclose()

    def _transport(self, url: httpx.URL) -> httpx.AsyncHTTPTransport:
        found = self._proxies.of(url)
        if found is None and url.scheme == "http":
            return self._plain
        variable = found.variable if found else ""
        if variable not in self._by_way_of:
            tls = self._certificates()
            self._by_way_of[variable] = _through(found, tls) if found else httpx.AsyncHTTPTransport(verify=tls)
        return self._by_way_of[variable]


def _through(found: Proxy, tls: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
    try:
        proxy = httpx.Proxy(found.url, ssl_context=tls if found.speaks_tls else None)
        # httpx accepts any text as host, and any number as port.
        if _is_odd(proxy.url.host) or (proxy.url.port or 1) > 65535:
            raise ValueError
        return httpx.AsyncHTTPTransport(verify=tls, proxy=proxy)
    except ImportError:
        raise _missing(found, "socksio") from None
    except (ValueError, httpx.InvalidURL):
        raise _no_proxy(found) from None


def _is_odd(host: str) -> bool:
    return not host or bool({" ", "%"}.intersection(host))


def _missing(found: Proxy, package: str) -> UnusableProxy:
    return UnusableProxy(f"{found.variable} names a SOCKS proxy, and the Python package {package} is not installed")


def _no_proxy(found: Proxy) -> UnusableProxy:
    expected = "the URL of a proxy (http, https, socks5 or socks5h)"
    return UnusableProxy(f"{found.variable} must be {expected}, not a text of length {len(found.address)}")


def _read(entry: str) -> _Exempt | None:
    """Read an entry of NO_PROXY: `*`, a host (with port) and its subdomains, an address or a network. None for any
    other entry.

    IPv6 addresses may stand in brackets, as in URLs. `.example.org` and `*.example.org` mean `example.org`, as in curl.
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
