"""Tokens of every kind: a JWT is verified with its issuer's keys, an opaque token by introspection."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import httpx

from fhircast_hub.auth.claims import UNKNOWN_ISSUER, normal_user
from fhircast_hub.auth.discovery import is_secure
from fhircast_hub.auth.introspection import Introspector, is_opaque
from fhircast_hub.auth.issuer_health import IssuerHealth
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.jwt import MAX_TOKEN_BYTES, JwtVerifier
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import Unauthenticated
from fhircast_hub.service.ports import Clock
from fhircast_hub.telemetry.metrics import Metrics


class Verifier:
    """Verifies the tokens of any number of issuers. A `TokenVerifier`, with the parameters and errors of JwtVerifier.

    Raises ValueError for a second issuer with an introspection_endpoint: an opaque token does not name its issuer (AUT-14).
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        client: httpx.AsyncClient,
        clock: Clock,
        *,
        allow_insecure: bool = False,
        metrics: Metrics | None = None,
    ) -> None:
        self._client, self._clock, self._allow_insecure = client, clock, allow_insecure
        metrics = metrics or Metrics()
        self._new_health = partial(IssuerHealth, clock=clock, metrics=metrics)
        self._healths: dict[str, IssuerHealth] = {}
        self._opaque: Introspector | None = None
        _check_introspection(issuers, allow_insecure=allow_insecure)
        self._jwt = JwtVerifier(issuers, client, clock, allow_insecure=allow_insecure, health_of=self._health_of)
        self._trust_opaque(issuers)
        metrics.issuer_keys.set_function(self._key_counts)
        metrics.issuer_keys_age.set_function(self._key_ages)

    def start(self) -> None:
        """Fetch the keys of the issuers in the background, if JWTs of the issuer are expected."""
        for issuer, keys in self._jwt.trusted:
            if issuer.expects_jwts:
                keys.start()

    def reload(self, issuers: Sequence[Issuer]) -> None:
        """Trust these issuers from now on, and no others (OPS-20). Keys and tokens of issuers that stay as they were remain.

        Raises as the constructor does. The issuers of before are then trusted still.
        """
        _check_introspection(issuers, allow_insecure=self._allow_insecure)
        self._jwt.trust(issuers)
        self._trust_opaque(issuers)
        names = {issuer.issuer for issuer in issuers}
        self._healths = {name: health for name, health in self._healths.items() if name in names}
        self.start()

    def health(self) -> list[IssuerHealth]:
        """What happened with each issuer so far, in the order of the settings."""
        return [self._health_of(issuer.issuer) for issuer, _ in self._jwt.trusted]

    def without_keys(self) -> list[str]:
        """The issuers whose JWTs are expected, and cannot be verified: no usable key was fetched yet."""
        return [issuer.issuer for issuer, keys in self._jwt.trusted if issuer.expects_jwts and not keys.is_usable]

    async def verify(self, token: str) -> Principal:
        """See ports.TokenVerifier."""
        if self._opaque is None or not is_opaque(token):
            return await self._jwt.verify(token)
        if len(token) > MAX_TOKEN_BYTES:
            raise Unauthenticated(
                f"the token may have at most {MAX_TOKEN_BYTES} characters, and this one has {len(token)}"
            )
        opaque = self._opaque
        principal = await opaque.verify(token)
        if self._opaque is opaque and principal.issuer == opaque.issuer.issuer:
            return principal
        return await self.verify(token)  # the settings changed meanwhile

    def recall(self, token: str) -> Principal | None:
        """See ports.TokenVerifier."""
        return self._jwt.recall(token) or (self._opaque.recall(token) if self._opaque else None)

    def known(self, token: str) -> Principal | None:
        """The bearer of a token that was valid before, though it may have expired since. None: an unknown token. Two look-ups, no check."""
        return self._jwt.known(token) or (self._opaque.known(token) if self._opaque else None)

    def normal_user(self, principal: Principal, user: str) -> str:
        """A user as the tokens of the principal's issuer name users (AUT-9).

        Raises ValueError for a text that no token could have. The error's text follows the name of the parameter.
        """
        if not user.isprintable() or user.isspace():
            raise ValueError("must be printable text")
        for issuer, _ in self._jwt.trusted:
            if issuer.issuer == principal.issuer:
                return normal_user(user, issuer)
        raise Unauthenticated(UNKNOWN_ISSUER)  # the settings changed since the token was verified

    async def aclose(self) -> None:
        """Stop the background refreshes."""
        await self._jwt.aclose()

    def _trust_opaque(self, issuers: Sequence[Issuer]) -> None:
        asked = next((issuer for issuer in issuers if issuer.introspection_endpoint), None)
        if asked is None:
            self._opaque = None
        elif self._opaque and self._opaque.issuer.issuer == asked.issuer:
            self._opaque.trust(asked)
        else:
            self._opaque = Introspector(asked, self._client, self._clock, self._health_of(asked.issuer))

    def _health_of(self, issuer: str) -> IssuerHealth:
        if issuer not in self._healths:
            self._healths[issuer] = self._new_health(issuer)
        return self._healths[issuer]

    def _key_counts(self) -> dict[str, float]:
        """The usable keys of each issuer whose JWTs are expected, or whose keys were fetched."""
        expected = {issuer.issuer for issuer, _ in self._jwt.trusted if issuer.expects_jwts}
        return {each.issuer: each.keys for each in self.health() if each.keys_at is not None or each.issuer in expected}

    def _key_ages(self) -> dict[str, float]:
        """Seconds since the keys of each issuer were fetched, for issuers whose keys are known."""
        return {each.issuer: self._clock() - each.keys_at for each in self.health() if each.keys_at is not None}


def _check_introspection(issuers: Sequence[Issuer], *, allow_insecure: bool) -> None:
    """Raise ValueError unless at most one issuer has an introspection_endpoint, and that is secure."""
    endpoints = [issuer.introspection_endpoint for issuer in issuers if issuer.introspection_endpoint]
    if len(endpoints) > 1:
        raise ValueError("only one issuer may have an introspection_endpoint")
    if not all(is_secure(endpoint, allow_insecure=allow_insecure) for endpoint in endpoints):
        raise ValueError("introspection_endpoint must be an https URL")
