"""Fetching what an issuer publishes: its key set, found by address or by discovery (AUT-12).

An answer decides whom the hub believes, so it comes over https, from exactly the address asked, and is small.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import httpx
import msgspec

from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.core.wire.json import strip_bom

#: Bytes of one answer. A key set of a hundred RSA keys has 50 KiB.
MAX_BYTES = 256 * 1024

#: A few bytes that are to be inflated may stand for very many.
HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}

#: SMART App Launch 2.2, "Conformance", and OpenID Connect Discovery 1.0 section 4: the first to name the keys counts.
WELL_KNOWN = ("/.well-known/smart-configuration", "/.well-known/openid-configuration")


class FetchError(Exception):
    """A document cannot be had. The message may be logged: it quotes nothing that came."""


def is_secure(url: str, *, allow_insecure: bool = False) -> bool:
    """Whether the hub may believe what it reads at `url`: https, or http on the loopback interface (SEC-4)."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    if parsed.scheme == "http":
        return bool(parsed.host) and (allow_insecure or _is_loopback(parsed.host))
    return parsed.scheme == "https" and bool(parsed.host)


async def fetch_jwks(issuer: Issuer, client: httpx.AsyncClient, *, allow_insecure: bool = False) -> dict[str, Any]:
    """The issuer's JWK Set (RFC 7517 section 5) as it came. Raises FetchError."""
    uri = issuer.jwks_uri or await _discover(issuer.issuer, client, allow_insecure)
    return await _get_object(uri, client, allow_insecure)


async def _discover(issuer: str, client: httpx.AsyncClient, allow_insecure: bool) -> str:
    """The jwks_uri of the first document that has one and is the issuer's own.

    Both members are optional in a smart-configuration. OpenID Connect Discovery 1.0 section 4.3: "The issuer value
    returned MUST be identical to the Issuer URL that was used"; whoever could change it could lend out his own keys.
    """
    reasons = []
    for path in WELL_KNOWN:
        try:
            # OpenID Connect Discovery 1.0 section 4.1: "any terminating / MUST be removed"
            document = await _get_object(issuer.rstrip("/") + path, client, allow_insecure)
        except FetchError as error:
            reasons.append(str(error))
            continue
        uri = document.get("jwks_uri")
        if document.get("issuer") == issuer and isinstance(uri, str):
            return uri
        reasons.append("without this issuer and a jwks_uri")
    raise FetchError("discovery: " + ", ".join(reasons))


async def _get_object(url: str, client: httpx.AsyncClient, allow_insecure: bool) -> dict[str, Any]:
    if not is_secure(url, allow_insecure=allow_insecure):
        raise FetchError("not an https address")
    try:
        # A redirect would move the trust elsewhere, so it is an answer like any other that is not 200.
        async with client.stream("GET", url, headers=HEADERS, follow_redirects=False) as response:
            document = await read_body(response)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchError(type(error).__name__) from error
    try:
        return msgspec.json.decode(document, type=dict[str, Any])
    except (ValueError, RecursionError):
        raise FetchError("answered no JSON object") from None


async def read_body(response: httpx.Response) -> bytes:
    """The text of an answer, without a byte order mark. Raises FetchError for an answer that is not 200, encoded, or too long."""
    if response.status_code != httpx.codes.OK:
        raise FetchError(f"answered {response.status_code}")
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise FetchError("answered with a Content-Encoding, which was not asked for")  # and is not inflated
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
