"""Sockets of subscriptions, and callbacks: they come, go, come back, answer, and are lost (FHIRcast 3.0.0, 2.4 and 2.5)."""

from __future__ import annotations

from msgspec.structs import replace

from fhircast_hub.core.errors import NotFound
from fhircast_hub.core.limits import RESTART_GRACE, UNVOUCHED_SECONDS, Rules
from fhircast_hub.core.rules import audiences, webhook_outbox
from fhircast_hub.core.rules.joining import perhaps_shown, remembered, replay, told_on_joining
from fhircast_hub.core.rules.missed_events import missed, surely_arrived, unheard
from fhircast_hub.core.rules.subscriptions import confirmed, dropped, ends_at, placed, sends, with_subscription
from fhircast_hub.core.state.commands import Acknowledged, Connected, Disconnected, Unverified
from fhircast_hub.core.state.effects import Close, Effect, Message
from fhircast_hub.core.state.session import Ids, Outcome, Session, Subscription
from fhircast_hub.core.wire.close_codes import GOING_AWAY, NORMAL, POLICY_VIOLATION, SERVICE_RESTART


def connected(session: Session | None, command: Connected, now: float, ids: Ids, rules: Rules) -> Outcome:
    """A socket came: confirmation first, then what was missed, then the current context (SUB-3, SUB-12, CTX).

    Raises NotFound when the subscription is over: the handshake is refused.
    """
    subscription = session.subscriptions.get(command.sid) if session else None
    if session is None or subscription is None or ends_at(subscription, rules) <= now:
        raise NotFound("there is no such endpoint")
    if subscription.callback:
        return _verified(session, subscription, command, now, rules)
    effects: tuple[Effect, ...] = ()
    if subscription.connection:
        subscription = replace(subscription, shown=_told_opens(session, subscription.connection))
        # One socket per endpoint: the newcomer takes over (SUB-11). The old one may have been dead for a while.
        effects = (Close(subscription.connection, POLICY_VIOLATION, "another socket took over this endpoint"),)
        session = replace(session, audiences=audiences.leave(session.audiences, subscription.connection))
    sure = max(subscription.sure, command.sure)
    frames, told = replay(session, subscription.keys, rules)
    before: list[Message] = []
    known = told
    if not subscription.fresh:
        arrived = surely_arrived(subscription, sure, now, rules)
        before = missed(session, subscription, arrived, told, now, ids)
        known = remembered(session, subscription.keys, told, subscription.shown, unheard(session, arrived))
    # What it is told now may get lost like all before: only an answer makes that sure.
    sure = now if subscription.fresh else sure
    back = replace(
        subscription,
        connection=command.connection,
        since=now,
        fresh=False,
        sure=sure,
        back_by=0.0,
        refused="",
        shown=(),
    )
    session = placed(with_subscription(session, back), back, known)
    return Outcome(session, (*effects, confirmed(session, back, now), *sends(back, before), *sends(back, frames)), back)


def _told_opens(session: Session, connection: str) -> tuple[str, ...]:
    """The refs that a connection was told an open of, and not only an event that names them."""
    return tuple(last.ref for last in audiences.told_to(session.audiences, connection) if last.ref and not last.by)


def _verified(session: Session, subscription: Subscription, command: Connected, now: float, rules: Rules) -> Outcome:
    """A callback wants what it is subscribed to: it takes the place of an older subscription of its own (WHK-12)."""
    if subscription.connection:
        return Outcome(session)
    active = replace(subscription, connection=command.connection, since=now, fresh=False, sure=now)
    session = webhook_outbox.inherited(with_subscription(session, active), active)
    shown: tuple[str, ...] = ()
    for other in webhook_outbox.predecessors(session, active):
        shown += _told_opens(session, other.connection)
        session = dropped(session, other)
    frames, told = replay(session, active.keys, rules)
    told = remembered(session, active.keys, told, shown)
    session = placed(replace(session, hooks=session.hooks | {active.connection}), active, told)
    return Outcome(session, sends(active, frames))


def unverified(session: Session | None, command: Unverified) -> Outcome:
    """A callback does not want what it would be subscribed to (WHK-3)."""
    subscription = session.subscriptions.get(command.sid) if session else None
    if session is None or subscription is None or not subscription.fresh:
        return Outcome(session)
    return Outcome(dropped(session, subscription))


def disconnected(session: Session | None, command: Disconnected, now: float, rules: Rules) -> Outcome:
    """A socket went: the subscription stays until its lease ends and is sent nothing meanwhile (SUB-23).

    By which code says whether it left or was lost: "any Connection Close Reason other than 1000 or 1001" (2.5, SYN-7).
    """
    subscription = session.subscriptions.get(command.sid) if session else None
    if session is None or subscription is None or subscription.connection != command.connection:
        return Outcome(session)
    if command.code in (NORMAL, GOING_AWAY):
        back_by = 0.0
    else:
        if _came_anew(session, subscription, command.sure):
            return Outcome(dropped(session, subscription))
        back_by = now + (RESTART_GRACE if command.code == SERVICE_RESTART else rules.reconnect_grace)
    shown = _told_opens(session, subscription.connection)
    return Outcome(_gone(session, subscription, now, command.sure, back_by, shown))


def _came_anew(session: Session, lost: Subscription, sure: float) -> bool:
    """Whether an app whose connection broke has subscribed anew, under its name, before that was noticed: it is no ghost (SUB-23)."""
    return bool(lost.name) and any(
        other.connection and other.since > sure
        for other in session.subscriptions.values()
        if (other.application, other.name) == (lost.application, lost.name) and other.sid != lost.sid
    )


def acknowledged(session: Session | None, command: Acknowledged) -> Outcome:
    """A subscriber acknowledges: from now on it is missed when it does not (SYN-6), and its strikes are over (SYN-5)."""
    subscription = session.subscriptions.get(command.sid) if session else None
    if session is None or subscription is None:
        return Outcome(session)
    refused = "" if command.followed else subscription.refused
    following = replace(subscription, acknowledges=True, strikes=0, refused=refused)
    return Outcome(session if following == subscription else with_subscription(session, following))


def restarted(session: Session, now: float, rules: Rules) -> Outcome:
    """The hub's process is new: every subscription that had a socket has RESTART_GRACE seconds to come back (SUB-23).

    The hub forgot what each subscription was told. All that a subscription may show counts as told by an open of its own. So no
    derived close is missing later (DER-9).
    """
    back_by = now + RESTART_GRACE
    session, effects = webhook_outbox.resumed(_unvouched(session, now), now, rules)
    for subscription in session.subscriptions.values():
        if subscription.callback:
            continue
        if subscription.connection:
            keys = subscription.keys
            shown = perhaps_shown(session, keys, told_on_joining(session, keys, rules))
            session = _gone(session, subscription, now, subscription.sure, back_by, shown)
        elif subscription.back_by:
            session = with_subscription(session, replace(subscription, back_by=back_by))
    return Outcome(session, effects)


def unreturned(session: Session, now: float) -> list[Subscription]:
    """The subscriptions that lost their connection and should be back by now (SYN-7)."""
    return [other for other in session.subscriptions.values() if other.back_by and other.back_by <= now]


def given_up(session: Session, subscription: Subscription) -> Session:
    """The session no longer waiting for `subscription`, which still may come back."""
    return with_subscription(session, replace(subscription, back_by=0.0))


def _gone(
    session: Session, subscription: Subscription, since: float, sure: float, back_by: float, shown: tuple[str, ...]
) -> Session:
    gone = replace(subscription, connection="", since=since, sure=sure, back_by=back_by, shown=shown)
    session = replace(session, audiences=audiences.leave(session.audiences, subscription.connection))
    return with_subscription(session, gone)


def _unvouched(session: Session, now: float) -> Session:
    """ "Raw tokens live in memory only: after a restart such subscriptions end in 60 s unless renewed" (AUT-14)."""
    for subscription in session.subscriptions.values():
        if subscription.opaque and subscription.expires > now + UNVOUCHED_SECONDS:
            session = with_subscription(session, replace(subscription, expires=now + UNVOUCHED_SECONDS))
    return session
