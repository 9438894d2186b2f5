"""The derived closes and opens that must follow a close (DER-9), for the oracle."""

from __future__ import annotations

from collections.abc import Iterable

from fhircast_hub.core.limits import Rules
from tests.simulation.model import Change, Context, Label, Opened, Sub, Told, Topic
from tests.simulation.posts import DERIVED, Post


def take_back(rules: Rules, topic: Topic, gone: Context, types: Iterable[str], post: Post, now: float) -> Told:
    """Whoever was told what `gone` implied is brought to where a joiner would be (DER-9)."""
    told: Told = []
    if not (rules.derive_opens and rules.derive_closes):
        return told
    instead = topic.contexts[gone.ref].implied if gone.ref in topic.contexts else {}
    ended = [type_ for type_ in DERIVED if type_ in types and type_ not in instead]
    for sub in topic.connected():
        told += [(sub.connection, label) for label in brought_back(topic, sub, gone, ended, post)]
    for type_ in (type_ for type_ in reversed(DERIVED) if type_ in types):
        label = "derived", f"{type_}-close", gone.implied[type_], post.stamp
        topic.changes.append(Change(now, f"{type_}-close", gone.implied[type_], label, derived=True))
    return told


def brought_back(topic: Topic, sub: Sub, gone: Context, types: Iterable[str], post: Post) -> list[Label]:
    closes: list[Label] = []
    opens: set[Opened] = set()
    knows = f"{gone.type}-open" in sub.events
    hears = post.kind == "close" and f"{gone.type}-close" in sub.events
    for type_ in types:
        ref = gone.implied[type_]
        if sub.last(type_) != ref:
            continue
        joiner, _, where = topic.joiner(sub.events)
        now = joiner.last(type_) if topic.is_open(joiner.last(type_)) else ""
        if knows and sub.told[type_][1] == gone.type:
            if not topic.newer(gone):
                sub.untell(type_)
                opens |= withheld(topic, sub, gone, type_) if hears else set()
        elif now != ref:
            sub.untell(type_)
            if hears and not knows:
                continue
            if now:
                opens.add(where[type_])
            elif f"{type_}-close" in sub.events:
                closes.append(("derived", f"{type_}-close", ref, post.stamp))
    if opens:
        opens.add(max(topic.joiner(sub.events)[1].values()))
        topic.tell_again(sub, opens)
    labels = [opened.label for opened in sorted(opens)]
    return [*reversed(closes), *labels]


def withheld(topic: Topic, sub: Sub, gone: Context, type_: str) -> set[Opened]:
    """The derived open of a joiner's that a subscription was not told because `gone` said the same."""
    joiner, _, where = topic.joiner(sub.events)
    is_derived = joiner.last(type_) == gone.implied[type_] and where[type_].place < len(DERIVED)
    return {where[type_]} if is_derived else set()
