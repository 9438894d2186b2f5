"""Webhooks (FHIRcast STU2, 2.4 and 2.5): callbacks that are posted to what sockets are sent.

A verified callback is in the audiences like a socket, under a name of its own. What is sent to it stays in the session's outbox
until the callback has answered, so that it survives the hub's process.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules import audiences
from fhircast_hub.core.rules.joining import perhaps_shown, remembered, told_on_joining
from fhircast_hub.core.state.effects import Drop, Effect, HookEffect, Post, Send, Verify
from fhircast_hub.core.state.session import Outgoing, Queue, Session, Subscription

_PREFIX = "hook-"
#: The queue of a callback that has answered everything.
NOTHING = Queue()


def connection(sid: str) -> str:
    """What the callback of the subscription `sid` is called among the connections."""
    return _PREFIX + sid


def verify(session: Session, subscription: Subscription, now: float) -> Verify:
    """Ask the callback: "the Hub SHALL verify the intent of the subscriber" (STU2)."""
    lease = max(1, int(subscription.expires - now))
    who = subscription.subscriber
    return Verify(_key(session), subscription.sid, subscription.callback, subscription.events, lease, who)


def predecessors(session: Session, newcomer: Subscription) -> list[Subscription]:
    """The subscriptions whose place the newcomer takes: of the same application, with the same callback (WHK-12)."""
    mine = newcomer.application, newcomer.callback
    others = session.subscriptions.values() if newcomer.callback else ()
    return [other for other in others if (other.application, other.callback) == mine and other.sid != newcomer.sid]


def inherited(session: Session, active: Subscription) -> Session:
    """The session in which `active` has taken over what its predecessors have not been posted yet."""
    sids = {other.sid for other in predecessors(session, active)} & session.outbox.keys()
    if not sids:
        return session
    posts = [(number, replace(post, sid=active.sid)) for number, post in _in_order(session, sids)]
    session = replace(session, outbox={sid: queue for sid, queue in session.outbox.items() if sid not in sids})
    return _waiting(session, {active.sid: posts})


def drop(session: Session, subscription: Subscription, reason: str = "") -> Drop:
    """What ends the posts of `subscription`, which is about to go.

    A callback that never said that it wants the subscription is not told of its end (WHK-3).
    """
    numbers = frozenset(session.outbox.get(subscription.sid, NOTHING).posts)
    reason = "" if subscription.fresh else reason
    callback, who = subscription.callback, subscription.subscriber
    return Drop(_key(session), subscription.sid, numbers, callback, subscription.events, reason, who)


def unasked(before: Session | None, after: Session | None, effects: tuple[Effect, ...]) -> tuple[Drop, ...]:
    """What ends the questions to callbacks whose subscriptions went before they were verified, however they went: else who
    subscribes without end has ever more of them hanging."""
    if before is None or (after is not None and after.subscriptions is before.subscriptions):
        return ()
    left = after.subscriptions if after else {}
    known = {effect.sid for effect in effects if isinstance(effect, Drop)}
    return tuple(
        drop(before, other)
        for sid, other in before.subscriptions.items()
        if other.callback and other.fresh and sid not in left and sid not in known
    )


def dropped(session: Session, subscription: Subscription) -> Session:
    """The session with nothing left to post for `subscription`."""
    outbox = {sid: queue for sid, queue in session.outbox.items() if sid != subscription.sid}
    return replace(session, hooks=session.hooks - {subscription.connection}, outbox=outbox)


def taken(session: Session, number: int) -> tuple[Session, Outgoing | None]:
    """The session without the post of this number, and that post, if it waits."""
    found = next(((sid, queue) for sid, queue in session.outbox.items() if number in queue.posts), None)
    if found is None:
        return session, None
    sid, queue = found
    post = queue.posts[number]
    posts = {other: one for other, one in queue.posts.items() if other != number}
    outbox = {**session.outbox, sid: Queue(posts, queue.size - len(post.frame))}
    if not posts:
        del outbox[sid]
    return replace(session, outbox=outbox), post


def resumed(session: Session, now: float, rules: Rules) -> tuple[Session, tuple[Effect, ...]]:
    """The hub's process is new: callbacks go on where they were. All that is open was posted to them, or waits to be."""
    effects: list[HookEffect] = []
    for subscription in session.subscriptions.values():
        if subscription.callback and subscription.fresh:
            effects.append(verify(session, subscription, now))
        elif subscription.callback:
            # The callback may show something else than a joiner: the next open is told in any case (DER-3).
            keys = subscription.keys
            told = told_on_joining(session, keys, rules)
            told = remembered(session, keys, told, perhaps_shown(session, keys, told))
            told = audiences.before_home(told, frozenset())
            joined = audiences.join(session.audiences, subscription.connection, keys, told)
            session = replace(session, audiences=joined, hooks=session.hooks | {subscription.connection})
    posts = _in_order(session, session.outbox.keys())
    return session, (*effects, *(_post(session, number, post) for number, post in posts))


def posted(session: Session, effects: tuple[Effect, ...]) -> tuple[Session, tuple[Effect, ...]]:
    """What was to be sent to callbacks is put into the outbox, and to be posted."""
    done: list[Effect] = []
    fresh: dict[str, list[tuple[int, Outgoing]]] = {}
    number = session.posts
    for effect in effects:
        if not isinstance(effect, Send) or session.hooks.isdisjoint(effect.to):
            done.append(effect)
            continue
        if sockets := tuple(name for name in effect.to if name not in session.hooks):
            done.append(Send(sockets, effect.frame, effect.notice))
        for name in effect.to:
            if name in session.hooks and effect.notice is not None:
                number += 1
                post = Outgoing(name.removeprefix(_PREFIX), effect.notice, effect.frame)
                fresh.setdefault(post.sid, []).append((number, post))
                done.append(_post(session, number, post))
    return _waiting(replace(session, posts=number), fresh), tuple(done)


def overflowing(session: Session, rules: Rules) -> list[Subscription]:
    """The webhooks for which more waits than may."""
    return [
        session.subscriptions[sid]
        for sid, queue in session.outbox.items()
        if len(queue.posts) > rules.held_messages or (len(queue.posts) > 1 and queue.size > rules.held_bytes)
    ]


def _waiting(session: Session, fresh: dict[str, list[tuple[int, Outgoing]]]) -> Session:
    """The session in which these wait too, by sid; an event costs each callback what waits for that one alone."""
    if not fresh:
        return session
    outbox = dict(session.outbox)
    for sid, posts in fresh.items():
        queue = outbox.get(sid, NOTHING)
        size = queue.size + sum(len(post.frame) for _, post in posts)
        outbox[sid] = Queue({**queue.posts, **dict(posts)}, size)
    return replace(session, outbox=outbox)


def _in_order(session: Session, sids: Iterable[str]) -> list[tuple[int, Outgoing]]:
    """What waits for these subscriptions, as it was sent."""
    waiting = [item for sid in sids for item in session.outbox[sid].posts.items()]
    return sorted(waiting, key=lambda item: item[0])


def _post(session: Session, number: int, post: Outgoing) -> Post:
    subscription = session.subscriptions[post.sid]
    callback, secret, who = subscription.callback, subscription.secret, subscription.subscriber
    return Post(_key(session), number, post.sid, callback, secret, post.frame, who)


def _key(session: Session) -> SessionKey:
    return SessionKey(session.realm, session.topic)
