"""Whose tokens count, and how each issuer's claims are to be read."""

from __future__ import annotations

import msgspec


class Issuer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One authorization server that the hub trusts (AUT-15).

    `issuer` is the exact value of its tokens' `iss` (RFC 7519 section 4.1.1) and, without a `jwks_uri`, where discovery
    begins; opaque tokens are asked about at `introspection_endpoint`, as that client (RFC 7662). `audience` is what their `aud` must contain, one of them if several. Users are told apart by `user_claim`
    within `realm` (None: the issuer itself). `fhir_base` completes relative `fhirUser` values. `system_clients` are the
    client ids of AUT-11. Raises ValueError for an empty issuer, audience or user claim, which would check nothing.
    """

    issuer: str
    audience: str | tuple[str, ...]
    jwks_uri: str | None = None
    introspection_endpoint: str | None = None
    introspection_client_id: str | None = None
    introspection_client_secret: str | None = None
    realm: str | None = None
    user_claim: str = "sub"
    fhir_base: str | None = None
    system_clients: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.issuer:
            raise ValueError("an issuer needs its URL")
        if not self.audience or "" in (self.audience if isinstance(self.audience, tuple) else ()):
            raise ValueError("an issuer needs the audience of its tokens")
        if not self.user_claim:
            raise ValueError("an issuer needs the name of its user claim")
