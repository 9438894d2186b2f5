"""What somebody without a socket misses (SUB-12): closes and updates are held for them, and told when they are back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from fhircast_hub.core.env import Env
from fhircast_hub.core.limits import FORGETTING_SECONDS, HANDOVER_SECONDS, REMEMBERED_CLOSES, Rules
from fhircast_hub.core.rules.audiences import PLACE
from fhircast_hub.core.rules.joining import implied
from fhircast_hub.core.state.effects import EventRef, Message
from fhircast_hub.core.state.session import LastOpened, RetainedEvent, Session, Subscription
from fhircast_hub.core.wire.event_names import anchor_keys, spelling
from fhircast_hub.core.wire.frames import event_frame
from fhircast_hub.core.wire.json import encode
from fhircast_hub.core.wire.timestamps import rfc3339


def retain(session: Session, news: Sequence[RetainedEvent], rules: Rules) -> Session:
    """The session holding also `news`, all accepted at one time, for those who have no socket, or whose socket may be dead already.

    Of a close that is too much to hold the context is remembered; what nobody can have missed is forgotten.
    """
    since = _missed_since(session, news[0].accepted_at, rules)
    if since == math.inf:
        return (
            replace(session, retained={}, dropped_closes={}) if session.retained or session.dropped_closes else session
        )
    number = next(reversed(session.retained), 0) + 1
    held = {order: other for order, other in session.retained.items() if other.accepted_at >= since} | dict(
        enumerate(news, number)
    )
    lost = {context: at for context, at in session.dropped_closes.items() if at >= since}
    size = sum(len(other.frame) for other in held.values())
    # What alone is too much must not cost all others their place.
    too_long = [order for order, new in enumerate(news, number) if len(new.frame) > rules.retained_bytes]
    while held and (size > rules.retained_bytes or len(held) > rules.retained_messages):
        other = held.pop(too_long.pop() if too_long else next(iter(held)))
        size -= len(other.frame)
        _remember(lost, other)
    if [*lost.items()] == [*session.dropped_closes.items()]:
        lost = session.dropped_closes  # and is not written again
    return replace(session, retained=held, dropped_closes=lost)


def drop_delivered(session: Session, env: Env) -> Session:
    """The session without what nobody can have missed any more (OPS-7)."""
    since = _missed_since(session, env.now, env.rules) if session.retained or session.dropped_closes else -math.inf
    held = {order: other for order, other in session.retained.items() if other.accepted_at >= since}
    lost = {context: at for context, at in session.dropped_closes.items() if at >= since}
    if (len(held), len(lost)) == (len(session.retained), len(session.dropped_closes)):
        return session
    return replace(session, retained=held, dropped_closes=lost)


def let_go(session: Session) -> Session:
    """The session holding nothing: of closes the contexts are remembered, as of those that were too many (LIM-2)."""
    lost = dict(session.dropped_closes)
    for other in session.retained.values():
        _remember(lost, other)
    return replace(session, retained={}, dropped_closes=lost)


def forgets_at(session: Session, rules: Rules) -> float:
    """When `drop_delivered` is to be asked again (epoch seconds); infinity where somebody has to come back, or to go, before that."""
    held, lost = (other.accepted_at for other in session.retained.values()), session.dropped_closes.values()
    oldest = min(next(iter(held), math.inf), next(iter(lost), math.inf))
    at, retain = oldest, HANDOVER_SECONDS + rules.dead_socket_seconds
    for subscription in _followers(session):
        if oldest >= handed_over(subscription.delivered_until):
            at = max(at, subscription.connected_or_lost_at if subscription.connection else math.inf)
    return at + retain + FORGETTING_SECONDS


def _remember(lost: dict[str, float], gone: RetainedEvent) -> None:
    """Of a close that is not held any more, the context."""
    if gone.closes:
        context = f"{gone.type}/{gone.ref.partition('/')[2]}"
        lost.pop(context, None)
        lost[context] = gone.accepted_at
        if len(lost) > REMEMBERED_CLOSES:
            del lost[next(iter(lost))]


def _missed_since(session: Session, now: float, rules: Rules) -> float:
    """What was accepted before that time nobody can have missed; infinity where nobody can have missed anything."""
    # A socket that is older than this has answered a ping, or was found dead.
    since = young = handed_over(now - rules.dead_socket_seconds)
    followers = 0
    for subscription in _followers(session):
        followers += 1
        if not subscription.connection or subscription.connected_or_lost_at > young:
            since = min(since, handed_over(subscription.delivered_until))
    return since if followers else math.inf


def _followers(session: Session) -> Iterator[Subscription]:
    """Who is told on return what was missed: who had a socket once. Posts to callbacks wait elsewhere (webhook_outbox.py)."""
    return (other for other in session.subscriptions.values() if not (other.never_connected or other.callback))


def handed_over(delivered_until: float) -> float:
    """The time until which all that was accepted has arrived, where all that was handed to a socket until `delivered_until` has."""
    return delivered_until - HANDOVER_SECONDS


def known_delivered_until(subscription: Subscription, delivered_until: float, env: Env) -> float:
    """Until when (epoch seconds) all that was sent to a subscription has arrived; `delivered_until` is until when its sockets say so.

    A socket that was dead for longer than `hold_seconds` would have been noticed by its pings.
    """
    heard = env.now - env.rules.dead_socket_seconds
    return (
        max(delivered_until, heard)
        if subscription.connection and subscription.connected_or_lost_at < heard
        else delivered_until
    )


def unheard(session: Session, arrived: float) -> set[str]:
    """The refs of the contexts whose closes may not have been heard where what was sent until `arrived` has been."""
    since = handed_over(arrived)
    return _lost(session, since).keys() | {
        other.ref for other in session.retained.values() if other.closes and other.accepted_at > since
    }


def missed_by(
    session: Session, subscription: Subscription, arrived: float, last_opened: LastOpened, env: Env
) -> list[Message]:
    """The closes and updates that a subscription has missed, in order, before it is `last_opened` what is open; what was sent until
    `arrived` (epoch seconds) has arrived.

    That is what was accepted while it had no socket, and what was sent to its last socket and may never have arrived, unless what
    was closed then is open again. Where a close is no longer held, one is made for the context that is closed now.
    """
    left = subscription.connected_or_lost_at if not subscription.connection else env.now
    since = handed_over(arrived)
    keys = subscription.keys
    is_open = session.contexts.keys() | {last.ref for last in last_opened if not last.by}
    named = implied(session)

    def is_told(ref: str) -> bool:
        """Whether no close needs to be told: an open of the context is, or of another of its type while this one is named still."""
        type_ = ref.partition("/")[0]
        return ref in is_open or (ref in named and bool(last_opened[PLACE[type_]].ref))

    held: list[RetainedEvent] = []
    closed: set[str] = set()
    reopened: set[str] = set()
    for other in reversed(session.retained.values()):
        if other.accepted_at < left and other.closes and other.ref in is_open:
            reopened.add(other.ref)
        elif (
            # A close may be heard twice. An update is applied twice by some.
            other.accepted_at > (since if other.closes else arrived)
            and other.key in keys
            and not (other.event and (is_told(other.ref) or other.ref in closed))
            and not (other.accepted_at < left and other.ref in reopened)
        ):
            held.append(other)
            if other.closes:
                closed.add(other.ref)
    made = [
        _made_close(session, type_, id_, env)
        for ref, (type_, id_) in _lost(session, since).items()
        if f"{type_.lower()}-close" in keys and not (ref in closed or is_told(ref))
    ]
    return [*made, *((other.frame, other.event_ref) for other in reversed(held))]


def _lost(session: Session, since: float) -> dict[str, tuple[str, str]]:
    """By ref, type (as spelled) and id of each context that was closed after `since`, and whose close is no longer held."""
    lost = (context.partition("/") for context, at in session.dropped_closes.items() if at > since)
    return {f"{type_.lower()}/{id_}": (type_, id_) for type_, _, id_ in lost}


def _made_close(session: Session, type_: str, id_: str, env: Env) -> Message:
    key, name, event = anchor_keys(type_.lower())[0], spelling(f"{type_}-close"), env.ids.uuid()
    context = encode([{"key": key, "resource": {"resourceType": type_, "id": id_}}])
    return event_frame(session.topic, name, event, rfc3339(env.now), context), EventRef(event, event, name)
