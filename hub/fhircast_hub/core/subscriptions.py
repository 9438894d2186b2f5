"""Subscriptions (FHIRcast 3.0.0, 2.4): made, renewed, ended; their sockets come, go and come back; their leases run out."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from fhircast_hub.core import audiences, hooks
from fhircast_hub.core.commands import (
    Acknowledged,
    Connected,
    Disconnected,
    Evict,
    Renew,
    Subscribe,
    Unsubscribe,
    Unverified,
)
from fhircast_hub.core.context import replay
from fhircast_hub.core.effects import (
    GOING_AWAY,
    NORMAL,
    POLICY_VIOLATION,
    SERVICE_RESTART,
    Close,
    Drop,
    Effect,
    Message,
    Send,
)
from fhircast_hub.core.errors import BadRequest, InsufficientScope, NotFound, TooMany, Unauthenticated
from fhircast_hub.core.holding import missed
from fhircast_hub.core.limits import RESTART_GRACE, Rules
from fhircast_hub.core.messages import confirmation, denial
from fhircast_hub.core.principal import Principal, check_access, new_owner
from fhircast_hub.core.session import Ids, Outcome, Session, Subscription

#: Seconds after which a full topic may have room again.
RETRY_AFTER = 30


class Ended(msgspec.Struct, frozen=True):
    """The reply to Unsubscribe: which subscription it was."""

    sid: str


def subscribe(session: Session | None, command: Subscribe, now: float, rules: Rules) -> Outcome:
    """Grant a new subscription, or raise Forbidden, Conflict, InsufficientScope or TooMany."""
    principal = command.principal
    _check_alive(principal, now)
    check_access(principal, command.topic, session.owner if session else None)
    granted = _granted(principal, command.events)
    if session is None:
        session = Session(realm=principal.realm, topic=command.topic, owner=new_owner(principal))
    subscription = Subscription(
        sid=command.sid,
        subscriber=principal.subscriber,
        name=command.name,
        events=granted,
        expires=_expires(principal, command.lease, now, rules),
        since=now,
        sure=now,
        callback=command.callback,
        secret=command.secret,
    )
    others = _room(_without_ghosts(session, subscription), rules)
    session = replace(session, subscriptions={**others, subscription.sid: subscription})
    return Outcome(session, (hooks.verify(session, subscription, now),) if subscription.callback else ())


def renew(session: Session | None, command: Renew, now: float, ids: Ids, rules: Rules) -> Outcome:
    """Replace events and lease ("Hubs SHALL allow subscribers to re-request subscriptions that are already activated", 2.4).

    Raises NotFound for an endpoint that is not a live one of this session and user, and as `subscribe` does.
    """
    _check_alive(command.principal, now)
    subscription = _own(session, command.principal, command.sid, now, rules)
    assert session is not None
    check_access(command.principal, command.topic, session.owner)
    granted = _granted(command.principal, command.events)
    renewed = replace(
        subscription,
        events=granted,
        expires=_expires(command.principal, command.lease, now, rules),
        name=subscription.name if command.name is None else command.name,
    )
    session = _with(session, renewed)
    if not renewed.connection:
        return Outcome(session)
    told = audiences.told_to(session.audiences, renewed.connection)
    added = renewed.keys - subscription.keys
    frames, now_told = replay(session, added, rules)
    newest = replay(session, renewed.keys, rules)[0][-1:]
    if frames and frames[-1:] != newest:
        frames += newest  # what is current is told again, behind what the new names add
    told = (now_told[0] or told[0], now_told[1] or told[1], now_told[2] or told[2])
    session = _placed(session, renewed, told)
    return Outcome(session, (_confirmation(session, renewed, now), *_sends(renewed, frames)))


def unsubscribe(session: Session | None, command: Unsubscribe, now: float, rules: Rules) -> Outcome:
    """End a subscription: "the Hub SHALL send a Subscription Denial over the WebSocket" (2.4 Unsubscribe Response).

    Raises NotFound for an endpoint that is not the principal's, BadRequest when none is given and not exactly one fits.
    """
    if command.callback is not None:
        subscription = _by_callback(session, command, now, rules)
    elif command.sid is not None:
        subscription = _own(session, command.principal, command.sid, now, rules)
    else:
        subscription = _only(session, command, now, rules)
    assert session is not None
    check_access(command.principal, command.topic, session.owner)
    session, effects = end(session, subscription, "" if subscription.callback else "unsubscribed")
    return Outcome(session, effects, Ended(subscription.sid))


def connected(session: Session | None, command: Connected, now: float, ids: Ids, rules: Rules) -> Outcome:
    """A socket came: confirmation first, then what was missed, then the current context (SUB-3, SUB-12, CTX).

    Raises NotFound when the subscription is over: the handshake is refused.
    """
    subscription = session.subscriptions.get(command.sid) if session else None
    if session is None or subscription is None or _ends(subscription, rules) <= now:
        raise NotFound("there is no such endpoint")
    if subscription.callback:
        return _verified(session, subscription, command, now, rules)
    effects: tuple[Effect, ...] = ()
    if subscription.connection:
        # One socket per endpoint: the newcomer takes over (SUB-11). The old one may have been dead for a while.
        effects = (Close(subscription.connection, POLICY_VIOLATION, "another socket took over this endpoint"),)
        session = replace(session, audiences=audiences.leave(session.audiences, subscription.connection))
    sure = max(subscription.sure, command.sure)
    frames, told = replay(session, subscription.keys, rules)
    before = [] if subscription.fresh else missed(session, subscription, sure, told, now, ids, rules)
    # What it is told now may get lost like all before: only an answer makes that sure.
    sure = now if subscription.fresh else sure
    back = replace(subscription, connection=command.connection, since=now, fresh=False, sure=sure, back_by=0.0)
    session = _placed(_with(session, back), back, told)
    confirmed = _confirmation(session, back, now)
    return Outcome(session, (*effects, confirmed, *_sends(back, before), *_sends(back, frames)), back)


def _verified(session: Session, subscription: Subscription, command: Connected, now: float, rules: Rules) -> Outcome:
    """A callback wants what it is subscribed to: it takes the place of an older subscription of its own (WHK-12)."""
    if subscription.connection:
        return Outcome(session)
    active = replace(subscription, connection=command.connection, since=now, fresh=False, sure=now)
    session, dropped = hooks.replaced(_with(session, active), active)
    for other in dropped:
        session = _drop(session, other)
    frames, told = replay(session, active.keys, rules)
    session = _placed(replace(session, hooks=session.hooks | {active.connection}), active, told)
    return Outcome(session, (*(Drop(other.sid) for other in dropped if other.fresh), *_sends(active, frames)))


def unverified(session: Session | None, command: Unverified) -> Outcome:
    """A callback does not want what it would be subscribed to (WHK-3)."""
    subscription = session.subscriptions.get(command.sid) if session else None
    if session is None or subscription is None or not subscription.fresh:
        return Outcome(session)
    return Outcome(_drop(session, subscription))


def disconnected(session: Session | None, command: Disconnected, now: float, rules: Rules) -> Outcome:
    """A socket went: the subscription stays until its lease ends and is sent nothing meanwhile (SUB-17).

    By which code says whether it left or was lost: "any Connection Close Reason other than 1000 or 1001" (2.5, SYN-7).
    """
    subscription = session.subscriptions.get(command.sid) if session else None
    if session is None or subscription is None or subscription.connection != command.connection:
        return Outcome(session)
    if command.code in (NORMAL, GOING_AWAY):
        back_by = 0.0
    else:
        if _came_anew(session, subscription, command.sure):
            return Outcome(_drop(session, subscription))
        back_by = now + (RESTART_GRACE if command.code == SERVICE_RESTART else rules.reconnect_grace)
    return Outcome(_gone(session, subscription, now, command.sure, back_by))


def _came_anew(session: Session, lost: Subscription, sure: float) -> bool:
    """Whether an app whose connection broke has subscribed anew, under its name, before that was noticed: it is no ghost (SUB-17)."""
    return bool(lost.name) and any(
        other.connection and other.since > sure
        for other in session.subscriptions.values()
        if (other.subscriber, other.name) == (lost.subscriber, lost.name) and other.sid != lost.sid
    )


def acknowledged(session: Session | None, command: Acknowledged) -> Outcome:
    """A subscriber acknowledges: from now on it is missed when it does not (SYN-6), and its strikes are over (SYN-5)."""
    subscription = session.subscriptions.get(command.sid) if session else None
    if session is None or subscription is None or (subscription.acknowledges and not subscription.strikes):
        return Outcome(session)
    return Outcome(_with(session, replace(subscription, acknowledges=True, strikes=0)))


def restarted(session: Session, now: float) -> Outcome:
    """The hub's process is new: whoever had a socket has none, and some time to come back (SUB-17)."""
    back_by = now + RESTART_GRACE
    session, effects = hooks.resumed(session, now)
    for subscription in session.subscriptions.values():
        if subscription.callback:
            continue
        if subscription.connection:
            session = _gone(session, subscription, now, subscription.sure, back_by)
        elif subscription.back_by:
            session = _with(session, replace(subscription, back_by=back_by))
    return Outcome(session, effects)


def evict(session: Session | None, command: Evict) -> Outcome:
    """Make room for the user's other subscriptions (SUB-15)."""
    subscription = session.subscriptions.get(command.sid) if session else None
    if session is None or subscription is None or subscription.connection:
        return Outcome(session)
    return Outcome(_drop(session, subscription))


def end(session: Session, subscription: Subscription, reason: str) -> tuple[Session, tuple[Effect, ...]]:
    """The session without `subscription`, whose socket is told so and closed, or its callback told unless `reason` is empty."""
    effects: tuple[Effect, ...] = ()
    if subscription.callback:
        effects = (Drop(subscription.sid, subscription.callback, session.topic, subscription.events, reason),)
    elif subscription.connection:
        frame = denial(session.topic, subscription.events, reason)
        effects = (Send((subscription.connection,), frame), Close(subscription.connection, NORMAL, reason))
    return _drop(session, subscription), effects


def expired(session: Session, now: float, rules: Rules) -> tuple[Session, tuple[Effect, ...]]:
    """End what has run out: leases ("the Hub SHALL unsubscribe the Subscriber once hub.lease_seconds has expired", 2.4) and
    subscriptions that no socket ever came for (SUB-14)."""
    effects: tuple[Effect, ...] = ()
    for subscription in session.subscriptions.values():
        if subscription.expires <= now:
            session, ending = end(session, subscription, "the lease has ended")
            effects += ending
        elif subscription.fresh and subscription.since + rules.connect_timeout <= now:
            session = _drop(session, subscription)
            effects += (Drop(subscription.sid),) if subscription.callback else ()
    return session, effects


def unreturned(session: Session, now: float) -> list[Subscription]:
    """The subscriptions that lost their connection and should be back by now (SYN-7)."""
    return [other for other in session.subscriptions.values() if other.back_by and other.back_by <= now]


def given_up(session: Session, subscription: Subscription) -> Session:
    """The session no longer waiting for `subscription`, which still may come back."""
    return _with(session, replace(subscription, back_by=0.0))


def next_expiry(session: Session, rules: Rules) -> float:
    """When `expired` or `unreturned` will next find something, in epoch seconds; there must be a subscription."""
    return min(
        min(_ends(other, rules), other.back_by) if other.back_by else _ends(other, rules)
        for other in session.subscriptions.values()
    )


def _ends(subscription: Subscription, rules: Rules) -> float:
    if subscription.fresh:
        return min(subscription.expires, subscription.since + rules.connect_timeout)
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


def _expires(principal: Principal, lease: int | None, now: float, rules: Rules) -> float:
    """When the lease ends: "the Hub SHALL limit the subscription lease seconds to be less than or equal to the access token's
    expiration" (2.4)."""
    return min(now + min(lease or rules.default_lease, rules.max_lease), principal.expires)


def _own(session: Session | None, principal: Principal, sid: str, now: float, rules: Rules) -> Subscription:
    subscription = session.subscriptions.get(sid) if session else None
    if (
        subscription is None
        or subscription.subscriber != principal.subscriber
        or _ends(subscription, rules) <= now  # the timer may be late, the time is not
    ):
        raise NotFound("hub.channel.endpoint: expected a live endpoint of this topic and user, got none of theirs")
    return subscription


def _only(session: Session | None, command: Unsubscribe, now: float, rules: Rules) -> Subscription:
    found = [
        subscription
        for subscription in (session.subscriptions.values() if session else ())
        if subscription.subscriber == command.principal.subscriber
        and command.name in (None, subscription.name)
        and _ends(subscription, rules) > now
    ]
    if len(found) != 1:
        raise BadRequest(
            f"hub.channel.endpoint: missing, and expected exactly one subscription of this user and subscriber.name, got {len(found)}"
        )
    return found[0]


def _by_callback(session: Session | None, command: Unsubscribe, now: float, rules: Rules) -> Subscription:
    own = [
        subscription
        for subscription in (session.subscriptions.values() if session else ())
        if (subscription.subscriber, subscription.callback) == (command.principal.subscriber, command.callback)
        and _ends(subscription, rules) > now
    ]
    if not own:
        raise NotFound("hub.callback: expected one that this user has subscribed to this topic, got another")
    return next((subscription for subscription in own if subscription.connection), own[0])


def _without_ghosts(session: Session, newcomer: Subscription) -> dict[str, Subscription]:
    """The subscriptions but those of the same user and name that have no socket: it is the same app coming anew (SUB-17)."""
    return {
        sid: other
        for sid, other in session.subscriptions.items()
        if other.connection
        or other.callback
        or not newcomer.name
        or (other.subscriber, other.name) != (newcomer.subscriber, newcomer.name)
    }


def _room(subscriptions: dict[str, Subscription], rules: Rules) -> dict[str, Subscription]:
    """Room for one more: those without a socket go first, the longest absent before the others (SUB-15)."""
    while len(subscriptions) >= rules.max_subscriptions:
        absent = [other for other in subscriptions.values() if not other.connection]
        if not absent:
            raise TooMany(f"this topic has its {rules.max_subscriptions} subscriptions", retry_after=RETRY_AFTER)
        del subscriptions[min(absent, key=lambda other: other.since).sid]
    return subscriptions


def _with(session: Session, subscription: Subscription) -> Session:
    return replace(session, subscriptions={**session.subscriptions, subscription.sid: subscription})


def _placed(session: Session, subscription: Subscription, told: audiences.Told) -> Session:
    """The session with the subscription's socket in the audience of those who were granted and told the same."""
    others = audiences.leave(session.audiences, subscription.connection)
    return replace(session, audiences=audiences.join(others, subscription.connection, subscription.keys, told))


def _drop(session: Session, subscription: Subscription) -> Session:
    others = {sid: other for sid, other in session.subscriptions.items() if sid != subscription.sid}
    session = replace(
        session, subscriptions=others, audiences=audiences.leave(session.audiences, subscription.connection)
    )
    return hooks.dropped(session, subscription) if subscription.callback else session


def _gone(session: Session, subscription: Subscription, since: float, sure: float, back_by: float) -> Session:
    session = replace(session, audiences=audiences.leave(session.audiences, subscription.connection))
    return _with(session, replace(subscription, connection="", since=since, sure=sure, back_by=back_by))


def _sends(subscription: Subscription, messages: Iterable[Message]) -> tuple[Effect, ...]:
    return tuple(Send((subscription.connection,), *message) for message in messages)


def _confirmation(session: Session, subscription: Subscription, now: float) -> Send:
    frame = confirmation(session.topic, subscription.events, max(1, int(subscription.expires - now)))
    return Send((subscription.connection,), frame)
