"""Signed tokens: a JWT (RFC 7519) of an Authorization header, verified and read into a Principal.

The hub ignores or pins all that a token says about its own verification (RFC 8725). The algorithm must be one of the issuer's
own key. The key comes from the issuer's key set, never from the header (jku, jwk, x5u, x5c).

pyjwt checks signature, issuer and audience. Kept by hand:
- the dates, because pyjwt allows no clock but the system's;
- the reading of header and claims, because pyjwt accepts duplicate names;
- the memory of verified tokens, because every request would need a verification: 0.1 to 0.2 ms (measured, RS256 and ES256).
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any, NamedTuple

import httpx
import jwt

from fhircast_hub.auth.claims import (
    NO_AUDIENCE,
    SKEW_SECONDS,
    UNKNOWN_ISSUER,
    WRONG_AUDIENCE,
    about,
    check_times,
    client_of,
    kind,
    read_object,
    read_principal,
)
from fhircast_hub.auth.discovery import is_secure
from fhircast_hub.auth.issuer_health import IssuerHealth
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.jwks import ALGORITHMS, Key, KeySet
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import Unauthenticated
from fhircast_hub.service.ports import Clock

#: Bytes of a token. Real access tokens have 1 to 4 KiB. The server limits headers to 64 KiB.
MAX_TOKEN_BYTES = 16 * 1024

#: An algorithm's name that an error may quote: "none", "HS256" and the like.
ALG = re.compile(r"[A-Za-z0-9]{1,6}", re.ASCII)

#: Values of `typ`, in lower case and without "application/". RFC 9068 section 2.1 asks for at+jwt; most SMART servers send JWT.
TYPES = frozenset({"jwt", "at+jwt"})

#: Verified tokens in memory, a kilobyte each. Beyond that the oldest is dropped, and verified again when it comes.
MAX_REMEMBERED = 10_000

#: pyjwt also checks that sub and jti are strings. The dates are checked by `check_times`.
_OPTIONS: jwt.types.Options = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}

#: The texts for pyjwt's errors.
_REASONS: dict[type[Exception], str] = {
    jwt.MissingRequiredClaimError: NO_AUDIENCE,
    jwt.InvalidAudienceError: WRONG_AUDIENCE,
    jwt.exceptions.InvalidSubjectError: "sub must be a string",
    jwt.exceptions.InvalidJTIError: "jti must be a string",
}


class Trusted(NamedTuple):
    """An issuer whose tokens count."""

    issuer: Issuer
    keys: KeySet


class Verified(NamedTuple):
    """A verified token."""

    principal: Principal
    #: The key that signed the token, and the key set that must still have the key.
    key: Key
    keys: KeySet


class JwtVerifier:
    """Verifies the JWTs of any number of issuers. A `TokenVerifier`.

    The caller closes `client`. `allow_insecure` lets the hub fetch keys without https. `health_of` returns what the hub
    remembers of an issuer. Raises as `trust` does.
    """

    def __init__(
        self,
        issuers: Iterable[Issuer],
        client: httpx.AsyncClient,
        clock: Clock,
        *,
        allow_insecure: bool = False,
        health_of: Callable[[str], IssuerHealth] | None = None,
    ) -> None:
        self._client, self._clock, self._allow_insecure = client, clock, allow_insecure
        self._health_of = health_of or (lambda issuer: IssuerHealth(issuer, clock))
        #: By the claim `iss`.
        self._trusted: dict[str, Trusted] = {}
        #: Verified tokens by digest, the oldest first.
        self._remembered: OrderedDict[bytes, Verified] = OrderedDict()
        self.trust(issuers)

    def trust(self, issuers: Iterable[Issuer]) -> None:
        """Trust these issuers from now on, and no others. An issuer with the same jwks_uri as before keeps its keys.

        Verified tokens of issuers that stay as they were remain verified. Raises ValueError, and changes nothing, for an
        issuer that is given twice. The same holds for one that is neither on https nor loopback without `allow_insecure` (SEC-4).
        """
        issuers = tuple(issuers)
        if len({each.issuer for each in issuers}) < len(issuers):
            raise ValueError("an issuer is configured twice")
        for url in (url for each in issuers for url in (each.issuer, each.jwks_uri) if url is not None):
            if not is_secure(url, allow_insecure=self._allow_insecure):
                raise ValueError("issuer and jwks_uri must be https URLs")
        before, self._trusted = self._trusted, {}
        for issuer in issuers:
            old = before.get(issuer.issuer)
            same_keys = old is not None and old.issuer.jwks_uri == issuer.jwks_uri
            self._trusted[issuer.issuer] = Trusted(issuer, old.keys if old and same_keys else self._key_set(issuer))
        self._forget([old for name, old in before.items() if self._trusted.get(name) != old])

    def _key_set(self, issuer: Issuer) -> KeySet:
        health = self._health_of(issuer.issuer)
        return KeySet(issuer, self._client, self._clock, allow_insecure=self._allow_insecure, health=health)

    def _forget(self, changed: list[Trusted]) -> None:
        """Forget the tokens of issuers that changed, and stop the key sets that nobody uses any more."""
        gone = {old.issuer.issuer for old in changed}
        for digest in [digest for digest, each in self._remembered.items() if each.principal.issuer in gone]:
            del self._remembered[digest]
        for old in changed:
            if all(old.keys is not each.keys for each in self._trusted.values()):
                old.keys.stop()

    @property
    def trusted(self) -> list[Trusted]:
        """The issuers, with their keys."""
        return list(self._trusted.values())

    @property
    def remembered(self) -> int:
        """How many verified tokens are in memory."""
        return len(self._remembered)

    async def verify(self, token: str) -> Principal:
        """The bearer of `token`. Suspends only during a fetch of the issuer's keys.

        Raises Unauthenticated that names the failed check (AUT-1). Raises Unavailable with the seconds to wait if the keys cannot
        be fetched (AUT-16).
        """
        digest = sha256(_encoded(token)).digest()
        if principal := self._recall(digest):
            return principal
        header, claims = _unverified(token)
        trusted, client = self._issuer_of(claims), client_of(claims)
        issuer, keys = trusted
        with about(issuer):
            alg = _algorithm(header)
            _check_type(header)
            kid = header.get("kid")
            key, claims = await keys.find(kid, alg, lambda key: _signed_with(key, token, issuer, client))
        if self._trusted.get(issuer.issuer) is not trusted:
            return await self.verify(token)  # the settings changed meanwhile
        with about(issuer, client):
            check_times(claims, self._clock())
            principal = read_principal(claims, issuer)
        self._remember(digest, Verified(principal, key, keys))
        return principal

    def recall(self, token: str) -> Principal | None:
        """The bearer of a remembered token that is still valid. None: only `verify` can tell."""
        return self._recall(sha256(token.encode(errors="surrogateescape")).digest())

    def known(self, token: str) -> Principal | None:
        """The bearer of a token that was valid before, though it may have expired since. None: an unknown token."""
        verified = self._remembered.get(sha256(token.encode(errors="surrogateescape")).digest())
        return verified.principal if verified else None

    async def aclose(self) -> None:
        """Stop the background refreshes."""
        await asyncio.gather(*(each.keys.aclose() for each in self._trusted.values()))

    def _recall(self, digest: bytes) -> Principal | None:
        """The bearer of a verified token that is still valid. Nearly every request ends here."""
        verified = self._remembered.get(digest)
        if verified is None:
            return None
        now = self._clock()
        verified.keys.refresh(now)
        if now < verified.principal.expires + SKEW_SECONDS and verified.keys.holds(verified.key):
            return verified.principal
        del self._remembered[digest]
        return None

    def _remember(self, digest: bytes, verified: Verified) -> None:
        self._remembered[digest] = verified
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def _issuer_of(self, claims: dict[str, Any]) -> Trusted:
        issuer = claims.get("iss")
        trusted = self._trusted.get(issuer) if isinstance(issuer, str) else None
        if trusted is None:
            raise Unauthenticated(f"{UNKNOWN_ISSUER}{self._near_miss(issuer)}")
        return trusted

    def _near_miss(self, issuer: object) -> str:
        """Says that a slash makes the difference: the most frequent mistake in `iss`, and in the settings."""
        same = isinstance(issuer, str) and any(issuer.rstrip("/") == known.rstrip("/") for known in self._trusted)
        return ", and this one differs from such an issuer by the slash at its end" if same else ""


def _encoded(token: str) -> bytes:
    if len(token) > MAX_TOKEN_BYTES:
        raise Unauthenticated(f"the token may have at most {MAX_TOKEN_BYTES} characters, and this one has {len(token)}")
    try:
        return token.encode("ascii")
    except UnicodeEncodeError:
        raise Unauthenticated("the token must be a JWT, and this one has characters outside ASCII") from None


def _unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, not verified: they only tell which issuer's keys verify the token."""
    try:
        header, claims, _ = map(_decoded, token.split("."))
        read = read_object(header), read_object(claims)
    except (ValueError, RecursionError):
        raise Unauthenticated("the token must be a JWT, and this one cannot be decoded") from None
    # RFC 7515 section 4.1.11: a critical extension must be understood. This hub understands none.
    if not isinstance(read[0].get("kid", ""), str) or "crit" in read[0]:
        raise Unauthenticated("the token's header must have a string as kid, and no crit")
    return read


def _decoded(part: str) -> bytes:
    """Decode a part of a JWT: base64url "with all trailing '=' characters omitted" (RFC 7515 section 2).

    Raises ValueError for every other spelling: a bearer could otherwise make many tokens of one.
    """
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != part:
        raise ValueError("not the only spelling")
    return decoded


def _check_type(header: dict[str, Any]) -> None:
    """Raise Unauthenticated for a JWT of another `typ` than an access token's (RFC 8725 section 3.11): a logout token, for example.

    Case does not count, and "application/" may be left out (RFC 7515 section 4.1.9).
    """
    typ = header.get("typ", "JWT")
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") not in TYPES:
        raise Unauthenticated(f"typ must be JWT, at+jwt or application/at+jwt, not {kind(typ)}")


def _algorithm(header: dict[str, Any]) -> str:
    """The header's alg. Symmetric algorithms and "none" are refused (RFC 8725 section 3.2)."""
    alg = header.get("alg")
    if not isinstance(alg, str) or not ALG.fullmatch(alg):
        raise Unauthenticated("alg must be an asymmetric algorithm, not a text that names none")
    if alg not in ALGORITHMS:
        raise Unauthenticated("alg must be an asymmetric algorithm, not …", quoted=alg)
    return alg


def _signed_with(key: Key, token: str, issuer: Issuer, client: str) -> dict[str, Any] | None:
    """The claims of a token that `key` signed. None: another key did. Raises Unauthenticated for another issuer or audience.

    `client` is the token's own word, so the error names the client only behind a right signature.
    """
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
        if reason := _REASONS.get(type(error)):  # pyjwt checks the signature before all of these
            raise Unauthenticated(reason, client=client) from None
        raise Unauthenticated("the token cannot be verified") from None
