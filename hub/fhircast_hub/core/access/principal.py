"""The bearer of a token, as the rules need them: realm, user, client, scopes."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from fhircast_hub.core.access.scopes import Scopes


class SessionKey(NamedTuple):
    """Identifies a session. Sessions of two realms never meet, even with the same topic."""

    #: Issuers of one realm share users and sessions (setting `issuers`).
    realm: str
    #: hub.topic.
    topic: str


class Application(NamedTuple):
    """One application of one user, as the issuer of its token names both. A subscription belongs to an application."""

    #: The token's issuer.
    issuer: str
    #: Principal.subscriber: the user, or the client where there is no user.
    subscriber: str
    #: The token's client (claims `client_id`, `azp`).
    client: str


class Principal(msgspec.Struct, frozen=True):
    """The bearer of a verified token."""

    #: The issuer's realm. Its issuers share users and sessions (setting `issuers`).
    realm: str
    #: Normalized value of the issuer's user claim. None: the token names no user.
    user: str | None
    #: The token's client (claims `client_id`, `azp`).
    client: str
    #: Events that the token may read and write.
    scopes: Scopes
    #: The token's `exp`, in epoch seconds.
    expires: float
    #: The token's `hub.topic` claim: topics that the token is limited to (AUT-8). None: no such claim.
    topics: frozenset[str] | None = None
    #: Whether the client is one of the deployment's system clients (AUT-11).
    system: bool = False
    #: Whether the token must be introspected. Such a token may be revoked (AUT-14).
    opaque: bool = False
    #: The token's issuer.
    issuer: str = ""

    @property
    def subscriber(self) -> str:
        """Owner of the token's subscriptions: the user, or the client where there is no user. The two never collide."""
        return f"user:{self.user}" if self.user is not None else f"client:{self.client}"

    @property
    def application(self) -> Application:
        """The application that the token was issued to (SUB-19)."""
        return Application(self.issuer, self.subscriber, self.client)
