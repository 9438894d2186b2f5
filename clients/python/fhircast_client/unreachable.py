"""Why a hub cannot be reached, in words: its certificate, its name, its port, or what stands between."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator

import httpx

from fhircast_client.proxies import proxy_variable

#: OpenSSL's codes for a chain that ends at a CA which this machine does not know: its verify(1) lists them.
_UNKNOWN_CA = frozenset((2, 18, 19, 20, 21))
#: What OpenSSL says of a port that answers in the clear.
_NO_TLS = frozenset(("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"))
_NO_WAY = frozenset((errno.EHOSTUNREACH, errno.ENETUNREACH))
_PORTS = {"https": 443, "wss": 443}
#: asyncio puts the errors of several addresses into one text.
_ERRNO = re.compile(r"\[Errno (\d+)\]")


def why_unreachable(error: BaseException, url: str) -> str:
    """What an exception of httpx or websockets says of `url`, in words without its path: an endpoint is a secret."""
    if isinstance(error, TimeoutError):
        return "no answer came in time"
    try:
        target = httpx.URL(url)
    except httpx.InvalidURL:
        return type(error).__name__
    host, port = target.host, target.port or _PORTS.get(target.scheme, 80)
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _of_certificate(cause, host)
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            said = cause.reason or type(cause).__name__
            return f"{host}:{port} does not speak TLS" if said in _NO_TLS else f"TLS with {host} failed ({said})"
    variable = proxy_variable(url)
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        name = f"the proxy in {variable}" if variable else f"the name {host}"
        return f"no address is known for {name}"
    if any(errno.ECONNREFUSED in _numbers(cause) for cause in causes):
        return f"nothing listens at {f'the proxy in {variable}' if variable else f'{host}:{port}'}"
    if any(_NO_WAY & _numbers(cause) for cause in causes):
        return f"there is no way to {host} from this machine"
    return type(error).__name__


def _of_certificate(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code in _UNKNOWN_CA:
        known = "a hospital's own CA is trusted where SSL_CERT_FILE names its file"
        return f"the certificate of {host} is not trusted ({error.verify_message}); {known}"
    return f"the certificate of {host} is not valid ({error.verify_message})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and all that led to it."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop(0)
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += [found.__cause__, found.__context__]
        if isinstance(found, BaseExceptionGroup):
            waiting += found.exceptions


def _numbers(error: BaseException) -> set[int]:
    if not isinstance(error, OSError):
        return set()
    return {error.errno} if error.errno else {int(number) for number in _ERRNO.findall(str(error))}
