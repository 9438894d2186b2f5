"""Why a hub cannot be reached, in words: its certificate, its name, its port, or the network between."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator

import httpx

from fhircast_client.proxies import Proxy, proxy_of

#: OpenSSL's verify codes (see verify(1)) for a chain that ends at an unknown CA.
_UNKNOWN_CA = frozenset((2, 18, 19, 20, 21))
#: OpenSSL's reasons for a port that does not speak TLS.
_NO_TLS = frozenset(("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"))
#: What httpx raises where a port answers in TLS, or hangs up.
_NO_HTTP = (httpx.RemoteProtocolError, httpx.ReadError)
_NO_WAY = frozenset((errno.EHOSTUNREACH, errno.ENETUNREACH))
_PORTS = {"https": 443, "wss": 443}
_STATUS = re.compile(r"\d{3}")
#: asyncio joins the errors of several addresses into one text.
_ERRNO = re.compile(r"\[Errno (\d+)\]")


def why_unreachable(error: BaseException, url: str, outer: BaseException | None = None) -> str:
    """Describes an exception of httpx or websockets about `url`, without the path of the URL: an endpoint is a secret.

    `outer`: the exception that the caller was already handling when the request began.
    """
    try:
        return _of_causes(list(_causes(error, outer)), httpx.URL(url), proxy_of(url))
    except (ValueError, httpx.InvalidURL):  # invalid URL
        return type(error).__name__


def _of_causes(causes: list[BaseException], target: httpx.URL, proxy: Proxy | None) -> str:
    """The first cause with a description: certificates before names, names before ports."""
    by = f"the proxy in {proxy.variable}" if proxy else ""
    met = by if proxy and proxy.speaks_tls else ""
    host, address = target.host, f"{target.host}:{target.port or _PORTS.get(target.scheme, 80)}"
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _of_certificate(cause, met or host)
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLWantReadError | ssl.SSLWantWriteError):
            said = getattr(cause, "reason", None) or type(cause).__name__
            return (
                f"{met or address} does not speak TLS" if said in _NO_TLS else f"TLS with {met or host} failed ({said})"
            )
    for cause in causes:
        if isinstance(cause, httpx.ProxyError) and (status := _STATUS.match(str(cause))):
            return f"{by or 'the proxy'} answered {status[0]} to CONNECT"
        if isinstance(cause, socket.gaierror):
            return f"no address is known for {by or f'the name {host}'}"
    for cause in causes:
        if errno.ECONNREFUSED in _numbers(cause):
            return f"nothing listens at {by or address}"
        if _NO_WAY & _numbers(cause):
            return f"there is no way to {by or host} from this machine"
    if target.scheme == "http" and isinstance(causes[0], _NO_HTTP):
        return f"{by or address} gave no answer in HTTP{'' if by else '; perhaps the hub speaks https'}"
    if isinstance(causes[0], TimeoutError):
        return "no answer came in time"
    return type(causes[0]).__name__


def _of_certificate(error: ssl.SSLCertVerificationError, host: str) -> str:
    said = getattr(error, "verify_message", "") or "no reason given"
    if getattr(error, "verify_code", 0) in _UNKNOWN_CA:
        known = "a hospital's own CA is trusted where SSL_CERT_FILE names its file"
        return f"the certificate of {host} is not trusted ({said}); {known}"
    return f"the certificate of {host} is not valid ({said})"


def _causes(error: BaseException, outer: BaseException | None) -> Iterator[BaseException]:
    """The error and all its causes, except `outer`."""
    waiting: list[BaseException | None] = [error]
    seen = {id(outer)}
    while waiting:
        found = waiting.pop(0)
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += [found.__cause__, found.__context__]  # httpcore raises "from None", which hides the cause
        if isinstance(found, BaseExceptionGroup):
            waiting += found.exceptions


def _numbers(error: BaseException) -> set[int]:
    if not isinstance(error, OSError):
        return set()
    return {error.errno} if error.errno else {int(number) for number in _ERRNO.findall(str(error))}
