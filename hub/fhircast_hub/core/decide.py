"""The one function through which a session changes.

    decide(session, command, now, ids, rules) -> Outcome(session, effects, reply)

It is pure: no I/O, no clock, no random numbers. Time enters as `now` (epoch seconds) and leaves as `session.deadline`, ids come
from `ids`. A command that is refused raises a HubError; the session stays what it was.
"""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from fhircast_hub.core.access.principal import Application
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
    Answered,
    BeginSession,
    Command,
    Connected,
    Disconnected,
    EndSession,
    Evict,
    MakeRoom,
    Publish,
    Refused,
    Renew,
    Restarted,
    Revoked,
    Subscribe,
    Tick,
    Unanswered,
    Undeliverable,
    Unsubscribe,
    Unverified,
)
from fhircast_hub.core.state.effects import Drop, Effect
from fhircast_hub.core.state.session import Ids, Outcome, Session


def decide(session: Session | None, command: Command, now: float, ids: Ids, rules: Rules) -> Outcome:
    """What `command` leads to. `session` is None where the topic has none yet. Raises HubError when it is refused."""
    outcome = _with_posts(_decide(session, command, now, ids, rules), now, ids, rules)
    after = outcome.session
    # Unverified is what came of the question itself.
    if not isinstance(command, Unverified) and (unasked := webhook_outbox.unasked(session, after, outcome.effects)):
        outcome = Outcome(after, outcome.effects + unasked, outcome.reply)
    if after is None or after is session:
        return outcome
    if session is not None and after.subscriptions and _waits_alike(session, after):
        return outcome
    after = missed_events.forgotten(heartbeat.planned(replace(after, used=now), now, rules), now, rules)
    return Outcome(replace(after, deadline=_deadline(after, rules)), outcome.effects, outcome.reply)


def _with_posts(outcome: Outcome, now: float, ids: Ids, rules: Rules) -> Outcome:
    """What was to be sent to callbacks is posted; one for which too much waits is unsubscribed."""
    session, effects = outcome.session, outcome.effects
    if session is None or not session.hooks or not effects:
        return outcome
    session, effects = webhook_outbox.posted(session, effects)
    for subscription in webhook_outbox.overflowing(session, rules):
        ended = sync_errors.undeliverable(session, subscription.sid, "too much waits for its callback", now, ids)
        assert ended.session is not None
        ended = _with_posts(ended, now, ids, rules)
        assert ended.session is not None
        session, effects = ended.session, effects + ended.effects
    return Outcome(session, effects, outcome.reply)


def _waits_alike(before: Session, after: Session) -> bool:
    """Whether no lease, no socket, no heartbeat and nothing that is held changed: then the deadline stands."""
    if after.held is not before.held or after.lost is not before.lost:
        return False
    return after.subscriptions is before.subscriptions and after.beat == before.beat


def _decide(session: Session | None, command: Command, now: float, ids: Ids, rules: Rules) -> Outcome:
    match command:
        case Publish():
            outcome = publish(session, command, now, ids, rules)
            if rules.logout_ends_session and command.event.key == "userlogout":
                return _logged_out(_with_posts(outcome, now, ids, rules))
            return outcome
        case Subscribe():
            anew = command.principal.application, command.name
            return _with_evicted(session, subscriptions.subscribe(session, command, now, rules), anew, now, ids)
        case Renew():
            return subscriptions.renew(session, command, now, ids, rules)
        case Unsubscribe():
            return subscriptions.unsubscribe(session, command, now, rules)
        case Connected():
            return connections.connected(session, command, now, ids, rules)
        case Disconnected():
            return connections.disconnected(session, command, now, rules)
        case Acknowledged():
            return connections.acknowledged(session, command)
        case Refused():
            return sync_errors.refused(session, command, now, ids)
        case Unanswered():
            return sync_errors.unanswered(session, command, now, ids, rules)
        case Unverified():
            return connections.unverified(session, command)
        case Revoked():
            return subscriptions.revoked(session, command)
        case Answered():
            return sync_errors.answered(session, command, now, ids, rules)
        case Undeliverable():
            return sync_errors.undeliverable(session, command.sid, command.reason, now, ids)
        case Evict():
            return _with_evicted(session, subscriptions.evict(session, command), None, now, ids)
        case Tick():
            return _tick(session, now, ids, rules)
        case BeginSession():
            return administration.begin(session, command, now)
        case EndSession():
            return administration.end_session(session, command.reason)
        case MakeRoom():
            return _abandoned(session, command, now, rules)
        case Restarted():
            return Outcome(None) if session is None else _restarted(session, now, rules)
        case _:
            assert_never(command)


def _tick(session: Session | None, now: float, ids: Ids, rules: Rules) -> Outcome:
    if session is None:
        return Outcome(None)
    after, effects = subscriptions.expired(session, now, rules)
    for subscription in connections.unreturned(after, now):
        after = connections.given_up(after, subscription)
        effects += sync_errors.lost(after, subscription, now, ids)
    after, beating = heartbeat.beat(missed_events.forgotten(after, now, rules), now, ids, rules)
    effects += beating
    # "A session without subscribers and open contexts is forgotten after SESSION_TTL" (LIM-1).
    if after is session and not session.contexts and _is_unused(session, now, rules):
        return Outcome(None, effects)
    return Outcome(after, effects)


def _with_evicted(
    before: Session | None, outcome: Outcome, anew: tuple[Application, str] | None, now: float, ids: Ids
) -> Outcome:
    """The outcome, and a SyncError for each lost subscription that had to make room. One of the application and name `anew` came back
    in another way (SUB-23)."""
    after, effects = outcome.session, outcome.effects
    if before is None or after is None:
        return outcome
    for sid, subscription in before.subscriptions.items():
        is_back = subscription.name and (subscription.application, subscription.name) == anew
        if subscription.back_by and not is_back and sid not in after.subscriptions:
            effects += sync_errors.lost(after, subscription, now, ids)
    return Outcome(after, effects)


def _restarted(session: Session, now: float, rules: Rules) -> Outcome:
    """Nobody is lost because the hub was away (SUB-23). A callback whose lease ended meanwhile is posted nothing more."""
    effects: tuple[Effect, ...] = ()
    for subscription in session.subscriptions.values():
        if subscription.callback and subscription.expires <= now:
            session, ended = subscriptions.end(session, subscription, "the lease has ended")
            effects += ended
    outcome = connections.restarted(session, now, rules)
    return Outcome(outcome.session, effects + outcome.effects)


def _logged_out(outcome: Outcome) -> Outcome:
    """The session ends, once the logout was distributed: to callbacks too, of which this was the last post (SES-5)."""
    ended = administration.end_session(outcome.session, "the user has logged out")
    effects = [replace(each, numbers=frozenset()) if isinstance(each, Drop) else each for each in ended.effects]
    return Outcome(None, (*outcome.effects, *effects))


def _abandoned(session: Session | None, command: MakeRoom, now: float, rules: Rules) -> Outcome:
    """An EHR that makes a topic for each login and never closes must not lock its user out, so these go when room is needed."""
    if session is None or session.subscriptions:
        return Outcome(session)
    return Outcome(None if command.at_once or _is_unused(session, now, rules) else session)


def _is_unused(session: Session, now: float, rules: Rules) -> bool:
    return not session.subscriptions and session.used + rules.session_ttl <= now


def _deadline(session: Session, rules: Rules) -> float | None:
    if session.subscriptions:
        expiry = min(subscriptions.next_expiry(session, rules), missed_events.forgets_at(session, rules))
        return expiry if session.beat is None else min(expiry, session.beat)
    return None if session.contexts else session.used + rules.session_ttl
