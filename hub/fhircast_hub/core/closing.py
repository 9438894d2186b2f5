"""Closes: what a close ends, and what becomes of the opens that were derived from the context that is closed (DER-9).

"When distributing a received event, a Hub SHALL ensure open events for the referenced resource types of the received event are
also sent to subscribers" (FHIRcast 3.0.0, 2.5). Such a subscriber does not know the context that the open came from, nor its
close. At that close the hub brings the subscriber to where somebody who joins would be.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from fhircast_hub.core import audiences
from fhircast_hub.core.audiences import PLACE
from fhircast_hub.core.context import Opening, Replay, replayed, without
from fhircast_hub.core.derived import derive
from fhircast_hub.core.effects import Effect, Message, Notice, Send
from fhircast_hub.core.holding import hold, is_for
from fhircast_hub.core.limits import Rules
from fhircast_hub.core.messages import derived_id, made_event
from fhircast_hub.core.names import DERIVED, spelling
from fhircast_hub.core.session import Audience, Held, Last, OpenContext, Session


class Cause(msgspec.Struct, frozen=True):
    """The event by which a context ends: id, name and timestamp. At its `at` (epoch seconds) it was accepted."""

    id: str
    name: str
    timestamp: str
    at: float


def closed(
    session: Session, gone: OpenContext | None, close: Held, timestamp: str, rules: Rules
) -> tuple[Session, tuple[Effect, ...]]:
    """The session after a close was accepted, and all that is sent for it. `gone` is the context, None if it was not open.

    Closing what is not open changes nothing (EVT-16). "The Hub should dispose of the content for the current anchor context" (2.10).
    """
    to = audiences.subscribed(session.audiences, close.key)
    effects: tuple[Effect, ...] = (Send(to, close.frame, close.notice),) if to else ()
    contexts, after = without(session.contexts, close.ref), audiences.forget(session.audiences, close.ref)
    if close.ref in session.contents:
        session = replace(session, contents={ref: c for ref, c in session.contents.items() if ref != close.ref})
    session = hold(replace(session, contexts=contexts, audiences=after), close, rules)
    if gone is not None:
        cause = Cause(close.notice.id, close.notice.name, timestamp, close.at)
        session, taken_back = take_back(session, gone, gone.implied, cause, rules)
        effects += taken_back
    return replace(session, audiences=audiences.orphaned(session.audiences, close.type.lower())), effects


def take_back(
    session: Session, gone: OpenContext, types: Iterable[str], cause: Cause, rules: Rules
) -> tuple[Session, tuple[Effect, ...]]:
    """The session after the opens of these types that were derived from `gone` were taken back, and what is sent for that (DER-9).

    `gone` is in the session no more: it was closed, or opened anew without naming contexts of these types.
    """
    types = [type_ for type_ in DERIVED if type_ in set(types)]
    if not (types and rules.derive_opens and rules.derive_closes):
        return session, ()
    back = [_brought_back(session, audience, gone, types, rules) for audience in session.audiences]
    missing = [type_ for type_ in types if _may_be_missed(session, gone, type_)]
    closes = _derived_closes(session, gone, cause) if missing or any(each.closes for each in back) else {}
    effects: list[Effect] = []
    for each in back:
        messages = [*map(closes.__getitem__, each.closes), *(open_.message(session.topic) for open_ in each.opens)]
        effects += (Send(each.audience.members, *message) for message in messages)
    after = tuple(each.audience for each in back)
    session = replace(session, audiences=audiences.merge(after)) if after != session.audiences else session
    for type_ in missing:
        frame, notice = closes[type_]
        name = spelling(f"{type_}-close").removesuffix("-close")
        close = Held(cause.at, notice, name, gone.implied[type_], frame, gone.key.removesuffix("-open"))
        session = hold(session, close, rules)
    return session, tuple(effects)


class _Back(NamedTuple):
    """An audience that is brought back: of which types it is sent a close, and which opens behind these."""

    audience: Audience
    closes: list[str]
    opens: list[Opening]


def _brought_back(session: Session, audience: Audience, gone: OpenContext, types: Iterable[str], rules: Rules) -> _Back:
    """Closes of what is innermost come first, then opens, the oldest first."""
    keys, told = audience.keys, audience.told
    affected = [type_ for type_ in types if told[PLACE[type_]].ref == gone.implied[type_]]
    if not affected:
        return _Back(audience, [], [])
    joiner = replayed(session, keys, rules)
    knows, hears = gone.key in keys, gone.key.removesuffix("open") + "close" in keys
    type_gone = gone.key.removesuffix("-open")
    overtaken = any(other.key == gone.key and other.order > gone.order for other in session.contexts.values())
    closes: list[str] = []
    opens: list[Opening] = []
    for type_ in affected:
        before, now = audience.told[PLACE[type_]], joiner.told[PLACE[type_]]
        where, stays = joiner.where.get(type_) if now.ref else None, now.ref == before.ref
        if (overtaken or before.by != type_gone) if knows else stays:
            continue  # another open that they were told names the context
        told = audiences.replaced(told, type_, now if stays and not now.by else Last())
        # Who is sent the close reads there what ends; but what the event had kept from being told is told now.
        if where is not None and (not (knows or hears) or (hears and stays and where.place[0] > gone.order)):
            opens.append(where)
        elif not (knows or hears) and f"{type_}-close" in keys:
            closes.insert(0, type_)
    opens = _behind_each_other(opens, joiner)
    for open_ in opens:
        told = audiences.named(told, open_.by, open_.names(keys))
    return _Back(audience if told == audience.told else replace(audience, told=told), closes, opens)


def _may_be_missed(session: Session, gone: OpenContext, type_: str) -> bool:
    """Whether the close of what was derived for a type is held: nothing else that is open names the context, and a subscription may
    have been told of the context, and not be told of the source's close."""
    ref, key, source = gone.implied[type_], f"{type_}-close", gone.key.removesuffix("-open")
    named = any(ref == other.ref or ref in other.implied.values() for other in session.contexts.values())
    return not named and any(
        is_for(key, source, each.keys) for each in session.subscriptions.values() if not each.fresh
    )


def _behind_each_other(opening: list[Opening], joiner: Replay) -> list[Opening]:
    """These opens in the order of all, each once; and behind them what a joiner is told last, which is the newest."""
    if not opening:
        return []
    newest = max(joiner.opens.values(), key=lambda open_: open_.place)
    return [open_ for _, open_ in sorted({open_.place: open_ for open_ in (*opening, newest)}.items())]


def _derived_closes(session: Session, gone: OpenContext, cause: Cause) -> dict[str, Message]:
    """By type, the close of what was implied: the items of its open, and an id made of the cause's (as DER-7)."""
    closes: dict[str, Message] = {}
    for open_ in derive(gone):
        name = spelling(f"{open_.type}-close")
        id_ = derived_id(cause.id, name)
        frame = made_event(session.topic, name, id_, cause.timestamp, open_.context)
        closes[open_.type] = frame, Notice(id_, cause.id, cause.name)
    return closes
