"""Publishing (FHIRcast 3.0.0, 2.6): an event that was posted, what it changes, and who is sent what.

"Once a requested context change is accepted, the Hub SHALL broadcast the context notification to all Subscribers, including
the original requesting Subscriber."
"""

from __future__ import annotations

import math

from msgspec.structs import replace

from fhircast_hub.core.access.principal import check_access, new_owner
from fhircast_hub.core.env import Env
from fhircast_hub.core.errors import BadRequest, InsufficientScope
from fhircast_hub.core.limits import REMEMBERED_CHANGES, Rules
from fhircast_hub.core.rules import audiences
from fhircast_hub.core.rules.closing import Cause, closed, take_back
from fhircast_hub.core.rules.content import check_select, updated, without_contradicted
from fhircast_hub.core.rules.contexts import add, opened
from fhircast_hub.core.rules.derived_opens import derive
from fhircast_hub.core.rules.joining import Opening
from fhircast_hub.core.rules.missed_events import retain
from fhircast_hub.core.rules.sync_errors import overtaken
from fhircast_hub.core.state.commands import Publish
from fhircast_hub.core.state.effects import Effect, EventRef, Send
from fhircast_hub.core.state.session import Audience, OpenContext, Outcome, RetainedEvent, Session
from fhircast_hub.core.wire.event import Event
from fhircast_hub.core.wire.event_names import Kind, spelling
from fhircast_hub.core.wire.frames import event_frame, timestamp_of, with_versions
from fhircast_hub.core.wire.timestamps import duration, has_zone, instant, rfc3339


def publish(session: Session | None, command: Publish, env: Env) -> Outcome:
    """Accept an event, or raise BadRequest, Forbidden, Conflict or InsufficientScope; for an update also TooLarge."""
    event, principal = command.event, command.principal
    _check_clock(event, env)
    check_access(principal, event.topic, session.owner if session else None)
    if not principal.scopes.may_write(event.key):
        name = spelling(event.name)
        raise InsufficientScope(f"this token may not write {name}", scope=f"fhircast/{name}.write")
    if session is None:
        session = Session(realm=principal.realm, topic=event.topic, owner=new_owner(principal))
    if event.kind is Kind.UPDATE:
        return _update(session, event, env)
    if event.kind is Kind.SELECT:
        check_select(session, event)
    if event.kind in (Kind.SELECT, Kind.PASSED_ON):
        # It changes nothing; but a session that nobody listens to counts as used by it (LIM-1).
        return _broadcast(session if session.subscriptions else replace(session), event)
    seen = session.recent.get(event.fingerprint)
    if seen is not None:
        # "such resend will use the timestamp of the original event to prevent race conditions" (2.6): what is still the newest
        # change is sent again; once something newer was accepted, everybody has moved on, and so has the hub (EVT-17).
        session = replace(session, recent=_newest(session.recent, event.fingerprint, seen))
        return _repeat(session, event, env.rules) if seen >= session.last_change_order else Outcome(session)
    order = session.order + 1
    session = replace(session, order=order, recent=_newest(session.recent, event.fingerprint, order))
    if event.kind is Kind.OPEN:
        return _open(session, event, env)
    if event.kind is Kind.CLOSE:
        return _close(session, event, env)
    return _home(session, event, env)


def _check_clock(event: Event, env: Env) -> None:
    """Refuse what is ahead of time (EVT-19): "Subscribers SHALL ignore messages with older timestamps than the message that
    established the current context" (2.5), and so would ignore all that is posted until then."""
    ahead = math.ceil(event.at - env.now)
    if event.at - env.now > env.rules.max_clock_ahead:
        raise BadRequest(
            f"timestamp: expected at most {env.rules.max_clock_ahead} seconds ahead of the hub's clock, got {ahead}"
            f" seconds ({duration(ahead)}){'' if has_zone(event.timestamp) else '; it has no zone, and so is read as UTC'}"
        )


def _broadcast(session: Session, event: Event) -> Outcome:
    return Outcome(session, _send(session, event.key, event.frame(), _notice(event)))


def _send(session: Session, key: str, frame: bytes, event_ref: EventRef) -> tuple[Effect, ...]:
    to = audiences.subscribed(session.audiences, key)
    return (Send(to, frame, event_ref),) if to else ()


def _notice(event: Event) -> EventRef:
    """ "SyncError is not used when a Subscriber responds to an *-update or *-select event" (3.2.1), nor about another one."""
    matters = event.kind not in (Kind.UPDATE, Kind.SELECT) and event.key != "syncerror"
    return EventRef(event.id, event.id, event.name, reportable=matters)


def _newest(recent: dict[bytes, int], fingerprint: bytes, order: int) -> dict[bytes, int]:
    """The remembered changes with this one heard last: who goes on repeating a change is not forgotten for it."""
    remembered = dict(recent)
    remembered.pop(fingerprint, None)
    remembered[fingerprint] = order
    if len(remembered) > REMEMBERED_CHANGES:
        del remembered[next(iter(remembered))]
    return remembered


def _repeat(session: Session, event: Event, rules: Rules) -> Outcome:
    if event.kind is not Kind.OPEN:
        return _broadcast(session, event)
    context = session.contexts[event.ref]
    after, effects = _send_open(session, context, rules, again=True)
    return Outcome(replace(session, audiences=after), effects)


def _update(session: Session, event: Event, env: Env) -> Outcome:
    """Content sharing (2.10): the event goes on with the new version "along with the context.priorVersionId"."""
    version = env.ids.uuid()
    after = updated(session, event, version, env.rules)
    if after is None:
        return Outcome(session)
    order = session.order + 1
    frame, event_ref = with_versions(event, version, session.contexts[event.ref].version), _notice(event)
    after = retain(
        replace(after, order=order, last_change_order=order),
        [RetainedEvent(env.now, event_ref, event.type, event.ref, frame)],
        env.rules,
    )
    return Outcome(after, _send(session, event.key, frame, event_ref))


def _open(session: Session, event: Event, env: Env) -> Outcome:
    context, before = opened(event, env.ids.uuid(), session.order), _current_timestamp(session)
    former = session.contexts.get(context.ref)
    contexts, gone = add(session.contexts, context)
    session = replace(
        session,
        contexts=contexts,
        current=context.ref,
        version=context.version,
        home=b"",
        last_change_order=session.order,
    )
    if (content := session.contents.get(context.ref)) is not None:
        session = replace(session, contents={**session.contents, context.ref: without_contradicted(content, context)})
    session, effects = _opened_anew(session, event, context, former, env)
    after, opening = _send_open(session, context, env.rules)
    session, effects = replace(session, audiences=after), effects + opening
    for other in gone:
        name, id_, at = spelling(f"{other.type}-close"), env.ids.uuid(), rfc3339(env.now)
        frame = event_frame(session.topic, name, id_, at, other.context)
        close = RetainedEvent(env.now, EventRef(id_, id_, name), other.type, other.ref, frame)
        session, closing = closed(session, other, close, at, env.rules)
        effects += closing
    return Outcome(session, effects + _overtaken(session, event, before, env))


def _opened_anew(
    session: Session, event: Event, context: OpenContext, former: OpenContext | None, env: Env
) -> tuple[Session, tuple[Effect, ...]]:
    """A context that is opened again may name others than before: opens that were derived from these are taken back (DER-9).

    Where another one of the type is named, the derived open of that one takes the place.
    """
    changed = [t for t, ref in former.implied.items() if context.implied.get(t) != ref] if former else []
    if former is None or not changed:
        return session, ()
    cause = Cause(event.id, event.name, event.timestamp, env.now, closes=False)
    return take_back(session, former, changed, cause, env.rules, instead=context.implied.keys())


def _current_timestamp(session: Session) -> str:
    """Of the open that made the current context, or the absence of one (Home-open); "" when that was closed."""
    if session.home:
        return timestamp_of(session.home)
    return session.contexts[session.current].timestamp if session.current else ""


def _overtaken(session: Session, event: Event, before: str, env: Env) -> tuple[Effect, ...]:
    """Tell when an open that was accepted is older than what it follows: the hub goes by arrival, not everybody does (EVT-20)."""
    if not before or before == event.timestamp:
        return ()
    seconds = instant(before) - event.at
    return overtaken(session, _notice(event), seconds, env) if seconds > 0 else ()


def _send_open(
    session: Session, context: OpenContext, rules: Rules, *, again: bool = False
) -> tuple[tuple[Audience, ...], tuple[Effect, ...]]:
    """The derived opens and then the open itself, and what each audience was told by it.

    "Hubs SHOULD NOT generate and send duplicative events" (2.5): nobody is sent a derived open who is sent the event itself
    (DER-7), or of what they were last told, unless this is a repeat (`again`), which is there to be heard again (DER-3).
    """
    after = list(session.audiences)
    effects: list[Effect] = []
    for open_ in derive(context) if rules.derive_opens and _wanted(session, context) else ():
        to: list[str] = []
        for place, audience in enumerate(after):
            if open_.key not in audience.keys or context.key in audience.keys:
                continue
            last = audience.last_opened[audiences.PLACE[open_.type]]
            if again or last.ref != open_.ref or last.stale:
                to += audience.members
                after[place] = _told_of(audience, context, open_.type)
        if to:
            effects.append(Send(tuple(to), *open_.message(session.topic)))
    effects += _send(session, context.key, context.frame, context.event_ref)
    for place, audience in enumerate(after):
        if context.key in audience.keys:
            after[place] = _told_of(audience, context, "")
    return audiences.merge(after), tuple(effects)


def _told_of(audience: Audience, context: OpenContext, derived: str) -> Audience:
    """The audience after it was sent the context's open, or that which is derived for a type."""
    last_opened = Opening((0, 0), context, derived).last_opened(audience.last_opened, audience.keys)
    return audience if last_opened == audience.last_opened else replace(audience, last_opened=last_opened)


def _wanted(session: Session, context: OpenContext) -> bool:
    """Whether anybody may be sent a derived open: most often nobody, and then none is made."""
    keys = [f"{type_}-open" for type_ in context.implied]
    others = [audience for audience in session.audiences if context.key not in audience.keys]
    return any(key in audience.keys for key in keys for audience in others)


def _close(session: Session, event: Event, env: Env) -> Outcome:
    if (gone := session.contexts.get(event.ref)) is not None:
        session = replace(session, last_change_order=session.order)
    if event.ref == session.current:
        session = replace(session, current="", version=env.ids.uuid())
    close = RetainedEvent(env.now, _notice(event), event.type, event.ref, event.frame())
    return Outcome(*closed(session, gone, close, event.timestamp, env.rules))


def _home(session: Session, event: Event, env: Env) -> Outcome:
    """Home-open: "the lack of a FHIR resource context" (3.2.5). Contexts stay open, none is current (GET-7)."""
    frame, before = event.frame(), _current_timestamp(session)
    session = replace(
        session,
        current="",
        version=env.ids.uuid(),
        home=frame,
        last_change_order=session.order,
        audiences=audiences.forget_all(session.audiences),
    )
    effects = _send(session, event.key, frame, _notice(event))
    return Outcome(session, effects + _overtaken(session, event, before, env))
