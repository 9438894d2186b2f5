"""Sockets of subscriptions, and callbacks: they come, go, come back, answer, and are lost (FHIRcast 3.0.0, 2.4 and 2.5)."""

from __future__ import annotations

from msgspec.structs import replace

from fhircast_hub.core.env import Env
from fhircast_hub.core.errors import NotFound
from fhircast_hub.core.limits import OPAQUE_TOKEN_GRACE, RESTART_GRACE
from fhircast_hub.core.rules import audiences, webhook_outbox
from fhircast_hub.core.rules.joining import last_opened_on_joining, perhaps_shown, remembered, replay
from fhircast_hub.core.rules.missed_events import known_delivered_until, missed_by, unheard
from fhircast_hub.core.rules.subscriptions import confirmed, dropped, ends_at, placed, sends, with_subscription
from fhircast_hub.core.state.commands import Acknowledged, Connected, Disconnected, VerificationFailed
from fhircast_hub.core.state.effects import Close, Effect, Message
from fhircast_hub.core.state.session import Outcome, Session, Subscription
from fhircast_hub.core.wire.close_codes import GOING_AWAY, NORMAL, POLICY_VIOLATION, SERVICE_RESTART


def connected(session: Session | None, command: Connected, env: Env) -> Outcome:
    """A socket came: confirmation first, then what was missed, then the current context (SUB-3, SUB-12, CTX).

    Raises NotFound when the subscription is over: the handshake is refused.
    """
    subscription = session.subscriptions.get(command.subscription_id) if session else None
    if session is None or subscription is None or ends_at(subscription, env.rules) <= env.now:
        raise NotFound("there is no such endpoint")
    if subscription.callback:
        return _verified(session, subscription, command, env)
    effects: tuple[Effect, ...] = ()
    if subscription.connection:
        subscription = replace(subscription, shown_opens=_opens_sent(session, subscription.connection))
        # One socket per endpoint: the newcomer takes over (SUB-11). The old one may have been dead for a while.
        effects = (Close(subscription.connection, POLICY_VIOLATION, "another socket took over this endpoint"),)
        session = replace(session, audiences=audiences.leave(session.audiences, subscription.connection))
    delivered_until = max(subscription.delivered_until, command.delivered_until)
    frames, last_opened = replay(session, subscription.keys, env.rules)
    before: list[Message] = []
    known = last_opened
    if not subscription.never_connected:
        arrived = known_delivered_until(subscription, delivered_until, env)
        before = missed_by(session, subscription, arrived, last_opened, env)
        known = remembered(session, subscription.keys, last_opened, subscription.shown_opens, unheard(session, arrived))
    # What it is told now may get lost like all before: only an answer makes that sure.
    delivered_until = env.now if subscription.never_connected else delivered_until
    back = replace(
        subscription,
        connection=command.connection,
        connected_or_lost_at=env.now,
        never_connected=False,
        delivered_until=delivered_until,
        reconnect_deadline=0.0,
        refused_event="",
        shown_opens=(),
    )
    session = placed(with_subscription(session, back), back, known)
    return Outcome(
        session, (*effects, confirmed(session, back, env.now), *sends(back, before), *sends(back, frames)), back
    )


def _opens_sent(session: Session, connection: str) -> tuple[str, ...]:
    """The refs that a connection was told an open of, and not only an event that names them."""
    return tuple(
        last.ref for last in audiences.last_opened_of(session.audiences, connection) if last.ref and not last.by
    )


def _verified(session: Session, subscription: Subscription, command: Connected, env: Env) -> Outcome:
    """A callback wants what it is subscribed to: it takes the place of an older subscription of its own (WHK-12)."""
    if subscription.connection:
        return Outcome(session)
    active = replace(
        subscription,
        connection=command.connection,
        connected_or_lost_at=env.now,
        never_connected=False,
        delivered_until=env.now,
    )
    session = webhook_outbox.inherited(with_subscription(session, active), active)
    shown: tuple[str, ...] = ()
    for other in webhook_outbox.predecessors(session, active):
        shown += _opens_sent(session, other.connection)
        session = dropped(session, other)
    frames, last_opened = replay(session, active.keys, env.rules)
    last_opened = remembered(session, active.keys, last_opened, shown)
    session = placed(
        replace(session, webhook_connections=session.webhook_connections | {active.connection}), active, last_opened
    )
    return Outcome(session, sends(active, frames))


def unverified(session: Session | None, command: VerificationFailed) -> Outcome:
    """A callback does not want what it would be subscribed to (WHK-3)."""
    subscription = session.subscriptions.get(command.subscription_id) if session else None
    if session is None or subscription is None or not subscription.never_connected:
        return Outcome(session)
    return Outcome(dropped(session, subscription))


def disconnected(session: Session | None, command: Disconnected, env: Env) -> Outcome:
    """A socket went: the subscription stays until its lease ends and is sent nothing meanwhile (SUB-23).

    By which code says whether it left or was lost: "any Connection Close Reason other than 1000 or 1001" (2.5, SYN-7).
    """
    subscription = session.subscriptions.get(command.subscription_id) if session else None
    if session is None or subscription is None or subscription.connection != command.connection:
        return Outcome(session)
    if command.code in (NORMAL, GOING_AWAY):
        reconnect_deadline = 0.0
    else:
        if _came_anew(session, subscription, command.delivered_until):
            return Outcome(dropped(session, subscription))
        reconnect_deadline = env.now + (RESTART_GRACE if command.code == SERVICE_RESTART else env.rules.reconnect_grace)
    shown = _opens_sent(session, subscription.connection)
    return Outcome(_gone(session, subscription, env.now, command.delivered_until, reconnect_deadline, shown))


def _came_anew(session: Session, lost: Subscription, delivered_until: float) -> bool:
    """Whether an app whose connection broke has subscribed anew, under its name, before that was noticed: it is no ghost (SUB-23)."""
    return bool(lost.name) and any(
        other.connection and other.connected_or_lost_at > delivered_until
        for other in session.subscriptions.values()
        if (other.application, other.name) == (lost.application, lost.name)
        and other.subscription_id != lost.subscription_id
    )


def acknowledged(session: Session | None, command: Acknowledged) -> Outcome:
    """A subscriber acknowledges: from now on it is missed when it does not (SYN-6), and its strikes are over (SYN-5)."""
    subscription = session.subscriptions.get(command.subscription_id) if session else None
    if session is None or subscription is None:
        return Outcome(session)
    refused = "" if command.followed else subscription.refused_event
    following = replace(subscription, acknowledges=True, missed_acks=0, refused_event=refused)
    return Outcome(session if following == subscription else with_subscription(session, following))


def restarted(session: Session, env: Env) -> Outcome:
    """The hub's process is new: every subscription that had a socket has RESTART_GRACE seconds to come back (SUB-23).

    The hub forgot what each subscription was told. All that a subscription may show counts as told by an open of its own. So no
    derived close is missing later (DER-9).
    """
    reconnect_deadline = env.now + RESTART_GRACE
    session, effects = webhook_outbox.resumed(_unvouched(session, env.now), env)
    for subscription in session.subscriptions.values():
        if subscription.callback:
            continue
        if subscription.connection:
            keys = subscription.keys
            shown = perhaps_shown(session, keys, last_opened_on_joining(session, keys, env.rules))
            session = _gone(session, subscription, env.now, subscription.delivered_until, reconnect_deadline, shown)
        elif subscription.reconnect_deadline:
            session = with_subscription(session, replace(subscription, reconnect_deadline=reconnect_deadline))
    return Outcome(session, effects)


def unreturned(session: Session, now: float) -> list[Subscription]:
    """The subscriptions that lost their connection and should be back by now (SYN-7)."""
    return [
        other
        for other in session.subscriptions.values()
        if other.reconnect_deadline and other.reconnect_deadline <= now
    ]


def given_up(session: Session, subscription: Subscription) -> Session:
    """The session no longer waiting for `subscription`, which still may come back."""
    return with_subscription(session, replace(subscription, reconnect_deadline=0.0))


def _gone(
    session: Session,
    subscription: Subscription,
    since: float,
    delivered_until: float,
    reconnect_deadline: float,
    shown: tuple[str, ...],
) -> Session:
    gone = replace(
        subscription,
        connection="",
        connected_or_lost_at=since,
        delivered_until=delivered_until,
        reconnect_deadline=reconnect_deadline,
        shown_opens=shown,
    )
    session = replace(session, audiences=audiences.leave(session.audiences, subscription.connection))
    return with_subscription(session, gone)


def _unvouched(session: Session, now: float) -> Session:
    """ "Raw tokens live in memory only: after a restart such subscriptions end in 60 s unless renewed" (AUT-14)."""
    for subscription in session.subscriptions.values():
        if subscription.opaque and subscription.expires > now + OPAQUE_TOKEN_GRACE:
            session = with_subscription(session, replace(subscription, expires=now + OPAQUE_TOKEN_GRACE))
    return session
