"""The messages that a subscriber may and must receive on its return (SUB-12), for the oracle."""

from __future__ import annotations

from fhircast_hub.core.limits import Rules
from tests.simulation.model import Change, Label, Sub, Topic
from tests.simulation.posts import DERIVED

#: Seconds that a dead socket may have been taken for a living one.
HOLD = 60
#: Seconds from the acceptance of an event until its frames are handed to sockets, at the most.
HANDOVER = 1


def missed(rules: Rules, topic: Topic, sub: Sub, now: float) -> tuple[list[Change], list[Label], list[str]]:
    """What it may be told, must be told, and the contexts of which it must be told a close (SUB-12)."""
    absent = len(topic.changes) if sub.connection else sub.left
    may = [change for change in topic.changes if change.key in sub.events]
    kept = max(0, len(topic.changes) - rules.retained_messages)
    missed = [(place, c) for place, c in enumerate(topic.changes) if place >= absent and c.key in sub.events]
    again = {c.ref: place for place, c in missed if c.closes}  # of several closes the last is enough
    told = topic.replay(sub.events)[1]
    must = [
        c.label
        for place, c in missed
        if place >= kept and not (c.derived and (again[c.ref] > place or is_told(topic, c.ref, told)))
    ]
    gone = [c.ref for place, c in missed if place < kept and c.closes and not topic.is_open(c.ref)]
    return may, must, gone


def still_shows(topic: Topic, sub: Sub, unheard: set[str]) -> None:
    """What it was told an open of before, it may show yet; and what is named now, though it may not have heard of its close."""
    home = topic.home is not None and "home-open" in sub.events
    for type_ in DERIVED:
        ref, by = sub.told.get(type_, ("", ""))
        own = next((ref for ref in sub.shown if ref.startswith(f"{type_}/")), "")
        if by and ref in unheard:
            sub.told[type_] = ref, ""
            sub.stale.add(type_)
        elif ref and ref == own:
            sub.told[type_] = ref, ""
        elif not ref and topic.is_implied(own) and not home:
            sub.told[type_] = own, ""
            sub.stale.add(type_)


def is_told(topic: Topic, ref: str, told: dict[str, tuple[str, str]]) -> bool:
    """Whether a replay with these opens tells of the context: the context is open or was told last, or an open context names it."""
    last, by = told.get(ref.partition("/")[0], ("", ""))
    return ref in topic.contexts or (last == ref and not by) or (bool(last) and topic.is_implied(ref))


def unheard_closes(topic: Topic, sub: Sub, now: float) -> set[str]:
    """The contexts whose closes it may not have heard."""
    heard = max(sub.delivered_until, now - HOLD) if sub.connection and sub.since < now - HOLD else sub.delivered_until
    return {change.ref for change in topic.changes if change.closes and change.at > heard - HANDOVER}
