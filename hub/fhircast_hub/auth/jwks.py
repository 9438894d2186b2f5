"""An issuer's key set (RFC 7517), refreshed in the background.

Kept by hand. pyjwt's PyJWKClient blocks the event loop during a fetch, and reads answers of any size. A token without a kid has no
key there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil, inf
from typing import Any, TypeVar

import httpx
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import AllowedPublicKeys

from fhircast_hub.auth.discovery import FetchError, fault_of, fetch_jwks
from fhircast_hub.auth.issuer_health import About, IssuerHealth
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.budgets.leaky_bucket import LeakyBucket
from fhircast_hub.core.errors import Unauthenticated, Unavailable
from fhircast_hub.service.ports import Clock

#: Seconds between two refreshes: within the hour even if one fails.
REFRESH_SECONDS = 3000.0

#: Seconds from a failed fetch to the next refresh.
PAUSE_SECONDS = 30.0

#: Seconds for a fetch, discovery included. A token of an unreachable issuer waits that long (AUT-16).
FETCH_SECONDS = 5.0

#: Fetches for unknown keys: so many at once, and then one each SECONDS_EACH (AUT-19). Strangers can make up any number of key ids.
MAX_FETCHES, SECONDS_EACH = 3, 30.0

#: Keys that are tried for one token. Each costs a verification. Issuers have two to four keys during a rollover.
MAX_TRIED = 16

#: Bits of an RSA modulus. RFC 7518 section 3.3: "2048 bits or larger". OpenSSL verifies with 16384 at most.
RSA_BITS = range(2048, 16384 + 1)

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})

#: The algorithms of each type and curve of keys (RFC 7518 section 3.1, RFC 8037 section 3.1). Keys of another type are ignored.
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

_T = TypeVar("_T")


@dataclass(frozen=True)
class Key:
    """A public key, and the algorithms that it verifies. Two are equal if id, algorithms and key are."""

    #: None: the key has no id.
    kid: str | None
    algorithms: frozenset[str]
    #: The key as SubjectPublicKeyInfo in DER.
    der: bytes
    public: AllowedPublicKeys = field(compare=False)


def read_keys(document: dict[str, Any]) -> tuple[Key, ...]:
    """The usable keys of a JWK Set in its order, each once. Other entries are ignored (RFC 7517 section 5).

    Raises FetchError if `document` is no JWK Set.
    """
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise FetchError("answered no JWK Set")
    return tuple(dict.fromkeys(key for key in map(_read_key, entries) if key))


def _read_key(jwk: object) -> Key | None:
    """The public signature key in `jwk`. None: it is another kind of key, or a private one. A published private key proves nothing."""
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
    """Whether `use` and `key_ops`, if they are there, allow the verification of signatures (RFC 7517 sections 4.2 and 4.3)."""
    operations = jwk.get("key_ops", ["verify"])
    return jwk.get("use") in (None, "sig") and isinstance(operations, list) and "verify" in operations


def _algorithms(jwk: dict[str, Any]) -> frozenset[str]:
    """The algorithms of the key's type. A key with an `alg` has only that one of them (RFC 7517 section 4.4)."""
    type_ = "RSA" if jwk.get("kty") == "RSA" else f"{jwk.get('kty')} {jwk.get('crv')}"
    stated = jwk.get("alg")
    return frozenset(alg for alg in _CAN_VERIFY.get(type_, ()) if stated is None or stated == alg)


class KeySet:
    """The current keys of one issuer.

    Nothing is fetched before `start` or the first `find`. From then on the keys are refreshed in the background, while the old
    ones go on working. All callers that wait for the issuer share one fetch.
    """

    def __init__(
        self,
        issuer: Issuer,
        client: httpx.AsyncClient,
        clock: Clock,
        *,
        allow_insecure: bool = False,
        health: IssuerHealth | None = None,
    ) -> None:
        self._issuer = issuer
        self._health = health or IssuerHealth(issuer.issuer, clock)
        self._health.keys_at, self._health.keys = None, 0
        self._client = client
        self._clock = clock
        self._allow_insecure = allow_insecure
        #: None: never fetched.
        self._keys: frozenset[Key] | None = None
        #: Keys by id. Those under None match every id that no key has.
        self._by_kid: dict[str | None, list[Key]] = {}
        self._in_order: Sequence[Key] = ()
        #: Fetches for unknown keys. The bucket counts seconds, SECONDS_EACH for a fetch: such sums are exact.
        self._fetches = LeakyBucket((MAX_FETCHES - 1) * SECONDS_EACH, rate=1)
        #: Whether the last fetch failed.
        self._failed = False
        #: When the last fetch ended, in epoch seconds.
        self._fetched_at = -inf
        self._fetching: asyncio.Task[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_usable(self) -> bool:
        """Whether there are keys to verify with."""
        return bool(self._keys)

    def start(self) -> None:
        """Fetch the keys in the background, before the first token needs them."""
        if self._keys is None and self._timer is None:
            self._fetch_soon()

    def holds(self, key: Key) -> bool:
        """Whether the issuer still publishes `key`."""
        return self._keys is not None and key in self._keys

    async def find(self, kid: str | None, alg: str, check: Callable[[Key], _T | None]) -> tuple[Key, _T]:
        """The key that signed a token with this header, and the result of `check` for the key. `check` returns None for other keys.

        Known keys are tried first (AUT-20). If none of them signed, and the token names none of them, the keys are fetched,
        within the budget (AUT-19). Raises Unauthenticated if the issuer has no such key. Raises Unavailable with the seconds to
        wait if the keys cannot be fetched (AUT-16), or not yet.
        """
        now = self._clock()
        self.refresh(now)
        tried: set[Key] = set()
        if found := self._try(kid, alg, check, tried):
            return found
        if kid is None or kid not in self._by_kid:
            fetched = await self._wait_for_fetch(now)
            if found := self._try(kid, alg, check, tried):
                return found
            if not fetched:
                raise self._unavailable()
        if kid is not None and kid not in self._by_kid:
            raise Unauthenticated("kid: the issuer has no such key")
        if not tried:
            raise Unauthenticated(f"alg: the issuer's key is not for {alg}")
        raise Unauthenticated("signature: not made with the issuer's key")

    def refresh(self, now: float) -> None:
        """Start a fetch if one is due at `now` (epoch seconds). Does not wait for it."""
        due = PAUSE_SECONDS if self._failed else REFRESH_SECONDS
        if self._keys is not None and not _within(self._fetched_at, now, due):
            self._fetch_soon()

    def stop(self) -> None:
        """Stop refreshing. Callers that wait for a fetch get Unavailable."""
        if self._timer:
            self._timer.cancel()
        if self._fetching:
            self._fetching.cancel()

    async def aclose(self) -> None:
        """Stop refreshing, and wait until the fetch under way has ended."""
        fetching = self._fetching
        self.stop()
        if fetching:
            await asyncio.wait({fetching})

    def _try(
        self, kid: str | None, alg: str, check: Callable[[Key], _T | None], tried: set[Key]
    ) -> tuple[Key, _T] | None:
        """The first matching key that signed, with the result of its check. Keys in `tried` are skipped, and the others added."""
        for key in islice((key for key in self._matching(kid) if alg in key.algorithms), MAX_TRIED):
            if key not in tried:
                tried.add(key)
                if (result := check(key)) is not None:
                    return key, result
        return None

    def _matching(self, kid: str | None) -> Sequence[Key]:
        """The keys that may have signed a token with this id.

        "Use of this member is OPTIONAL" (RFC 7517 section 4.5): a token without an id matches every key. A key
        without an id matches every id that no other key has.
        """
        return self._in_order if kid is None else self._by_kid.get(kid, self._by_kid.get(None, []))

    async def _wait_for_fetch(self, now: float) -> bool:
        """Wait for the fetch under way, or for a new one from the budget. Returns whether it succeeded. Raises Unavailable.

        The very first fetch takes nothing from the budget: every key is unknown then.
        """
        first = self._fetched_at == -inf
        if self._fetching is None and not first and not self._take_fetch(now):
            raise self._unavailable()
        fetching = self._fetch_soon()
        # Unlike `await fetching`: a cancelled caller does not cancel the fetch, and a cancelled fetch cancels no caller.
        await asyncio.wait({fetching})
        return not fetching.cancelled() and fetching.exception() is None and fetching.result()

    def _take_fetch(self, now: float) -> bool:
        """Take a fetch from the budget at `now` (epoch seconds). False: none is left."""
        if self._fetch_wait(now) > 0:
            return False
        self._fetches.use(SECONDS_EACH, now)
        return True

    def _fetch_wait(self, now: float) -> float:
        """Seconds until the budget has a fetch. 0: it has one now."""
        self._fetches.use(0, now)  # a clock that was set back must not keep the issuer from being asked
        return self._fetches.wait(now)

    def _unavailable(self) -> Unavailable:
        """The error for a token that cannot be verified now, with the seconds to wait."""
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
        self._failed = True  # until the fetch has succeeded
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                document = await fetch_jwks(self._issuer, self._client, allow_insecure=self._allow_insecure)
            self._replace(read_keys(document))
            self._failed = False
            self._health.fetched(len(self._in_order))
        except (FetchError, TimeoutError) as error:
            self._health.failed(About.KEYS, fault_of(error))
        finally:
            self._fetched_at = self._clock()
            self._fetching = None
        # Also without any token for hours: a key that was withdrawn at night must not verify the first token of the morning.
        wait = PAUSE_SECONDS if self._failed else REFRESH_SECONDS
        self._timer = asyncio.get_running_loop().call_later(wait, self._fetch_soon)
        return not self._failed

    def _replace(self, keys: Iterable[Key]) -> None:
        self._in_order = tuple(keys)
        self._keys = frozenset(self._in_order)
        self._by_kid = {}
        for key in self._in_order:
            self._by_kid.setdefault(key.kid, []).append(key)


def _within(since: float, now: float, seconds: float) -> bool:
    """Whether `now` is less than `seconds` after `since`. False if the clock was set back in between."""
    return 0 <= now - since < seconds
