"""The issuers whose tokens the hub accepts, and how their claims are read."""

from __future__ import annotations

import msgspec


class Issuer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One authorization server that the hub trusts (AUT-15).

    Raises ValueError for an empty issuer, audience or user claim, which would check nothing.
    """

    #: The exact value of the claim `iss` (RFC 7519 section 4.1.1). Without a `jwks_uri`, discovery begins at this URL.
    issuer: str
    #: The claim `aud` must contain one of these.
    audience: str | tuple[str, ...]
    #: The URL of the key set. None: found by discovery.
    jwks_uri: str | None = None
    #: Where the hub asks about opaque tokens (RFC 7662). None: this issuer has none.
    introspection_endpoint: str | None = None
    #: The hub's client id and secret at the introspection endpoint. None: empty.
    introspection_client_id: str | None = None
    introspection_client_secret: str | None = None
    #: The realm of the users. Issuers of one realm name the same users. None: the issuer itself.
    realm: str | None = None
    #: The claim with the user's id.
    user_claim: str = "sub"
    #: Completes relative `fhirUser` values. None: they are refused.
    fhir_base: str | None = None
    #: The client ids of system clients (AUT-11).
    system_clients: frozenset[str] = frozenset()

    @property
    def expects_jwts(self) -> bool:
        """Whether the hub fetches keys before a token needs them. An issuer of opaque tokens may have none to find."""
        return self.jwks_uri is not None or self.introspection_endpoint is None

    def __post_init__(self) -> None:
        if not self.issuer:
            raise ValueError("an issuer needs its URL")
        if not self.audience or "" in (self.audience if isinstance(self.audience, tuple) else ()):
            raise ValueError("an issuer needs the audience of its tokens")
        if not self.user_claim:
            raise ValueError("an issuer needs the name of its user claim")
