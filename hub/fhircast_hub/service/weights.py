"""Weights: estimates of the memory that a session takes, in bytes. They are rather too large than too small.

Two versions of a session share their unchanged parts (core/state/session.py). So only the changed parts are weighed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from sys import getsizeof
from typing import TypeVar

from fhircast_hub.core.state.session import Content, OpenContext, Queue, RetainedEvent, Session, Subscription

_Name = TypeVar("_Name", str, int)
_Part = TypeVar("_Part")

#: A session without its texts, with its entries in the store and in the counts of sessions.
SESSION = 2048
#: A digest in a dict or tuple, with the number beside it.
DIGEST = 160
#: An open context without its texts and frame.
CONTEXT = 768
#: The content of a context without its resources.
CONTENT = 768
#: A shared resource without its texts.
RESOURCE = 320
#: A retained event without its texts and frame.
RETAINED_EVENT = 480
#: The context of a dropped close, without its text.
DROPPED_CLOSE = 160
#: A post without its frame. Also an empty queue.
POST = 2880
#: A subscription without its texts.
SUBSCRIPTION = 2048
#: Bytes of a character, at most.
_WIDEST = 4

_NOTHING = Session(realm="", topic="", owner="")


def growth(before: Session | None, after: Session | None) -> int:
    """The bytes that a session grows by when `before` becomes `after` (None: no session). Negative where the session shrinks."""
    if before is None or after is None:
        return _weight(after) - _weight(before)
    grown = 0
    if before.home is not after.home:
        grown += getsizeof(after.home) - getsizeof(before.home)
    if before.recent is not after.recent:
        grown += DIGEST * (len(after.recent) - len(before.recent))
    # Most parts of a session stay the same object.
    if before.contexts is not after.contexts:
        grown += _grown(before.contexts, after.contexts, _context)
    if before.contents is not after.contents:
        grown += _grown(before.contents, after.contents, _content)
    if before.retained is not after.retained:
        grown += _grown(before.retained, after.retained, _retained_event)
    if before.dropped_closes is not after.dropped_closes:
        grown += _grown(before.dropped_closes, after.dropped_closes, _dropped_close)
    if before.outbox is not after.outbox:
        grown += _grown(before.outbox, after.outbox, _queue)
    if before.subscriptions is not after.subscriptions:
        grown += _grown(before.subscriptions, after.subscriptions, _subscription)
    return grown


def _weight(session: Session | None) -> int:
    if session is None:
        return 0
    own = SESSION + 4 * getsizeof(session.topic) + 2 * getsizeof(session.owner)
    return own + growth(_NOTHING, session)


def _grown(before: Mapping[_Name, _Part], after: Mapping[_Name, _Part], weight: Callable[[_Name, _Part], int]) -> int:
    """The growth of one part of a session. Only entries that are not the same object are weighed."""
    grown, kept = 0, len(after)
    for name, part in after.items():
        old = before.get(name)
        if old is part:
            continue
        grown += weight(name, part)
        if old is None:
            kept -= 1
        else:
            grown -= weight(name, old)
    if kept < len(before):
        for name in before.keys() - after.keys():
            grown -= weight(name, before[name])
    return grown


def _texts(*texts: str) -> int:
    return sum(map(getsizeof, texts))


def _context(ref: str, context: OpenContext) -> int:
    # Nearly every event weighs a context or two: no call for each text.
    texts = getsizeof(ref) + getsizeof(context.type) + getsizeof(context.id)
    texts += getsizeof(context.timestamp) + getsizeof(context.version)
    for named in context.implied.values():
        texts += getsizeof(named)
    for named in context.closed.values():
        texts += getsizeof(named)
    return CONTEXT + getsizeof(context.frame) + 2 * texts


def _content(ref: str, content: Content) -> int:
    characters = len(ref) + sum(map(len, content.resources)) + sum(map(len, content.urls))
    digests = DIGEST * len(content.updates)
    return CONTENT + content.size + RESOURCE * len(content.resources) + digests + _WIDEST * characters


def _retained_event(_: int, event: RetainedEvent) -> int:
    event_ref = event.event_ref
    texts = _texts(event.ref, event.type, event.event, event_ref.id, event_ref.event, event_ref.name)
    return RETAINED_EVENT + getsizeof(event.frame) + texts


def _dropped_close(context: str, _: float) -> int:
    return DROPPED_CLOSE + getsizeof(context)


def _queue(_: str, queue: Queue) -> int:
    return POST + queue.size + POST * len(queue.posts)


def _subscription(_: str, subscription: Subscription) -> int:
    names = _texts(*subscription.events)
    texts = _texts(subscription.subscriber, subscription.name, subscription.callback, subscription.issuer)
    shown = _texts(*subscription.shown_opens, subscription.watcher)
    # The audience has the names again, in lower case.
    return SUBSCRIPTION + 2 * (texts + shown) + 3 * names + getsizeof(subscription.secret)
