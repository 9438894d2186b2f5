"""Publishing (FHIRcast 3.0.0, 2.6): an event that was posted, what it changes, and who is sent what.

"Once a requested context change is accepted, the Hub SHALL broadcast the context notification to all Subscribers, including
the original requesting Subscriber."
"""

from __future__ import annotations

from msgspec.structs import replace

from fhircast_hub.core import audiences
from fhircast_hub.core.commands import Publish
from fhircast_hub.core.context import add, opened, without
from fhircast_hub.core.derived import derive
from fhircast_hub.core.effects import Effect, Send
from fhircast_hub.core.errors import InsufficientScope, NotSupported
from fhircast_hub.core.limits import REMEMBERED_CHANGES, REMEMBERED_CLOSES, Rules
from fhircast_hub.core.messages import Event, made_event, rfc3339
from fhircast_hub.core.names import DERIVED, Kind, spelling
from fhircast_hub.core.principal import check_access, new_owner
from fhircast_hub.core.session import Audience, HeldClose, Ids, OpenContext, Outcome, Session


def publish(session: Session | None, command: Publish, now: float, ids: Ids, rules: Rules) -> Outcome:
    """Accept an event, or raise Forbidden, Conflict, InsufficientScope or NotSupported."""
    event, principal = command.event, command.principal
    check_access(principal, event.topic, session.owner if session else None)
    if not principal.scopes.may_write(event.key):
        name = spelling(event.name)
        raise InsufficientScope(f"this token may not write {name}", scope=f"fhircast/{name}.write")
    if event.kind in (Kind.UPDATE, Kind.SELECT):
        raise NotSupported(f"{event.name}: this hub does not share content yet")
    if session is None:
        session = Session(realm=principal.realm, topic=event.topic, owner=new_owner(principal))
    if event.kind is Kind.PASSED_ON:
        # It changes nothing; but a session that nobody listens to counts as used by it (LIM-1).
        return _broadcast(session if session.subscriptions else replace(session), event)
    seen = session.recent.get(event.fingerprint)
    if seen is not None:
        # "such resend will use the timestamp of the original event to prevent race conditions" (2.6): what is still the newest
        # change is sent again; once something newer was accepted, everybody has moved on, and so has the hub (EVT-17).
        session = replace(session, recent=_newest(session.recent, event.fingerprint, seen))
        return _repeat(session, event, rules) if seen >= session.changed else Outcome(session)
    order = session.order + 1
    session = replace(session, order=order, recent=_newest(session.recent, event.fingerprint, order))
    if event.kind is Kind.OPEN:
        return _open(session, event, now, ids, rules)
    if event.kind is Kind.CLOSE:
        return _close(session, event, now, ids, rules)
    return _home(session, event, ids)


def _broadcast(session: Session, event: Event) -> Outcome:
    return Outcome(session, _send(audiences.subscribed(session.audiences, event.key), event.frame()))


def _send(to: tuple[str, ...], frame: bytes) -> tuple[Effect, ...]:
    return (Send(to, frame),) if to else ()


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


def _open(session: Session, event: Event, now: float, ids: Ids, rules: Rules) -> Outcome:
    context = opened(event, ids.uuid(), session.order)
    contexts, gone = add(session.contexts, context)
    session = replace(
        session, contexts=contexts, current=context.ref, version=context.version, home=b"", changed=session.order
    )
    after, effects = _send_open(session, context, rules)
    session = replace(session, audiences=after)
    for other in gone:
        frame = made_event(session.topic, spelling(f"{other.type}-close"), ids.uuid(), rfc3339(now), other.context)
        session, closing = _closed(session, HeldClose(now, other.type, other.ref, frame), rules)
        effects += closing
    return Outcome(session, effects)


def _send_open(
    session: Session, context: OpenContext, rules: Rules, *, again: bool = False
) -> tuple[tuple[Audience, ...], tuple[Effect, ...]]:
    """The derived opens and then the open itself, and what each audience was told by it.

    "Hubs SHOULD NOT generate and send duplicative events" (2.5): nobody is sent a derived open of what they were last told,
    unless this is a repeat (`again`), which is there to be heard again (DER-3).
    """
    after = list(session.audiences)
    effects: list[Effect] = []
    for open_ in derive(context) if rules.derive_opens and _wanted(session, context) else ():
        to: list[str] = []
        for place, audience in enumerate(after):
            if open_.key in audience.keys and (again or open_.ref not in audience.told):
                to += audience.members
                after[place] = replace(audience, told=audiences.remember(audience.told, open_.type, open_.ref))
        if to:
            effects.append(Send(tuple(to), open_.frame(session.topic)))
    effects += _send(audiences.subscribed(after, context.key), context.frame)
    type_ = context.key.removesuffix("-open")
    for place, audience in enumerate(after):
        if type_ in DERIVED and context.key in audience.keys and context.ref not in audience.told:
            after[place] = replace(audience, told=audiences.remember(audience.told, type_, context.ref))
    return audiences.merge(after), tuple(effects)


def _wanted(session: Session, context: OpenContext) -> bool:
    """Whether anybody may be sent a derived open: most often nobody, and then none is made."""
    keys = [f"{type_}-open" for type_ in context.implied]
    return any(key in audience.keys for key in keys for audience in session.audiences)


def _close(session: Session, event: Event, now: float, ids: Ids, rules: Rules) -> Outcome:
    if event.ref in session.contexts:
        session = replace(session, changed=session.order)
    if event.ref == session.current:
        session = replace(session, current="", version=ids.uuid())
    session, effects = _closed(session, HeldClose(now, event.type, event.ref, event.frame()), rules)
    return Outcome(session, effects)


def _closed(session: Session, close: HeldClose, rules: Rules) -> tuple[Session, tuple[Effect, ...]]:
    """The session after a close was accepted, and its broadcast. Closing what is not open changes nothing (EVT-16)."""
    effects = _send(audiences.subscribed(session.audiences, close.key), close.frame)
    contexts, after = without(session.contexts, close.ref), audiences.forget(session.audiences, close.ref)
    return _held(replace(session, contexts=contexts, audiences=after), close, rules), effects


def _held(session: Session, close: HeldClose, rules: Rules) -> Session:
    """The session holding `close` for those who have no socket, or whose socket may be dead already (SUB-12).

    What is too much to hold is remembered by its context only; what nobody can have missed is forgotten.
    """
    absent = [other.sure for other in session.subscriptions.values() if not other.connection and not other.fresh]
    since = min([close.at - rules.hold_seconds, *absent])
    number = next(reversed(session.closes), 0) + 1
    closes = {order: held for order, held in session.closes.items() if held.at >= since} | {number: close}
    lost = {context: at for context, at in session.lost.items() if at >= since}
    size = sum(len(held.frame) for held in closes.values())
    while closes and (size > rules.held_bytes or len(closes) > rules.held_messages):
        held = closes.pop(next(iter(closes)))
        size -= len(held.frame)
        lost[f"{held.type}/{held.ref.partition('/')[2]}"] = held.at
    while len(lost) > REMEMBERED_CLOSES:
        del lost[next(iter(lost))]
    return replace(session, closes=closes, lost=lost)


def _home(session: Session, event: Event, ids: Ids) -> Outcome:
    """Home-open: "the lack of a FHIR resource context" (3.2.5). Contexts stay open, none is current (GET-7)."""
    frame = event.frame()
    session = replace(
        session,
        current="",
        version=ids.uuid(),
        home=frame,
        changed=session.order,
        audiences=audiences.forget_all(session.audiences),
    )
    return Outcome(session, _send(audiences.subscribed(session.audiences, event.key), frame))
