"""Webhooks (FHIRcast STU2, 2.4 and 2.5): callbacks are verified, and receive by POST what sockets receive as frames.

A verified callback is in the audiences like a socket, under a connection name of its own. Its posts stay in the session's
outbox until the callback has answered, so that they survive the hub's process. A post is retried in `webhook/deliver.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.env import Env
from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules import audiences, last_opens
from fhircast_hub.core.rules.joining import last_opened_on_joining, last_opened_on_return, possibly_shown
from fhircast_hub.core.state.effects import Effect, EndWebhook, Post, Send, Verify
from fhircast_hub.core.state.session import Outcome, Outgoing, Queue, Session, Subscription

#: Prefix of callbacks' connection names.
CONNECTION_PREFIX = "hook-"
#: The queue of a callback that has answered everything.
_EMPTY = Queue()

#: Posts with their numbers.
_Posts = list[tuple[int, Outgoing]]


def connection_name(subscription_id: str) -> str:
    """The connection name of the subscription's callback."""
    return CONNECTION_PREFIX + subscription_id


def verify(session: Session, subscription: Subscription, now: float) -> Verify:
    """Ask the callback: "The Hub SHALL verify a subscription request by sending an HTTPS GET request" (STU2)."""
    return Verify(
        _key(session),
        subscription.subscription_id,
        subscription.callback,
        subscription.events,
        lease=max(1, int(subscription.expires - now)),
        subscriber=subscription.subscriber,
    )


def superseded(session: Session, newcomer: Subscription) -> list[Subscription]:
    """The older subscriptions that end once `newcomer` is verified: those of the same application and callback (WHK-12)."""
    application_and_callback = newcomer.application, newcomer.callback
    others = session.subscriptions.values() if newcomer.callback else ()
    return [
        other
        for other in others
        if (other.application, other.callback) == application_and_callback
        and other.subscription_id != newcomer.subscription_id
    ]


def take_over_posts(session: Session, active: Subscription) -> Session:
    """Give `active` the unanswered posts of the subscriptions that it supersedes (WHK-12)."""
    ids = {other.subscription_id for other in superseded(session, active)} & session.outbox.keys()
    if not ids:
        return session
    posts = [
        (number, replace(post, subscription_id=active.subscription_id)) for number, post in _in_order(session, ids)
    ]
    outbox = {id_: queue for id_, queue in session.outbox.items() if id_ not in ids}
    return _add_posts(replace(session, outbox=outbox), {active.subscription_id: posts})


def end_webhook(session: Session, subscription: Subscription, reason: str = "") -> EndWebhook:
    """The effect that cancels verification and posts of `subscription`, which is about to be removed.

    A callback that has not confirmed the subscription is sent no denial (WHK-3).
    """
    return EndWebhook(
        _key(session),
        subscription.subscription_id,
        frozenset(session.outbox.get(subscription.subscription_id, _EMPTY).posts),
        subscription.callback,
        subscription.events,
        reason="" if subscription.never_connected else reason,
        subscriber=subscription.subscriber,
    )


def cancel_open_verifications(
    before: Session | None, after: Session | None, effects: tuple[Effect, ...]
) -> tuple[EndWebhook, ...]:
    """Cancel the running verifications of callbacks whose subscription is gone. So verifications cannot pile up.

    Subscriptions that `effects` already end are left out.
    """
    if before is None or (after is not None and after.subscriptions is before.subscriptions):
        return ()
    left = after.subscriptions if after else {}
    ended = {effect.subscription_id for effect in effects if isinstance(effect, EndWebhook)}
    return tuple(
        end_webhook(before, other)
        for id_, other in before.subscriptions.items()
        if other.callback and other.never_connected and id_ not in left and id_ not in ended
    )


def remove(session: Session, subscription: Subscription) -> Session:
    """Remove the callback's connection and its posts."""
    outbox = {id_: queue for id_, queue in session.outbox.items() if id_ != subscription.subscription_id}
    return replace(session, webhook_connections=session.webhook_connections - {subscription.connection}, outbox=outbox)


def take_post(session: Session, number: int) -> tuple[Session, Outgoing | None]:
    """Remove the post of this number. Returns the session without the post, and the post. None: the outbox has no such post."""
    found = next(((id_, queue) for id_, queue in session.outbox.items() if number in queue.posts), None)
    if found is None:
        return session, None
    id_, queue = found
    post = queue.posts[number]
    posts = {other: each for other, each in queue.posts.items() if other != number}
    outbox = {**session.outbox, id_: Queue(posts, queue.size - len(post.frame))}
    if not posts:
        del outbox[id_]
    return replace(session, outbox=outbox), post


def resume(session: Session, env: Env) -> tuple[Session, tuple[Effect, ...]]:
    """Continue after a restart of the hub: verify unverified callbacks again, and post the outbox again.

    Verified callbacks have received all open contexts, or the outbox has them.
    """
    for subscription in session.subscriptions.values():
        if subscription.callback and not subscription.never_connected:
            session = _rejoin(session, subscription, env.rules)
    return session, unfinished(session, env.now)


def claim(before: Session | None, session: Session, effects: tuple[Effect, ...], env: Env) -> Session:
    """The session with its poster: one node at a time works for its callbacks (NOD-3).

    The first node that has work for them is the poster until the last callback is gone, or the node is.
    A new poster carries out the effects of this change, even where the change removes the last callback.
    """
    if not env.node:
        return session
    if not session.poster:
        has_work = any(isinstance(effect, Verify | Post | EndWebhook) for effect in effects)
        return replace(session, poster=env.node) if has_work else session
    is_new = before is not None and session.poster != before.poster
    return session if is_new or _has_callbacks(session) else replace(session, poster="")


def _has_callbacks(session: Session) -> bool:
    return bool(session.webhook_connections) or any(other.callback for other in session.subscriptions.values())


def resume_posts(session: Session | None, env: Env) -> Outcome:
    """Begin the unfinished work anew, where the node that decides is the poster. Others change nothing."""
    if session is None or session.poster != env.node:
        return Outcome(session)
    return Outcome(session, unfinished(session, env.now))


def unfinished(session: Session, now: float) -> tuple[Effect, ...]:
    """The work for callbacks that another process began, once more: verifications, then all posts of the outbox in order."""
    verifications = [
        verify(session, subscription, now)
        for subscription in session.subscriptions.values()
        if subscription.callback and subscription.never_connected
    ]
    posts = _in_order(session, session.outbox.keys())
    return (*verifications, *(_post(session, number, post) for number, post in posts))


def posts_all(session: Session, effects: Iterable[Effect]) -> bool:
    """Whether `effects` post everything that the outbox holds: nothing older waits for a node to begin its posts."""
    return waiting_posts(session) <= {effect.number for effect in effects if isinstance(effect, Post)}


def waiting_posts(session: Session) -> frozenset[int]:
    """Numbers of the posts that the session's callbacks have not answered."""
    return frozenset(number for queue in session.outbox.values() for number in queue.posts)


def _rejoin(session: Session, subscription: Subscription, rules: Rules) -> Session:
    """Add a verified callback to the audiences again."""
    keys = subscription.keys
    joiner_last_opened = last_opened_on_joining(session, keys, rules)
    shown = possibly_shown(session, keys, joiner_last_opened)
    last_opened = last_opened_on_return(session, keys, joiner_last_opened, shown)
    # The callback may show something else than a joiner: the next open is sent in any case (DER-3).
    last_opened = last_opens.all_in_doubt(last_opened)
    return replace(
        session,
        audiences=audiences.with_connection(session.audiences, subscription.connection, keys, last_opened),
        webhook_connections=session.webhook_connections | {subscription.connection},
    )


def queue_posts(session: Session, effects: tuple[Effect, ...]) -> tuple[Session, tuple[Effect, ...]]:
    """Turn each Send to callbacks into posts: entries of the outbox, and Post effects. All other effects stay.

    Frames that nobody acknowledges are not posted.
    """
    done: list[Effect] = []
    added: dict[str, _Posts] = {}
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
                post = Outgoing(name.removeprefix(CONNECTION_PREFIX), effect.event_ref, effect.frame)
                added.setdefault(post.subscription_id, []).append((number, post))
                done.append(_post(session, number, post))
    return _add_posts(replace(session, last_post_number=number), added), tuple(done)


def overflowing(session: Session, rules: Rules) -> list[Subscription]:
    """The webhooks with more unanswered posts than `retained_messages` or `retained_bytes` allow.

    A single post may be longer.
    """
    return [
        session.subscriptions[id_]
        for id_, queue in session.outbox.items()
        if len(queue.posts) > rules.retained_messages or (len(queue.posts) > 1 and queue.size > rules.retained_bytes)
    ]


def _add_posts(session: Session, added: dict[str, _Posts]) -> Session:
    """Add posts to the outbox, by subscription_id. Only the queues of these subscriptions are copied."""
    if not added:
        return session
    outbox = dict(session.outbox)
    for id_, posts in added.items():
        queue = outbox.get(id_, _EMPTY)
        size = queue.size + sum(len(post.frame) for _, post in posts)
        outbox[id_] = Queue({**queue.posts, **dict(posts)}, size)
    return replace(session, outbox=outbox)


def _in_order(session: Session, subscription_ids: Iterable[str]) -> _Posts:
    """The unanswered posts of these subscriptions, by number."""
    posts = [item for id_ in subscription_ids for item in session.outbox[id_].posts.items()]
    return sorted(posts, key=lambda item: item[0])


def _post(session: Session, number: int, post: Outgoing) -> Post:
    subscription = session.subscriptions[post.subscription_id]
    callback, secret, user = subscription.callback, subscription.secret, subscription.subscriber
    return Post(_key(session), number, post.subscription_id, callback, secret, post.frame, user)


def _key(session: Session) -> SessionKey:
    return SessionKey(session.realm, session.topic)
