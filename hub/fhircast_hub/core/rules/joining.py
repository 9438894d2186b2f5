"""Joining: what somebody who comes is told of what is open (FHIRcast 3.0.0, 2.4 "Current context notification")."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules import audiences
from fhircast_hub.core.rules.audiences import NOTHING, PLACE, before_home, doubted, named
from fhircast_hub.core.rules.derived_opens import derive, names_of
from fhircast_hub.core.state.effects import EventRef, Message
from fhircast_hub.core.state.session import LastOpened, OpenContext, Session
from fhircast_hub.core.wire.event_names import DERIVED, spelling
from fhircast_hub.core.wire.frames import id_of


class Opening(NamedTuple):
    """An open that somebody is told: its place in the order of all, and the context that it is the open of, or derived from."""

    place: tuple[int, int]
    context: OpenContext
    derived: str = ""

    @property
    def by(self) -> str:
        """The type of what is opened, in lower case."""
        return self.derived or self.context.anchor

    def names(self, keys: Collection[str]) -> dict[str, str]:
        """What it tells somebody with these events: the refs of the contexts that it names, by type of event_names.DERIVED."""
        return {type_: ref for type_, ref in names_of(self.context, self.derived).items() if f"{type_}-open" in keys}

    def last_opened(self, before: LastOpened, keys: Collection[str]) -> LastOpened:
        """What somebody with these events counts as told after this open. Of what it names and was closed since, nobody knows what
        they show."""
        return doubted(named(before, self.by, self.names(keys)), self.context.closed.values())

    def message(self, topic: str) -> Message:
        """Its frame, and what that tells of."""
        if not self.derived:
            return self.context.frame, self.context.event_ref
        return next(open_ for open_ in derive(self.context) if open_.type == self.derived).message(topic)


class Replay(NamedTuple):
    """What somebody who joins is told: by event the open that is sent; what they count as told then; which open named each, by type."""

    opens: dict[str, Opening]
    last_opened: LastOpened
    where: dict[str, Opening]


def replay(
    session: Session, keys: frozenset[str], rules: Rules, only: Collection[str] | None = None
) -> tuple[list[Message], LastOpened]:
    """What somebody with these events who joins is sent, oldest first, and the opens that they then count as told.

    "Hubs SHALL follow a successful subscription with an event notification informing the new Subscriber of the most recent
    *-open event per anchor type for which no *-close event has occurred" (2.4 "Current context notification"), where an open
    that another context implies counts too, if it is the newer (CTX-7). Of these events `only` some may be sent (SUB-20).
    """
    opens, last_opened, _ = replayed(session, keys, rules)
    wanted = keys if only is None else only
    messages = [
        opens[key].message(session.topic) for key in sorted(opens.keys() & wanted, key=lambda key: opens[key].place)
    ]
    if is_home(session, wanted):
        id_ = id_of(session.home)
        messages.append((session.home, EventRef(id_, id_, spelling("home-open"))))
    return messages, _after_home_open(session, last_opened, keys)


def last_opened_on_joining(session: Session, keys: frozenset[str], rules: Rules) -> LastOpened:
    """What somebody with these events who joins counts as told: `replay` without its frames."""
    return _after_home_open(session, replayed(session, keys, rules).last_opened, keys)


def is_home(session: Session, keys: Collection[str]) -> bool:
    """Whether somebody with these events who joins is told a Home-open last (CTX-6)."""
    return bool(session.home) and "home-open" in keys


def implied(session: Session) -> set[str]:
    """The refs of the contexts that the open ones name, and that nobody closed."""
    return {ref for context in session.contexts.values() for ref in context.implied.values()}


def remembered(
    session: Session,
    keys: frozenset[str],
    last_opened: LastOpened,
    shown: Collection[str],
    unheard: Collection[str] = (),
) -> LastOpened:
    """What somebody with these events counts as told who was `last_opened` this on return, and may show other contexts from before.

    `shown` and `unheard` are as audiences.back says.
    """
    return audiences.back(last_opened, shown, unheard, () if is_home(session, keys) else implied(session))


def perhaps_shown(session: Session, keys: frozenset[str], last_opened: LastOpened) -> tuple[str, ...]:
    """The refs, one of a type, that a subscriber with these events may show after the hub restarted. A joiner counts as `last_opened`.

    The subscriber may show what a joiner is told. Where a joiner is told nothing of a type, an open context may have named one.
    """
    shown = []
    for type_, last in zip(DERIVED, last_opened, strict=True):
        named = [other.implied[type_] for other in session.contexts.values() if type_ in other.implied]
        if f"{type_}-open" in keys and (last.ref or named):
            shown.append(last.ref or named[-1])
    return tuple(shown)


def replayed(session: Session, keys: frozenset[str], rules: Rules) -> Replay:
    """What a joiner is told, as if it had been there all the time: of each type of event the last open that it was sent."""
    opens: dict[str, Opening] = {}
    where: dict[str, Opening] = {}
    last_opened = NOTHING
    contexts = [(context.key, context) for context in session.contexts.values()]
    newest = dict(contexts)
    for key, context in contexts:
        if key in keys and newest[key] is not context:
            continue  # of those that are sent themselves, only the newest is
        for derived in ("",) if key in keys else _derivable(context, keys, rules):
            if derived and not _is_news(last_opened, derived, context.implied[derived]):
                continue
            open_ = Opening((context.order, PLACE.get(derived, len(DERIVED))), context, derived)
            refs = open_.names(keys)
            opens[f"{open_.by}-open"] = open_
            news = [type_ for type_, ref in refs.items() if type_ == open_.by or _is_news(last_opened, type_, ref)]
            where |= dict.fromkeys(news, open_)
            last_opened = open_.last_opened(last_opened, keys)
    return Replay(opens, last_opened, where)


def _after_home_open(session: Session, last_opened: LastOpened, keys: frozenset[str]) -> LastOpened:
    return before_home(last_opened, keys) if session.home else last_opened


def _is_news(last_opened: LastOpened, type_: str, ref: str) -> bool:
    last = last_opened[PLACE[type_]]
    return last.ref != ref or last.stale


def _derivable(context: OpenContext, keys: frozenset[str], rules: Rules) -> list[str]:
    implied = context.implied if rules.derive_opens else {}
    return [type_ for type_ in DERIVED if type_ in implied and f"{type_}-open" in keys]
