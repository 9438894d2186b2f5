"""The derived closes and opens that must follow a close (DER-9), for the oracle."""

from __future__ import annotations

from collections.abc import Iterable

from fhircast_hub.core.limits import Rules
from tests.simulation.model import Change, Context, Label, Messages, Opened, Sub, Topic
from tests.simulation.posts import DERIVED, Post


def end_derived_opens(
    rules: Rules, topic: Topic, source: Context, types: Iterable[str], post: Post, now: float
) -> Messages:
    """End the opens of these types that were derived from `source`. Subscriptions are sent what a joiner would be (DER-9)."""
    messages: Messages = []
    if not (rules.derive_opens and rules.derive_closes):
        return messages
    replaced = topic.contexts[source.ref].implied if source.ref in topic.contexts else {}
    ended = [type_ for type_ in DERIVED if type_ in types and type_ not in replaced]
    for sub in topic.connected():
        messages += [(sub.connection, label) for label in correct(topic, sub, source, ended, post)]
    for type_ in (type_ for type_ in reversed(DERIVED) if type_ in types):
        label = "derived", f"{type_}-close", source.implied[type_], post.stamp
        topic.changes.append(Change(now, f"{type_}-close", source.implied[type_], label, derived=True))
    return messages


def correct(topic: Topic, sub: Sub, source: Context, types: Iterable[str], post: Post) -> list[Label]:
    """The messages for a subscription: derived closes, innermost first, then opens, oldest first."""
    closes: list[Label] = []
    opens: set[Opened] = set()
    knows_source = f"{source.type}-open" in sub.events
    is_sent_close = post.kind == "close" and f"{source.type}-close" in sub.events
    for type_ in types:
        ref = source.implied[type_]
        if sub.last(type_) != ref:
            continue
        joiner, _, told_by = topic.joiner(sub.events)
        now = joiner.last(type_) if topic.is_open(joiner.last(type_)) else ""
        if knows_source and sub.last_opens[type_][1] == source.type:
            if not topic.has_newer(source):
                sub.forget_last_open(type_)
                opens |= withheld(topic, sub, source, type_) if is_sent_close else set()
        elif now != ref:
            sub.forget_last_open(type_)
            if is_sent_close and not knows_source:
                continue
            if now:
                opens.add(told_by[type_])
            elif f"{type_}-close" in sub.events:
                closes.append(("derived", f"{type_}-close", ref, post.stamp))
    if opens:
        opens.add(max(topic.joiner(sub.events)[1].values()))
        topic.send_again(sub, opens)
    labels = [opened.label for opened in sorted(opens)]
    return [*reversed(closes), *labels]


def withheld(topic: Topic, sub: Sub, source: Context, type_: str) -> set[Opened]:
    """The derived open of a joiner that was not sent because `source` named the same context."""
    joiner, _, told_by = topic.joiner(sub.events)
    is_derived = joiner.last(type_) == source.implied[type_] and told_by[type_].place < len(DERIVED)
    return {told_by[type_]} if is_derived else set()
