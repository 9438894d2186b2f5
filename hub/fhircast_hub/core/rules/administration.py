"""Sessions as authorization servers and EHRs administer them (SES): begun for a user, looked at, ended."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec.structs import replace

from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.access.scopes import SESSIONS
from fhircast_hub.core.access.topic_access import check_owned, check_topic_claim
from fhircast_hub.core.errors import Conflict, Forbidden, InsufficientScope, NotFound
from fhircast_hub.core.rules.subscriptions import end
from fhircast_hub.core.state.commands import BeginSession
from fhircast_hub.core.state.effects import Effect
from fhircast_hub.core.state.session import Outcome, Session, Subscription


class Participant(msgspec.Struct, frozen=True):
    """A subscription as others may know of it (SES-3). `connected_or_lost_at` is in epoch seconds."""

    subscription_id: str
    name: str
    events: tuple[str, ...]
    channel: Literal["websocket", "webhook"]
    connected_or_lost_at: float
    state: str


def begin(session: Session | None, command: BeginSession, now: float) -> Outcome:
    """A session for a user, that nobody has subscribed to yet; the one that was begun for the same user counts as used."""
    if session is not None:
        if session.created_at and session.owner == command.owner:
            return Outcome(replace(session))
        raise Conflict("this topic has a session already")
    return Outcome(Session(realm=command.realm, topic=command.topic, owner=command.owner, created_at=now))


def end_session(session: Session | None, reason: str) -> Outcome:
    """Denials to all; contexts and what was shared are gone (SES-4)."""
    effects: tuple[Effect, ...] = ()
    for subscription in session.subscriptions.values() if session else ():
        assert session is not None
        session, ending = end(session, subscription, reason)
        effects += ending
    return Outcome(None, effects)


def check_administrator(principal: Principal, topic: str | None = None) -> None:
    """Raise Forbidden or InsufficientScope unless the principal is a system client with the scope for sessions (SES-1), and
    its token is not limited to topics other than `topic` (AUT-8)."""
    check_topic_claim(principal, topic)
    if not principal.system:
        raise Forbidden("expected the token of a system client, got that of another")
    if not principal.scopes.sessions:
        raise InsufficientScope("this token may not begin or end sessions", scope=SESSIONS)


def participants(session: Session | None, principal: Principal) -> list[Participant]:
    """Who takes part, and who is in step. Raises NotFound, or Forbidden unless the principal takes part or is a system client."""
    if session is None:
        raise NotFound("expected the topic of a session, got another")
    check_topic_claim(principal, session.topic)
    if principal.system:
        check_owned(session.owner)
    subscribed = any(other.subscriber == principal.subscriber for other in session.subscriptions.values())
    if not (principal.system or subscribed):
        raise Forbidden("expected a subscriber of this topic or a system client, got another")
    return [
        Participant(
            subscription_id=each.subscription_id,
            name=each.name,
            events=each.events,
            channel="webhook" if each.callback else "websocket",
            connected_or_lost_at=each.connected_or_lost_at,
            state=state(each),
        )
        for each in session.subscriptions.values()
    ]


def state(subscription: Subscription) -> str:
    """Whether a subscriber is in step, in a word or two."""
    if subscription.never_connected:
        return "not connected yet"
    if not subscription.connection:
        return "lost"
    if subscription.refused_event:
        return f"refused {subscription.refused_event}"
    if subscription.missed_acks:
        return "silent"
    return "in sync" if subscription.acknowledges else "does not acknowledge"
