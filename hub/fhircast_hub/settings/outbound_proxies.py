"""HTTP through the proxies of the environment (SEC-6): HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

httpx reads these variables too. But httpx raises at the start for an entry of NO_PROXY that other programs understand, and
for a missing package. Here an unknown entry of NO_PROXY is ignored. An unusable proxy fails only the requests through it.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.request import getproxies

import httpx
import structlog

#: Hosts that never need a proxy.
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PORTS = {"http": 80, "https": 443}
_log = structlog.get_logger()


class UnusableProxy(httpx.ProxyError):
    """The proxy of a request is unusable. The message is one sentence, without the proxy's address."""


class UnusableCertificates(httpx.ConnectError):
    """The trusted certificates cannot be read. The message is one sentence."""


class _Exempt(NamedTuple):
    """An entry of NO_PROXY."""

    #: "" or "all": every scheme
    scheme: str
    #: A name with all names below it, or a network. "": every host.
    host: str | IPv4Network | IPv6Network
    #: None: every port
    port: int | None

    def covers(self, url: httpx.URL) -> bool:
        """Whether requests to `url` go to the host directly."""
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
            return False  # a name, which only the proxy resolves


class Proxies:
    """The environment's proxies, read once. Hosts of `direct` and of NO_PROXY need no proxy."""

    def __init__(self, direct: Iterable[str] = ()) -> None:
        self._found = getproxies()
        entries = (*direct, *self._found.get("no", "").split(","))
        self._exempt = [exempt for exempt in map(_parse_exemption, entries) if exempt]

    def of(self, url: httpx.URL) -> tuple[str, str] | None:
        """Name and value of the variable with the proxy for `url`. None: no proxy."""
        if any(exempt.covers(url) for exempt in self._exempt):
            return None
        for scheme in (url.scheme, "all"):
            if address := self._found.get(scheme, "").strip():
                return f"{scheme.upper()}_PROXY", address
        return None


class ProxiedTransport(httpx.AsyncBaseTransport):
    """Sends each request directly or through its proxy. Raises UnusableProxy, and the errors of httpx.

    `client_certificate` are the paths of a certificate and its key. Servers that ask are shown the certificate, proxies are not.
    """

    def __init__(self, direct: Iterable[str] = (), client_certificate: tuple[str, str] | None = None) -> None:
        self._proxies = Proxies(direct)
        self._client_certificate = client_certificate
        #: For http:// alone. The context trusts nobody, and takes no time.
        self._plain = httpx.AsyncHTTPTransport(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        #: The others, by the variable of their proxy. "": directly, with TLS.
        self._by_variable: dict[str, httpx.AsyncHTTPTransport] = {}
        self._tls: ssl.SSLContext | None = None
        self._reported: set[str] = set()

    def certificates(self) -> ssl.SSLContext:
        """The trusted certificates, with that of the client. Raises UnusableCertificates.

        The first request to an https URL or through a proxy reads these too. Reading takes a tenth of a second, and a megabyte.
        """
        if self._tls is None:
            self._tls = self._read_certificates(self._client_certificate)
        return self._tls

    def _read_certificates(self, client_certificate: tuple[str, str] | None = None) -> ssl.SSLContext:
        try:
            return trusted_certificates(client_certificate)
        except UnusableCertificates as error:
            self._report("certificates cannot be read", error)
            raise

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx.AsyncBaseTransport."""
        return await self._transport(request.url).handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in (self._plain, *self._by_variable.values()):
            await transport.aclose()

    def _transport(self, url: httpx.URL) -> httpx.AsyncHTTPTransport:
        variable, address = self._proxies.of(url) or ("", "")
        if not variable and url.scheme == "http":
            return self._plain
        if variable not in self._by_variable:
            tls = self.certificates()
            try:
                self._by_variable[variable] = (
                    _proxied(variable, address, tls, self._to_proxy(tls))
                    if variable
                    else httpx.AsyncHTTPTransport(verify=tls)
                )
            except UnusableProxy as error:
                self._report("proxy cannot be used", error)
                raise
        return self._by_variable[variable]

    def _to_proxy(self, tls: ssl.SSLContext) -> ssl.SSLContext:
        """The trusted certificates for a proxy, which is not shown the client's."""
        return tls if self._client_certificate is None else self._read_certificates()

    def _report(self, event: str, error: Exception) -> None:
        """Each request fails. The log gets one line."""
        if str(error) not in self._reported:
            self._reported.add(str(error))
            _log.error(event, reason=str(error))


def trusted_certificates(client_certificate: tuple[str, str] | None = None) -> ssl.SSLContext:
    """The certificates that are trusted, with that of the client. Raises UnusableCertificates."""
    named = " or ".join(name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)) or "certifi"
    wanted = "certificates in PEM"
    try:
        context = httpx.create_ssl_context()
        if client_certificate is not None:
            named, wanted = "FHIRCAST_AUDIT_CERT_FILE and FHIRCAST_AUDIT_KEY_FILE", "a certificate and its key"
            context.load_cert_chain(*client_certificate, password="")
    except OSError as error:  # ssl.SSLError is one
        raise UnusableCertificates(f"{named} must name {wanted}: {error.strerror or error}") from error
    return context


def _proxied(variable: str, address: str, tls: ssl.SSLContext, to_proxy: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
    try:
        url = address if "://" in address else f"http://{address}"
        proxy = httpx.Proxy(url, ssl_context=to_proxy if url.lower().startswith("https:") else None)
        # httpx accepts any text as a host, and any number as a port.
        if not proxy.url.host or "%" in proxy.url.host or (proxy.url.port or 1) > 65535:
            raise ValueError
        return httpx.AsyncHTTPTransport(verify=tls, proxy=proxy)
    except ImportError:
        raise UnusableProxy(
            f"{variable} names a SOCKS proxy, and the Python package socksio is not installed"
        ) from None
    except (ValueError, httpx.InvalidURL):
        expected = "the URL of a proxy (http, https, socks5 or socks5h)"
        raise UnusableProxy(f"{variable} must be {expected}, not a text of length {len(address)}") from None


def _parse_exemption(entry: str) -> _Exempt | None:
    """Parse an entry of NO_PROXY. None for an unknown form.

    Known are `*`, a host with all hosts below it, an address and a network. A host or an address may have a port. An IPv6
    address may have brackets, as in a URL. `.example.org` and `*.example.org` mean `example.org`, as for curl.
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
