"""The one function through which a session changes.

    decide(session, command, now, ids, rules) -> Outcome(session, effects, reply)

It is pure: no I/O, no clock, no random numbers. Time enters as `now` (epoch seconds) and leaves as `session.deadline`, ids come
from `ids`. A command that is refused raises a HubError; the session stays what it was.
"""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from fhircast_hub.core import subscriptions
from fhircast_hub.core.commands import (
    Command,
    Connected,
    Disconnected,
    Evict,
    MakeRoom,
    Publish,
    Renew,
    Restarted,
    Subscribe,
    Tick,
    Unsubscribe,
)
from fhircast_hub.core.limits import Rules
from fhircast_hub.core.publishing import publish
from fhircast_hub.core.session import Ids, Outcome, Session


def decide(session: Session | None, command: Command, now: float, ids: Ids, rules: Rules) -> Outcome:
    """What `command` leads to. `session` is None where the topic has none yet. Raises HubError when it is refused."""
    outcome = _decide(session, command, now, ids, rules)
    after = outcome.session
    if after is None or after is session:
        return outcome
    if session is not None and after.subscriptions is session.subscriptions and after.subscriptions:
        return outcome  # no lease and no socket changed: the deadline stands
    after = replace(after, used=now)
    return Outcome(replace(after, deadline=_deadline(after, rules)), outcome.effects, outcome.reply)


def _decide(session: Session | None, command: Command, now: float, ids: Ids, rules: Rules) -> Outcome:
    match command:
        case Publish():
            return publish(session, command, now, ids, rules)
        case Subscribe():
            return subscriptions.subscribe(session, command, now, rules)
        case Renew():
            return subscriptions.renew(session, command, now, ids, rules)
        case Unsubscribe():
            return subscriptions.unsubscribe(session, command, now, rules)
        case Connected():
            return subscriptions.connected(session, command, now, ids, rules)
        case Disconnected():
            return subscriptions.disconnected(session, command, now)
        case Evict():
            return subscriptions.evict(session, command)
        case Tick():
            return _tick(session, now, rules)
        case MakeRoom():
            return _abandoned(session, now, rules)
        case Restarted():
            return Outcome(None) if session is None else subscriptions.restarted(session, now)
        case _:
            assert_never(command)


def _tick(session: Session | None, now: float, rules: Rules) -> Outcome:
    if session is None:
        return Outcome(None)
    after, effects = subscriptions.expired(session, now, rules)
    # "A session without subscribers and open contexts is forgotten after SESSION_TTL" (LIM-1).
    if after is session and not session.contexts and _is_unused(session, now, rules):
        return Outcome(None, effects)
    return Outcome(after, effects)


def _abandoned(session: Session | None, now: float, rules: Rules) -> Outcome:
    """An EHR that makes a topic for each login and never closes must not lock its user out, so these go when room is needed."""
    if session is not None and _is_unused(session, now, rules):
        return Outcome(None)
    return Outcome(session)


def _is_unused(session: Session, now: float, rules: Rules) -> bool:
    return not session.subscriptions and session.used + rules.session_ttl <= now


def _deadline(session: Session, rules: Rules) -> float | None:
    if session.subscriptions:
        return subscriptions.next_expiry(session, rules)
    return None if session.contexts else session.used + rules.session_ttl
