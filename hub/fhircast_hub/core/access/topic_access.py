"""Access to topics. Another user's topic is refused here (403)."""

from __future__ import annotations

from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import Conflict, Forbidden

#: The owner of a session that belongs to no user. Only tokens with the topic in their `hub.topic` claim may use the session.
NO_OWNER = ""


def check_access(principal: Principal, topic: str, owner: str | None) -> None:
    """Raise unless `principal` may act on `topic`, whose session belongs to `owner` (None: the topic has no session yet).

    Raises Forbidden (AUT-8, AUT-9). Raises Conflict for a system client on a session that no user owns (AUT-29).
    """
    if principal.topics is not None and topic not in principal.topics:
        raise Forbidden("this token's hub.topic claim does not name this topic")
    if principal.system:
        if not owner:
            raise Conflict("a system client acts only on a session that a user owns; nobody owns this one yet")
        return
    if principal.topics is not None:
        return  # the authorization server named the topic: the owner does not matter
    if principal.user is None:
        raise Forbidden(
            "this token names no user and no topic (claim hub.topic), and its client is not a system client"
        )
    if owner is not None and owner != principal.user:
        raise Forbidden("this topic belongs to another user")


def check_topic_claim(principal: Principal, topic: str | None) -> None:
    """Raise Forbidden where the token's hub.topic claim does not name `topic` (None: a topic that is still to be made)."""
    if principal.topics is not None and topic not in principal.topics:
        raise Forbidden("this token's hub.topic claim does not name this topic")


def check_owned(owner: str) -> None:
    """Raise Conflict for the session of no user: a system client does not act on such a session (AUT-29)."""
    if not owner:
        raise Conflict("a system client acts only on a session that a user owns; nobody owns this one")


def new_owner(principal: Principal) -> str:
    """The owner of a session that `principal` begins (AUT-9): the user, or NO_OWNER for a token without a user."""
    return NO_OWNER if principal.user is None else principal.user
