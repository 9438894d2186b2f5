"""Subscriptions (FHIRcast 3.0.0, 2.4): made, renewed, ended; their sockets come, go and come back; their leases run out."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec.structs import replace

from fhircast_hub.core import audiences
from fhircast_hub.core.commands import Connected, Disconnected, Evict, Renew, Subscribe, Unsubscribe
from fhircast_hub.core.context import replay
from fhircast_hub.core.effects import NORMAL, POLICY_VIOLATION, Close, Effect, Send
from fhircast_hub.core.errors import BadRequest, InsufficientScope, NotFound, TooMany, Unauthenticated
from fhircast_hub.core.limits import RESTART_GRACE, Rules
from fhircast_hub.core.messages import confirmation, denial, encode, made_event, rfc3339
from fhircast_hub.core.names import anchor_keys, spelling
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
    )
    others = _room(_without_ghosts(session, subscription), rules)
    return Outcome(replace(session, subscriptions={**others, subscription.sid: subscription}))


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
    # Whoever is at home is told so again behind what the new names add: that is not current (CTX-6).
    frames, now_told = replay(session, added | (renewed.keys & {"home-open"}) if added else added, rules)
    told = (now_told[0] or told[0], now_told[1] or told[1], now_told[2] or told[2])
    session = _placed(session, renewed, told)
    return Outcome(session, _sends(renewed, (_confirmation(session, renewed, now), *frames)))


def unsubscribe(session: Session | None, command: Unsubscribe, now: float, rules: Rules) -> Outcome:
    """End a subscription: "the Hub SHALL send a Subscription Denial over the WebSocket" (2.4 Unsubscribe Response).

    Raises NotFound for an endpoint that is not the principal's, BadRequest when none is given and not exactly one fits.
    """
    if command.sid is not None:
        subscription = _own(session, command.principal, command.sid, now, rules)
    else:
        subscription = _only(session, command, now, rules)
    assert session is not None
    check_access(command.principal, command.topic, session.owner)
    session, effects = end(session, subscription, "unsubscribed")
    return Outcome(session, effects, Ended(subscription.sid))


def connected(session: Session | None, command: Connected, now: float, ids: Ids, rules: Rules) -> Outcome:
    """A socket came: confirmation first, then what was missed, then the current context (SUB-3, SUB-12, CTX).

    Raises NotFound when the subscription is over: the handshake is refused.
    """
    subscription = session.subscriptions.get(command.sid) if session else None
    if session is None or subscription is None or _ends(subscription, rules) <= now:
        raise NotFound("there is no such endpoint")
    effects: tuple[Effect, ...] = ()
    if subscription.connection:
        # One socket per endpoint: the newcomer takes over (SUB-11). The old one may have been dead for a while.
        effects = (Close(subscription.connection, POLICY_VIOLATION, "another socket took over this endpoint"),)
        session = replace(session, audiences=audiences.leave(session.audiences, subscription.connection))
    missed = () if subscription.fresh else _missed(session, subscription, now, ids, rules)
    back = replace(subscription, connection=command.connection, since=now, fresh=False, sure=now)
    frames, told = replay(session, back.keys, rules)
    session = _placed(_with(session, back), back, told)
    return Outcome(session, effects + _sends(back, (_confirmation(session, back, now), *missed, *frames)))


def disconnected(session: Session | None, command: Disconnected, now: float) -> Outcome:
    """A socket went: the subscription stays until its lease ends and is sent nothing meanwhile (SUB-17)."""
    subscription = session.subscriptions.get(command.sid) if session else None
    if session is None or subscription is None or subscription.connection != command.connection:
        return Outcome(session)
    return Outcome(_gone(session, subscription, now, command.sure))


def restarted(session: Session, now: float) -> Outcome:
    """The hub's process is new: whoever had a socket has none, and some time to come back (SUB-17)."""
    for subscription in session.subscriptions.values():
        if subscription.connection:
            session = _gone(session, subscription, now + RESTART_GRACE, subscription.sure)
    return Outcome(session)


def evict(session: Session | None, command: Evict) -> Outcome:
    """Make room for the user's other subscriptions (SUB-15)."""
    subscription = session.subscriptions.get(command.sid) if session else None
    if session is None or subscription is None or subscription.connection:
        return Outcome(session)
    return Outcome(_drop(session, subscription))


def end(session: Session, subscription: Subscription, reason: str) -> tuple[Session, tuple[Effect, ...]]:
    """The session without `subscription`, whose socket is told so and closed."""
    effects: tuple[Effect, ...] = ()
    if subscription.connection:
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
    return session, effects


def next_expiry(session: Session, rules: Rules) -> float:
    """When `expired` will next find something, in epoch seconds; there must be a subscription."""
    return min(_ends(subscription, rules) for subscription in session.subscriptions.values())


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


def _without_ghosts(session: Session, newcomer: Subscription) -> dict[str, Subscription]:
    """The subscriptions but those of the same user and name that have no socket: it is the same app coming anew (SUB-17)."""
    return {
        sid: other
        for sid, other in session.subscriptions.items()
        if other.connection
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
    return replace(session, subscriptions=others, audiences=audiences.leave(session.audiences, subscription.connection))


def _gone(session: Session, subscription: Subscription, since: float, sure: float) -> Session:
    session = replace(session, audiences=audiences.leave(session.audiences, subscription.connection))
    return _with(session, replace(subscription, connection="", since=since, sure=sure))


def _sends(subscription: Subscription, frames: Iterable[bytes]) -> tuple[Effect, ...]:
    return tuple(Send((subscription.connection,), frame) for frame in frames)


def _confirmation(session: Session, subscription: Subscription, now: float) -> bytes:
    return confirmation(session.topic, subscription.events, max(1, int(subscription.expires - now)))


def _missed(session: Session, subscription: Subscription, now: float, ids: Ids, rules: Rules) -> tuple[bytes, ...]:
    """The closes that a subscription has missed, in order (SUB-12).

    Those accepted while it had no socket, and those sent to its last socket that may never have arrived, unless what they
    closed is open again. Where a close is no longer held, one is made for the context that is closed now.
    """
    left = subscription.since if not subscription.connection else now
    # A socket that was dead for longer than this would have been noticed by its pings.
    sure = max(subscription.sure, left - rules.hold_seconds) if subscription.connection else subscription.sure
    keys = subscription.keys
    is_open = session.contexts.keys() | {
        ref for context in session.contexts.values() for ref in context.implied.values()
    }
    held = [
        close
        for close in session.closes.values()
        if close.at > sure and close.key in keys and (close.at >= left or close.ref not in is_open)
    ]
    known = is_open | {close.ref for close in held}
    made = []
    for context, at in session.lost.items():
        type_, _, id_ = context.partition("/")
        if at > sure and f"{type_.lower()}-close" in keys and f"{type_.lower()}/{id_}" not in known:
            made.append(_made_close(session, type_, id_, now, ids))
    return (*made, *(close.frame for close in held))


def _made_close(session: Session, type_: str, id_: str, now: float, ids: Ids) -> bytes:
    key = anchor_keys(type_.lower())[0]
    context = encode([{"key": key, "resource": {"resourceType": type_, "id": id_}}])
    return made_event(session.topic, spelling(f"{type_}-close"), ids.uuid(), rfc3339(now), context)
