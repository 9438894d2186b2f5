"""What a session takes of the process's memory, in bytes: rather too much than too little.

Sessions share what did not change (core/state/session.py). So a change costs what changed, and parts that stayed are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import compress
from operator import is_not
from sys import getsizeof
from typing import TypeVar

from fhircast_hub.core.state.session import Content, OpenContext, Queue, RetainedEvent, Session, Subscription

_Name = TypeVar("_Name", str, int)
_Part = TypeVar("_Part")

#: Without its texts: a session with its places in the store and in all that counts sessions.
SESSION = 2048
#: A digest in a dict or tuple, with the number beside it.
DIGEST = 160
#: Without their texts and frames: a context, its content, a resource in that, what is held, the context of a close, a post, a subscription.
CONTEXT, CONTENT, RESOURCE, HELD, LOST, POST, SUBSCRIPTION = 768, 768, 320, 480, 160, 2880, 2048
#: A character takes four bytes at most.
_WIDEST = 4

_NOTHING = Session(realm="", topic="", owner="")


def growth(before: Session | None, after: Session | None) -> int:
    """By how many bytes a session grows that was `before` and will be `after`; negative where it shrinks."""
    if before is None or after is None:
        return _weight(after) - _weight(before)
    grown = getsizeof(after.home) - getsizeof(before.home) + DIGEST * (len(after.recent) - len(before.recent))
    grown += _grown(before.contexts, after.contexts, _context)
    grown += _grown(before.contents, after.contents, _content)
    grown += _grown(before.retained, after.retained, _held)
    grown += _grown(before.dropped_closes, after.dropped_closes, _lost)
    grown += _grown(before.outbox, after.outbox, _queue)
    return grown + _grown(before.subscriptions, after.subscriptions, _subscription)


def _weight(session: Session | None) -> int:
    if session is None:
        return 0
    own = SESSION + 4 * getsizeof(session.topic) + 2 * getsizeof(session.owner)
    return own + growth(_NOTHING, session)


def _grown(before: Mapping[_Name, _Part], after: Mapping[_Name, _Part], weight: Callable[[_Name, _Part], int]) -> int:
    if before is after:
        return 0
    came = compress(after, map(is_not, after.values(), map(before.get, after)))
    went = compress(before, map(is_not, before.values(), map(after.get, before)))
    return sum(weight(name, after[name]) for name in came) - sum(weight(name, before[name]) for name in went)


def _texts(*texts: str) -> int:
    return sum(map(getsizeof, texts))


def _context(ref: str, context: OpenContext) -> int:
    texts = _texts(ref, context.type, context.id, context.timestamp, context.version)
    named = _texts(*context.implied.values(), *context.closed.values())
    return CONTEXT + getsizeof(context.frame) + 2 * (texts + named)


def _content(ref: str, content: Content) -> int:
    characters = len(ref) + sum(map(len, content.resources)) + sum(map(len, content.urls))
    digests = DIGEST * len(content.updates)
    return CONTENT + content.size + RESOURCE * len(content.resources) + digests + _WIDEST * characters


def _held(_: int, held: RetainedEvent) -> int:
    event_ref = held.event_ref
    return (
        HELD
        + getsizeof(held.frame)
        + _texts(held.ref, held.type, held.event, event_ref.id, event_ref.event, event_ref.name)
    )


def _lost(context: str, _: float) -> int:
    return LOST + getsizeof(context)


def _queue(_: str, queue: Queue) -> int:
    return POST + queue.size + POST * len(queue.posts)


def _subscription(_: str, subscription: Subscription) -> int:
    names = _texts(*subscription.events)
    texts = _texts(subscription.subscriber, subscription.name, subscription.callback, subscription.issuer)
    shown = _texts(*subscription.shown_opens)
    # The names in lower case stand beside those that were asked for.
    return SUBSCRIPTION + 2 * (texts + shown) + 3 * names + getsizeof(subscription.secret)
