"""The last opens of each socket, read from the frames alone. They must be equal for subscriptions with the same events."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from fhircast_hub.core.state.commands import Connected, Renew
from tests.simulation.model import Label, Sub
from tests.simulation.posts import DERIVED, TYPES, Post
from tests.simulation.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.invariants import Step


class Last(NamedTuple):
    """The last open of a type: a context, "" after its close; and the context whose open named it, if another."""

    ref: str
    by: str = ""


class Shown:
    """The last opens of all sockets of a run, by connection."""

    def __init__(self) -> None:
        self.told: dict[str, dict[str, Last]] = {}
        self.renewed: set[str] = set()
        self.closes: dict[str, set[str]] = {}  # types of the closes that each socket was sent
        self._posts: dict[str, Post] = {}

    def take(self, step: Step) -> None:
        """Read the frames of a decision."""
        if (post := step.submission.post) is not None:
            self._posts[post.id] = post
        command = step.submission.command
        if isinstance(command, Connected):
            self.told[command.connection] = {}
            self.closes[command.connection] = set()
        if isinstance(command, Renew) and step.before and step.after:
            before, after = (
                session.subscriptions.get(command.subscription_id) for session in (step.before, step.after)
            )
            if before and after and before.keys != after.keys:
                self.renewed.add(after.connection)
        for connection, label in step.said:
            key = str(label[1]) if len(label) > 1 else ""
            if key.endswith("-close"):
                self.closes[connection].add(key.removesuffix("-close"))
            self._hears(self.told[connection], key, label)

    def _carried(self, type_: str, ref: str, label: Label) -> dict[str, str]:
        """The other contexts that a derived open names: of its source, the types that come before its own."""
        for post in self._posts.values():
            named = {**post.implied, post.ref.partition("/")[0]: post.ref}
            if post.kind == "open" and post.stamp == label[3] and post.implied.get(type_) == ref:
                return {t: named[t] for t in DERIVED[: DERIVED.index(type_)] if t in named}
        return {}

    def _hears(self, told: dict[str, Last], key: str, label: Label) -> None:
        type_, _, kind = key.partition("-")
        if key == "home-open":
            for each in told:
                told[each] = Last("")
        elif label[0] not in ("event", "derived") or kind not in ("open", "close") or type_ not in TYPES:
            return
        else:
            post = self._posts.get(str(label[2])) if label[0] == "event" else None
            ref = post.ref if post else str(label[2])
            if kind == "open":
                opens(told, type_, ref, post.implied if post else self._carried(type_, ref, label))
            else:
                closes(told, type_, ref)


def opens(told: dict[str, Last], type_: str, ref: str, implied: dict[str, str]) -> None:
    """An open was sent, which names the contexts `implied`."""
    for each, last in told.items():
        if last.by.startswith(f"{type_}/"):
            told[each] = Last("")  # the newest open of the type names other contexts
    told[type_] = Last(ref)
    told |= {each: Last(other, ref) for each, other in implied.items() if each not in told or told[each].ref != other}


def closes(told: dict[str, Last], type_: str, ref: str) -> None:
    """A close was sent."""
    for each, last in told.items():
        if (each == type_ and last.ref == ref) or last.by == ref:
            told[each] = Last("")


def last_opens_do_not_depend_on_join_time(step: Step) -> None:
    """DER-9, CTX-7: subscriptions with the same events have the same last opens, whenever they joined.

    After a close or a Home-open, a subscription may show nothing of the type. Without closes, it may show an old context.
    """
    shown = step.world.shown
    shown.take(step)
    if step.topic is None:
        return
    for one, other in combinations(step.topic.connected(), 2):
        if one.events == other.events and not any(_is_left_out(sub, shown) for sub in (one, other)):
            _compare(one, other, shown)


def _compare(one: Sub, other: Sub, shown: Shown) -> None:
    mine, theirs = (shown.told.get(sub.connection, {}) for sub in (one, other))
    for type_ in DERIVED:
        if not {f"{type_}-open", f"{type_}-close"} <= one.events:
            continue
        last, opposite = mine.get(type_), theirs.get(type_)
        if last and opposite and "" in (last.ref, opposite.ref):
            continue
        heard = [shown.closes.get(sub.connection, set()) for sub in (other, one)]
        if any(_is_named_by_what_closed(*pair, one.events) for pair in zip((last, opposite), heard, strict=True)):
            continue
        if (last and last.ref) != (opposite and opposite.ref) and "" not in [
            each.ref for each in (last, opposite) if each
        ]:
            found = f"{one.connection} was told {last}, {other.connection} {opposite}"
            raise Violation("last_opens_do_not_depend_on_join_time", found)


def _is_named_by_what_closed(last: Last | None, closes: set[str], events: frozenset[str]) -> bool:
    """Whether an event of another type named the context, and closes of that type were sent to the other, or are sent to neither.

    After such a close an older context may be open that a later subscriber was never sent.
    """
    by = last.by.partition("/")[0] if last else ""
    return bool(by) and (f"{by}-close" not in events or by in closes)


def _is_left_out(sub: Sub, shown: Shown) -> bool:
    """Whether a subscription refused an open, changed its events, or is sent closes of a type and no opens."""
    return is_blind(sub.events) or sub.refused or sub.connection in shown.renewed


def is_blind(events: frozenset[str]) -> bool:
    """Whether these events have closes of a type, and no opens."""
    return any(f"{type_}-close" in events and f"{type_}-open" not in events for type_ in TYPES)
