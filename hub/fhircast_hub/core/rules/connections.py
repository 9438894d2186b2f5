"""Connections of subscriptions (FHIRcast 3.0.0, 2.4 and 2.5).

Sockets connect, acknowledge and are lost, one by one or with their node. Callbacks are verified.
After a restart of the hub, `restarted` gives connected and awaited sockets RESTART_GRACE seconds to come back.
"""

from __future__ import annotations

from msgspec.structs import replace

from fhircast_hub.core.env import Env
from fhircast_hub.core.errors import NotFound
from fhircast_hub.core.limits import OPAQUE_TOKEN_GRACE, RESTART_GRACE
from fhircast_hub.core.rules import audiences, webhook_outbox
from fhircast_hub.core.rules.first_events import await_first
from fhircast_hub.core.rules.joining import last_opened_on_joining, last_opened_on_return, possibly_shown, replay
from fhircast_hub.core.rules.missed_events import known_delivered_until, missed_by, possibly_missed_closes
from fhircast_hub.core.rules.nodes import node_of
from fhircast_hub.core.rules.subscriptions import (
    end,
    ends_at,
    join_audience,
    remove,
    send_all,
    send_confirmation,
    with_subscription,
)
from fhircast_hub.core.state.commands import Acknowledged, Connected, Disconnected, NodeLost, VerificationFailed
from fhircast_hub.core.state.effects import Close, Effect, Message
from fhircast_hub.core.state.session import LastOpened, Outcome, Session, Subscription
from fhircast_hub.core.wire.close_codes import GOING_AWAY, NORMAL, POLICY_VIOLATION, SERVICE_RESTART


def connected(session: Session | None, command: Connected, env: Env) -> Outcome:
    """Send a new socket its confirmation, then missed events, then the current context (SUB-3, SUB-12, CTX).

    A socket's reply is the subscription. Raises NotFound when the subscription is over: the handshake is refused.
    """
    subscription = session.subscriptions.get(command.subscription_id) if session else None
    if session is None or subscription is None or ends_at(subscription, env.rules) <= env.now:
        raise NotFound("there is no such endpoint")
    if subscription.never_connected:
        session = await_first(session, subscription)
    if subscription.callback:
        return _verified(session, subscription, command, env)
    takeover_effects: tuple[Effect, ...] = ()
    if subscription.connection:
        session, subscription, takeover_effects = _take_over(session, subscription)
    delivered_until = max(subscription.delivered_until, command.delivered_until)
    missed, opens, last_opened = _replay(session, subscription, delivered_until, env)
    subscription = replace(
        subscription,
        connection=command.connection,
        connected_or_lost_at=env.now,
        never_connected=False,
        # The frames of this replay may get lost too: after a reconnection only an answer proves their arrival.
        delivered_until=env.now if subscription.never_connected else delivered_until,
        reconnect_deadline=0.0,
        refused_event="",
        shown_opens=(),
        left=False,
    )
    session = join_audience(with_subscription(session, subscription), subscription, last_opened)
    confirmed = send_confirmation(session, subscription, env.now)
    return Outcome(session, (*takeover_effects, confirmed, *send_all(subscription, [*missed, *opens])), subscription)


def _take_over(session: Session, subscription: Subscription) -> tuple[Session, Subscription, tuple[Effect, ...]]:
    """Close the subscription's present socket: an endpoint has one socket, the newest (SUB-33). The old socket may be dead."""
    subscription = replace(subscription, shown_opens=_opens_sent(session, subscription.connection))
    effects = (Close(subscription.connection, POLICY_VIOLATION, "another socket took over this endpoint"),)
    session = replace(session, audiences=audiences.without_connection(session.audiences, subscription.connection))
    return session, subscription, effects


def _replay(
    session: Session, subscription: Subscription, delivered_until: float, env: Env
) -> tuple[list[Message], list[Message], LastOpened]:
    """Missed closes and updates, opens of open contexts, and the subscriber's last opens after both."""
    opens, joiner_last_opened = replay(session, subscription.keys, env.rules)
    if subscription.never_connected:
        return [], opens, joiner_last_opened
    known_until = known_delivered_until(subscription, delivered_until, env)
    missed = missed_by(session, subscription, known_until, joiner_last_opened, env)
    closes = possibly_missed_closes(session, known_until)
    return (
        missed,
        opens,
        last_opened_on_return(session, subscription.keys, joiner_last_opened, subscription.shown_opens, closes),
    )


def _opens_sent(session: Session, connection: str) -> tuple[str, ...]:
    """Refs of the contexts that a connection was sent an open of. An event that only names a context does not count."""
    last_opened = audiences.last_opened_of(session.audiences, connection)
    return tuple(last.ref for last in last_opened if last.ref and not last.named_by)


def _verified(session: Session, subscription: Subscription, command: Connected, env: Env) -> Outcome:
    """Activate a verified callback. Its older subscriptions end. The new subscription takes over their posts (WHK-12)."""
    if subscription.connection:
        return Outcome(session)
    active = replace(
        subscription,
        connection=command.connection,
        connected_or_lost_at=env.now,
        never_connected=False,
        delivered_until=env.now,
    )
    session = webhook_outbox.take_over_posts(with_subscription(session, active), active)
    shown: tuple[str, ...] = ()
    for other in webhook_outbox.superseded(session, active):
        shown += _opens_sent(session, other.connection)
        session = remove(session, other)
    frames, joiner_last_opened = replay(session, active.keys, env.rules)
    last_opened = last_opened_on_return(session, active.keys, joiner_last_opened, shown)
    session = replace(session, webhook_connections=session.webhook_connections | {active.connection})
    return Outcome(join_audience(session, active, last_opened), send_all(active, frames))


def verification_failed(session: Session | None, command: VerificationFailed) -> Outcome:
    """Remove the subscription of a callback that did not confirm it (WHK-3)."""
    subscription = session.subscriptions.get(command.subscription_id) if session else None
    if session is None or subscription is None or not subscription.never_connected:
        return Outcome(session)
    return Outcome(remove(session, subscription))


def disconnected(session: Session | None, command: Disconnected, env: Env) -> Outcome:
    """Keep the subscription of a lost socket until its lease ends, and send it nothing meanwhile (SUB-23).

    The close code of a lost connection is "any Connection Close Reason other than 1000 (normal closure) or 1001" (2.5, SYN-7).
    """
    subscription = session.subscriptions.get(command.subscription_id) if session else None
    if session is None or subscription is None or subscription.connection != command.connection:
        return Outcome(session)
    if command.code in (NORMAL, GOING_AWAY):
        reconnect_deadline = 0.0
    else:
        if _is_superseded(session, subscription, command.delivered_until):
            return Outcome(remove(session, subscription))
        reconnect_deadline = env.now + (RESTART_GRACE if command.code == SERVICE_RESTART else env.rules.reconnect_grace)
    return Outcome(_lose(session, subscription, command.delivered_until, reconnect_deadline, env.now))


def _lose(
    session: Session, subscription: Subscription, delivered_until: float, reconnect_deadline: float, now: float
) -> Session:
    """The session after the loss of the subscription's socket. `reconnect_deadline` 0: the subscriber left (SES-9)."""
    lost = replace(
        subscription,
        connected_or_lost_at=now,
        delivered_until=delivered_until,
        reconnect_deadline=reconnect_deadline,
        left=not reconnect_deadline,
        shown_opens=_opens_sent(session, subscription.connection),
    )
    return _without_connection(session, lost)


def _is_superseded(session: Session, lost: Subscription, delivered_until: float) -> bool:
    """Whether another subscription of this application and name connected after this socket's last sign of life (SUB-40)."""
    return bool(lost.name) and any(
        other.connection and other.connected_or_lost_at > delivered_until
        for other in session.subscriptions.values()
        if (other.application, other.name) == (lost.application, lost.name)
        and other.subscription_id != lost.subscription_id
    )


def acknowledged(session: Session | None, command: Acknowledged) -> Outcome:
    """Reset the missed acknowledgements (SYN-5). From now on the subscriber's acknowledgements are awaited (SYN-6)."""
    subscription = session.subscriptions.get(command.subscription_id) if session else None
    if session is None or subscription is None:
        return Outcome(session)
    refused = "" if command.followed else subscription.refused_event
    after = replace(subscription, acknowledges=True, missed_acks=0, refused_event=refused)
    return Outcome(session if after == subscription else with_subscription(session, after))


def restarted(session: Session | None, env: Env) -> Outcome:
    """Give connected and awaited sockets RESTART_GRACE seconds to come back (SUB-41). Callbacks continue.

    No node of before is the poster.
    The hub forgot the last opens of each subscription. Every context that a subscription may show counts as opened by an open
    of its own type. So no derived close is missing later (DER-9).
    """
    if session is None:
        return Outcome(None)
    if session.poster:
        session = replace(session, poster="")
    session, ended = _end_expired_webhooks(session, env.now)
    session, effects = webhook_outbox.resume(_shorten_opaque_leases(session, env.now), env)
    reconnect_deadline = env.now + RESTART_GRACE
    for subscription in session.subscriptions.values():
        if subscription.callback:
            continue
        if subscription.connection:
            keys = subscription.keys
            shown = possibly_shown(session, keys, last_opened_on_joining(session, keys, env.rules))
            lost = replace(
                subscription, connected_or_lost_at=env.now, reconnect_deadline=reconnect_deadline, shown_opens=shown
            )
            session = _without_connection(session, lost)
        elif subscription.reconnect_deadline:
            session = with_subscription(session, replace(subscription, reconnect_deadline=reconnect_deadline))
    return Outcome(session, ended + effects)


def node_lost(session: Session | None, command: NodeLost, env: Env) -> Outcome:
    """Lose the sockets of a node that is gone, and shorten the leases of the raw tokens that it kept (NOD-1, NOD-4).

    Where the node was the session's poster, the posts and verifications that it left unfinished are effects again (NOD-3).
    A session without anything of the node stays the same object.
    """
    if session is None:
        return Outcome(None)
    effects: tuple[Effect, ...] = ()
    takes_over = session.poster == command.node
    if takes_over:
        session, effects = _end_expired_webhooks(replace(session, poster=env.node), env.now)
    session = _lose_sockets(_shorten_opaque_leases(session, env.now, command.node), command, env)
    return Outcome(session, effects + webhook_outbox.unfinished(session, env.now) if takes_over else effects)


def _lose_sockets(session: Session, command: NodeLost, env: Env) -> Session:
    """Lose every socket of the node, as if each had closed abnormally now.

    First all are lost, so that none of them is superseded by another one of the same dead node (SUB-40). The sockets lived
    as long as their node: only who connected after its last sign of life supersedes one.
    """
    lost = [
        each for each in session.subscriptions.values() if each.connection and node_of(each.connection) == command.node
    ]
    reconnect_deadline = env.now + env.rules.reconnect_grace
    for subscription in lost:
        session = _lose(session, subscription, subscription.delivered_until, reconnect_deadline, env.now)
    for subscription in lost:
        if _is_superseded(session, subscription, max(subscription.delivered_until, command.seen_at)):
            session = remove(session, subscription)
    return session


def _end_expired_webhooks(session: Session, now: float) -> tuple[Session, tuple[Effect, ...]]:
    """End webhooks whose lease ended while no process served them: nothing more is posted to them."""
    effects: tuple[Effect, ...] = ()
    for subscription in session.subscriptions.values():
        if subscription.callback and subscription.expires <= now:
            session, ended = end(session, subscription, "the lease has ended")
            effects += ended
    return session, effects


def _shorten_opaque_leases(session: Session, now: float, node: str = "") -> Session:
    """End subscriptions of opaque tokens in OPAQUE_TOKEN_GRACE seconds unless renewed (AUT-34).

    Raw tokens live in memory only. `node`: those that this node kept are lost. "": all are.
    """
    latest = now + OPAQUE_TOKEN_GRACE
    for subscription in session.subscriptions.values():
        if subscription.opaque and node in ("", subscription.watcher):
            expires = min(subscription.expires, latest)
            session = with_subscription(session, replace(subscription, expires=expires, watcher=""))
    return session


def overdue(session: Session, now: float) -> list[Subscription]:
    """The lost subscriptions whose reconnect_deadline has passed (SYN-7)."""
    return [
        other
        for other in session.subscriptions.values()
        if other.reconnect_deadline and other.reconnect_deadline <= now
    ]


def stop_waiting(session: Session, subscription: Subscription) -> Session:
    """Stop awaiting the subscription's socket. The socket may still come back."""
    return with_subscription(session, replace(subscription, reconnect_deadline=0.0))


def _without_connection(session: Session, lost: Subscription) -> Session:
    """Remove the connection of `lost`. Its other fields are already those after the loss."""
    session = replace(session, audiences=audiences.without_connection(session.audiences, lost.connection))
    return with_subscription(session, replace(lost, connection=""))
