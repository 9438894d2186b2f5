"""Closing a context, and ending the opens that were derived from it (DER-9).

"When distributing a received event, a Hub SHALL ensure open events for the referenced resource types of the received event are
also sent to subscribers" (FHIRcast 3.0.0, 2.5). A subscriber that was sent such a derived open does not hear of the close of
its source. So the hub ends a derived open when the source is closed, or is opened again without naming the context.

Example: a viewer subscribes to Patient-open and Patient-close. ImagingStudy-open s1 names patient p1, so the viewer is sent a
derived Patient-open p1. At ImagingStudy-close s1 the viewer is sent what a joiner would be sent of patients:
- Patient p0 is open too: Patient-open p0 is sent again, with its own id and timestamp.
- No open context is or names a patient: a derived Patient-close p1 is sent.
- Another open study names p1: nothing is sent.

Two kinds of subscribers get no correction (DER-17), since ImagingStudy-close s1 says enough:
- Subscribers that read p1 in ImagingStudy-open s1 itself.
- Subscribers that are sent ImagingStudy-close s1, but no ImagingStudy-open.

A subscriber without a socket is sent the derived close on its return (missed_events.py).
A joiner is a new subscriber (joining.py). A replay is its current context notification (2.4).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules import audiences, last_opens
from fhircast_hub.core.rules.contexts import remove_context
from fhircast_hub.core.rules.derived_opens import derive_opens
from fhircast_hub.core.rules.joining import ReplayedOpen, ReplayPlan, after_open_of, implied_refs, plan_replay
from fhircast_hub.core.rules.last_opens import TYPE_INDEX
from fhircast_hub.core.rules.missed_events import retain
from fhircast_hub.core.state.effects import Effect, EventRef, Message, Send
from fhircast_hub.core.state.session import Audience, LastOpen, LastOpened, OpenContext, RetainedEvent, Session
from fhircast_hub.core.wire.event_names import DERIVED, OPEN_KEYS, spelling
from fhircast_hub.core.wire.frames import derived_id, event_frame


class EndingEvent(msgspec.Struct, frozen=True):
    """An event that ends derived opens: a close of their source, or a new open of the source that names other contexts."""

    #: Id of the event, as sent.
    id: str
    #: Name of the event, as sent.
    name: str
    #: Timestamp of the event, as sent.
    timestamp: str
    #: Time of acceptance, in epoch seconds.
    accepted_at: float
    #: The source as it was opened again; None: the event is a close.
    reopened: OpenContext | None = None


def close_context(
    session: Session, context: OpenContext | None, close: RetainedEvent, timestamp: str, rules: Rules
) -> tuple[Session, tuple[Effect, ...]]:
    """The session after a close was accepted, and everything that is sent for the close.

    `context` is the closed context, None if it was not open: then the close is broadcast and changes nothing (EVT-16).
    `timestamp` is the close's own. "the Hub should dispose of the content for the current anchor context" (2.10).
    """
    to = audiences.subscribers_of(session.audiences, close.key)
    effects: tuple[Effect, ...] = (Send(to, close.frame, close.event_ref),) if to else ()
    contents, to_retain = session.contents, [close]
    if close.ref in session.contents:
        contents = {ref: content for ref, content in contents.items() if ref != close.ref}
    contexts, after = remove_context(session.contexts, close.ref), audiences.after_close(session.audiences, close.ref)
    session = replace(session, contexts=contexts, contents=contents, audiences=after)
    if context is not None:
        event = EndingEvent(close.event_ref.id, close.event_ref.name, timestamp, close.accepted_at)
        session, corrections, derived_closes = end_derived_opens(session, context, context.implied, event, rules)
        effects += corrections
        to_retain += derived_closes
    session = retain(session, to_retain, rules)
    return replace(session, audiences=audiences.forget_named(session.audiences, close.type.lower())), effects


def end_derived_opens(
    session: Session, source: OpenContext, types: Collection[str], event: EndingEvent, rules: Rules
) -> tuple[Session, tuple[Effect, ...], list[RetainedEvent]]:
    """The session without the derived opens of these types, and everything that is sent and retained for their end (DER-9).

    `source` is the context before `event`. `session` is the session after `event`. A reopened source may name another context
    of a type. The derived open of the other context then follows, so only subscribers without a socket need a close.
    """
    if not (types and rules.derive_opens and rules.derive_closes):
        return session, (), []
    replaced = event.reopened.implied if event.reopened else {}
    ended = [type_ for type_ in DERIVED if type_ in types and type_ not in replaced]
    corrector = Corrector(session, source, ended, event, rules)
    corrections = [corrector.correction_for(audience) for audience in session.audiences]
    closes = _derived_closes(session, source, event)
    effects: list[Effect] = []
    for correction in corrections:
        opens = [open_.message(session.topic) for open_ in correction.opens]
        messages = [*map(closes.__getitem__, correction.closes), *opens]
        effects += (Send(correction.audience.members, *message) for message in messages)
    after = tuple(correction.audience for correction in corrections)
    session = replace(session, audiences=audiences.merge_equal(after)) if after != session.audiences else session
    retained = [_retained_close(closes[type_], type_, source, event) for type_ in reversed(DERIVED) if type_ in types]
    return session, tuple(effects), retained


class Correction(NamedTuple):
    """Messages that an audience is sent because derived opens ended. Closes are sent before opens."""

    #: The audience with its last opens after the messages.
    audience: Audience
    #: Types of derived closes, innermost first: an encounter is closed before its patient.
    closes: list[str]
    #: Opens, oldest first.
    opens: list[ReplayedOpen]


class TypeCorrection(NamedTuple):
    """The correction of an audience for a single type."""

    last_open: LastOpen
    #: Whether a derived close is sent.
    closes: bool = False
    #: The open that is sent, if any.
    open_: ReplayedOpen | None = None


class Corrector:
    """Finds the corrections after an event that ends derived opens of `source`.

    `types`: types whose derived opens end and are not replaced.
    """

    def __init__(
        self, session: Session, source: OpenContext, types: list[str], event: EndingEvent, rules: Rules
    ) -> None:
        self._session, self._source, self._types, self._event, self._rules = session, source, types, event, rules
        self._plans: dict[frozenset[str], ReplayPlan] = {}

    @cached_property
    def _has_newer_of_anchor(self) -> bool:
        """Whether a context of the source's type was opened after the source."""
        order, type_ = self._source.order, self._source.anchor_type
        return any(other.order > order and other.anchor_type == type_ for other in self._session.contexts.values())

    @cached_property
    def _open_refs(self) -> set[str]:
        """Contexts that are open, or that an open context names."""
        return self._session.contexts.keys() | implied_refs(self._session)

    @cached_property
    def _replayable(self) -> set[str]:
        """Events that make a difference to a replay. Audiences that differ in other events share plans."""
        return {context.key for context in self._session.contexts.values()} | set(OPEN_KEYS.values())

    def correction_for(self, audience: Audience) -> Correction:
        """The messages for this audience, and the audience after them."""
        closes: list[str] = []
        opens: list[ReplayedOpen] = []
        last_opened = audience.last_opened
        for type_ in self._types:
            before = last_opened[TYPE_INDEX[type_]]
            if before.ref == self._source.implied[type_]:
                correction = self._correct_type(type_, before, audience.keys)
                last_opened = last_opens.with_last_open(last_opened, type_, correction.last_open)
                if correction.closes:
                    closes.insert(0, type_)
                if correction.open_:
                    opens.append(correction.open_)
        opens, last_opened = self._add_following_opens(audience.keys, opens, last_opened)
        if last_opened != audience.last_opened:
            audience = replace(audience, last_opened=last_opened)
        return Correction(audience, closes, opens)

    def _correct_type(self, type_: str, before: LastOpen, keys: frozenset[str]) -> TypeCorrection:
        """The correction for a type whose last open, `before`, is the context that the source named."""
        is_granted_source_open = self._source.key in keys
        is_sent_source_close = self._event.reopened is None and f"{self._source.anchor_type}-close" in keys
        was_named_by_source = is_granted_source_open and before.named_by == self._source.anchor_type
        if was_named_by_source and self._has_newer_of_anchor:
            return TypeCorrection(before)
        plan = self._plan(keys)
        joiner_last_open = plan.last_opened[TYPE_INDEX[type_]]
        if was_named_by_source:
            # The close says enough. But the source kept an open of the same context from being derived (DER-22): send it now.
            is_due = (
                is_sent_source_close and joiner_last_open.ref == before.ref and bool(plan.opened_by[type_].derived_type)
            )
            return TypeCorrection(LastOpen(), open_=plan.opened_by[type_] if is_due else None)
        if joiner_last_open.ref == before.ref and joiner_last_open.ref in self._open_refs:
            return TypeCorrection(before)  # another open context is, or names, the same context
        if is_sent_source_close and not is_granted_source_open:
            return TypeCorrection(LastOpen())  # the source's close says enough (DER-17)
        if joiner_last_open.ref in self._open_refs:
            return TypeCorrection(LastOpen(), open_=plan.opened_by[type_])
        return TypeCorrection(LastOpen(), closes=f"{type_}-close" in keys)

    def _add_following_opens(
        self, keys: frozenset[str], opens: list[ReplayedOpen], before: LastOpened
    ) -> tuple[list[ReplayedOpen], LastOpened]:
        """The given opens and the opens that must follow, in order. Also the last opens after all of them.

        The joiner's newest open follows, as in a replay. An Encounter-open that is sent again names its patient. If a joiner's
        last open is another patient, the open of that patient follows too.
        """
        if not opens:
            return [], before
        plan = self._plan(keys)
        newest = max(plan.opens.values(), key=lambda open_: open_.position)
        wanted = {type_: last.ref for type_, last in zip(DERIVED, plan.last_opened, strict=True) if last.ref}
        chosen = {open_.position: open_ for open_ in (*opens, newest)}
        # Add opens until the last opens agree with a joiner's, or no open is left to add.
        while True:
            ordered = [open_ for _, open_ in sorted(chosen.items())]
            last_opened = before
            for open_ in ordered:
                last_opened = after_open_of(last_opened, open_.context, open_.derived_type, keys)
            following = [
                plan.opened_by[type_] for type_, ref in wanted.items() if last_opened[TYPE_INDEX[type_]].ref != ref
            ]
            if all(open_.position in chosen for open_ in following):
                return ordered, last_opened
            chosen |= {open_.position: open_ for open_ in following}

    def _plan(self, keys: frozenset[str]) -> ReplayPlan:
        """The replay to a joiner with these events, in the session after the event."""
        replayable = keys & self._replayable
        if replayable not in self._plans:
            self._plans[replayable] = plan_replay(self._session, replayable, self._rules)
        return self._plans[replayable]


def _derived_closes(session: Session, source: OpenContext, event: EndingEvent) -> dict[str, Message]:
    """The derived closes by type. Each has the items of the derived open, and an id made from the event's id (DER-19)."""
    closes: dict[str, Message] = {}
    for open_ in derive_opens(source):
        name = spelling(f"{open_.type}-close")
        id_ = derived_id(event.id, name)
        frame = event_frame(session.topic, name, id_, event.timestamp, open_.context)
        closes[open_.type] = frame, EventRef(id_, event.id, event.name)
    return closes


def _retained_close(close: Message, type_: str, source: OpenContext, event: EndingEvent) -> RetainedEvent:
    """A derived close, for subscribers without a socket."""
    frame, event_ref = close
    key = f"{type_}-close"
    name = spelling(key).removesuffix("-close")
    return RetainedEvent(event.accepted_at, event_ref, name, source.implied[type_], frame, key)
