"""Opaque tokens: the issuer is asked what one means (RFC 7662, AUT-14).

An answer counts for CACHE_SECONDS, so that a revoked token ends soon; tokens are held by digest only.
"""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from hashlib import sha256
from typing import Any, NamedTuple

import httpx
import msgspec
from msgspec.structs import replace

from fhircast_hub.auth.claims import SKEW_SECONDS, check_times, read_object, read_principal
from fhircast_hub.auth.discovery import HEADERS, FetchError, read_body
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import Unauthenticated, Unavailable
from fhircast_hub.service.ports import Clock

#: Seconds for which an answer counts. AUT-14 allows 60; whoever looks for revoked tokens looks every few seconds.
CACHE_SECONDS = 30.0
#: Answers held at a time, of good tokens and of others; beyond it the oldest is asked for again when it comes.
MAX_REMEMBERED = 10_000
#: Questions under way at once: made-up tokens are free, and the issuer has other clients. Tokens that were good before have so many
#: places of their own: a flood of others locks nobody out, and keeps no revoked token alive.
AT_ONCE = 16
#: Seconds for an answer, with the wait for a place: longer ones come from an issuer that is away, too (AUT-16).
ANSWER_SECONDS = 5.0
#: The registered types of tokens that are not for the bearer (IANA, "OAuth Access Token Types"), in lower case. Some issuers say a
#: word of their own there, which means nothing.
OTHER_TYPES = frozenset({"dpop", "pop", "n_a"})
#: Seconds after which a client may try again while the issuer does not answer.
RETRY_AFTER = 5


class _Known(NamedTuple):
    """What the issuer said of a token: its bearer, or why it is not good; and until when that counts."""

    principal: Principal | None
    reason: str
    until: float


class Introspector:
    """Asks one issuer; a `TokenVerifier`. `client` stays the caller's to close. Raises ValueError without an endpoint to ask."""

    def __init__(self, issuer: Issuer, client: httpx.AsyncClient, clock: Clock) -> None:
        if not issuer.introspection_endpoint:
            raise ValueError("an issuer that is asked needs its introspection_endpoint")
        self._issuer = issuer
        self._client = client
        self._clock = clock
        self._good: OrderedDict[bytes, _Known] = OrderedDict()
        self._bad: OrderedDict[bytes, _Known] = OrderedDict()
        self._asked: dict[bytes, asyncio.Task[_Known]] = {}
        self._again, self._strangers = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_ONCE)

    async def verify(self, token: str) -> Principal:
        """The bearer of `token`. Raises Unauthenticated, or Unavailable while the issuer does not answer (AUT-16)."""
        digest = sha256(token.encode(errors="surrogateescape")).digest()
        known = self._good.get(digest) or self._bad.get(digest)
        if known is None or known.until <= self._clock():
            known = await self._answer(digest, token)
        if known.principal is None:
            raise Unauthenticated(known.reason)
        if self._clock() >= known.principal.expires + SKEW_SECONDS:
            raise Unauthenticated("exp: the token has expired")
        return known.principal

    def known(self, token: str) -> Principal | None:
        """The bearer of a token that was found good before, whether or not that is so still."""
        known = self._good.get(sha256(token.encode(errors="surrogateescape")).digest())
        return known.principal if known else None

    async def _answer(self, digest: bytes, token: str) -> _Known:
        """Ask, once for all who want to know at the same time."""
        task = self._asked.get(digest)
        if task is None:
            slots = self._again if digest in self._good else self._strangers
            task = self._asked[digest] = asyncio.get_running_loop().create_task(self._ask(token, slots))
            task.add_done_callback(lambda _: self._asked.pop(digest, None))
        known = await asyncio.shield(task)
        self._remember(digest, known)
        return known

    def _remember(self, digest: bytes, known: _Known) -> None:
        self._good.pop(digest, None)
        self._bad.pop(digest, None)
        held = self._bad if known.principal is None else self._good
        held[digest] = known
        if len(held) > MAX_REMEMBERED:
            held.popitem(last=False)

    async def _ask(self, token: str, slots: asyncio.Semaphore) -> _Known:
        until = self._clock() + CACHE_SECONDS
        try:
            async with asyncio.timeout(ANSWER_SECONDS), slots:
                claims = await self._introspect(token)
        except (FetchError, httpx.HTTPError, TimeoutError):
            raise Unavailable("the issuer cannot be asked about this token", retry_after=RETRY_AFTER) from None
        try:
            return _Known(self._principal(claims), "", until)
        except Unauthenticated as error:
            return _Known(None, str(error), until)

    async def _introspect(self, token: str) -> dict[str, Any]:
        """ "The protected resource calls the introspection endpoint using an HTTP POST request" (RFC 7662 section 2.1)."""
        issuer = self._issuer
        assert issuer.introspection_endpoint is not None
        auth = httpx.BasicAuth(issuer.introspection_client_id or "", issuer.introspection_client_secret or "")
        form = {"token": token, "token_type_hint": "access_token"}
        async with self._client.stream(
            "POST", issuer.introspection_endpoint, data=form, headers=HEADERS, auth=auth, follow_redirects=False
        ) as response:
            answer = await read_body(response)
        try:
            return read_object(answer)
        except (ValueError, RecursionError):
            raise FetchError("answered no JSON object") from None

    def _principal(self, claims: dict[str, Any]) -> Principal:
        """An answer must say all that a signed token says (AUT-1). Raises Unauthenticated naming what does not fit."""
        if claims.get("active") is not True:
            raise Unauthenticated("token: its issuer says that it is not active")
        if str(claims.get("token_type", "")).lower() in OTHER_TYPES:
            raise Unauthenticated("token_type: expected a bearer token, got one of another type")
        if claims.get("iss", self._issuer.issuer) != self._issuer.issuer:
            raise Unauthenticated("iss: expected the issuer that was asked, got another")
        expected, given = self._issuer.audience, claims.get("aud")
        several = given if isinstance(given, list) else [given]
        audiences = {each for each in several if isinstance(each, str)}
        if audiences.isdisjoint({expected} if isinstance(expected, str) else expected):
            raise Unauthenticated(f"aud: expected this hub's audience, got {'another' if audiences else 'nothing'}")
        check_times(claims, self._clock())
        return replace(read_principal(claims, self._issuer), opaque=True)


def is_opaque(token: str) -> bool:
    """Whether a token is none that its own text explains: no JWT with a header that names an algorithm."""
    header, _, rest = token.partition(".")
    if rest.count(".") != 1:
        return True
    try:
        decoded = msgspec.json.decode(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (ValueError, RecursionError):
        return True
    return not isinstance(decoded, dict) or "alg" not in decoded
