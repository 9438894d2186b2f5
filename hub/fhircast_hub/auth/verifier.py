"""Tokens of every kind: a JWT is verified with its issuer's keys, an opaque token by introspection."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from fhircast_hub.auth.claims import normal_user
from fhircast_hub.auth.discovery import is_secure
from fhircast_hub.auth.introspection import Introspector, is_opaque
from fhircast_hub.auth.issuers import Issuer
from fhircast_hub.auth.jwt import MAX_TOKEN_BYTES, JwtVerifier
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import Unauthenticated
from fhircast_hub.service.ports import Clock


class Verifier:
    """Verifies the tokens of any number of issuers. A `TokenVerifier`, with the parameters and errors of JwtVerifier.

    Raises ValueError for a second issuer with an introspection_endpoint: an opaque token does not name its issuer (AUT-14).
    """

    def __init__(
        self, issuers: Sequence[Issuer], client: httpx.AsyncClient, clock: Clock, *, allow_insecure: bool = False
    ) -> None:
        self._jwt = JwtVerifier(issuers, client, clock, allow_insecure=allow_insecure)
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        introspecting = [issuer for issuer in issuers if issuer.introspection_endpoint]
        if len(introspecting) > 1:
            raise ValueError("only one issuer may have an introspection_endpoint")
        for issuer in introspecting:
            if not is_secure(issuer.introspection_endpoint or "", allow_insecure=allow_insecure):
                raise ValueError("introspection_endpoint must be an https URL")
        self._opaque = Introspector(introspecting[0], client, clock) if introspecting else None

    async def verify(self, token: str) -> Principal:
        """See ports.TokenVerifier."""
        if self._opaque is None or not is_opaque(token):
            return await self._jwt.verify(token)
        if len(token) > MAX_TOKEN_BYTES:
            raise Unauthenticated(
                f"the token may have at most {MAX_TOKEN_BYTES} characters, and this one has {len(token)}"
            )
        return await self._opaque.verify(token)

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
        return normal_user(user, self._issuers[principal.issuer])

    async def aclose(self) -> None:
        """Stop the background refreshes."""
        await self._jwt.aclose()
