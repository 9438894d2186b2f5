"""HTTP and WebSockets by way of the proxies that the environment names: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

httpx and websockets read them too, each in its own way; httpx raises at the start where others understand an entry, or where
a package is missing. Here an entry of NO_PROXY that nobody understands is left out, both go the same way, and a proxy that
cannot be used refuses only what would go through.
"""

from __future__ import annotations

import re
import ssl
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.request import getproxies, proxy_bypass

import httpx
from websockets.exceptions import InvalidProxy
from websockets.proxy import parse_proxy

_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
#: Whose proxy is taken: the first that is named. RFC 6455, 4.1: "use ... a SOCKS5 proxy if available, else favor the proxy for
#: HTTPS connections over the proxy for HTTP connections". "socks" is what an operating system calls its own.
_VARIABLES = {
    "http": ("http", "all"),
    "https": ("https", "all"),
    "ws": ("ws", "socks", "https", "http", "all"),
    "wss": ("wss", "socks", "https", "all"),
}
#: Where an operating system names its SOCKS proxy it calls that http, or nothing at all.
_SOCKS = "SOCKS_PROXY"


class UnusableProxy(httpx.ProxyError):
    """A request would go through a proxy that cannot be used. The message is one sentence, without the proxy's address."""


def http_client(timeout: float, tls: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """A client that goes by way of the environment's proxies, with a timeout in seconds. `tls` says whom it trusts: by default
    whom the system trusts, as a WebSocket does, or the file that SSL_CERT_FILE names.

    Its requests raise as httpx does, and UnusableProxy.
    """
    return httpx.AsyncClient(transport=_ProxiedTransport(tls or ssl.create_default_context()), timeout=timeout)


class Proxy(NamedTuple):
    """A proxy of the environment: the variable that names it, and the address there, as it was written."""

    variable: str
    address: str

    @property
    def url(self) -> str:
        """The address with a scheme."""
        address = self.address.removeprefix("http://") if self.variable == _SOCKS else self.address
        return address if "://" in address else f"{'socks5h' if self.variable == _SOCKS else 'http'}://{address}"

    @property
    def speaks_tls(self) -> bool:
        """Whether its certificate is met before the hub's."""
        return self.url.startswith("https://")


def proxy_of(url: str) -> Proxy | None:
    """The proxy by way of which `url` is reached, None where there is none."""
    try:
        return _Proxies().of(httpx.URL(url))
    except httpx.InvalidURL:
        return None  # the attempt to connect reports the fault


def websocket_proxy(endpoint: str) -> str | None:
    """The address of the proxy by way of which a WebSocket reaches `endpoint`, None for directly. Raises UnusableProxy."""
    found = proxy_of(endpoint)
    if found is None:
        return None
    url = httpx.URL(endpoint)
    # As websockets does, the exceptions of an operating system count too.
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


class _Proxies:
    """What the environment says when this is made."""

    def __init__(self) -> None:
        self._found = getproxies()
        self._exempt = [exempt for exempt in map(_read, self._found.get("no", "").split(",")) if exempt]

    def of(self, url: httpx.URL) -> Proxy | None:
        """The proxy for `url`; None where the host is asked directly."""
        if any(exempt.covers(url) for exempt in self._exempt):
            return None
        for scheme in _VARIABLES.get(url.scheme, ()):
            if address := self._found.get(scheme, "").strip():
                return Proxy(f"{scheme.upper()}_PROXY", address)
        return None


class _ProxiedTransport(httpx.AsyncBaseTransport):
    """Sends each request directly, or by way of the environment's proxy for it."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._proxies, self._tls = _Proxies(), tls
        self._direct = httpx.AsyncHTTPTransport(verify=self._tls)
        self._by_way_of: dict[str, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transport(request.url).handle_async_request(request)

    async def aclose(self) -> None:
        for transport in (self._direct, *self._by_way_of.values()):
            await transport.aclose()

    def _transport(self, url: httpx.URL) -> httpx.AsyncHTTPTransport:
        found = self._proxies.of(url)
        if found is None:
            return self._direct
        if found.variable not in self._by_way_of:
            self._by_way_of[found.variable] = _through(found, self._tls)
        return self._by_way_of[found.variable]


def _through(found: Proxy, tls: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
    try:
        proxy = httpx.Proxy(found.url, ssl_context=tls if found.speaks_tls else None)
        # httpx takes any text for a host, and any number for a port.
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
    return UnusableProxy(f"{found.variable}: expected {expected}, got a text of length {len(found.address)}")


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
