"""The keys that an issuer signs with (RFC 7517), kept fresh without anyone waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil, inf
from typing import Any, TypeVar

import httpx
import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import AllowedPublicKeys

from fhircast_hub.auth.discovery import FetchError, fetch_jwks
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.budgets.leaky_bucket import LeakyBucket
from fhircast_hub.core.errors import Unauthenticated, Unavailable
from fhircast_hub.service.ports import Clock

#: Seconds between two refreshes: within the hour, with room for a failed one.
REFRESH_SECONDS = 3000.0

#: Seconds from a failed fetch to the next refresh.
PAUSE_SECONDS = 30.0

#: Seconds that a whole fetch may take, discovery included; so long waits who asks for an unreachable issuer (AUT-16).
FETCH_SECONDS = 5.0

#: Fetches for unknown keys that may follow at once, and seconds until there is one more (AUT-19). Strangers can make up any
#: number of key ids.
MAX_FETCHES, SECONDS_EACH = 3, 30.0

#: Keys that are tried for one token: each costs a verification. Issuers in the midst of a rollover have two to four.
MAX_TRIED = 16

#: Bits of an RSA modulus. RFC 7518 section 3.3: "2048 bits or larger"; the upper end is what OpenSSL verifies with.
RSA_BITS = range(2048, 16384 + 1)

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})

#: What a key of each type and curve can verify (RFC 7518 section 3.1, RFC 8037 section 3.1). No other key is taken.
_CAN_VERIFY = {
    "RSA": _RSA,
    "EC P-256": frozenset({"ES256"}),
    "EC P-384": frozenset({"ES384"}),
    "EC P-521": frozenset({"ES512"}),
    "OKP Ed25519": frozenset({"EdDSA"}),
    "OKP Ed448": frozenset({"EdDSA"}),
}

#: Every algorithm that a token may be signed with. RFC 8725 section 3.1: callers "specify a supported set".
ALGORITHMS = frozenset().union(*_CAN_VERIFY.values())

log = structlog.get_logger()

_T = TypeVar("_T")


@dataclass(frozen=True)
class Key:
    """A public key and the algorithms it is good for. Equal ones are one key, under one id and for one use."""

    kid: str | None
    algorithms: frozenset[str]
    der: bytes
    public: AllowedPublicKeys = field(compare=False)


def read_keys(document: dict[str, Any]) -> tuple[Key, ...]:
    """The usable keys of a JWK Set in its order, each once; every other entry is ignored (RFC 7517 section 5).

    Raises FetchError if `document` is none.
    """
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise FetchError("answered no JWK Set")
    return tuple(dict.fromkeys(key for key in map(_read_key, entries) if key))


def _read_key(jwk: object) -> Key | None:
    """The public signature key that `jwk` describes, or None. A private key in public is nobody's proof: None."""
    if not isinstance(jwk, dict) or "d" in jwk or not _is_for_signatures(jwk):
        return None
    kid, algorithms = jwk.get("kid"), _algorithms(jwk)
    if not algorithms or not (kid is None or isinstance(kid, str)):
        return None
    try:
        public = jwt.PyJWK(jwk, algorithm=min(algorithms)).key
    except (jwt.PyJWTError, UnsupportedAlgorithm):
        return None
    if isinstance(public, RSAPublicKey) and public.key_size not in RSA_BITS:
        return None
    return Key(kid, algorithms, public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), public)


def _is_for_signatures(jwk: dict[str, Any]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return jwk.get("use") in (None, "sig") and isinstance(operations, list) and "verify" in operations


def _algorithms(jwk: dict[str, Any]) -> frozenset[str]:
    """What the key may verify: what its type can, narrowed by its `alg` if it has one (RFC 7517 section 4.4)."""
    kind = "RSA" if jwk.get("kty") == "RSA" else f"{jwk.get('kty')} {jwk.get('crv')}"
    stated = jwk.get("alg")
    return frozenset(alg for alg in _CAN_VERIFY.get(kind, ()) if stated is None or stated == alg)


class KeySet:
    """The current keys of one issuer.

    Nothing is fetched before the first `find`. From then on the keys are refreshed in the background, while the old
    ones go on working. All who wait for the issuer wait for one and the same fetch.
    """

    def __init__(
        self, issuer: Issuer, client: httpx.AsyncClient, clock: Clock, *, allow_insecure: bool = False
    ) -> None:
        self.issuer = issuer
        self._client = client
        self._clock = clock
        self._allow_insecure = allow_insecure
        self._keys: frozenset[Key] | None = None
        #: by id; those without one fit a token of any id that no key has
        self._by_kid: dict[str | None, list[Key]] = {}
        self._in_order: Sequence[Key] = ()
        #: The fetches for unknown keys. Each takes SECONDS_EACH, and a second passes in a second: sums of seconds are exact.
        self._fetches = LeakyBucket((MAX_FETCHES - 1) * SECONDS_EACH, rate=1)
        self._failed = False
        self._fetched_at = -inf
        self._fetching: asyncio.Task[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def holds(self, key: Key) -> bool:
        """Whether the issuer still publishes `key`."""
        return self._keys is not None and key in self._keys

    async def find(self, kid: str | None, alg: str, check: Callable[[Key], _T | None]) -> tuple[Key, _T]:
        """The key that signed a token with this header, and what `check` says of that key: None of every other one.

        Known keys are tried at once (AUT-20). Where none of them signed and the token does not name one of them, the
        issuer is asked, within its budget (AUT-19). Raises Unauthenticated if the issuer has no such key; Unavailable,
        with the seconds to wait, if it cannot be asked (AUT-16) or not yet.
        """
        now = self._clock()
        self.refresh(now)
        tried: set[Key] = set()
        if found := self._try(kid, alg, check, tried):
            return found
        if kid is None or kid not in self._by_kid:
            fetched = await self._ask(now)
            if found := self._try(kid, alg, check, tried):
                return found
            if not fetched:
                raise self._later()
        if kid is not None and kid not in self._by_kid:
            raise Unauthenticated("kid: the issuer has no such key")
        if not tried:
            raise Unauthenticated(f"alg: the issuer's key is not for {alg}")
        raise Unauthenticated("signature: not made with the issuer's key")

    def refresh(self, now: float) -> None:
        """Begin to fetch the keys anew if that is due at `now` (seconds since the epoch). Waits for nothing."""
        due = PAUSE_SECONDS if self._failed else REFRESH_SECONDS
        if self._keys is not None and not _within(self._fetched_at, now, due):
            self._fetch_soon()

    async def aclose(self) -> None:
        """Stop refreshing. Whoever waits for a fetch is told that the issuer cannot be asked."""
        if self._timer:
            self._timer.cancel()
        if fetching := self._fetching:
            fetching.cancel()
            await asyncio.wait({fetching})

    def _try(
        self, kid: str | None, alg: str, check: Callable[[Key], _T | None], tried: set[Key]
    ) -> tuple[Key, _T] | None:
        """The first key that signed, of those that fit and were not `tried`, to which it is added."""
        for key in islice((key for key in self._named(kid) if alg in key.algorithms), MAX_TRIED):
            if key not in tried:
                tried.add(key)
                if (said := check(key)) is not None:
                    return key, said
        return None

    def _named(self, kid: str | None) -> Sequence[Key]:
        """The keys that a token with this id may mean.

        "Use of this member is OPTIONAL" (RFC 7517 section 4.5): a token without an id may mean each key, and a key
        without one may be meant by an id that no other key has.
        """
        return self._in_order if kid is None else self._by_kid.get(kid, self._by_kid.get(None, []))

    async def _ask(self, now: float) -> bool:
        """Wait for the fetch that is under way, or for one of the budget; whether it succeeded. Raises Unavailable.

        The very first fetch is not for an unknown key, for all are unknown.
        """
        first = self._fetched_at == -inf
        if self._fetching is None and not first and not self._take_fetch(now):
            raise self._later()
        fetching = self._fetch_soon()
        # Unlike awaiting the task, this neither cancels it with the one who waits nor hands its cancellation on.
        await asyncio.wait({fetching})
        return not fetching.cancelled() and fetching.exception() is None and fetching.result()

    def _take_fetch(self, now: float) -> bool:
        """Take a fetch of the budget at `now` (epoch seconds). False: none is left."""
        if self._fetch_wait(now) > 0:
            return False
        self._fetches.use(SECONDS_EACH, now)
        return True

    def _fetch_wait(self, now: float) -> float:
        """Seconds until the budget has a fetch; 0: it has one."""
        self._fetches.use(0, now)  # a clock that was set back must not keep the issuer from being asked
        return self._fetches.wait(now)

    def _later(self) -> Unavailable:
        """Why the token cannot be judged now, and when it may be."""
        why = (
            "cannot be fetched just now"
            if self._failed
            else "were fetched just now, and this token's key is not among them"
        )
        wait = self._fetch_wait(self._clock())
        return Unavailable(f"the keys of this token's issuer {why}", retry_after=max(1, ceil(wait)))

    def _fetch_soon(self) -> asyncio.Task[bool]:
        if self._fetching is None:
            if self._timer:
                self._timer.cancel()
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> bool:
        self._failed = True  # until proven otherwise, whatever happens below
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                document = await fetch_jwks(self.issuer, self._client, allow_insecure=self._allow_insecure)
            self._take(read_keys(document))
            self._failed = False
        except (FetchError, TimeoutError) as error:
            host = httpx.URL(self.issuer.issuer).host
            log.warning("issuer_keys_not_fetched", issuer=host, reason=str(error) or "timeout")
        finally:
            self._fetched_at = self._clock()
            self._fetching = None
        # Also when nobody asks for hours: the first token of the morning must not pass by a key withdrawn at night.
        wait = PAUSE_SECONDS if self._failed else REFRESH_SECONDS
        self._timer = asyncio.get_running_loop().call_later(wait, self._fetch_soon)
        return not self._failed

    def _take(self, keys: Iterable[Key]) -> None:
        self._in_order = tuple(keys)
        self._keys = frozenset(self._in_order)
        self._by_kid = {}
        for key in self._in_order:
            self._by_kid.setdefault(key.kid, []).append(key)


def _within(since: float, now: float, seconds: float) -> bool:
    """Whether `now` is less than `seconds` after `since`; never, if the clock was set back in between."""
    return 0 <= now - since < seconds
