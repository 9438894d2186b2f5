"""SyncErrors that the hub makes (FHIRcast 3.0.0, 2.5 and 3.2.1): who could not follow what, and why, for people to read.

"If the Hub receives an error notification from a Subscriber, it SHALL generate a SyncError event to the other Subscribers."
"""

from __future__ import annotations

from msgspec.structs import replace

from fhircast_hub.core.env import Env
from fhircast_hub.core.rules import audiences, webhook_outbox
from fhircast_hub.core.rules.connections import acknowledged
from fhircast_hub.core.rules.subscriptions import end
from fhircast_hub.core.state.commands import Acknowledged, AcksTimedOut, MissedAck, PostFinished, Rejected
from fhircast_hub.core.state.effects import Effect, EventRef, Send
from fhircast_hub.core.state.session import Outcome, Session, Subscription
from fhircast_hub.core.wire.frames import event_frame
from fhircast_hub.core.wire.json import encode
from fhircast_hub.core.wire.timestamps import duration, rfc3339

_SYSTEM = "https://fhircast.hl7.org/events/syncerror/"
#: HTTP statuses with which a subscriber refuses; with others it says that it could not (2.5 "Event Notification Response").
_REFUSALS = range(400, 500)
_SUCCESS = 2


def refused(session: Session | None, command: Rejected, env: Env) -> Outcome:
    """A subscriber answered an event with a status other than 2xx (SYN-1)."""
    subscription = session.subscriptions.get(command.subscription_id) if session else None
    if session is None or subscription is None:
        return Outcome(session)
    name, event = called(subscription), command.event_ref.name
    if command.status in _REFUSALS:
        why = f"{name} refused to follow {event} (status {command.status})"
    else:
        why = f"{name} could not follow {event} (status {command.status}): it was not delivered"
    if command.reason:
        why += f": {command.reason}"
    effects = _report(session, subscription, command.event_ref, why, env)
    opened = session.contexts.get(command.event_ref.ref)
    named = opened.implied.values() if opened else ()
    after = audiences.forget_open(session.audiences, command.connection, (command.event_ref.ref, *named))
    found = replace(subscription, refused_event=command.event_ref.name)
    subscriptions = {**session.subscriptions, found.subscription_id: found}
    return Outcome(replace(session, audiences=after, subscriptions=subscriptions), effects)


def unanswered(session: Session | None, command: AcksTimedOut, env: Env) -> Outcome:
    """Subscribers did not acknowledge in time: they are reported, and the unresponsive are unsubscribed (SYN-4, SYN-5).

    "Upon communicating a SyncError resulting from an unresponsive Subscriber, the Hub SHALL unsubscribe the Subscriber", which
    "should be considered unresponsive following a non-zero number of consecutive" ones (2.5).
    """
    effects: tuple[Effect, ...] = ()
    for missed_ack in command.missed:
        subscription = session.subscriptions.get(missed_ack.subscription_id) if session else None
        if session is not None and subscription is not None and subscription.connection == missed_ack.connection:
            session, silent = _silent(session, subscription, missed_ack, env)
            effects += silent
    return Outcome(session, effects)


def answered(session: Session | None, command: PostFinished, env: Env) -> Outcome:
    """A callback answered a post, which is its acknowledgement, or did not answer in time (WHK-6)."""
    if session is None:
        return Outcome(None)
    session, post = webhook_outbox.taken(session, command.number)
    if post is None:
        return Outcome(session)
    subscription = session.subscriptions[post.subscription_id]
    if command.status // 100 == _SUCCESS:
        return acknowledged(session, Acknowledged(post.subscription_id, followed=post.event_ref.reportable))
    if not post.event_ref.reportable:
        return Outcome(session)
    if command.status in _REFUSALS:
        session = acknowledged(
            session, Acknowledged(post.subscription_id, followed=False)
        ).session  # it refuses, and so is not silent
        refusal = Rejected(post.subscription_id, subscription.connection, post.event_ref, command.status)
        return refused(session, refusal, env)
    missed_ack = MissedAck(post.subscription_id, subscription.connection, post.event_ref)
    return Outcome(*_silent(session, subscription, missed_ack, env, command.status))


def undeliverable(session: Session | None, subscription_id: str, reason: str, env: Env) -> Outcome:
    """Nothing can be posted to a callback any more: it is reported, told so, and unsubscribed."""
    subscription = session.subscriptions.get(subscription_id) if session else None
    if session is None or subscription is None:
        return Outcome(session)
    event = env.ids.uuid()
    why = f"{called(subscription)} was unsubscribed: {reason}"
    effects = _report(session, subscription, EventRef(event, event, "syncerror"), why, env)
    session, ending = end(session, subscription, reason)
    return Outcome(session, effects + ending)


def lost(session: Session, subscription: Subscription, env: Env) -> tuple[Effect, ...]:
    """The connection of `subscription` was lost and is not back (SYN-7)."""
    event = env.ids.uuid()
    why = f"{called(subscription)} lost its connection and has not come back"
    return _report(session, subscription, EventRef(event, event, "syncerror"), why, env)


def overtaken(session: Session, event_ref: EventRef, seconds: float, env: Env) -> tuple[Effect, ...]:
    """An event was accepted that is older than the open that made the current context (EVT-20).

    "Subscribers SHALL ignore messages with older timestamps than the message that established the current context" (2.5).
    """
    why = (
        f"{event_ref.name} was accepted, and its timestamp is {duration(seconds)} older than that of the current context:"
        " applications that go by timestamps do not follow it"
    )
    return _send(session, "", event_ref, "", why, env)


def called(subscription: Subscription) -> str:
    """The name of a subscriber, for people."""
    return subscription.name or "unnamed"


def _silent(
    session: Session,
    subscription: Subscription,
    missed_ack: MissedAck,
    env: Env,
    status: int = 0,
) -> tuple[Session, tuple[Effect, ...]]:
    """`status` is that of a callback which answered, and said that it is not able to."""
    missed_acks = subscription.missed_acks + 1
    name, event = called(subscription), missed_ack.event_ref.name
    if status:
        why = f"{name} could not follow {event} (status {status}): it was not delivered"
    else:
        why = f"{name} did not acknowledge {event} within {env.rules.ack_timeout} seconds"
    if missed_acks < env.rules.ack_strikes:
        effects = _report(session, subscription, missed_ack.event_ref, why, env)
        struck = replace(subscription, missed_acks=missed_acks)
        return replace(session, subscriptions={**session.subscriptions, struck.subscription_id: struck}), effects
    effects = _report(session, subscription, missed_ack.event_ref, f"{why} and was unsubscribed", env)
    session, ending = end(session, subscription, f"{missed_acks} events in a row were not acknowledged")
    return session, effects + ending


def _report(
    session: Session, subscription: Subscription, event_ref: EventRef, why: str, env: Env
) -> tuple[Effect, ...]:
    return _send(session, subscription.connection, event_ref, called(subscription), why, env)


def _send(
    session: Session, except_connection: str, about: EventRef, name: str, why: str, env: Env
) -> tuple[Effect, ...]:
    """The SyncError, to all who asked for it, except the connection `except_connection`; none about what does not matter (SYN-10, SYN-11)."""
    to = tuple(other for other in audiences.subscribed(session.audiences, "syncerror") if other != except_connection)
    if not to or not about.reportable:
        return ()
    id_ = env.ids.uuid()
    frame = event_frame(session.topic, "SyncError", id_, rfc3339(env.now), _context(about, name or "unnamed", why))
    return (Send(to, frame, EventRef(id_, id_, "SyncError", reportable=False)),)


def _context(about: EventRef, name: str, why: str) -> bytes:
    """As the profile FhircastHubSyncErrorOperationOutcome has it, and the older system `subscriber` of the examples besides."""
    codes = {"eventid": about.event, "eventname": about.name, "subscribername": name, "subscriber": name}
    coding = [{"system": _SYSTEM + system, "code": code} for system, code in codes.items()]
    issue = {"severity": "warning", "code": "processing", "diagnostics": why, "details": {"coding": coding}}
    return encode([{"key": "operationoutcome", "resource": {"resourceType": "OperationOutcome", "issue": [issue]}}])
