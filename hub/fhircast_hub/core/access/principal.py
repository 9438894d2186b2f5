"""Who asks: what a verified token says, as the rules need it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from fhircast_hub.core.access.scopes import Scopes
from fhircast_hub.core.errors import Conflict, Forbidden, InsufficientScope


class SessionKey(NamedTuple):
    """A session is the pair (realm, hub.topic): two realms may use one topic and never meet."""

    realm: str
    topic: str


class Application(NamedTuple):
    """Whose a subscription is: one application of one user, as the issuer of its token calls them.

    `subscriber` is the user, or the client where there is no user; `client` is the token's client (`client_id`, `azp`).
    """

    issuer: str
    subscriber: str
    client: str


class Principal(msgspec.Struct, frozen=True):
    """The bearer of a verified token.

    `user` is the normalized value of the issuer's user claim, or None for a token that names no user;
    `issuer` is whose token it is; `expires` is the token's exp in seconds since the epoch; `topics` is its `hub.topic` claim, None without one;
    `system` is true for a listed system client (AUT-11), `opaque` for a token that only its issuer can explain, and may revoke (AUT-14).
    """

    realm: str
    user: str | None
    client: str
    scopes: Scopes
    expires: float
    topics: frozenset[str] | None = None
    system: bool = False
    opaque: bool = False
    issuer: str = ""

    @property
    def subscriber(self) -> str:
        """Whose subscriptions these are: the user's, or the client's where there is no user. The two never collide."""
        return f"user:{self.user}" if self.user is not None else f"client:{self.client}"

    @property
    def application(self) -> Application:
        """Which application of theirs it is (SUB-19)."""
        return Application(self.issuer, self.subscriber, self.client)


#: The owner of a session that only tokens naming its topic in their `hub.topic` claim may use.
CLAIMED = ""


def check_access(principal: Principal, topic: str, owner: str | None) -> None:
    """Raise unless `principal` may act on `topic`, whose session belongs to `owner` (None: there is no session yet).

    Raises Forbidden (AUT-8, AUT-9) or, for a system client on a session that no user owns, Conflict (AUT-11).
    """
    if principal.topics is not None and topic not in principal.topics:
        raise Forbidden("this token's hub.topic claim does not name this topic")
    if principal.system:
        if not owner:
            raise Conflict("a system client acts only on a session that a user owns; nobody owns this one yet")
        return
    if principal.topics is not None:
        return  # its authorization server says so, whoever else is in the session
    if principal.user is None:
        raise Forbidden(
            "this token names no user and no topic (claim hub.topic), and its client is not a system client"
        )
    if owner is not None and owner != principal.user:
        raise Forbidden("this topic belongs to another user")


def check_scoped(principal: Principal) -> None:
    """Raise InsufficientScope for a token that reaches no event at all: it neither subscribes, unsubscribes nor publishes (AUT-21)."""
    if not (principal.scopes.read or principal.scopes.write):
        raise InsufficientScope(
            "this token has no FHIRcast scope, such as fhircast/Patient-open.read", scope="fhircast/*.read"
        )


def new_owner(principal: Principal) -> str:
    """Who owns a session that `principal` begins (AUT-9): the user; without one, whoever holds a token for the topic."""
    return CLAIMED if principal.user is None else principal.user
