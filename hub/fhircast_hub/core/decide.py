"""The one function through which a session changes.

    decide(session, command, now, ids, rules) -> Outcome(session, effects, reply)

It is pure: no I/O, no clock, no random numbers. Time enters as `now` (epoch seconds) and leaves as `session.deadline`, ids come
from `ids`. A command that is refused raises a HubError; the session stays what it was.
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
    webhook_outbox,
)
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
    PostFinished,
    Publish,
    Rejected,
    Renew,
    Restarted,
    Revoked,
    Subscribe,
    Tick,
    Undeliverable,
    Unsubscribe,
    VerificationFailed,
)
from fhircast_hub.core.state.effects import Effect, EndWebhook
from fhircast_hub.core.state.session import Outcome, Session


def decide(session: Session | None, command: Command, env: Env) -> Outcome:
    """What `command` leads to. `session` is None where the topic has none yet. Raises HubError when the command is refused."""
    return _settle(session, command, _decide(session, command, env), env)


def _settle(before: Session | None, command: Command, outcome: Outcome, env: Env) -> Outcome:
    """The end of every decision: effects first, then the times of the session that is left."""
    outcome = _post_to_callbacks(outcome, env)
    outcome = _cancel_open_verifications(before, command, outcome)
    session = outcome.session
    if session is None or session is before or _waits_alike(before, session):
        return outcome
    for step in (_mark_used, heartbeat.plan, missed_events.drop_delivered, _set_deadline):
        session = step(session, env)
    return Outcome(session, outcome.effects, outcome.reply)


def _post_to_callbacks(outcome: Outcome, env: Env) -> Outcome:
    """Effects for callbacks become posts in the outbox. A callback for which too much waits is unsubscribed."""
    session, effects = outcome.session, outcome.effects
    if session is None or not session.webhook_connections or not effects:
        return outcome
    session, effects = webhook_outbox.post(session, effects)
    for subscription in webhook_outbox.overflowing(session, env.rules):
        ended = sync_errors.undeliverable(session, subscription.subscription_id, "too much waits for its callback", env)
        assert ended.session is not None
        ended = _post_to_callbacks(ended, env)
        assert ended.session is not None
        session, effects = ended.session, effects + ended.effects
    return Outcome(session, effects, outcome.reply)


def _cancel_open_verifications(before: Session | None, command: Command, outcome: Outcome) -> Outcome:
    """Callbacks whose subscriptions went before their verification are not asked any more."""
    if isinstance(command, VerificationFailed):
        return outcome  # the command answers the verification, so none is left to cancel
    cancelled = webhook_outbox.cancel_open_verifications(before, outcome.session, outcome.effects)
    return Outcome(outcome.session, outcome.effects + cancelled, outcome.reply) if cancelled else outcome


def _mark_used(session: Session, env: Env) -> Session:
    return replace(session, last_used_at=env.now)


def _set_deadline(session: Session, env: Env) -> Session:
    return replace(session, deadline=_deadline(session, env.rules))


def _waits_alike(before: Session | None, after: Session) -> bool:
    """Whether no lease, no socket, no heartbeat and nothing that is held changed: then the deadline stands."""
    if before is None or not after.subscriptions:
        return False
    if after.retained is not before.retained or after.dropped_closes is not before.dropped_closes:
        return False
    return after.subscriptions is before.subscriptions and after.next_heartbeat == before.next_heartbeat


def _decide(session: Session | None, command: Command, env: Env) -> Outcome:
    match command:
        case Publish():
            outcome = publish(session, command, env)
            if env.rules.logout_ends_session and command.event.key == "userlogout":
                return _logged_out(_post_to_callbacks(outcome, env))
            return outcome
        case Subscribe():
            newcomer = command.principal.application, command.name
            return _with_evicted(session, subscriptions.subscribe(session, command, env), newcomer, env)
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
            return sync_errors.refused(session, command, env)
        case AcksTimedOut():
            return sync_errors.unanswered(session, command, env)
        case VerificationFailed():
            return connections.unverified(session, command)
        case Revoked():
            return subscriptions.revoked(session, command)
        case PostFinished():
            return sync_errors.answered(session, command, env)
        case Undeliverable():
            return sync_errors.undeliverable(session, command.subscription_id, command.reason, env)
        case Evict():
            return _with_evicted(session, subscriptions.evict(session, command), None, env)
        case Tick():
            return _tick(session, env)
        case BeginSession():
            return administration.begin(session, command, env.now)
        case EndSession():
            return administration.end_session(session, command.reason)
        case MakeRoom():
            return _abandoned(session, command, env)
        case Restarted():
            return Outcome(None) if session is None else _restarted(session, env)
        case _:
            assert_never(command)


def _tick(session: Session | None, env: Env) -> Outcome:
    if session is None:
        return Outcome(None)
    after, effects = subscriptions.expired(session, env)
    for subscription in connections.unreturned(after, env.now):
        after = connections.given_up(after, subscription)
        effects += sync_errors.lost(after, subscription, env)
    after, beating = heartbeat.beat(missed_events.drop_delivered(after, env), env)
    effects += beating
    # "A session without subscribers and open contexts is forgotten after SESSION_TTL" (LIM-1).
    if after is session and not session.contexts and _is_unused(session, env):
        return Outcome(None, effects)
    return Outcome(after, effects)


def _with_evicted(
    before: Session | None, outcome: Outcome, newcomer: tuple[Application, str] | None, env: Env
) -> Outcome:
    """The outcome, and a SyncError for each lost subscription that had to make room. One of the application and name `newcomer` came back
    in another way (SUB-23)."""
    after, effects = outcome.session, outcome.effects
    if before is None or after is None:
        return outcome
    for subscription_id, subscription in before.subscriptions.items():
        is_back = subscription.name and (subscription.application, subscription.name) == newcomer
        if subscription.reconnect_deadline and not is_back and subscription_id not in after.subscriptions:
            effects += sync_errors.lost(after, subscription, env)
    return Outcome(after, effects)


def _restarted(session: Session, env: Env) -> Outcome:
    """Nobody is lost because the hub was away (SUB-23). A callback whose lease ended meanwhile is posted nothing more."""
    effects: tuple[Effect, ...] = ()
    for subscription in session.subscriptions.values():
        if subscription.callback and subscription.expires <= env.now:
            session, ended = subscriptions.end(session, subscription, "the lease has ended")
            effects += ended
    outcome = connections.restarted(session, env)
    return Outcome(outcome.session, effects + outcome.effects)


def _logged_out(outcome: Outcome) -> Outcome:
    """The session ends, once the logout was distributed: to callbacks too, of which this was the last post (SES-5)."""
    ended = administration.end_session(outcome.session, "the user has logged out")
    effects = [replace(each, numbers=frozenset()) if isinstance(each, EndWebhook) else each for each in ended.effects]
    return Outcome(None, (*outcome.effects, *effects))


def _abandoned(session: Session | None, command: MakeRoom, env: Env) -> Outcome:
    """An EHR that makes a topic for each login and never closes must not lock its user out, so these go when room is needed."""
    if session is None or session.subscriptions:
        return Outcome(session)
    return Outcome(None if command.at_once or _is_unused(session, env) else session)


def _is_unused(session: Session, env: Env) -> bool:
    return not session.subscriptions and session.last_used_at + env.rules.session_ttl <= env.now


def _deadline(session: Session, rules: Rules) -> float | None:
    if session.subscriptions:
        expiry = min(subscriptions.next_expiry(session, rules), missed_events.next_drop(session, rules))
        return expiry if session.next_heartbeat is None else min(expiry, session.next_heartbeat)
    return None if session.contexts else session.last_used_at + rules.session_ttl
