"""Subscriptions (FHIRcast 3.0.0, 2.4): granted, renewed, and ended.

A subscription ends by unsubscribing, at the end of its lease or token, or to make room for another subscription.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from fhircast_hub.core.access.principal import Application, Principal
from fhircast_hub.core.access.topic_access import check_access, new_owner
from fhircast_hub.core.env import Env
from fhircast_hub.core.errors import BadRequest, InsufficientScope, NotFound, TooMany, Unauthenticated
from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules import audiences, last_opens, webhook_outbox
from fhircast_hub.core.rules.joining import replay, replays_home_open
from fhircast_hub.core.state.commands import Evict, Renew, Revoked, Subscribe, Unsubscribe
from fhircast_hub.core.state.effects import Close, Effect, Message, Send
from fhircast_hub.core.state.session import LastOpened, Outcome, Session, Subscription
from fhircast_hub.core.wire.close_codes import NORMAL
from fhircast_hub.core.wire.frames import confirmation, denial

#: Seconds after which a full topic may have room again.
RETRY_AFTER = 30
_NOT_FOUND = "hub.channel.endpoint is no live endpoint of this topic and application"


def subscribe(session: Session | None, command: Subscribe, env: Env) -> Outcome:
    """Grant a new subscription. Raises Unauthenticated, Forbidden, Conflict, InsufficientScope or TooMany."""
    principal = command.principal
    _check_not_expired(principal, env.now)
    check_access(principal, command.topic, session.owner if session else None)
    subscription = _granted_subscription(command, env)
    if session is None:
        session = Session(realm=principal.realm, topic=command.topic, owner=new_owner(principal))
    others = {id_: other for id_, other in session.subscriptions.items() if not _is_replaced(other, subscription)}
    # A callback renews its lease by subscribing again. Its older subscription will end, and does not count.
    uncounted = sum(not other.never_connected for other in webhook_outbox.superseded(session, subscription))
    others = _evict_absent(others, principal.application, env.rules, uncounted)
    session = replace(session, subscriptions={**others, subscription.subscription_id: subscription})
    return Outcome(session, (webhook_outbox.verify(session, subscription, env.now),) if subscription.callback else ())


def _granted_subscription(command: Subscribe, env: Env) -> Subscription:
    principal = command.principal
    return Subscription(
        subscription_id=command.subscription_id,
        subscriber=principal.subscriber,
        name=command.name,
        events=_granted_events(principal, command.events),
        expires=_lease_end(principal, command.lease, env),
        connected_or_lost_at=env.now,
        delivered_until=env.now,
        callback=command.callback,
        secret=command.secret,
        opaque=principal.opaque,
        issuer=principal.issuer,
        client=principal.client,
        address=command.address,
        watcher=env.node if principal.opaque else "",
    )


def renew(session: Session | None, command: Renew, env: Env) -> Outcome:
    """Replace events and lease ("Hubs SHALL allow subscribers to re-request subscriptions that are already activated", 2.4).

    Raises NotFound for an endpoint that is no live one of this session and application.
    Raises Unauthenticated, Forbidden, Conflict or InsufficientScope too.
    """
    _check_not_expired(command.principal, env.now)
    subscription = _find_live(session, command.principal, command.subscription_id, env)
    if subscription.application != command.principal.application:
        raise NotFound(_NOT_FOUND)
    assert session is not None
    check_access(command.principal, command.topic, session.owner)
    renewed = replace(
        subscription,
        events=_granted_events(command.principal, command.events),
        expires=_lease_end(command.principal, command.lease, env),
        name=subscription.name if command.name is None else command.name,
        opaque=command.principal.opaque,
        address=command.address,
        watcher=env.node if command.principal.opaque else "",
    )
    session = with_subscription(session, renewed)
    return _send_added(session, subscription, renewed, env) if renewed.connection else Outcome(session)


def _send_added(session: Session, before: Subscription, renewed: Subscription, env: Env) -> Outcome:
    """Send the confirmation of a renewal, and the open contexts of the added events (SUB-20)."""
    added = renewed.keys - before.keys
    opens, joiner_last_opened = replay(session, renewed.keys, env.rules)
    frames, _ = replay(session, renewed.keys, env.rules, added)
    if frames and frames[-1:] != opens[-1:]:
        frames += opens[-1:]  # the current context is sent again, after the contexts of the added events
    last_opened_before = audiences.last_opened_of(session.audiences, renewed.connection)
    last_opened = last_opens.on_renewal(
        last_opened_before, joiner_last_opened, added, home_is_replayed=replays_home_open(session, renewed.keys)
    )
    session = join_audience(session, renewed, last_opened)
    return Outcome(session, (send_confirmation(session, renewed, env.now), *send_all(renewed, frames)))


def unsubscribe(session: Session | None, command: Unsubscribe, env: Env) -> Outcome:
    """End a subscription: "the Hub SHALL send a Subscription Denial over the WebSocket" (2.4 Unsubscribe Response).

    Raises NotFound for an endpoint or callback that is not the principal's. Raises BadRequest where neither is given, and the
    application does not have exactly one matching subscription.
    """
    if command.callback is not None:
        return _unsubscribe_callback(session, command, env)
    if command.subscription_id is not None:
        subscription = _find_live(session, command.principal, command.subscription_id, env)
    else:
        subscription = _find_by_name(session, command, env)
    assert session is not None
    check_access(command.principal, command.topic, session.owner)
    session, effects = end(session, subscription, command.reason)
    return Outcome(session, effects)


def _unsubscribe_callback(session: Session | None, command: Unsubscribe, env: Env) -> Outcome:
    """End a webhook without verification, denial or further posts, also during its verification (WHK-5)."""
    matching = [
        subscription
        for subscription in (session.subscriptions.values() if session else ())
        if (subscription.application, subscription.callback) == (command.principal.application, command.callback)
        and ends_at(subscription, env.rules) > env.now
    ]
    if session is None or not matching:
        raise NotFound("hub.callback is not subscribed to this topic by this application")
    check_access(command.principal, command.topic, session.owner)
    effects: tuple[Effect, ...] = ()
    for subscription in matching:
        session, ending = end(session, subscription, "")
        effects += ending
    return Outcome(session, effects)


def revoked(session: Session | None, command: Revoked, env: Env) -> Outcome:
    """End a subscription whose token was revoked, as at the end of its lease (AUT-14).

    A node that watches the token no more says nothing about it: the subscription was renewed at another node.
    """
    subscription = session.subscriptions.get(command.subscription_id) if session else None
    if session is None or subscription is None or not subscription.opaque or subscription.watcher != env.node:
        return Outcome(session)
    return Outcome(*end(session, subscription, "the token was revoked"))


def evict(session: Session | None, command: Evict) -> Outcome:
    """Remove a subscription without a connection: the application needs room for another one (SUB-22)."""
    subscription = session.subscriptions.get(command.subscription_id) if session else None
    if session is None or subscription is None or subscription.connection:
        return Outcome(session)
    return Outcome(remove(session, subscription))


def end(session: Session, subscription: Subscription, reason: str) -> tuple[Session, tuple[Effect, ...]]:
    """Remove `subscription`. Its socket is sent a denial and closed. Its callback is sent a denial unless `reason` is empty."""
    effects: tuple[Effect, ...] = ()
    if subscription.callback:
        effects = (webhook_outbox.end_webhook(session, subscription, reason),)
    elif subscription.connection:
        frame = denial(session.topic, subscription.events, reason)
        effects = (Send((subscription.connection,), frame), Close(subscription.connection, NORMAL, reason))
    return remove(session, subscription), effects


def end_expired(session: Session, env: Env) -> tuple[Session, tuple[Effect, ...]]:
    """End expired leases ("the Hub SHALL unsubscribe the Subscriber once hub.lease_seconds has expired", 2.4), and remove
    subscriptions that never had a socket (SUB-14)."""
    effects: tuple[Effect, ...] = ()
    for subscription in session.subscriptions.values():
        if subscription.expires <= env.now:
            session, ending = end(session, subscription, "the lease has ended")
            effects += ending
        elif subscription.never_connected and subscription.connected_or_lost_at + env.rules.connect_timeout <= env.now:
            session = remove(session, subscription)
    return session, effects


def next_check(session: Session, rules: Rules) -> float:
    """When `end_expired` or `connections.overdue` will next find a subscription (epoch seconds). The session must have one."""
    return min(
        min(ends_at(other, rules), other.reconnect_deadline) if other.reconnect_deadline else ends_at(other, rules)
        for other in session.subscriptions.values()
    )


def ends_at(subscription: Subscription, rules: Rules) -> float:
    """When a subscription ends unless it is renewed, or connected for the first time (epoch seconds)."""
    if subscription.never_connected:
        return min(subscription.expires, subscription.connected_or_lost_at + rules.connect_timeout)
    return subscription.expires


def _check_not_expired(principal: Principal, now: float) -> None:
    """Raise Unauthenticated for an expired token: the verifier's clock skew does not count for subscriptions (LEA-2)."""
    if principal.expires <= now:
        raise Unauthenticated("this token has expired, and a subscription must not outlive it")


def _granted_events(principal: Principal, events: tuple[str, ...]) -> tuple[str, ...]:
    """The requested events that the token may read (AUT-3, AUT-4). Raises InsufficientScope where there are none."""
    granted = tuple(event for event in events if principal.scopes.may_read(event.lower()))
    if not granted:
        raise InsufficientScope(
            f"this token's scopes do not allow reading any of the {len(events)} requested events",
            scope=f"fhircast/{events[0]}.read",
        )
    return granted


def _lease_end(principal: Principal, lease: int | None, env: Env) -> float:
    """When the lease ends: "the Hub SHALL limit the subscription lease seconds to be less than or equal to the access token's
    expiration" (2.4)."""
    return min(env.now + min(lease or env.rules.default_lease, env.rules.max_lease), principal.expires)


def _find_live(session: Session | None, principal: Principal, subscription_id: str, env: Env) -> Subscription:
    """The subscriber's live subscription with this id. Applications are not compared. Raises NotFound where there is none."""
    subscription = session.subscriptions.get(subscription_id) if session else None
    if (
        subscription is None
        or subscription.subscriber != principal.subscriber
        or ends_at(subscription, env.rules) <= env.now  # the Tick that removes the subscription may be late
    ):
        raise NotFound(_NOT_FOUND)
    return subscription


def _find_by_name(session: Session | None, command: Unsubscribe, env: Env) -> Subscription:
    """The application's only socket subscription of this name (UNS-7). Raises BadRequest unless there is exactly one."""
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
            "hub.channel.endpoint is required, unless this application has exactly one subscription of this subscriber.name;"
            f" it has {len(found)}"
        )
    return found[0]


def _is_replaced(older: Subscription, newcomer: Subscription) -> bool:
    """Whether `newcomer` replaces `older` of the same application at once.

    A subscription without a socket is replaced by one of its name (SUB-39). An unverified callback is replaced by one of its
    URL (WHK-12).
    """
    if older.connection or older.application != newcomer.application:
        return False
    if older.callback:
        return older.callback == newcomer.callback
    return newcomer.name != "" and older.name == newcomer.name


def _evict_absent(
    subscriptions: dict[str, Subscription], application: Application, rules: Rules, uncounted: int
) -> dict[str, Subscription]:
    """Make room for a subscription of `application` (SUB-22). `uncounted`: number of subscriptions that do not count.

    The application's own subscriptions without a connection go, the longest absent first. Raises TooMany if there are none.
    """
    while len(subscriptions) - uncounted >= rules.max_subscriptions:
        absent = [
            other for other in subscriptions.values() if not other.connection and other.application == application
        ]
        if not absent:
            text = f"a topic may have at most {rules.max_subscriptions} subscriptions, and this one has them"
            raise TooMany(text, retry_after=RETRY_AFTER)
        del subscriptions[min(absent, key=lambda other: other.connected_or_lost_at).subscription_id]
    return subscriptions


def with_subscription(session: Session, subscription: Subscription) -> Session:
    """Add or replace a subscription."""
    return replace(session, subscriptions={**session.subscriptions, subscription.subscription_id: subscription})


def join_audience(session: Session, subscription: Subscription, last_opened: LastOpened) -> Session:
    """Move the subscription's connection to the audience of its events and `last_opened`."""
    others = audiences.without_connection(session.audiences, subscription.connection)
    return replace(
        session, audiences=audiences.with_connection(others, subscription.connection, subscription.keys, last_opened)
    )


def remove(session: Session, subscription: Subscription) -> Session:
    """Remove a subscription, its connection, and its posts."""
    id_ = subscription.subscription_id
    session = replace(
        session,
        subscriptions={other: each for other, each in session.subscriptions.items() if other != id_},
        audiences=audiences.without_connection(session.audiences, subscription.connection),
    )
    return webhook_outbox.remove(session, subscription) if subscription.callback else session


def send_all(subscription: Subscription, messages: Iterable[Message]) -> tuple[Effect, ...]:
    """Effects that send these messages to the subscription's connection."""
    return tuple(Send((subscription.connection,), *message) for message in messages)


def send_confirmation(session: Session, subscription: Subscription, now: float) -> Send:
    """The effect that confirms a subscription to its socket (SUB-3)."""
    frame = confirmation(session.topic, subscription.events, max(1, int(subscription.expires - now)))
    return Send((subscription.connection,), frame)
