"""The one function through which a session changes.

    decide(session, command, env) -> Outcome(session, effects, reply)

`decide` is pure: no I/O, no clock, no random numbers. `env` has the time and new identifiers. `session.deadline` says when the
session wants a Tick. A refused command raises a HubError; the session stays as before.
"""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from fhircast_hub.core.access.principal import Application
from fhircast_hub.core.env import Env
from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules import (
    administration,
    connections,
    heartbeat,
    missed_events,
    subscriptions,
    sync_errors,
    user_logout,
    webhook_outbox,
)
from fhircast_hub.core.rules.first_events import note_sent
from fhircast_hub.core.rules.publishing import publish
from fhircast_hub.core.state.commands import (
    Acknowledged,
    AcksTimedOut,
    BeginSession,
    Command,
    Connected,
    Disconnected,
    EndSession,
    Evict,
    MakeRoom,
    NodeLost,
    PostFinished,
    Publish,
    Rejected,
    Renew,
    Restarted,
    ResumePosts,
    Revoked,
    Subscribe,
    Tick,
    Undeliverable,
    Unsubscribe,
    VerificationFailed,
)
from fhircast_hub.core.state.session import Outcome, Session


def decide(session: Session | None, command: Command, env: Env) -> Outcome:
    """The outcome of `command`. `session` is None where the topic has no session. Raises HubError for a refused command."""
    return _settle(session, command, _apply(session, command, env), env)


def _settle(before: Session | None, command: Command, outcome: Outcome, env: Env) -> Outcome:
    """Finish a decision: queue posts, note first events, cancel verifications, set time of use, heartbeat and deadline."""
    outcome = _post_to_callbacks(outcome, env)
    session = outcome.session
    if session is not None and session.sent_nothing:
        session = note_sent(session, outcome.effects)
        outcome = Outcome(session, outcome.effects, outcome.reply)
    if before is None or session is None or session.subscriptions is not before.subscriptions:
        outcome = _cancel_open_verifications(before, command, outcome)
    if session is not None and env.node:
        session = webhook_outbox.claim(before, session, outcome.effects, env)
        outcome = Outcome(session, outcome.effects, outcome.reply)
    if session is None or session is before or _keeps_deadline(before, session):
        return outcome
    for step in (_mark_used, heartbeat.plan, missed_events.drop_delivered, _set_deadline):
        session = step(session, env)
    return Outcome(session, outcome.effects, outcome.reply)


def _post_to_callbacks(outcome: Outcome, env: Env) -> Outcome:
    """Turn effects for callbacks into posts of the outbox. Callbacks with too many unanswered posts are unsubscribed."""
    session, effects = outcome.session, outcome.effects
    if session is None or not session.webhook_connections or not effects:
        return outcome
    session, effects = webhook_outbox.queue_posts(session, effects)
    for subscription in webhook_outbox.overflowing(session, env.rules):
        ended = sync_errors.undeliverable(session, subscription.subscription_id, "too much waits for its callback", env)
        assert ended.session is not None
        ended = _post_to_callbacks(ended, env)  # other callbacks receive the SyncError
        assert ended.session is not None
        session, effects = ended.session, effects + ended.effects
    return Outcome(session, effects, outcome.reply)


def _cancel_open_verifications(before: Session | None, command: Command, outcome: Outcome) -> Outcome:
    """Cancel the verification of callbacks whose subscription is gone."""
    if isinstance(command, VerificationFailed):
        return outcome  # the verification is over, so there is none left to cancel
    cancelled = webhook_outbox.cancel_open_verifications(before, outcome.session, outcome.effects)
    return Outcome(outcome.session, outcome.effects + cancelled, outcome.reply) if cancelled else outcome


def _mark_used(session: Session, env: Env) -> Session:
    return replace(session, last_used_at=env.now)


def _set_deadline(session: Session, env: Env) -> Session:
    return replace(session, deadline=_deadline(session, env.rules))


def _keeps_deadline(before: Session | None, after: Session) -> bool:
    """Whether no lease, connection, heartbeat or retained event changed. Nothing else changes a deadline."""
    if before is None or not after.subscriptions:
        return False
    if after.webhook_connections is not before.webhook_connections:
        return False
    if after.retained is not before.retained or after.dropped_closes is not before.dropped_closes:
        return False
    return after.subscriptions is before.subscriptions and after.next_heartbeat == before.next_heartbeat


def _apply(session: Session | None, command: Command, env: Env) -> Outcome:
    """Apply the rule of this command."""
    match command:
        case Publish():
            outcome = publish(session, command, env)
            if env.rules.logout_ends_session and user_logout.is_logout(command.event):
                return user_logout.end_session(_post_to_callbacks(outcome, env))
            return outcome
        case Subscribe():
            newcomer = command.principal.application, command.name
            return _report_evicted(session, subscriptions.subscribe(session, command, env), newcomer, env)
        case Renew():
            return subscriptions.renew(session, command, env)
        case Unsubscribe():
            return subscriptions.unsubscribe(session, command, env)
        case Connected():
            return connections.connected(session, command, env)
        case Disconnected():
            return connections.disconnected(session, command, env)
        case Acknowledged():
            return connections.acknowledged(session, command)
        case Rejected():
            return sync_errors.rejected(session, command, env)
        case AcksTimedOut():
            return sync_errors.acks_timed_out(session, command, env)
        case VerificationFailed():
            return connections.verification_failed(session, command)
        case Revoked():
            return subscriptions.revoked(session, command, env)
        case PostFinished():
            return sync_errors.post_finished(session, command, env)
        case Undeliverable():
            return sync_errors.undeliverable(session, command.subscription_id, command.reason, env)
        case Evict():
            return _report_evicted(session, subscriptions.evict(session, command), None, env)
        case Tick():
            return _tick(session, env)
        case BeginSession():
            return administration.begin_session(session, command, env.now)
        case EndSession():
            return administration.end_session(session, command.reason)
        case MakeRoom():
            return administration.make_room(session, command, env)
        case Restarted():
            return connections.restarted(session, env)
        case NodeLost():
            return connections.node_lost(session, command, env)
        case ResumePosts():
            return webhook_outbox.resume_posts(session, env)
        case _:
            assert_never(command)


def _tick(session: Session | None, env: Env) -> Outcome:
    """End what has expired, report lost subscriptions, send a due heartbeat."""
    if session is None:
        return Outcome(None)
    after, effects = subscriptions.end_expired(session, env)
    for subscription in connections.overdue(after, env.now):
        after = connections.stop_waiting(after, subscription)
        effects += sync_errors.lost(after, subscription, env)
    after, beating = heartbeat.beat(missed_events.drop_delivered(after, env), env)
    effects += beating
    # A session without subscribers and open contexts is forgotten after SESSION_TTL (LIM-5).
    if after is session and not session.contexts and administration.is_unused(session, env):
        return Outcome(None, effects)
    return Outcome(after, effects)


def _report_evicted(
    before: Session | None, outcome: Outcome, newcomer: tuple[Application, str] | None, env: Env
) -> Outcome:
    """The outcome with a SyncError for each lost subscription that made room for another one.

    `newcomer`: application and name of the new subscription. None: no subscription is new.
    An older subscription of both is replaced, not lost (SUB-39).
    """
    after, effects = outcome.session, outcome.effects
    if before is None or after is None:
        return outcome
    for subscription_id, subscription in before.subscriptions.items():
        is_replaced = subscription.name and (subscription.application, subscription.name) == newcomer
        if subscription.reconnect_deadline and not is_replaced and subscription_id not in after.subscriptions:
            effects += sync_errors.lost(after, subscription, env)
    return Outcome(after, effects)


def _deadline(session: Session, rules: Rules) -> float | None:
    """When the session wants its next Tick (epoch seconds). None: never."""
    if session.subscriptions:
        expiry = min(subscriptions.next_check(session, rules), missed_events.next_drop(session, rules))
        return expiry if session.next_heartbeat is None else min(expiry, session.next_heartbeat)
    return None if session.contexts else session.last_used_at + rules.session_ttl
