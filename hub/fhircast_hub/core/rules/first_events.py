"""Subscribers that were sent nothing yet (SES-8): nobody can say whether they follow.

`Session.sent_nothing` is empty most of the time. So an event costs no look at its subscribers.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from fhircast_hub.core.state.effects import Effect, Post, Send
from fhircast_hub.core.state.session import Session, Subscription


def await_first(session: Session, subscription: Subscription) -> Session:
    """The session after a subscription connects for the first time: no event was sent to the subscriber."""
    return replace(session, sent_nothing=session.sent_nothing | {subscription.subscription_id})


def note_sent(session: Session, effects: Iterable[Effect]) -> Session:
    """The session after these effects. Frames that nobody acknowledges do not count.

    Subscriptions that are gone leave `sent_nothing` too.
    """
    waiting = {
        id_: subscription.connection
        for id_ in session.sent_nothing
        if (subscription := session.subscriptions.get(id_)) is not None
    }
    names = set(waiting.values())
    for effect in effects:
        if isinstance(effect, Send) and effect.event_ref is not None and not names.isdisjoint(effect.to):
            names.difference_update(effect.to)
        elif isinstance(effect, Post):
            waiting.pop(effect.subscription_id, None)
    left = frozenset(id_ for id_, connection in waiting.items() if connection in names)
    return session if left == session.sent_nothing else replace(session, sent_nothing=left)
