"""Webhooks (FHIRcast STU2, 2.4 and 2.5): callbacks that are posted to what sockets are sent.

A verified callback is in the audiences like a socket, under a name of its own. What is sent to it stays in the session's outbox
until the callback has answered, so that it survives the hub's process.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.env import Env
from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules import audiences, last_opens
from fhircast_hub.core.rules.joining import last_opened_on_joining, last_opened_on_return, possibly_shown
from fhircast_hub.core.state.effects import Effect, EndWebhook, Post, Send, Verify, WebhookEffect
from fhircast_hub.core.state.session import Outgoing, Queue, Session, Subscription

_PREFIX = "hook-"
#: The queue of a callback that has answered everything.
NOTHING = Queue()


def connection(subscription_id: str) -> str:
    """What the callback of the subscription `subscription_id` is called among the connections."""
    return _PREFIX + subscription_id


def verify(session: Session, subscription: Subscription, now: float) -> Verify:
    """Ask the callback: "the Hub SHALL verify the intent of the subscriber" (STU2)."""
    lease = max(1, int(subscription.expires - now))
    who = subscription.subscriber
    return Verify(_key(session), subscription.subscription_id, subscription.callback, subscription.events, lease, who)


def predecessors(session: Session, newcomer: Subscription) -> list[Subscription]:
    """The subscriptions whose place the newcomer takes: of the same application, with the same callback (WHK-12)."""
    mine = newcomer.application, newcomer.callback
    others = session.subscriptions.values() if newcomer.callback else ()
    return [
        other
        for other in others
        if (other.application, other.callback) == mine and other.subscription_id != newcomer.subscription_id
    ]


def inherited(session: Session, active: Subscription) -> Session:
    """The session in which `active` has taken over what its predecessors have not been posted yet."""
    subscription_ids = {other.subscription_id for other in predecessors(session, active)} & session.outbox.keys()
    if not subscription_ids:
        return session
    posts = [
        (number, replace(post, subscription_id=active.subscription_id))
        for number, post in _in_order(session, subscription_ids)
    ]
    session = replace(
        session,
        outbox={
            subscription_id: queue
            for subscription_id, queue in session.outbox.items()
            if subscription_id not in subscription_ids
        },
    )
    return _waiting(session, {active.subscription_id: posts})


def drop(session: Session, subscription: Subscription, reason: str = "") -> EndWebhook:
    """What ends the posts of `subscription`, which is about to go.

    A callback that never said that it wants the subscription is not told of its end (WHK-3).
    """
    numbers = frozenset(session.outbox.get(subscription.subscription_id, NOTHING).posts)
    reason = "" if subscription.never_connected else reason
    callback, who = subscription.callback, subscription.subscriber
    return EndWebhook(_key(session), subscription.subscription_id, numbers, callback, subscription.events, reason, who)


def cancel_open_verifications(
    before: Session | None, after: Session | None, effects: tuple[Effect, ...]
) -> tuple[EndWebhook, ...]:
    """What ends the questions to callbacks whose subscriptions went before they were verified, however they went: else who
    subscribes without end has ever more of them hanging."""
    if before is None or (after is not None and after.subscriptions is before.subscriptions):
        return ()
    left = after.subscriptions if after else {}
    known = {effect.subscription_id for effect in effects if isinstance(effect, EndWebhook)}
    return tuple(
        drop(before, other)
        for subscription_id, other in before.subscriptions.items()
        if other.callback and other.never_connected and subscription_id not in left and subscription_id not in known
    )


def dropped(session: Session, subscription: Subscription) -> Session:
    """The session with nothing left to post for `subscription`."""
    outbox = {
        subscription_id: queue
        for subscription_id, queue in session.outbox.items()
        if subscription_id != subscription.subscription_id
    }
    return replace(session, webhook_connections=session.webhook_connections - {subscription.connection}, outbox=outbox)


def taken(session: Session, number: int) -> tuple[Session, Outgoing | None]:
    """The session without the post of this number, and that post, if it waits."""
    found = next(
        ((subscription_id, queue) for subscription_id, queue in session.outbox.items() if number in queue.posts), None
    )
    if found is None:
        return session, None
    subscription_id, queue = found
    post = queue.posts[number]
    posts = {other: one for other, one in queue.posts.items() if other != number}
    outbox = {**session.outbox, subscription_id: Queue(posts, queue.size - len(post.frame))}
    if not posts:
        del outbox[subscription_id]
    return replace(session, outbox=outbox), post


def resumed(session: Session, env: Env) -> tuple[Session, tuple[Effect, ...]]:
    """The hub's process is new: callbacks go on where they were. All that is open was posted to them, or waits to be."""
    effects: list[WebhookEffect] = []
    for subscription in session.subscriptions.values():
        if subscription.callback and subscription.never_connected:
            effects.append(verify(session, subscription, env.now))
        elif subscription.callback:
            # The callback may show something else than a joiner: the next open is told in any case (DER-3).
            keys = subscription.keys
            last_opened = last_opened_on_joining(session, keys, env.rules)
            last_opened = last_opened_on_return(session, keys, last_opened, possibly_shown(session, keys, last_opened))
            last_opened = last_opens.all_in_doubt(last_opened)
            joined = audiences.with_connection(session.audiences, subscription.connection, keys, last_opened)
            session = replace(
                session, audiences=joined, webhook_connections=session.webhook_connections | {subscription.connection}
            )
    posts = _in_order(session, session.outbox.keys())
    return session, (*effects, *(_post(session, number, post) for number, post in posts))


def post(session: Session, effects: tuple[Effect, ...]) -> tuple[Session, tuple[Effect, ...]]:
    """What was to be sent to callbacks is put into the outbox, and to be posted."""
    done: list[Effect] = []
    fresh: dict[str, list[tuple[int, Outgoing]]] = {}
    number = session.last_post_number
    for effect in effects:
        if not isinstance(effect, Send) or session.webhook_connections.isdisjoint(effect.to):
            done.append(effect)
            continue
        if sockets := tuple(name for name in effect.to if name not in session.webhook_connections):
            done.append(Send(sockets, effect.frame, effect.event_ref))
        for name in effect.to:
            if name in session.webhook_connections and effect.event_ref is not None:
                number += 1
                post = Outgoing(name.removeprefix(_PREFIX), effect.event_ref, effect.frame)
                fresh.setdefault(post.subscription_id, []).append((number, post))
                done.append(_post(session, number, post))
    return _waiting(replace(session, last_post_number=number), fresh), tuple(done)


def overflowing(session: Session, rules: Rules) -> list[Subscription]:
    """The webhooks for which more waits than may."""
    return [
        session.subscriptions[subscription_id]
        for subscription_id, queue in session.outbox.items()
        if len(queue.posts) > rules.retained_messages or (len(queue.posts) > 1 and queue.size > rules.retained_bytes)
    ]


def _waiting(session: Session, fresh: dict[str, list[tuple[int, Outgoing]]]) -> Session:
    """The session in which these wait too, by sid; an event costs each callback what waits for that one alone."""
    if not fresh:
        return session
    outbox = dict(session.outbox)
    for subscription_id, posts in fresh.items():
        queue = outbox.get(subscription_id, NOTHING)
        size = queue.size + sum(len(post.frame) for _, post in posts)
        outbox[subscription_id] = Queue({**queue.posts, **dict(posts)}, size)
    return replace(session, outbox=outbox)


def _in_order(session: Session, subscription_ids: Iterable[str]) -> list[tuple[int, Outgoing]]:
    """What waits for these subscriptions, as it was sent."""
    waiting = [item for subscription_id in subscription_ids for item in session.outbox[subscription_id].posts.items()]
    return sorted(waiting, key=lambda item: item[0])


def _post(session: Session, number: int, post: Outgoing) -> Post:
    subscription = session.subscriptions[post.subscription_id]
    callback, secret, who = subscription.callback, subscription.secret, subscription.subscriber
    return Post(_key(session), number, post.subscription_id, callback, secret, post.frame, who)


def _key(session: Session) -> SessionKey:
    return SessionKey(session.realm, session.topic)
