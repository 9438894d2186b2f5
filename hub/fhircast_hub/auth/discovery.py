"""Fetches an issuer's key set, from its jwks_uri or by discovery (AUT-12).

The answer decides which tokens the hub accepts. So the hub asks over https, follows no redirect, and reads only a small answer.
Kept by hand: in a library, these three would depend on its defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import httpx
import msgspec

from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.core.wire.json import strip_bom

#: Bytes of an answer. A key set of a hundred RSA keys has 50 KiB.
MAX_BYTES = 256 * 1024

#: Compressed answers are not asked for: a few bytes could inflate to very many.
HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}

#: SMART App Launch 2.2, "Conformance", and OpenID Connect Discovery 1.0 section 4: the first with a jwks_uri counts.
WELL_KNOWN = ("/.well-known/smart-configuration", "/.well-known/openid-configuration")

#: What an application that logs people in needs of a document of discovery.
LOGIN_ENDPOINTS = ("authorization_endpoint", "token_endpoint")


class FetchError(Exception):
    """A document cannot be fetched. The message may be logged: it quotes nothing of the answer."""


def fault_of(error: Exception) -> str:
    """What failed, for log and console: what was answered, or the kind of the error. No error of a library is quoted."""
    if isinstance(error, FetchError):
        return str(error)
    return "did not answer in time" if isinstance(error, TimeoutError) else f"not reached ({type(error).__name__})"


def is_secure(url: str, *, allow_insecure: bool = False) -> bool:
    """Whether `url` is https, or http on the loopback interface (SEC-4). With `allow_insecure`, any http is secure, too."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    if parsed.scheme == "http":
        return bool(parsed.host) and (allow_insecure or _is_loopback(parsed.host))
    return parsed.scheme == "https" and bool(parsed.host)


async def fetch_jwks(issuer: Issuer, client: httpx.AsyncClient, *, allow_insecure: bool = False) -> dict[str, Any]:
    """The issuer's JWK Set (RFC 7517 section 5), unchecked. Raises FetchError."""
    uri = issuer.jwks_uri or await _discover(issuer.issuer, client, allow_insecure)
    return await get_object(uri, client, allow_insecure)


async def _discover(issuer: str, client: httpx.AsyncClient, allow_insecure: bool) -> str:
    """The issuer's jwks_uri. Raises FetchError."""
    document = await discover(issuer, client, ("jwks_uri",), allow_insecure=allow_insecure)
    return str(document["jwks_uri"])


async def discover(
    issuer: str, client: httpx.AsyncClient, members: Sequence[str], *, allow_insecure: bool = False
) -> dict[str, Any]:
    """The first document that has all of these members as texts, and that names this issuer.

    Raises FetchError, whose cause is the error of the first request where no request was answered.

    All members are optional in a smart-configuration. OpenID Connect Discovery 1.0 section 4.3: "The issuer value
    returned MUST be identical to the Issuer URL that was used". Otherwise another issuer's document could bring its own keys.
    """
    reasons, causes = [], []
    for path in WELL_KNOWN:
        try:
            # OpenID Connect Discovery 1.0 section 4.1: "any terminating / MUST be removed"
            document = await get_object(issuer.rstrip("/") + path, client, allow_insecure)
        except FetchError as error:
            reasons.append(str(error) if error.__cause__ else f"{path} {error}")
            causes += [error.__cause__] if error.__cause__ else []
            continue
        if document.get("issuer") == issuer and all(isinstance(document.get(name), str) for name in members):
            return document
        missing = [name for name in members if not isinstance(document.get(name), str)]
        fault = f"names no {' and no '.join(missing)}" if missing else "is not of this issuer"
        reasons.append(f"{path} {fault}")
    # Both documents are at one server: that the server is away is said once.
    unreached = causes[0] if len(causes) == len(reasons) else None
    raise FetchError(f"discovery: {', '.join(dict.fromkeys(reasons))}") from unreached


async def get_object(url: str, client: httpx.AsyncClient, allow_insecure: bool) -> dict[str, Any]:
    if not is_secure(url, allow_insecure=allow_insecure):
        raise FetchError("not an https address")
    try:
        # A redirect would move the trust to another server, so it is refused like every answer but 200.
        async with client.stream("GET", url, headers=HEADERS, follow_redirects=False) as response:
            document = await read_body(response)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchError(fault_of(error)) from error
    try:
        return msgspec.json.decode(document, type=dict[str, Any])
    except (ValueError, RecursionError):
        raise FetchError("answered no JSON object") from None


async def read_body(response: httpx.Response) -> bytes:
    """The body of an answer, without a byte order mark. Raises FetchError for a status but 200, a Content-Encoding, or too many bytes."""
    if response.status_code != httpx.codes.OK:
        raise FetchError(f"answered {response.status_code}")
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise FetchError("answered with a Content-Encoding, which was not asked for")
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_BYTES:
            raise FetchError(f"answered more than {MAX_BYTES} bytes")
    return strip_bom(bytes(body))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
