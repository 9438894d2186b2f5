"""Sessions as authorization servers and EHRs administer them (SES): begin, list subscribers, end, forget."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec.structs import replace

from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.access.scopes import CONSOLE_READ, CONSOLE_WRITE, SESSIONS
from fhircast_hub.core.access.topic_access import check_owned, check_topic_claim
from fhircast_hub.core.env import Env
from fhircast_hub.core.errors import Conflict, Forbidden, InsufficientScope, NotFound
from fhircast_hub.core.rules.subscriptions import end
from fhircast_hub.core.state.commands import BeginSession, MakeRoom
from fhircast_hub.core.state.effects import Effect
from fhircast_hub.core.state.session import Outcome, Session, Subscription


class Participant(msgspec.Struct, frozen=True):
    """A subscription as GET /sessions/{topic} lists it (SES-3)."""

    #: Digest of the endpoint. Of a webhook: a random id.
    subscription_id: str
    #: subscriber.name. "": none.
    name: str
    #: The granted events, as spelled.
    events: tuple[str, ...]
    #: Channel of the subscription.
    channel: Literal["websocket", "webhook"]
    #: See Subscription.connected_or_lost_at; in epoch seconds.
    connected_or_lost_at: float
    #: Whether the subscriber is in step, in words (SES-7).
    state: str


def begin_session(session: Session | None, command: BeginSession, now: float) -> Outcome:
    """Begin a session without subscribers. A session that was begun for the same user is used again.

    Raises Conflict where the topic has another session.
    """
    if session is None:
        return Outcome(Session(realm=command.realm, topic=command.topic, owner=command.owner, created_at=now))
    if session.created_at and session.owner == command.owner:
        return Outcome(replace(session))  # a new value: the session counts as used
    raise Conflict("this topic has a session already")


def end_session(session: Session | None, reason: str) -> Outcome:
    """Deny all subscriptions, and forget contexts and content (SES-4)."""
    effects: tuple[Effect, ...] = ()
    for subscription in session.subscriptions.values() if session else ():
        assert session is not None
        session, ending = end(session, subscription, reason)
        effects += ending
    return Outcome(None, effects)


def make_room(session: Session | None, command: MakeRoom, env: Env) -> Outcome:
    """Forget a session without subscriptions, when its user or the hub needs room.

    An EHR may make a topic for each login and never close its contexts. Such sessions must not lock the user out.
    """
    if session is None or session.subscriptions:
        return Outcome(session)
    return Outcome(None if command.at_once or is_unused(session, env) else session)


def is_unused(session: Session, env: Env) -> bool:
    """Whether a session has no subscriptions, and was not used for `session_ttl` seconds."""
    return not session.subscriptions and session.last_used_at + env.rules.session_ttl <= env.now


def check_administrator(principal: Principal, topic: str | None = None) -> None:
    """Raise unless `principal` may begin and end sessions of `topic` (None: a topic that is still to be made).

    Raises Forbidden for a token that is limited to other topics (AUT-8), or is not a system client's. Raises InsufficientScope
    for a token without the scope for sessions (SES-1).
    """
    check_topic_claim(principal, topic)
    if not principal.system:
        raise Forbidden("only system clients may begin or end sessions, and this token is not a system client's")
    if not principal.scopes.sessions:
        raise InsufficientScope("this token's scopes do not allow beginning or ending sessions", scope=SESSIONS)


def check_operator(principal: Principal, *, write: bool = False) -> None:
    """Raise InsufficientScope unless `principal` may see the operator's console (CSL-1). `write`: and end sessions there."""
    if not principal.scopes.console:
        raise InsufficientScope("this token's scopes do not allow the operator's console", scope=CONSOLE_READ)
    if write and not principal.scopes.console_write:
        raise InsufficientScope("this token's scopes allow reading the console only", scope=CONSOLE_WRITE)


def participants(session: Session | None, principal: Principal) -> list[Participant]:
    """The session's subscriptions, for its subscribers and for system clients.

    Raises NotFound where there is no session. Raises Forbidden for all others (AUT-8), and Conflict for a system client on a
    session that no user owns (AUT-29).
    """
    if session is None:
        raise NotFound("no session with this topic")
    check_topic_claim(principal, session.topic)
    if principal.system:
        check_owned(session.owner)
    subscribed = any(other.subscriber == principal.subscriber for other in session.subscriptions.values())
    if not (principal.system or subscribed):
        raise Forbidden("only a subscriber of this topic or a system client may list its subscribers")
    return [
        Participant(
            subscription_id=each.subscription_id,
            name=each.name,
            events=each.events,
            channel="webhook" if each.callback else "websocket",
            connected_or_lost_at=each.connected_or_lost_at,
            state=state(session, each),
        )
        for each in session.subscriptions.values()
    ]


def state(session: Session, subscription: Subscription) -> str:
    """Whether a subscriber of the session is in step, in words (SES-7)."""
    if subscription.never_connected:
        return "not connected yet"
    if not subscription.connection:
        return "left" if subscription.left else "lost"
    if subscription.refused_event:
        return f"refused {subscription.refused_event}"
    if subscription.missed_acks:
        return "silent"
    if subscription.subscription_id in session.sent_nothing:
        return "connected"
    return "in sync" if subscription.acknowledges else "does not acknowledge"
