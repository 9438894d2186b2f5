"""SyncErrors that the hub makes (FHIRcast 3.0.0, 2.5 and 3.2.1): who could not follow what, and why, for people to read.

"If the Hub receives an error notification from a Subscriber, it SHALL generate a SyncError event to the other Subscribers."
"""

from __future__ import annotations

from msgspec.structs import replace

from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules import audiences, webhook_outbox
from fhircast_hub.core.rules.connections import acknowledged
from fhircast_hub.core.rules.subscriptions import end
from fhircast_hub.core.state.commands import Acknowledged, Answered, Refused, Silence, Unanswered
from fhircast_hub.core.state.effects import Effect, Notice, Send
from fhircast_hub.core.state.session import Ids, Outcome, Session, Subscription
from fhircast_hub.core.wire.frames import made_event
from fhircast_hub.core.wire.json import encode
from fhircast_hub.core.wire.timestamps import duration, rfc3339

_SYSTEM = "https://fhircast.hl7.org/events/syncerror/"
#: HTTP statuses with which a subscriber refuses; with others it says that it could not (2.5 "Event Notification Response").
_REFUSALS = range(400, 500)
_SUCCESS = 2


def refused(session: Session | None, command: Refused, now: float, ids: Ids) -> Outcome:
    """A subscriber answered an event with a status other than 2xx (SYN-1)."""
    subscription = session.subscriptions.get(command.sid) if session else None
    if session is None or subscription is None:
        return Outcome(session)
    name, event = called(subscription), command.notice.name
    if command.status in _REFUSALS:
        why = f"{name} refused to follow {event} (status {command.status})"
    else:
        why = f"{name} could not follow {event} (status {command.status}): it was not delivered"
    if command.reason:
        why += f": {command.reason}"
    effects = _report(session, subscription, command.notice, why, now, ids)
    opened = session.contexts.get(command.notice.ref)
    named = opened.implied.values() if opened else ()
    after = audiences.untold(session.audiences, command.connection, (command.notice.ref, *named))
    found = replace(subscription, refused=command.notice.name)
    subscriptions = {**session.subscriptions, found.sid: found}
    return Outcome(replace(session, audiences=after, subscriptions=subscriptions), effects)


def unanswered(session: Session | None, command: Unanswered, now: float, ids: Ids, rules: Rules) -> Outcome:
    """Subscribers did not acknowledge in time: they are reported, and the unresponsive are unsubscribed (SYN-4, SYN-5).

    "Upon communicating a SyncError resulting from an unresponsive Subscriber, the Hub SHALL unsubscribe the Subscriber", which
    "should be considered unresponsive following a non-zero number of consecutive" ones (2.5).
    """
    effects: tuple[Effect, ...] = ()
    for silence in command.silences:
        subscription = session.subscriptions.get(silence.sid) if session else None
        if session is not None and subscription is not None and subscription.connection == silence.connection:
            session, silent = _silent(session, subscription, silence, now, ids, rules)
            effects += silent
    return Outcome(session, effects)


def answered(session: Session | None, command: Answered, now: float, ids: Ids, rules: Rules) -> Outcome:
    """A callback answered a post, which is its acknowledgement, or did not answer in time (WHK-6)."""
    if session is None:
        return Outcome(None)
    session, post = webhook_outbox.taken(session, command.number)
    if post is None:
        return Outcome(session)
    subscription = session.subscriptions[post.sid]
    if command.status // 100 == _SUCCESS:
        return acknowledged(session, Acknowledged(post.sid, followed=post.notice.matters))
    if not post.notice.matters:
        return Outcome(session)
    if command.status in _REFUSALS:
        session = acknowledged(
            session, Acknowledged(post.sid, followed=False)
        ).session  # it refuses, and so is not silent
        refusal = Refused(post.sid, subscription.connection, post.notice, command.status)
        return refused(session, refusal, now, ids)
    silence = Silence(post.sid, subscription.connection, post.notice)
    return Outcome(*_silent(session, subscription, silence, now, ids, rules, command.status))


def undeliverable(session: Session | None, sid: str, reason: str, now: float, ids: Ids) -> Outcome:
    """Nothing can be posted to a callback any more: it is reported, told so, and unsubscribed."""
    subscription = session.subscriptions.get(sid) if session else None
    if session is None or subscription is None:
        return Outcome(session)
    event = ids.uuid()
    why = f"{called(subscription)} was unsubscribed: {reason}"
    effects = _report(session, subscription, Notice(event, event, "syncerror"), why, now, ids)
    session, ending = end(session, subscription, reason)
    return Outcome(session, effects + ending)


def lost(session: Session, subscription: Subscription, now: float, ids: Ids) -> tuple[Effect, ...]:
    """The connection of `subscription` was lost and is not back (SYN-7)."""
    event = ids.uuid()
    why = f"{called(subscription)} lost its connection and has not come back"
    return _report(session, subscription, Notice(event, event, "syncerror"), why, now, ids)


def overtaken(session: Session, notice: Notice, seconds: float, now: float, ids: Ids) -> tuple[Effect, ...]:
    """An event was accepted that is older than the open that made the current context (EVT-20).

    "Subscribers SHALL ignore messages with older timestamps than the message that established the current context" (2.5).
    """
    why = (
        f"{notice.name} was accepted, and its timestamp is {duration(seconds)} older than that of the current context:"
        " applications that go by timestamps do not follow it"
    )
    return _send(session, "", notice, "", why, now, ids)


def called(subscription: Subscription) -> str:
    """The name of a subscriber, for people."""
    return subscription.name or "unnamed"


def _silent(
    session: Session,
    subscription: Subscription,
    silence: Silence,
    now: float,
    ids: Ids,
    rules: Rules,
    status: int = 0,
) -> tuple[Session, tuple[Effect, ...]]:
    """`status` is that of a callback which answered, and said that it is not able to."""
    strikes = subscription.strikes + 1
    name, event = called(subscription), silence.notice.name
    if status:
        why = f"{name} could not follow {event} (status {status}): it was not delivered"
    else:
        why = f"{name} did not acknowledge {event} within {rules.ack_timeout} seconds"
    if strikes < rules.ack_strikes:
        effects = _report(session, subscription, silence.notice, why, now, ids)
        struck = replace(subscription, strikes=strikes)
        return replace(session, subscriptions={**session.subscriptions, struck.sid: struck}), effects
    effects = _report(session, subscription, silence.notice, f"{why} and was unsubscribed", now, ids)
    session, ending = end(session, subscription, f"{strikes} events in a row were not acknowledged")
    return session, effects + ending


def _report(
    session: Session, subscription: Subscription, notice: Notice, why: str, now: float, ids: Ids
) -> tuple[Effect, ...]:
    return _send(session, subscription.connection, notice, called(subscription), why, now, ids)


def _send(session: Session, but: str, about: Notice, name: str, why: str, now: float, ids: Ids) -> tuple[Effect, ...]:
    """The SyncError, to all who asked for it, except the connection `but`; none about what does not matter (SYN-10, SYN-11)."""
    to = tuple(other for other in audiences.subscribed(session.audiences, "syncerror") if other != but)
    if not to or not about.matters:
        return ()
    id_ = ids.uuid()
    frame = made_event(session.topic, "SyncError", id_, rfc3339(now), _context(about, name or "unnamed", why))
    return (Send(to, frame, Notice(id_, id_, "SyncError", matters=False)),)


def _context(about: Notice, name: str, why: str) -> bytes:
    """As the profile FhircastHubSyncErrorOperationOutcome has it, and the older system `subscriber` of the examples besides."""
    codes = {"eventid": about.event, "eventname": about.name, "subscribername": name, "subscriber": name}
    coding = [{"system": _SYSTEM + system, "code": code} for system, code in codes.items()]
    issue = {"severity": "warning", "code": "processing", "diagnostics": why, "details": {"coding": coding}}
    return encode([{"key": "operationoutcome", "resource": {"resourceType": "OperationOutcome", "issue": [issue]}}])
