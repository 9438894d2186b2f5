"""Publishing: the changes of a session and the broadcasts after an event was posted (FHIRcast 3.0.0, 2.6).

"Once a requested context change is accepted, the Hub SHALL broadcast the context notification to all Subscribers, including
the original requesting Subscriber."

- An open becomes the current context. Derived opens are sent before the open itself (derived_opens.py).
- A close ends a context (closing.py).
- A Home-open leaves all contexts open, but none is current.
- An update changes shared content (content.py). A stale version is answered with 409 (conflicts.py).
- A select, and events like UserLogout, are broadcast and change nothing. With LOGOUT_ENDS_SESSION the session
  ends after the broadcast of a UserLogout (user_logout.py).

`Session.order` counts accepted opens, closes, Home-opens and updates. The hub orders events by arrival, not by timestamp.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from msgspec.structs import replace

from fhircast_hub.core.access.topic_access import check_access, new_owner
from fhircast_hub.core.env import Env
from fhircast_hub.core.errors import BadRequest, InsufficientScope
from fhircast_hub.core.limits import REMEMBERED_CHANGES, Rules
from fhircast_hub.core.rules import audiences
from fhircast_hub.core.rules.closing import EndingEvent, close_context, end_derived_opens
from fhircast_hub.core.rules.conflicts import check_select
from fhircast_hub.core.rules.content import apply_update, drop_contradicted
from fhircast_hub.core.rules.contexts import add_context, context_of
from fhircast_hub.core.rules.derived_opens import derive_opens
from fhircast_hub.core.rules.joining import after_open_of
from fhircast_hub.core.rules.last_opens import TYPE_INDEX
from fhircast_hub.core.rules.missed_events import retain
from fhircast_hub.core.rules.sync_errors import overtaken
from fhircast_hub.core.state.commands import Publish
from fhircast_hub.core.state.effects import Effect, EventRef, Send
from fhircast_hub.core.state.session import Audience, OpenContext, Outcome, RetainedEvent, Session
from fhircast_hub.core.wire.event import Event
from fhircast_hub.core.wire.event_names import OPEN_KEYS, Kind, spelling
from fhircast_hub.core.wire.frames import event_frame, timestamp_of, with_versions
from fhircast_hub.core.wire.timestamps import duration, has_zone, instant, rfc3339


def publish(session: Session | None, command: Publish, env: Env) -> Outcome:
    """Accept an event. Raises BadRequest, Forbidden, Conflict or InsufficientScope. An update may also raise TooLarge."""
    event, principal = command.event, command.principal
    _check_clock(event, env)
    check_access(principal, event.topic, session.owner if session else None)
    if not principal.scopes.may_write(event.key):
        name = spelling(event.name)
        text = "this token's scopes do not allow writing …"
        raise InsufficientScope(text, scope=f"fhircast/{name}.write", quoted=name)
    if session is None:
        session = Session(realm=principal.realm, topic=event.topic, owner=new_owner(principal))
    if event.kind is Kind.UPDATE:
        return _update(session, event, env)
    if event.kind is Kind.SELECT:
        check_select(session, event)
    if event.kind in (Kind.SELECT, Kind.PASSED_ON):
        # Without subscriptions, a new object marks the session as used (LIM-5).
        return _broadcast(session if session.subscriptions else replace(session), event)
    accepted_order = session.recent.get(event.fingerprint)
    if accepted_order is not None:
        # "such resend will use the timestamp of the original event to prevent race conditions" (2.6). The newest change is sent
        # again (EVT-17). An older change is not sent: the hub and its subscribers have a newer state (EVT-31).
        session = replace(session, recent=_with_newest(session.recent, event.fingerprint, accepted_order))
        return _repeat(session, event, env.rules) if accepted_order >= session.last_change_order else Outcome(session)
    order = session.order + 1
    session = replace(session, order=order, recent=_with_newest(session.recent, event.fingerprint, order))
    if event.kind is Kind.OPEN:
        return _open(session, event, env)
    if event.kind is Kind.CLOSE:
        return _close(session, event, env)
    return _home_open(session, event, env)


def _check_clock(event: Event, env: Env) -> None:
    """Raise BadRequest for a timestamp too far ahead of the hub's clock (EVT-19).

    "Subscribers SHALL ignore messages with older timestamps than the message that established the current context" (2.5).
    Subscribers would then ignore all events until that time.
    """
    ahead = event.at - env.now
    if ahead > env.rules.max_clock_ahead:
        seconds = math.ceil(ahead)
        raise BadRequest(
            f"timestamp may be at most {env.rules.max_clock_ahead} seconds ahead of the hub's clock, not {seconds}"
            f" seconds ({duration(seconds)}){'' if has_zone(event.timestamp) else '; without a zone it is read as UTC'}"
        )


def _broadcast(session: Session, event: Event) -> Outcome:
    return Outcome(session, _send(session, event.key, event.frame(), _event_ref(event)))


def _send(session: Session, key: str, frame: bytes, event_ref: EventRef) -> tuple[Effect, ...]:
    """A frame for all connections that were granted the event of this lower-case name."""
    to = audiences.subscribers_of(session.audiences, key)
    return (Send(to, frame, event_ref),) if to else ()


def _event_ref(event: Event) -> EventRef:
    """The event's reference. "SyncError is not used when a Subscriber responds to an *-update or *-select event" (3.2.1)."""
    reportable = event.kind not in (Kind.UPDATE, Kind.SELECT) and event.key != "syncerror"
    return EventRef(event.id, event.id, event.name, reportable=reportable)


def _with_newest(recent: dict[bytes, int], fingerprint: bytes, order: int) -> dict[bytes, int]:
    """The recent changes with this change moved to the end of the LRU."""
    changes = recent.copy()
    changes.pop(fingerprint, None)
    changes[fingerprint] = order
    if len(changes) > REMEMBERED_CHANGES:
        del changes[next(iter(changes))]
    return changes


def _repeat(session: Session, event: Event, rules: Rules) -> Outcome:
    """Send the newest change again: an open with the version that its context has now (EVT-17)."""
    if event.kind is not Kind.OPEN:
        return _broadcast(session, event)
    context = session.contexts[event.ref]
    after, effects = _send_open(session, context, rules, is_repeat=True)
    return Outcome(replace(session, audiences=after), effects)


def _update(session: Session, event: Event, env: Env) -> Outcome:
    """Accept an update (2.10). The broadcast has the new version and "the context.priorVersionId"."""
    version = env.ids.uuid()
    after = apply_update(session, event, version, env.rules)
    if after is None:
        return Outcome(session)
    order = session.order + 1
    frame, event_ref = with_versions(event, version, session.contexts[event.ref].version), _event_ref(event)
    after = retain(
        replace(after, order=order, last_change_order=order),
        [RetainedEvent(env.now, event_ref, event.type, event.ref, frame)],
        env.rules,
    )
    return Outcome(after, _send(session, event.key, frame, event_ref))


def _open(session: Session, event: Event, env: Env) -> Outcome:
    """Accept an open.

    Effects in this order: corrections of derived opens, derived opens, the open, closes of removed contexts,
    a SyncError for a late open.
    """
    context, current_timestamp = context_of(event, env.ids.uuid(), session.order), _current_timestamp(session)
    previous = session.contexts.get(context.ref)
    contexts, removed = add_context(session.contexts, context)
    session = replace(
        session,
        contexts=contexts,
        current=context.ref,
        version=context.version,
        home=b"",
        last_change_order=session.order,
    )
    if (content := session.contents.get(context.ref)) is not None:
        session = replace(session, contents={**session.contents, context.ref: drop_contradicted(content, context)})
    session, effects = _end_changed_derived_opens(session, event, context, previous, env)
    after, opens = _send_open(session, context, env.rules)
    session, effects = replace(session, audiences=after), effects + opens
    for other in removed:
        session, closes = _close_removed(session, other, env)
        effects += closes
    return Outcome(session, effects + _report_late_open(session, event, current_timestamp, env))


def _close_removed(session: Session, context: OpenContext, env: Env) -> tuple[Session, tuple[Effect, ...]]:
    """Close a context that had to make room, by a close of the hub's own (LIM-4)."""
    name, id_, timestamp = spelling(f"{context.type}-close"), env.ids.uuid(), rfc3339(env.now)
    frame = event_frame(session.topic, name, id_, timestamp, context.context)
    close = RetainedEvent(env.now, EventRef(id_, id_, name), context.type, context.ref, frame)
    return close_context(session, context, close, timestamp, env.rules)


def _end_changed_derived_opens(
    session: Session, event: Event, context: OpenContext, previous: OpenContext | None, env: Env
) -> tuple[Session, tuple[Effect, ...]]:
    """`context` is `previous` opened again. End the derived opens of contexts that only `previous` names (DER-9)."""
    changed = (
        [type_ for type_, ref in previous.implied.items() if context.implied.get(type_) != ref] if previous else []
    )
    if previous is None or not changed:
        return session, ()
    ending = EndingEvent(event.id, event.name, event.timestamp, env.now, reopened=context)
    session, effects, closes = end_derived_opens(session, previous, changed, ending, env.rules)
    return (retain(session, closes, env.rules) if closes else session), effects


def _current_timestamp(session: Session) -> str:
    """Timestamp of the open or Home-open that made the present state. "": nothing is current."""
    if session.home:
        return timestamp_of(session.home)
    return session.contexts[session.current].timestamp if session.current else ""


def _report_late_open(session: Session, event: Event, current_timestamp: str, env: Env) -> tuple[Effect, ...]:
    """A SyncError for an open older than `current_timestamp`: some subscribers go by timestamps (EVT-34)."""
    if not current_timestamp or current_timestamp == event.timestamp:
        return ()
    seconds = instant(current_timestamp) - event.at
    return overtaken(session, _event_ref(event), seconds, env) if seconds > 0 else ()


def _send_open(
    session: Session, context: OpenContext, rules: Rules, *, is_repeat: bool = False
) -> tuple[tuple[Audience, ...], tuple[Effect, ...]]:
    """Send the derived opens, then the open itself. Returns the audiences after that, and the effects.

    "Hubs SHOULD NOT generate and send duplicative events" (2.5). So subscribers of the event itself are sent no derived
    open (DER-13). Subscribers whose last open is this context, without doubt, are sent a derived open at a repeat only (DER-3).
    """
    key, after = context.key, list(session.audiences)
    effects: list[Effect] = []
    for open_ in derive_opens(context) if rules.derive_opens and _is_derived_open_wanted(after, context) else ():
        to: list[str] = []
        for place, audience in enumerate(after):
            if open_.key not in audience.keys or key in audience.keys:
                continue
            last = audience.last_opened[TYPE_INDEX[open_.type]]
            if is_repeat or last.ref != open_.ref or last.in_doubt:
                to += audience.members
                after[place] = _after_open(audience, context, open_.type)
        if to:
            effects.append(Send(tuple(to), *open_.message(session.topic)))
    effects += _send(session, key, context.frame, context.event_ref)
    after = [_after_open(audience, context, "") if key in audience.keys else audience for audience in after]
    return audiences.merge_equal(after), tuple(effects)


def _after_open(audience: Audience, context: OpenContext, derived_type: str) -> Audience:
    """The audience after it was sent the context's open, or the derived open of a type."""
    last_opened = after_open_of(audience.last_opened, context, derived_type, audience.keys)
    return audience if last_opened == audience.last_opened else replace(audience, last_opened=last_opened)


def _is_derived_open_wanted(listening: Iterable[Audience], context: OpenContext) -> bool:
    """Whether any of these audiences may be sent a derived open. Usually none may, and none is made."""
    key = context.key
    others = [audience for audience in listening if key not in audience.keys] if context.implied else []
    return bool(others) and any(OPEN_KEYS[type_] in audience.keys for type_ in context.implied for audience in others)


def _close(session: Session, event: Event, env: Env) -> Outcome:
    """Accept a close. A close of a context that is not open is broadcast too, and changes no context (EVT-16)."""
    if (context := session.contexts.get(event.ref)) is not None:
        session = replace(session, last_change_order=session.order)
    if event.ref == session.current:
        session = replace(session, current="", version=env.ids.uuid())
    close = RetainedEvent(env.now, _event_ref(event), event.type, event.ref, event.frame())
    return Outcome(*close_context(session, context, close, event.timestamp, env.rules))


def _home_open(session: Session, event: Event, env: Env) -> Outcome:
    """Home-open: "the lack of a FHIR resource context" (3.2.4). Contexts stay open, none is current (GET-7)."""
    frame, current_timestamp = event.frame(), _current_timestamp(session)
    session = replace(
        session,
        current="",
        version=env.ids.uuid(),
        home=frame,
        last_change_order=session.order,
        audiences=audiences.after_home_open(session.audiences),
    )
    effects = _send(session, event.key, frame, _event_ref(event))
    return Outcome(session, effects + _report_late_open(session, event, current_timestamp, env))
