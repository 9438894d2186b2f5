"""Opaque tokens: the hub asks the issuer about each (RFC 7662, AUT-14).

An answer counts for CACHE_SECONDS, so a revoked token ends soon. Tokens are kept as digests only. Kept by hand because strangers
can send any number of made-up tokens: the questions to the issuer are limited, and known tokens are asked about separately.
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

from fhircast_hub.auth.claims import (
    NO_AUDIENCE,
    SKEW_SECONDS,
    WRONG_AUDIENCE,
    about,
    check_times,
    client_of,
    read_object,
    read_principal,
)
from fhircast_hub.auth.discovery import HEADERS, FetchError, fault_of, read_body
from fhircast_hub.auth.issuer_health import About, IssuerHealth
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import Unauthenticated, Unavailable
from fhircast_hub.service.ports import Clock

#: Seconds for which an answer counts. AUT-14 allows 60. The check for revoked tokens runs every few seconds.
CACHE_SECONDS = 30.0
#: Answers that are kept about valid tokens, and about invalid ones. Beyond that the oldest is dropped, and its token asked about again.
MAX_REMEMBERED = 10_000
#: Questions to the issuer at the same time. Tokens that were valid before have as many of their own: a flood of made-up tokens
#: locks no client out, and keeps no revoked token alive.
AT_ONCE = 16
#: Seconds for an answer, including the wait before the question. After that the issuer counts as unreachable (AUT-16).
ANSWER_SECONDS = 5.0
#: The registered types of tokens that are no bearer tokens (IANA, "OAuth Access Token Types"), in lower case. Other unregistered
#: types are words of an issuer's own, and mean nothing.
OTHER_TYPES = frozenset({"dpop", "pop", "n_a"})
#: Seconds after which a client may try again while the issuer does not answer.
RETRY_AFTER = 5
_CREDENTIALS = "check introspection_client_id and its secret"
#: What to do where the endpoint is none.
CHECK_PATH = "check the path of introspection_endpoint"
#: What to do about an answer of an introspection endpoint, by what `FetchError` says of the answer.
ADVICE = {
    "answered 400": f"the server's log has the reason; {_CREDENTIALS}",
    "answered 401": f"the credentials are wrong or missing; {_CREDENTIALS}",
    "answered 403": f"this client may not introspect; {_CREDENTIALS}, and its rights at the issuer",
    "answered 404": f"nothing is there; {CHECK_PATH}",
    "answered 405": f"the address takes no POST; {CHECK_PATH}",
    "answered no JSON object": f"this is no introspection endpoint, perhaps a page for people; {CHECK_PATH}",
}


class _Answer(NamedTuple):
    """The issuer's answer about a token."""

    #: The bearer. None: the token is invalid.
    principal: Principal | None
    #: Why the token is invalid. "": it is valid.
    reason: str
    #: The client of the token. "": the issuer has named none.
    client: str
    #: When the answer ceases to count, in epoch seconds.
    until: float


class Introspector:
    """Asks one issuer about tokens. A `TokenVerifier`.

    The caller closes `client`. Raises ValueError for an issuer without introspection_endpoint.
    """

    def __init__(
        self, issuer: Issuer, client: httpx.AsyncClient, clock: Clock, health: IssuerHealth | None = None
    ) -> None:
        if not issuer.introspection_endpoint:
            raise ValueError("the issuer needs an introspection_endpoint")
        self._issuer = issuer
        self._health = health or IssuerHealth(issuer.issuer, clock)
        self._client = client
        self._clock = clock
        #: Answers by the token's digest, the oldest first.
        self._valid: OrderedDict[bytes, _Answer] = OrderedDict()
        self._invalid: OrderedDict[bytes, _Answer] = OrderedDict()
        #: Questions under way, by the token's digest.
        self._questions: dict[bytes, asyncio.Task[_Answer]] = {}
        #: Places for questions about tokens that were valid before, and about others.
        self._known_tokens, self._unknown_tokens = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_ONCE)

    def trust(self, issuer: Issuer) -> None:
        """Read tokens as this issuer's from now on. Its URL is that of before. Answers remain if they still mean the same."""
        if _reading(issuer) != _reading(self._issuer):
            self._valid.clear()
            self._invalid.clear()
        self._issuer = issuer

    @property
    def issuer(self) -> Issuer:
        """The issuer that is asked."""
        return self._issuer

    async def verify(self, token: str) -> Principal:
        """The bearer of `token`. Raises Unauthenticated, or Unavailable while the issuer does not answer (AUT-16)."""
        digest, issuer = sha256(token.encode(errors="surrogateescape")).digest(), self._issuer
        answer = self._valid.get(digest) or self._invalid.get(digest)
        if answer is None or answer.until <= self._clock():
            with about(issuer):
                answer = await self._answer(digest, token)
            if self._issuer is not issuer:  # the settings changed meanwhile
                return await self.verify(token)
        with about(issuer, answer.client):
            if answer.principal is None:
                raise Unauthenticated(answer.reason)
            if self._clock() >= answer.principal.expires + SKEW_SECONDS:
                raise Unauthenticated("exp: the token has expired")
        return answer.principal

    def recall(self, token: str) -> Principal | None:
        """The bearer of a remembered token that is still valid. None: only `verify` can tell."""
        answer = self._valid.get(sha256(token.encode(errors="surrogateescape")).digest())
        now = self._clock()
        if answer is None or answer.until <= now or answer.principal is None:
            return None
        return answer.principal if now < answer.principal.expires + SKEW_SECONDS else None

    def known(self, token: str) -> Principal | None:
        """The bearer of a token that was valid before, though it may have expired since. None: an unknown token."""
        answer = self._valid.get(sha256(token.encode(errors="surrogateescape")).digest())
        return answer.principal if answer else None

    async def _answer(self, digest: bytes, token: str) -> _Answer:
        """Ask the issuer. Simultaneous calls for one token share a question."""
        issuer = self._issuer
        task = self._questions.get(digest)
        if task is None:
            places = self._known_tokens if digest in self._valid else self._unknown_tokens
            task = self._questions[digest] = asyncio.get_running_loop().create_task(self._ask(token, places))
            task.add_done_callback(lambda _: self._questions.pop(digest, None))
        answer = await asyncio.shield(task)
        if issuer is self._issuer:  # otherwise the settings changed meanwhile
            self._remember(digest, answer)
        return answer

    def _remember(self, digest: bytes, answer: _Answer) -> None:
        self._valid.pop(digest, None)
        self._invalid.pop(digest, None)
        answers = self._invalid if answer.principal is None else self._valid
        answers[digest] = answer
        if len(answers) > MAX_REMEMBERED:
            answers.popitem(last=False)

    async def _ask(self, token: str, places: asyncio.Semaphore) -> _Answer:
        until, is_asked = self._clock() + CACHE_SECONDS, False
        try:
            async with asyncio.timeout(ANSWER_SECONDS), places:
                is_asked = True
                claims = await self.introspect(token)
        except (FetchError, httpx.HTTPError, TimeoutError) as error:
            if is_asked:  # to wait for a place is no failure of the issuer
                hint = ADVICE.get(str(error))
                self._health.failed(About.TOKENS, fault_of(error) + (f"; {hint}" if hint else ""))
            raise Unavailable("the issuer cannot be asked about this token", retry_after=RETRY_AFTER) from None
        self._health.succeeded(About.TOKENS)
        client = client_of(claims)
        try:
            return _Answer(self._principal(claims), "", client, until)
        except Unauthenticated as error:
            return _Answer(None, error.logged, client, until)

    async def introspect(self, token: str) -> dict[str, Any]:
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
        """The bearer in an answer, which needs the same claims as a signed token (AUT-1). Raises Unauthenticated that names the claim."""
        if claims.get("active") is not True:
            raise Unauthenticated("the token is not active, as its issuer says")
        if str(claims.get("token_type", "")).lower() in OTHER_TYPES:
            raise Unauthenticated("token_type must be that of a bearer token, not another")
        if claims.get("iss", self._issuer.issuer) != self._issuer.issuer:
            raise Unauthenticated("iss must be the issuer that was asked, not another")
        expected, given = self._issuer.audience, claims.get("aud")
        audiences = {each for each in (given if isinstance(given, list) else [given]) if isinstance(each, str)}
        if audiences.isdisjoint({expected} if isinstance(expected, str) else expected):
            raise Unauthenticated(WRONG_AUDIENCE if audiences else NO_AUDIENCE)
        check_times(claims, self._clock())
        return replace(read_principal(claims, self._issuer), opaque=True)


def _reading(issuer: Issuer) -> Issuer:
    """The issuer without the members that only say how to ask."""
    asking = ("introspection_endpoint", "introspection_client_id", "introspection_client_secret", "jwks_uri")
    return replace(issuer, **dict.fromkeys(asking))


def is_opaque(token: str) -> bool:
    """Whether a token is opaque: no JWT with a header that names an algorithm."""
    header, _, rest = token.partition(".")
    if rest.count(".") != 1:
        return True
    try:
        decoded = msgspec.json.decode(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (ValueError, RecursionError):
        return True
    return not isinstance(decoded, dict) or "alg" not in decoded
