"""The missed events that a subscription may and must be sent on its return (SUB-12), for the oracle."""

from __future__ import annotations

from fhircast_hub.core.limits import Rules
from tests.simulation.model import Change, Label, Sub, Topic
from tests.simulation.posts import DERIVED

#: Seconds that a dead socket may have been taken for a living one.
HOLD = 60
#: Seconds from the acceptance of an event until its frames are handed to sockets, at the most.
HANDOVER = 1


def missed(rules: Rules, topic: Topic, sub: Sub, now: float) -> tuple[list[Change], list[Label], list[str]]:
    """The missed events that may be sent, those that must be, and the refs of which a close must be sent (SUB-12)."""
    absent = len(topic.changes) if sub.connection and not sub.is_dead else sub.left
    allowed = [change for change in topic.changes if change.key in sub.events]
    kept = max(0, len(topic.changes) - rules.retained_messages)
    missed = [(place, c) for place, c in enumerate(topic.changes) if place >= absent and c.key in sub.events]
    again = {c.ref: place for place, c in missed if c.closes}  # of several derived closes only the last is sent
    last_opens = topic.replay(sub.events)[1]
    required = [
        c.label
        for place, c in missed
        if place >= kept and not (c.derived and (again[c.ref] > place or needs_no_close(topic, c.ref, last_opens)))
    ]
    required_closes = [c.ref for place, c in missed if place < kept and c.closes and not topic.is_open(c.ref)]
    return allowed, required, required_closes


def add_still_shown(topic: Topic, sub: Sub, missed_closes: set[str]) -> None:
    """Add last opens that the subscription may still show: from opens before, and from closes that were perhaps missed."""
    home = topic.home is not None and "home-open" in sub.events
    for type_ in DERIVED:
        ref, by = sub.last_opens.get(type_, ("", ""))
        own = next((ref for ref in sub.shown if ref.startswith(f"{type_}/")), "")
        if by and ref in missed_closes:
            sub.last_opens[type_] = ref, ""
            sub.in_doubt.add(type_)
        elif ref and ref == own:
            sub.last_opens[type_] = ref, ""
        elif not ref and topic.is_implied(own) and not home:
            sub.last_opens[type_] = own, ""
            sub.in_doubt.add(type_)


def needs_no_close(topic: Topic, ref: str, last_opens: dict[str, tuple[str, str]]) -> bool:
    """Whether the replay corrects a subscriber that shows this context, so that no derived close is needed."""
    last, by = last_opens.get(ref.partition("/")[0], ("", ""))
    return ref in topic.contexts or (last == ref and not by) or (bool(last) and topic.is_implied(ref))


def possibly_missed_closes(topic: Topic, sub: Sub, now: float) -> set[str]:
    """The contexts whose closes the subscription may have missed."""
    delivered = (
        max(sub.delivered_until, now - HOLD) if sub.connection and sub.since < now - HOLD else sub.delivered_until
    )
    return {change.ref for change in topic.changes if change.closes and change.at > delivered - HANDOVER}
