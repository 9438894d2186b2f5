"""SyncErrors that the hub makes (FHIRcast 3.0.0, 2.5 and 3.2.1): which subscriber did not follow which event, and why.

"If the Hub receives an error notification from a Subscriber, it SHALL generate a SyncError event to the other Subscribers."
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from fhircast_hub.core.env import Env
from fhircast_hub.core.rules import audiences, webhook_outbox
from fhircast_hub.core.rules.connections import acknowledged
from fhircast_hub.core.rules.subscriptions import end, with_subscription
from fhircast_hub.core.state.commands import Acknowledged, AcksTimedOut, MissedAck, PostFinished, Rejected
from fhircast_hub.core.state.effects import Effect, EventRef, Send
from fhircast_hub.core.state.session import Outcome, Session, Subscription
from fhircast_hub.core.wire.frames import event_frame
from fhircast_hub.core.wire.json import encode
from fhircast_hub.core.wire.timestamps import duration, rfc3339

_SYSTEM = "https://fhircast.hl7.org/events/syncerror/"
#: Statuses of a subscriber that refuses. Other errors say that the event was not delivered (2.5 "Event Notification Response").
_REFUSALS = range(400, 500)
#: First digit of the statuses of success.
_SUCCESS = 2


class _Problem(NamedTuple):
    """The problem that a SyncError reports."""

    #: The event that was not followed.
    event_ref: EventRef
    #: `diagnostics` of the OperationOutcome, for clinicians and integrators.
    diagnostics: str
    #: The subscription that did not follow. None: no subscription is to blame.
    subscription: Subscription | None = None


def rejected(session: Session | None, command: Rejected, env: Env) -> Outcome:
    """Report a subscriber that answered an event with a status other than 2xx (SYN-1)."""
    subscription = session.subscriptions.get(command.subscription_id) if session else None
    if session is None or subscription is None:
        return Outcome(session)
    event_ref = command.event_ref
    effects = _report(session, _Problem(event_ref, refusal_words(subscription, command), subscription), env)
    opened = session.contexts.get(event_ref.ref)
    if event_ref.ref:
        refs = (event_ref.ref, *(opened.implied.values() if opened else ()))
        session = replace(session, audiences=audiences.forget_open(session.audiences, command.connection, refs))
    return Outcome(with_subscription(session, replace(subscription, refused_event=event_ref.name)), effects)


def acks_timed_out(session: Session | None, command: AcksTimedOut, env: Env) -> Outcome:
    """Report connections that did not acknowledge in time, and end unresponsive subscriptions (SYN-4, SYN-5).

    "Upon communicating a SyncError resulting from an unresponsive Subscriber, the Hub SHALL unsubscribe the Subscriber", which
    "should be considered unresponsive following a non-zero number of consecutive" ones (2.5).
    """
    effects: tuple[Effect, ...] = ()
    for missed_ack in command.missed:
        subscription = session.subscriptions.get(missed_ack.subscription_id) if session else None
        if session is not None and subscription is not None and subscription.connection == missed_ack.connection:
            session, reported = _count_missed_ack(session, missed_ack, env)
            effects += reported
    return Outcome(session, effects)


def post_finished(session: Session | None, command: PostFinished, env: Env) -> Outcome:
    """Evaluate a callback's answer to a post (WHK-6).

    A 2xx is an acknowledgement, 4xx a refusal. Any other or no answer counts as missed.
    Only reportable events are refused or missed.
    """
    if session is None:
        return Outcome(None)
    session, post = webhook_outbox.take_post(session, command.number)
    if post is None:
        return Outcome(session)
    id_, event_ref, status = post.subscription_id, post.event_ref, command.status
    if status // 100 == _SUCCESS:
        return acknowledged(session, Acknowledged(id_, followed=event_ref.reportable))
    if not event_ref.reportable:
        return Outcome(session)
    connection = session.subscriptions[id_].connection
    if status in _REFUSALS:
        session = acknowledged(session, Acknowledged(id_, followed=False)).session  # a refusal is an answer
        return rejected(session, Rejected(id_, connection, event_ref, status), env)
    return Outcome(*_count_missed_ack(session, MissedAck(id_, connection, event_ref), env, status))


def undeliverable(session: Session | None, subscription_id: str, reason: str, env: Env) -> Outcome:
    """End the subscription of a callback to which nothing can be posted any more, and report the end."""
    subscription = session.subscriptions.get(subscription_id) if session else None
    if session is None or subscription is None:
        return Outcome(session)
    diagnostics = f"{_name(subscription)} was unsubscribed: {reason}"
    effects = _report(session, _Problem(_new_event_ref(env), diagnostics, subscription), env)
    session, ending = end(session, subscription, reason)
    return Outcome(session, effects + ending)


def lost(session: Session, subscription: Subscription, env: Env) -> tuple[Effect, ...]:
    """Report a subscription whose connection was lost and is not back (SYN-7)."""
    return _report(session, _Problem(_new_event_ref(env), loss_words(subscription), subscription), env)


def overtaken(session: Session, event_ref: EventRef, seconds: float, env: Env) -> tuple[Effect, ...]:
    """Report an accepted open or Home-open. The event is `seconds` older than the event that made the present state (EVT-34).

    "Subscribers SHALL ignore messages with older timestamps than the message that established the current context" (2.5).
    """
    diagnostics = (
        f"{event_ref.name} was accepted, and its timestamp is {duration(seconds)} older than that of the current context:"
        " applications that go by timestamps do not follow it"
    )
    return _report(session, _Problem(event_ref, diagnostics), env)


def refusal_words(subscription: Subscription, command: Rejected) -> str:
    """The diagnostics of a refusal, with the subscriber's own reason."""
    event_ref = command.event_ref
    if command.status in _REFUSALS:
        diagnostics = f"{_name(subscription)} refused to follow {event_ref.name} (status {command.status})"
    else:
        diagnostics = _not_delivered(subscription, event_ref, command.status)
    return f"{diagnostics}: {command.reason}" if command.reason else diagnostics


def silence_words(subscription: Subscription, event_ref: EventRef, ack_timeout: float, status: int = 0) -> str:
    """The diagnostics of a missed acknowledgement. `status`: HTTP status of a callback that failed. 0: no answer came."""
    if status:
        return _not_delivered(subscription, event_ref, status)
    return f"{_name(subscription)} did not acknowledge {event_ref.name} within {ack_timeout} seconds"


def loss_words(subscription: Subscription) -> str:
    """The diagnostics of a subscription whose connection was lost and is not back."""
    return f"{_name(subscription)} lost its connection and has not come back"


def _name(subscription: Subscription | None) -> str:
    """The name of a subscriber, for people."""
    return subscription.name if subscription and subscription.name else "unnamed"


def _new_event_ref(env: Env) -> EventRef:
    """The EventRef of a problem that no event caused: a new id, and the name `syncerror` (SYN-21)."""
    event = env.ids.uuid()
    return EventRef(event, event, "syncerror")


def _not_delivered(subscription: Subscription, event_ref: EventRef, status: int) -> str:
    return f"{_name(subscription)} could not follow {event_ref.name} (status {status}): it was not delivered"


def _count_missed_ack(
    session: Session, missed_ack: MissedAck, env: Env, status: int = 0
) -> tuple[Session, tuple[Effect, ...]]:
    """Report a missed acknowledgement. After `ack_strikes` of them in a row, end the subscription (SYN-5).

    `status`: HTTP status of a callback that failed. 0: no answer came.
    """
    subscription = session.subscriptions[missed_ack.subscription_id]
    event_ref, missed_acks = missed_ack.event_ref, subscription.missed_acks + 1
    diagnostics = silence_words(subscription, event_ref, env.rules.ack_timeout, status)
    if missed_acks < env.rules.ack_strikes:
        effects = _report(session, _Problem(event_ref, diagnostics, subscription), env)
        return with_subscription(session, replace(subscription, missed_acks=missed_acks)), effects
    effects = _report(session, _Problem(event_ref, f"{diagnostics} and was unsubscribed", subscription), env)
    session, ending = end(session, subscription, f"{missed_acks} events in a row were not acknowledged")
    return session, effects + ending


def _report(session: Session, problem: _Problem, env: Env) -> tuple[Effect, ...]:
    """Send a SyncError to its subscribers, but not to `problem.subscription` (SYN-2).

    Some events are not reported (SYN-10, SYN-11).
    """
    to_blame = problem.subscription.connection if problem.subscription else ""
    to = tuple(other for other in audiences.subscribers_of(session.audiences, "syncerror") if other != to_blame)
    if not to or not problem.event_ref.reportable:
        return ()
    id_ = env.ids.uuid()
    frame = event_frame(session.topic, "SyncError", id_, rfc3339(env.now), _context(problem))
    return (Send(to, frame, EventRef(id_, id_, "SyncError", reportable=False)),)


def _context(problem: _Problem) -> bytes:
    """The context array: as the profile FhircastHubSyncErrorOperationOutcome, and the system `subscriber` of older examples."""
    name = _name(problem.subscription)
    event_ref = problem.event_ref
    codes = {"eventid": event_ref.event, "eventname": event_ref.name, "subscribername": name, "subscriber": name}
    details = {"coding": [{"system": _SYSTEM + system, "code": code} for system, code in codes.items()]}
    issue = {"severity": "warning", "code": "processing", "diagnostics": problem.diagnostics, "details": details}
    return encode([{"key": "operationoutcome", "resource": {"resourceType": "OperationOutcome", "issue": [issue]}}])
