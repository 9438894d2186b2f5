"""Closes: what a close ends, and what becomes of the opens that were derived from the context that is closed (DER-9).

"When distributing a received event, a Hub SHALL ensure open events for the referenced resource types of the received event are
also sent to subscribers" (FHIRcast 3.0.0, 2.5). Such a subscriber does not know the context that the open came from, nor its
close. At that close the hub brings the subscriber to where somebody who joins would be.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules import audiences
from fhircast_hub.core.rules.audiences import PLACE
from fhircast_hub.core.rules.contexts import without
from fhircast_hub.core.rules.derived_opens import derive
from fhircast_hub.core.rules.joining import Opening, Replay, implied, replayed
from fhircast_hub.core.rules.missed_events import retain
from fhircast_hub.core.state.effects import Effect, EventRef, Message, Send
from fhircast_hub.core.state.session import Audience, LastOpen, LastOpened, OpenContext, RetainedEvent, Session
from fhircast_hub.core.wire.event_names import DERIVED, spelling
from fhircast_hub.core.wire.frames import derived_id, event_frame


class Cause(msgspec.Struct, frozen=True):
    """The event by which a context ends, or names others than before: id, name and timestamp; `closes` is whether it is a close.

    It was accepted `at` a time, in epoch seconds.
    """

    id: str
    name: str
    timestamp: str
    at: float
    closes: bool = True


def closed(
    session: Session, gone: OpenContext | None, close: RetainedEvent, timestamp: str, rules: Rules
) -> tuple[Session, tuple[Effect, ...]]:
    """The session after a close was accepted, and all that is sent for it. `gone` is the context, None if it was not open.

    Closing what is not open changes nothing (EVT-16). "The Hub should dispose of the content for the current anchor context" (2.10).
    """
    to = audiences.subscribed(session.audiences, close.key)
    effects: tuple[Effect, ...] = (Send(to, close.frame, close.event_ref),) if to else ()
    contexts, after = without(session.contexts, close.ref), audiences.forget(session.audiences, close.ref)
    if close.ref in session.contents:
        session = replace(session, contents={ref: c for ref, c in session.contents.items() if ref != close.ref})
    session = retain(replace(session, contexts=contexts, audiences=after), [close], rules)
    if gone is not None:
        cause = Cause(close.event_ref.id, close.event_ref.name, timestamp, close.accepted_at)
        session, taken_back = take_back(session, gone, gone.implied, cause, rules)
        effects += taken_back
    return replace(session, audiences=audiences.orphaned(session.audiences, close.type.lower())), effects


def take_back(
    session: Session,
    gone: OpenContext,
    types: Collection[str],
    cause: Cause,
    rules: Rules,
    instead: Collection[str] = (),
) -> tuple[Session, tuple[Effect, ...]]:
    """The session after the opens of these types that were derived from `gone` were taken back, and what is sent for that (DER-9).

    `gone` is in the session no more: it was closed, or opened anew, naming other contexts or none of these types. Where others
    are named `instead`, their opens come next, so that only those who are away have to be told a close.
    """
    if not (types and rules.derive_opens and rules.derive_closes):
        return session, ()
    ended = Ended(session, gone, [t for t in DERIVED if t in types and t not in instead], cause, rules)
    back = [ended.brought_back(audience) for audience in session.audiences]
    after = tuple(each.audience for each in back)
    closes = _derived_closes(session, gone, cause)
    effects: list[Effect] = []
    for each in back:
        messages = [*map(closes.__getitem__, each.closes), *(open_.message(session.topic) for open_ in each.opens)]
        effects += (Send(each.audience.members, *message) for message in messages)
    session = replace(session, audiences=audiences.merge(after)) if after != session.audiences else session
    held: list[RetainedEvent] = []
    for type_ in (type_ for type_ in reversed(DERIVED) if type_ in types):
        frame, event_ref = closes[type_]
        key = f"{type_}-close"
        name = spelling(key).removesuffix("-close")
        held.append(RetainedEvent(cause.at, event_ref, name, gone.implied[type_], frame, key))
    return retain(session, held, rules), tuple(effects)


class Back(NamedTuple):
    """An audience that is brought back: of which types it is sent a close, and which opens behind these."""

    audience: Audience
    closes: list[str]
    opens: list[Opening]


class Ended:
    """A context that ended, or names less, with the session in which it is no more; and what a joiner is told there."""

    def __init__(self, session: Session, gone: OpenContext, types: list[str], cause: Cause, rules: Rules) -> None:
        self._session, self._gone, self._types, self._cause, self._rules = session, gone, types, cause, rules
        contexts = session.contexts.values()
        self._is_overtaken = any(other.order > gone.order and other.anchor == gone.anchor for other in contexts)
        self._is_open = session.contexts.keys() | implied(session)
        self._opens = {other.key for other in contexts} | {f"{type_}-open" for type_ in DERIVED}
        self._joiners: dict[frozenset[str], Replay] = {}

    def brought_back(self, audience: Audience) -> Back:
        """Closes of what is innermost come first, then opens, the oldest first."""
        back = Back(audience, [], [])
        last_opened = audience.last_opened
        for type_ in self._types:
            if last_opened[PLACE[type_]].ref == self._gone.implied[type_]:
                last_opened = audiences.replaced(
                    last_opened, type_, self._left_with(type_, last_opened[PLACE[type_]], back)
                )
        opens, last_opened = self._behind_each_other(audience.keys, back.opens, last_opened)
        return Back(
            audience if last_opened == audience.last_opened else replace(audience, last_opened=last_opened),
            back.closes,
            opens,
        )

    def _left_with(self, type_: str, before: LastOpen, back: Back) -> LastOpen:
        """What an audience counts as told of a type now, of which it was told what ended. What brings it back is noted in `back`."""
        keys = back.audience.keys
        knows = self._gone.key in keys
        hears = self._cause.closes and f"{self._gone.anchor}-close" in keys
        is_from_source = knows and before.by == self._gone.anchor
        if is_from_source and self._is_overtaken:
            return before
        joiner = self._joiner(keys)
        now = joiner.last_opened[PLACE[type_]]
        if is_from_source:
            # The close says all. The open that the source kept from being derived is told now.
            if hears and now.ref == before.ref and joiner.where[type_].derived:
                back.opens.append(joiner.where[type_])
            return LastOpen()
        if now.ref == before.ref and now.ref in self._is_open:
            return before  # another open names the context
        if hears and not knows:
            return LastOpen()  # "who is not sent that close" (DER-9)
        if now.ref in self._is_open:
            back.opens.append(joiner.where[type_])
        elif f"{type_}-close" in keys:
            back.closes.insert(0, type_)
        return LastOpen()

    def _behind_each_other(
        self, keys: frozenset[str], opens: list[Opening], before: LastOpened
    ) -> tuple[list[Opening], LastOpened]:
        """These opens in the order of all, each once, and what counts as told then.

        The newest open of a joiner's comes too. An encounter that is told again names its patient; where a joiner is told
        another patient behind the encounter, that open is sent behind it as well.
        """
        if not opens:
            return [], before
        joiner = self._joiner(keys)
        newest = max(joiner.opens.values(), key=lambda open_: open_.place)
        wanted = {type_: last.ref for type_, last in zip(DERIVED, joiner.last_opened, strict=True) if last.ref}
        chosen = {open_.place: open_ for open_ in (*opens, newest)}
        while True:
            ordered = [open_ for _, open_ in sorted(chosen.items())]
            last_opened = before
            for open_ in ordered:
                last_opened = open_.last_opened(last_opened, keys)
            others = [joiner.where[type_] for type_, ref in wanted.items() if last_opened[PLACE[type_]].ref != ref]
            if all(open_.place in chosen for open_ in others):
                return ordered, last_opened
            chosen |= {open_.place: open_ for open_ in others}

    def _joiner(self, keys: frozenset[str]) -> Replay:
        opens = keys & self._opens
        if opens not in self._joiners:
            self._joiners[opens] = replayed(self._session, opens, self._rules)
        return self._joiners[opens]


def _derived_closes(session: Session, gone: OpenContext, cause: Cause) -> dict[str, Message]:
    """By type, the close of what was implied: the items of its open, and an id made of the cause's (as DER-7)."""
    closes: dict[str, Message] = {}
    for open_ in derive(gone):
        name = spelling(f"{open_.type}-close")
        id_ = derived_id(cause.id, name)
        frame = event_frame(session.topic, name, id_, cause.timestamp, open_.context)
        closes[open_.type] = frame, EventRef(id_, cause.id, cause.name)
    return closes
