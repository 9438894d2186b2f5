"""Joining: the opens that are replayed to a new subscriber.

"Hubs SHALL follow a successful subscription with an event notification informing the new Subscriber of the most recent *-open
event per anchor type for which no *-close event has occurred" (FHIRcast 3.0.0, 2.4 "Current context notification").

A joiner is a new subscriber: its socket connected now, or its callback was verified now. The hub goes through the open contexts,
oldest first, as if the joiner had been there all the time. For each event name, the last open that was sent to the joiner is
replayed. So a joiner shows the same as a subscriber with the same events that joined earlier (CTX-8).

Example: ImagingStudy s1 with patient p1 was opened, then Patient p2. Both are open.
- A joiner with Patient-open and ImagingStudy-open is replayed ImagingStudy-open s1, then Patient-open p2.
- A joiner with Patient-open alone is replayed Patient-open p2. After Patient-close p2, another such joiner is replayed the
  derived Patient-open p1 of s1.

The module also says which last opens (last_opens.py) a subscriber has after its replay, or after a return or restart.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules import last_opens
from fhircast_hub.core.rules.derived_opens import derive_opens, granted_refs
from fhircast_hub.core.rules.last_opens import NOTHING_OPENED, TYPE_INDEX, is_shown
from fhircast_hub.core.state.effects import EventRef, Message
from fhircast_hub.core.state.session import LastOpened, OpenContext, Session
from fhircast_hub.core.wire.event_names import DERIVED, spelling
from fhircast_hub.core.wire.frames import id_of


class ReplayedOpen(NamedTuple):
    """An open that may be replayed: the open of a context, or an open that is derived from it."""

    #: Sorts replayed opens in the order in which a subscriber that was there all the time was sent them.
    position: tuple[int, int]
    #: The opened context, or the source of the derived open.
    context: OpenContext
    #: Type of the derived open, in lower case; "" for the context's own open.
    derived_type: str

    @property
    def type(self) -> str:
        """The type of the opened context, in lower case."""
        return self.derived_type or self.context.anchor_type

    def message(self, topic: str) -> Message:
        """The open's frame, with the reference for its acknowledgement."""
        if not self.derived_type:
            return self.context.frame, self.context.event_ref
        return next(open_ for open_ in derive_opens(self.context) if open_.type == self.derived_type).message(topic)


class ReplayPlan(NamedTuple):
    """The result of `plan_replay`."""

    #: The replayed open, by event name in lower case.
    opens: dict[str, ReplayedOpen]
    #: The joiner's last opens, before any Home-open.
    last_opened: LastOpened
    #: Type -> the open that made the joiner's last open of this type. An open of another type may name the context.
    opened_by: dict[str, ReplayedOpen]


def replay(
    session: Session, keys: frozenset[str], rules: Rules, only: Collection[str] | None = None
) -> tuple[list[Message], LastOpened]:
    """The messages that a joiner with these events is sent, oldest first, and the joiner's last opens.

    The newer of a context's own open and a derived open is replayed (CTX-7). With `only`, other events are left out (SUB-20).
    """
    opens, last_opened, _ = plan_replay(session, keys, rules)
    wanted = keys if only is None else only
    messages = [
        opens[key].message(session.topic) for key in sorted(opens.keys() & wanted, key=lambda key: opens[key].position)
    ]
    if replays_home_open(session, wanted):
        id_ = id_of(session.home)
        messages.append((session.home, EventRef(id_, id_, spelling("home-open"))))
    return messages, _after_home_open(session, last_opened, keys)


def replays_home_open(session: Session, keys: Collection[str]) -> bool:
    """Whether a replay for these events ends with a Home-open (CTX-6)."""
    return bool(session.home) and "home-open" in keys


def plan_replay(session: Session, keys: frozenset[str], rules: Rules) -> ReplayPlan:
    """The opens that a joiner with these events is sent, without any Home-open."""
    opens: dict[str, ReplayedOpen] = {}
    opened_by: dict[str, ReplayedOpen] = {}
    last_opened = NOTHING_OPENED
    contexts = [(context.key, context) for context in session.contexts.values()]
    newest = dict(contexts)
    for key, context in contexts:
        if key in keys and newest[key] is not context:
            continue  # "the most recent *-open event per anchor type"
        for derived_type in ("",) if key in keys else _derived_types(context, keys, rules):
            if derived_type and is_shown(last_opened, derived_type, context.implied[derived_type]):
                continue
            index = TYPE_INDEX.get(derived_type, len(DERIVED))
            open_ = ReplayedOpen((context.order, index), context, derived_type)
            refs = granted_refs(context, derived_type, keys)
            opens[f"{open_.type}-open"] = open_
            made_for = [
                type_ for type_, ref in refs.items() if type_ == open_.type or not is_shown(last_opened, type_, ref)
            ]
            opened_by |= dict.fromkeys(made_for, open_)
            last_opened = after_open_of(last_opened, context, derived_type, keys)
    return ReplayPlan(opens, last_opened, opened_by)


def after_open_of(
    last_opened: LastOpened, context: OpenContext, derived_type: str, keys: Collection[str]
) -> LastOpened:
    """The last opens of a subscriber with these events after an open was sent: the context's own, or a derived one.

    A context that the open names, and that was closed since, is in doubt.
    """
    refs = granted_refs(context, derived_type, keys)
    after = last_opens.after_open(last_opened, derived_type or context.anchor_type, refs)
    return last_opens.put_in_doubt(after, context.closed.values()) if context.closed else after


def last_opened_on_joining(session: Session, keys: frozenset[str], rules: Rules) -> LastOpened:
    """The last opens of a joiner with these events: `replay` without the messages."""
    return _after_home_open(session, plan_replay(session, keys, rules).last_opened, keys)


def last_opened_on_return(
    session: Session,
    keys: frozenset[str],
    joiner_last_opened: LastOpened,
    shown: Collection[str],
    missed_closes: Collection[str] = (),
) -> LastOpened:
    """The last opens of a subscriber that is back.

    `shown` and `missed_closes` are explained at last_opens.on_return.
    """
    still_named = () if replays_home_open(session, keys) else implied_refs(session)
    return last_opens.on_return(joiner_last_opened, shown, missed_closes, still_named)


def possibly_shown(session: Session, keys: frozenset[str], joiner_last_opened: LastOpened) -> tuple[str, ...]:
    """The refs, at most one for each type, that a subscriber may show after the hub restarted.

    The subscriber may show a joiner's last opens. A joiner may have no last open of a type. Then the newest open context that
    names a context of the type counts.
    """
    shown = []
    for type_, last in zip(DERIVED, joiner_last_opened, strict=True):
        implied = [context.implied[type_] for context in session.contexts.values() if type_ in context.implied]
        if f"{type_}-open" in keys and (last.ref or implied):
            shown.append(last.ref or implied[-1])
    return tuple(shown)


def implied_refs(session: Session) -> set[str]:
    """The refs of contexts that an open context names, and that were not closed."""
    return {ref for context in session.contexts.values() for ref in context.implied.values()}


def _after_home_open(session: Session, last_opened: LastOpened, keys: frozenset[str]) -> LastOpened:
    return last_opens.after_home_open(last_opened, keys) if session.home else last_opened


def _derived_types(context: OpenContext, keys: frozenset[str], rules: Rules) -> list[str]:
    """The types of the opens that are derived from this context for a subscriber with these events."""
    implied = context.implied if rules.derive_opens else {}
    return [type_ for type_ in DERIVED if type_ in implied and f"{type_}-open" in keys]
