"""What somebody without a socket misses (SUB-12): closes and updates are held for them, and told when they are back."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from fhircast_hub.core.effects import Message, Notice
from fhircast_hub.core.limits import REMEMBERED_CLOSES, Rules
from fhircast_hub.core.messages import encode, made_event
from fhircast_hub.core.names import anchor_keys, spelling
from fhircast_hub.core.session import Held, Ids, Session, Subscription, Told
from fhircast_hub.core.timestamps import rfc3339


def hold(session: Session, news: Sequence[Held], rules: Rules) -> Session:
    """The session holding also `news`, all accepted at one time, for those who have no socket, or whose socket may be dead already.

    Of a close that is too much to hold the context is remembered; what nobody can have missed is forgotten.
    """
    # A socket that is older than this has answered a ping, or was found dead.
    since = young = news[0].at - rules.hold_seconds
    for subscription in session.subscriptions.values():
        if not subscription.fresh and (not subscription.connection or subscription.since > young):
            since = min(since, subscription.sure)
    number = next(reversed(session.held), 0) + 1
    held = {order: other for order, other in session.held.items() if other.at >= since} | dict(enumerate(news, number))
    lost = {context: at for context, at in session.lost.items() if at >= since}
    size = sum(len(other.frame) for other in held.values())
    # What alone is too much must not cost all others their place.
    too_long = [order for order, new in enumerate(news, number) if len(new.frame) > rules.held_bytes]
    while held and (size > rules.held_bytes or len(held) > rules.held_messages):
        other = held.pop(too_long.pop() if too_long else next(iter(held)))
        size -= len(other.frame)
        if other.closes:
            lost[f"{other.type}/{other.ref.partition('/')[2]}"] = other.at
    while len(lost) > REMEMBERED_CLOSES:
        del lost[next(iter(lost))]
    return replace(session, held=held, lost=lost)


def missed(
    session: Session, subscription: Subscription, sure: float, told: Told, now: float, ids: Ids, rules: Rules
) -> list[Message]:
    """The closes and updates that a subscription has missed, in order, before it is `told` what is open; what was sent until `sure`
    has arrived.

    That is what was accepted while it had no socket, and what was sent to its last socket and may never have arrived, unless what
    was closed then is open again. Where a close is no longer held, one is made for the context that is closed now; and for each
    context of which it was told an open that nothing tells any more.
    """
    left = subscription.since if not subscription.connection else now
    if subscription.connection and subscription.since < left - rules.hold_seconds:
        # A socket that was dead for longer than this would have been noticed by its pings.
        sure = max(sure, left - rules.hold_seconds)
    keys = subscription.keys
    is_open = session.contexts.keys() | {last.ref for last in told if not last.by}
    held: list[Held] = []
    reopened: set[str] = set()
    for other in reversed(session.held.values()):
        if other.at < left and other.closes and other.ref in is_open:
            reopened.add(other.ref)
        elif (
            other.at > sure
            and other.key in keys
            and keys.isdisjoint(other.unless)
            and not (other.event and other.ref in is_open)
            and not (other.at < left and other.ref in reopened)
        ):
            held.append(other)
    known = is_open | {other.ref for other in held if other.closes}
    lost = [context.partition("/") for context, at in session.lost.items() if at > sure]
    gone = {f"{type_.lower()}/{id_}": (type_, id_) for type_, _, id_ in lost}
    for ref in reversed(subscription.shown) if rules.derive_closes else ():
        if ref not in {last.ref for last in told}:
            type_, _, id_ = ref.partition("/")
            gone.setdefault(ref, (spelling(f"{type_}-close").removesuffix("-close"), id_))
    made = [
        _made_close(session, type_, id_, now, ids)
        for ref, (type_, id_) in gone.items()
        if f"{type_.lower()}-close" in keys and ref not in known
    ]
    return [*made, *((other.frame, other.notice) for other in reversed(held))]


def _made_close(session: Session, type_: str, id_: str, now: float, ids: Ids) -> Message:
    key, name, event = anchor_keys(type_.lower())[0], spelling(f"{type_}-close"), ids.uuid()
    context = encode([{"key": key, "resource": {"resourceType": type_, "id": id_}}])
    return made_event(session.topic, name, event, rfc3339(now), context), Notice(event, event, name)
