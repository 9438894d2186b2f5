"""Signed tokens: from the Authorization header's JWT (RFC 7519) to a Principal.

Everything that a token says about how to check it is ignored or pinned (RFC 8725): the algorithm must be one that the
issuer's own key is for, and the key comes from the issuer's key set, never from the header (jku, jwk, x5u, x5c).
`typ` is left alone: RFC 9068 asks for at+jwt, which most SMART servers do not send. The audience keeps others out.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections import OrderedDict
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, NamedTuple

import httpx
import jwt

from fhircast_hub.auth.claims import SKEW_SECONDS, check_times, kind, read_object, read_principal
from fhircast_hub.auth.discovery import is_secure
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.jwks import ALGORITHMS, Key, KeySet
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import Unauthenticated
from fhircast_hub.service.ports import Clock

#: Bytes of a token. Headers are bounded to 64 KiB by the server; real access tokens have one to four.
MAX_TOKEN_BYTES = 16 * 1024

#: What may be an algorithm's name, and so be quoted in a refusal: "none", "HS256" and their like.
ALG = re.compile(r"[A-Za-z0-9]{1,6}", re.ASCII)

#: What `typ` may say, in lower case and without "application/": a JWT of no kind in particular, or an access token (RFC 9068 section 2.1).
TYPES = frozenset({"jwt", "at+jwt"})

#: Verified tokens held at a time, a kilobyte each; beyond it the oldest is verified again when it comes.
MAX_REMEMBERED = 10_000

#: pyjwt checks signature, iss and aud, and that sub and jti are strings. Dates are ours: it has no clock but its own.
_OPTIONS: jwt.types.Options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}

_REASONS: dict[type[Exception], str] = {
    jwt.MissingRequiredClaimError: "aud: expected this hub's audience, got nothing",
    jwt.InvalidAudienceError: "aud: expected this hub's audience, got another",
    jwt.exceptions.InvalidSubjectError: "sub: expected a string",
    jwt.exceptions.InvalidJTIError: "jti: expected a string",
}


class Verified(NamedTuple):
    """A token that was found good, and what that rests on."""

    principal: Principal
    key: Key
    keys: KeySet


class JwtVerifier:
    """Verifies the tokens of any number of issuers; a `TokenVerifier`.

    `client` stays the caller's to close. `allow_insecure` lets issuers be asked without https. Raises ValueError for an
    issuer given twice or, unless `allow_insecure`, not on https or loopback (SEC-4).
    """

    def __init__(
        self, issuers: Iterable[Issuer], client: httpx.AsyncClient, clock: Clock, *, allow_insecure: bool = False
    ) -> None:
        self._clock = clock
        self._issuers: dict[str, KeySet] = {}
        self._remembered: OrderedDict[bytes, Verified] = OrderedDict()
        for issuer in issuers:
            if issuer.issuer in self._issuers:
                raise ValueError("an issuer is configured twice")
            for url in (issuer.issuer, issuer.jwks_uri):
                if url is not None and not is_secure(url, allow_insecure=allow_insecure):
                    raise ValueError("issuer and jwks_uri must be https URLs")
            self._issuers[issuer.issuer] = KeySet(issuer, client, clock, allow_insecure=allow_insecure)

    @property
    def remembered(self) -> int:
        """How many verified tokens are held."""
        return len(self._remembered)

    async def verify(self, token: str) -> Principal:
        """The bearer of `token`. Suspends only while an issuer is asked for keys.

        Raises Unauthenticated naming the check that failed (AUT-1), or Unavailable with the seconds to wait while the
        issuer cannot be asked (AUT-16).
        """
        digest = sha256(_encoded(token)).digest()
        if principal := self._recall(digest):
            return principal
        header, claims = _unverified(token)
        alg, keys = _algorithm(header), self._keys_of(claims)
        _check_type(header)
        key, claims = await keys.find(header.get("kid"), alg, lambda key: _signed_with(key, token, keys.issuer))
        check_times(claims, self._clock())
        principal = read_principal(claims, keys.issuer)
        self._remember(digest, Verified(principal, key, keys))
        return principal

    def known(self, token: str) -> Principal | None:
        """The bearer of a token that was found good before, whether or not that is so still."""
        verified = self._remembered.get(sha256(token.encode(errors="surrogateescape")).digest())
        return verified.principal if verified else None

    async def aclose(self) -> None:
        """Stop the background refreshes."""
        await asyncio.gather(*(keys.aclose() for keys in self._issuers.values()))

    def _recall(self, digest: bytes) -> Principal | None:
        """Every request of every client passes here, mostly with a token seen before."""
        known = self._remembered.get(digest)
        if known is None:
            return None
        now = self._clock()
        known.keys.refresh(now)
        if now < known.principal.expires + SKEW_SECONDS and known.keys.holds(known.key):
            return known.principal
        del self._remembered[digest]
        return None

    def _remember(self, digest: bytes, verified: Verified) -> None:
        self._remembered[digest] = verified
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def _keys_of(self, claims: dict[str, Any]) -> KeySet:
        issuer = claims.get("iss")
        keys = self._issuers.get(issuer) if isinstance(issuer, str) else None
        if keys is None:
            raise Unauthenticated("iss: not an issuer that this hub knows")
        return keys


def _encoded(token: str) -> bytes:
    if len(token) > MAX_TOKEN_BYTES:
        raise Unauthenticated(f"token: expected at most {MAX_TOKEN_BYTES} characters, got {len(token)}")
    try:
        return token.encode("ascii")
    except UnicodeEncodeError:
        raise Unauthenticated("token: expected a JWT, got characters outside ASCII") from None


def _unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, good for nothing but to find out by whose keys the token is to be checked."""
    try:
        header, claims, _ = map(_decoded, token.split("."))
        read = read_object(header), read_object(claims)
    except (ValueError, RecursionError):
        raise Unauthenticated("token: expected a JWT, got something that cannot be decoded") from None
    # RFC 7515 section 4.1.11: what is critical must be understood, and this hub understands no extension.
    if not isinstance(read[0].get("kid", ""), str) or "crit" in read[0]:
        raise Unauthenticated("token: its header has a kid that is no string, or a crit unknown to this hub")
    return read


def _decoded(part: str) -> bytes:
    """A part of a JWT, which can be written in one way: base64url "with all trailing '=' characters omitted" (RFC 7515 section 2).

    Raises ValueError for another way: whoever has a token could spell its signature anew, and have many of one.
    """
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != part:
        raise ValueError("not in its one spelling")
    return decoded


def _check_type(header: dict[str, Any]) -> None:
    """Raise Unauthenticated for a JWT that says to be of another kind than an access token, such as a logout token.

    RFC 8725 section 3.11. Types are compared without regard to case, and "application/" may be left out (RFC 7515 section 4.1.9).
    """
    typ = header.get("typ", "JWT")
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") not in TYPES:
        raise Unauthenticated(f"typ: expected JWT, at+jwt or application/at+jwt, got {kind(header, 'typ')}")


def _algorithm(header: dict[str, Any]) -> str:
    """The header's alg. RFC 8725 section 3.2: symmetric ones and "none" are for nobody here."""
    alg = header.get("alg")
    if not isinstance(alg, str) or not ALG.fullmatch(alg):
        raise Unauthenticated("alg: expected an asymmetric algorithm, got no name of one")
    if alg not in ALGORITHMS:
        raise Unauthenticated(f"alg: expected an asymmetric algorithm, got {alg}")
    return alg


def _signed_with(key: Key, token: str, issuer: Issuer) -> dict[str, Any] | None:
    """The claims of a token that `key` signed; None where another did. Raises Unauthenticated if they do not fit."""
    try:
        return jwt.decode(
            token,
            key.public,
            algorithms=sorted(key.algorithms),
            audience=issuer.audience,
            issuer=issuer.issuer,
            options=_OPTIONS,
        )
    except jwt.InvalidSignatureError:
        return None
    except jwt.PyJWTError as error:
        raise Unauthenticated(_REASONS.get(type(error), "token: cannot be verified")) from None
