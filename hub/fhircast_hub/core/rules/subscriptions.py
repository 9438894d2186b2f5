"""Subscriptions (FHIRcast 3.0.0, 2.4): made, renewed, ended; their sockets come, go and come back; their leases run out."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from fhircast_hub.core.access.principal import Application, Principal
from fhircast_hub.core.access.topic_access import check_access, new_owner
from fhircast_hub.core.env import Env
from fhircast_hub.core.errors import BadRequest, InsufficientScope, NotFound, TooMany, Unauthenticated
from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules import audiences, webhook_outbox
from fhircast_hub.core.rules.joining import is_home, replay
from fhircast_hub.core.state.commands import Evict, Renew, Revoked, Subscribe, Unsubscribe
from fhircast_hub.core.state.effects import Close, Effect, Message, Send
from fhircast_hub.core.state.session import LastOpened, Outcome, Session, Subscription
from fhircast_hub.core.wire.close_codes import NORMAL
from fhircast_hub.core.wire.frames import confirmation, denial

#: Seconds after which a full topic may have room again.
RETRY_AFTER = 30
_NOT_THEIRS = "hub.channel.endpoint: expected a live endpoint of this topic and application, got none of theirs"


def subscribe(session: Session | None, command: Subscribe, env: Env) -> Outcome:
    """Grant a new subscription, or raise Forbidden, Conflict, InsufficientScope or TooMany."""
    principal = command.principal
    _check_alive(principal, env.now)
    check_access(principal, command.topic, session.owner if session else None)
    granted = _granted(principal, command.events)
    if session is None:
        session = Session(realm=principal.realm, topic=command.topic, owner=new_owner(principal))
    subscription = Subscription(
        subscription_id=command.subscription_id,
        subscriber=principal.subscriber,
        name=command.name,
        events=granted,
        expires=_expires(principal, command.lease, env),
        connected_or_lost_at=env.now,
        delivered_until=env.now,
        callback=command.callback,
        secret=command.secret,
        opaque=principal.opaque,
        issuer=principal.issuer,
        client=principal.client,
        address=command.address,
    )
    others = {
        subscription_id: other
        for subscription_id, other in session.subscriptions.items()
        if not _comes_anew(subscription, other)
    }
    # A callback renews its lease by subscribing again: the one whose place it will take makes room for it already.
    spare = sum(not other.never_connected for other in webhook_outbox.predecessors(session, subscription))
    others = _room(others, principal.application, env.rules, spare)
    session = replace(session, subscriptions={**others, subscription.subscription_id: subscription})
    return Outcome(session, (webhook_outbox.verify(session, subscription, env.now),) if subscription.callback else ())


def renew(session: Session | None, command: Renew, env: Env) -> Outcome:
    """Replace events and lease ("Hubs SHALL allow subscribers to re-request subscriptions that are already activated", 2.4).

    Raises NotFound for an endpoint that is not a live one of this session and user, and as `subscribe` does.
    """
    _check_alive(command.principal, env.now)
    subscription = _own(session, command.principal, command.subscription_id, env)
    if subscription.application != command.principal.application:
        raise NotFound(_NOT_THEIRS)
    assert session is not None
    check_access(command.principal, command.topic, session.owner)
    granted = _granted(command.principal, command.events)
    renewed = replace(
        subscription,
        events=granted,
        expires=_expires(command.principal, command.lease, env),
        name=subscription.name if command.name is None else command.name,
        opaque=command.principal.opaque,
        address=command.address,
    )
    session = with_subscription(session, renewed)
    if not renewed.connection:
        return Outcome(session)
    added = renewed.keys - subscription.keys
    everything, last_opened = replay(session, renewed.keys, env.rules)
    frames, _ = replay(session, renewed.keys, env.rules, added)
    if frames and frames[-1:] != everything[-1:]:
        frames += everything[-1:]  # what is current is told again, behind what the new names add
    before = audiences.last_opened_of(session.audiences, renewed.connection)
    known = audiences.renewed(before, last_opened, added, at_home=is_home(session, renewed.keys))
    session = placed(session, renewed, known)
    return Outcome(session, (confirmed(session, renewed, env.now), *sends(renewed, frames)))


def unsubscribe(session: Session | None, command: Unsubscribe, env: Env) -> Outcome:
    """End a subscription: "the Hub SHALL send a Subscription Denial over the WebSocket" (2.4 Unsubscribe Response).

    Raises NotFound for an endpoint that is not the principal's, BadRequest when none is given and not exactly one fits.
    """
    if command.callback is not None:
        return _unsubscribe_callback(session, command, env)
    if command.subscription_id is not None:
        subscription = _own(session, command.principal, command.subscription_id, env)
    else:
        subscription = _only(session, command, env)
    assert session is not None
    check_access(command.principal, command.topic, session.owner)
    session, effects = end(session, subscription, command.reason)
    return Outcome(session, effects)


def _unsubscribe_callback(session: Session | None, command: Unsubscribe, env: Env) -> Outcome:
    """No verification, no denial, no more posts (WHK-5), also not for one that is being verified."""
    own = [
        subscription
        for subscription in (session.subscriptions.values() if session else ())
        if (subscription.application, subscription.callback) == (command.principal.application, command.callback)
        and ends_at(subscription, env.rules) > env.now
    ]
    if session is None or not own:
        raise NotFound("hub.callback: expected one that this application has subscribed to this topic, got another")
    check_access(command.principal, command.topic, session.owner)
    effects: tuple[Effect, ...] = ()
    for subscription in own:
        session, ending = end(session, subscription, "")
        effects += ending
    return Outcome(session, effects)


def revoked(session: Session | None, command: Revoked) -> Outcome:
    """The token of a subscription is not good any more: it ends as at the end of its lease (AUT-14)."""
    subscription = session.subscriptions.get(command.subscription_id) if session else None
    if session is None or subscription is None or not subscription.opaque:
        return Outcome(session)
    return Outcome(*end(session, subscription, "the token was revoked"))


def evict(session: Session | None, command: Evict) -> Outcome:
    """Make room for another subscription of the application (SUB-22)."""
    subscription = session.subscriptions.get(command.subscription_id) if session else None
    if session is None or subscription is None or subscription.connection:
        return Outcome(session)
    return Outcome(dropped(session, subscription))


def end(session: Session, subscription: Subscription, reason: str) -> tuple[Session, tuple[Effect, ...]]:
    """The session without `subscription`, whose socket is told so and closed, or its callback told unless `reason` is empty."""
    effects: tuple[Effect, ...] = ()
    if subscription.callback:
        effects = (webhook_outbox.drop(session, subscription, reason),)
    elif subscription.connection:
        frame = denial(session.topic, subscription.events, reason)
        effects = (Send((subscription.connection,), frame), Close(subscription.connection, NORMAL, reason))
    return dropped(session, subscription), effects


def expired(session: Session, env: Env) -> tuple[Session, tuple[Effect, ...]]:
    """End what has run out: leases ("the Hub SHALL unsubscribe the Subscriber once hub.lease_seconds has expired", 2.4) and
    subscriptions that no socket ever came for (SUB-14)."""
    effects: tuple[Effect, ...] = ()
    for subscription in session.subscriptions.values():
        if subscription.expires <= env.now:
            session, ending = end(session, subscription, "the lease has ended")
            effects += ending
        elif subscription.never_connected and subscription.connected_or_lost_at + env.rules.connect_timeout <= env.now:
            session = dropped(session, subscription)
    return session, effects


def next_expiry(session: Session, rules: Rules) -> float:
    """When `expired` or `unreturned` will next find something, in epoch seconds; there must be a subscription."""
    return min(
        min(ends_at(other, rules), other.reconnect_deadline) if other.reconnect_deadline else ends_at(other, rules)
        for other in session.subscriptions.values()
    )


def ends_at(subscription: Subscription, rules: Rules) -> float:
    if subscription.never_connected:
        return min(subscription.expires, subscription.connected_or_lost_at + rules.connect_timeout)
    return subscription.expires


def _check_alive(principal: Principal, now: float) -> None:
    """A token that only clock skew still lets pass cannot subscribe (LEA-2)."""
    if principal.expires <= now:
        raise Unauthenticated("this token has expired, and a subscription must not outlive it")


def _granted(principal: Principal, events: tuple[str, ...]) -> tuple[str, ...]:
    """The events among those asked for that the token may read (AUT-3, AUT-4)."""
    granted = tuple(event for event in events if principal.scopes.may_read(event.lower()))
    if not granted:
        raise InsufficientScope(
            f"this token may read none of the {len(events)} events asked for", scope=f"fhircast/{events[0]}.read"
        )
    return granted


def _expires(principal: Principal, lease: int | None, env: Env) -> float:
    """When the lease ends: "the Hub SHALL limit the subscription lease seconds to be less than or equal to the access token's
    expiration" (2.4)."""
    return min(env.now + min(lease or env.rules.default_lease, env.rules.max_lease), principal.expires)


def _own(session: Session | None, principal: Principal, subscription_id: str, env: Env) -> Subscription:
    subscription = session.subscriptions.get(subscription_id) if session else None
    if (
        subscription is None
        or subscription.subscriber != principal.subscriber
        or ends_at(subscription, env.rules) <= env.now  # the timer may be late, the time is not
    ):
        raise NotFound(_NOT_THEIRS)
    return subscription


def _only(session: Session | None, command: Unsubscribe, env: Env) -> Subscription:
    found = [
        subscription
        for subscription in (session.subscriptions.values() if session else ())
        if subscription.application == command.principal.application
        and not subscription.callback
        and command.name in (None, subscription.name)
        and ends_at(subscription, env.rules) > env.now
    ]
    if len(found) != 1:
        raise BadRequest(
            "hub.channel.endpoint: missing, and expected exactly one subscription of this application and subscriber.name,"
            f" got {len(found)}"
        )
    return found[0]


def _comes_anew(newcomer: Subscription, other: Subscription) -> bool:
    """Whether the newcomer takes the place of this one at once: the same application, whose socket is gone (SUB-23), or the same callback,
    which has not been asked yet (WHK-12)."""
    if other.connection or other.application != newcomer.application:
        return False
    if other.callback:
        return other.callback == newcomer.callback
    return newcomer.name != "" and other.name == newcomer.name


def _room(
    subscriptions: dict[str, Subscription], application: Application, rules: Rules, spare: int
) -> dict[str, Subscription]:
    """Room for one more, and `spare` ones need none: the application's own without a socket go first, the longest absent before
    the others (SUB-22)."""
    while len(subscriptions) - spare >= rules.max_subscriptions:
        absent = [o for o in subscriptions.values() if not o.connection and o.application == application]
        if not absent:
            raise TooMany(f"this topic has its {rules.max_subscriptions} subscriptions", retry_after=RETRY_AFTER)
        del subscriptions[min(absent, key=lambda other: other.connected_or_lost_at).subscription_id]
    return subscriptions


def with_subscription(session: Session, subscription: Subscription) -> Session:
    return replace(session, subscriptions={**session.subscriptions, subscription.subscription_id: subscription})


def placed(session: Session, subscription: Subscription, last_opened: LastOpened) -> Session:
    """The session with the subscription's socket in the audience of those who were granted and told the same."""
    others = audiences.leave(session.audiences, subscription.connection)
    return replace(session, audiences=audiences.join(others, subscription.connection, subscription.keys, last_opened))


def dropped(session: Session, subscription: Subscription) -> Session:
    others = {
        subscription_id: other
        for subscription_id, other in session.subscriptions.items()
        if subscription_id != subscription.subscription_id
    }
    session = replace(
        session, subscriptions=others, audiences=audiences.leave(session.audiences, subscription.connection)
    )
    return webhook_outbox.dropped(session, subscription) if subscription.callback else session


def sends(subscription: Subscription, messages: Iterable[Message]) -> tuple[Effect, ...]:
    return tuple(Send((subscription.connection,), *message) for message in messages)


def confirmed(session: Session, subscription: Subscription, now: float) -> Send:
    frame = confirmation(session.topic, subscription.events, max(1, int(subscription.expires - now)))
    return Send((subscription.connection,), frame)
