"""Missed events: closes and updates that a subscription without a socket is sent on its return (SUB-12).

The specification says what a new subscriber is sent: "the most recent *-open event per anchor type for which no *-close event has
occurred" (FHIRcast 3.0.0, 2.4). A joiner is a new subscriber (joining.py). A replay is its current context notification.

A subscriber that reconnects also shows contexts from before. Without closes of these contexts, the subscriber would go on showing
them. So the hub retains closes and updates, in `Session.retained`, until each subscription has received them.

Example: a viewer loses its socket at 10:00:05. Its last acknowledgement came at 10:00:02.
1.  Patient-close p1 is accepted at 10:00:04 and written to the socket. Nobody knows whether the frame arrived.
2.  Patient-close p2 is accepted at 10:00:07.
3.  The viewer is back at 10:00:20. Its socket is sent the closes of p1 and p2, then a replay.

Times of delivery. `delivered_until` says: every frame written to the subscription's sockets before this time has arrived. An
acknowledgement, or an answered ping, moves it on. A frame is written up to HANDOVER_SECONDS after the acceptance of its event.
So a close is sent again if it was accepted later than HANDOVER_SECONDS before `delivered_until`. A close may be heard twice.
Some subscribers would apply an update twice. So an update is sent again only if it was accepted after `delivered_until`.

Retained events are bounded. When they are too many, the oldest are dropped. When a close is dropped, `Session.dropped_closes`
keeps its context. For this context the hub makes a new close when a subscription returns.
Posts to callbacks are not retained here: they wait in the outbox (webhook_outbox.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from msgspec.structs import replace

from fhircast_hub.core.env import Env
from fhircast_hub.core.limits import FORGETTING_SECONDS, HANDOVER_SECONDS, REMEMBERED_CLOSES, Rules
from fhircast_hub.core.rules.joining import implied_refs
from fhircast_hub.core.rules.last_opens import TYPE_INDEX
from fhircast_hub.core.state.effects import EventRef, Message
from fhircast_hub.core.state.session import LastOpened, RetainedEvent, Session, Subscription
from fhircast_hub.core.wire.event_names import anchor_keys, spelling
from fhircast_hub.core.wire.frames import event_frame
from fhircast_hub.core.wire.json import encode
from fhircast_hub.core.wire.timestamps import rfc3339


def retain(session: Session, new_events: Sequence[RetainedEvent], rules: Rules) -> Session:
    """The session with `new_events` retained, all of the same time of acceptance.

    Drops what every subscriber has received. When full, drops the oldest, but remembers which contexts were closed.
    """
    received = _received_by_all_until(session, new_events[0].accepted_at, rules.dead_socket_seconds)
    if received == math.inf:
        return (
            replace(session, retained={}, dropped_closes={}) if session.retained or session.dropped_closes else session
        )
    new = dict(enumerate(new_events, next(reversed(session.retained), 0) + 1))
    kept, dropped_closes = _accepted_since(session, received)
    retained = {**kept, **new}
    size = sum([len(event.frame) for event in retained.values()])
    # An event that is too large by itself is dropped first, so that it does not displace all others.
    too_large = [number for number, event in new.items() if len(event.frame) > rules.retained_bytes]
    dropped: dict[int, RetainedEvent] = {}
    while retained and (size > rules.retained_bytes or len(retained) > rules.retained_messages):
        number = too_large.pop(0) if too_large else next(iter(retained))
        dropped[number] = retained.pop(number)
        size -= len(dropped[number].frame)
    oldest_first = [dropped[number] for number in sorted(dropped)]
    return replace(session, retained=retained, dropped_closes=_with_dropped(dropped_closes, oldest_first))


def drop_delivered(session: Session, env: Env) -> Session:
    """The session without the events that every subscriber has received (OPS-7)."""
    received = (
        _received_by_all_until(session, env.now, env.rules.dead_socket_seconds)
        if session.retained or session.dropped_closes
        else -math.inf
    )
    retained, dropped = _accepted_since(session, received)
    if retained is session.retained and dropped is session.dropped_closes:
        return session
    return replace(session, retained=retained, dropped_closes=dropped)


def _accepted_since(session: Session, at: float) -> tuple[dict[int, RetainedEvent], dict[str, float]]:
    """The retained events and the dropped closes that were accepted at this time (epoch seconds) or later.

    Where all are kept, the dict is the session's own. Retained events are in order: where the first is kept, all are.
    """
    retained, dropped = session.retained, session.dropped_closes
    if retained and next(iter(retained.values())).accepted_at < at:
        retained = {number: event for number, event in retained.items() if event.accepted_at >= at}
    if dropped and min(dropped.values()) < at:
        dropped = {context: accepted_at for context, accepted_at in dropped.items() if accepted_at >= at}
    return retained, dropped


def drop_all(session: Session) -> Session:
    """The session without retained events. The contexts of closes are remembered (LIM-10)."""
    dropped = _with_dropped(session.dropped_closes, session.retained.values())
    return replace(session, retained={}, dropped_closes=dropped)


def next_drop(session: Session, rules: Rules) -> float:
    """When `drop_delivered` will find something, in epoch seconds.

    Infinity while a subscription without a socket has not received everything: its return, or its end, has to come first.
    """
    retained, dropped = (event.accepted_at for event in session.retained.values()), session.dropped_closes.values()
    oldest = min(next(iter(retained), math.inf), next(iter(dropped), math.inf))
    # A living socket proves delivery this long after the event and after its own connection, whichever is later.
    at, delay = oldest, HANDOVER_SECONDS + rules.dead_socket_seconds
    for subscription in _returning_subscriptions(session):
        if oldest >= received_until(subscription.delivered_until):
            at = max(at, subscription.connected_or_lost_at if subscription.connection else math.inf)
    return at + delay + FORGETTING_SECONDS


def received_until(delivered_until: float) -> float:
    """Events accepted before this time were received, if all frames written before `delivered_until` have arrived."""
    return delivered_until - HANDOVER_SECONDS


def known_delivered_until(subscription: Subscription, reported_until: float, env: Env) -> float:
    """The later of two times (epoch seconds): what acknowledgements and pings report, and what a living socket proves.

    A socket that was dead for longer than `dead_socket_seconds` would have been found dead by its pings.
    """
    alive = env.now - env.rules.dead_socket_seconds
    return (
        max(reported_until, alive)
        if subscription.connection and subscription.connected_or_lost_at < alive
        else reported_until
    )


def possibly_missed_closes(session: Session, delivered_until: float) -> set[str]:
    """The refs of the contexts whose closes a subscription with this `delivered_until` may have missed."""
    received = received_until(delivered_until)
    return _dropped_closes_after(session, received).keys() | {
        event.ref for event in session.retained.values() if event.closes and event.accepted_at > received
    }


class _Replay(NamedTuple):
    """The replay that follows the missed events."""

    #: Refs of the contexts that are open, or that the replay opens.
    open_refs: AbstractSet[str]
    #: Refs that an open context names.
    named_refs: AbstractSet[str]
    joiner_last_opened: LastOpened

    def needs_no_close(self, ref: str) -> bool:
        """Whether the replay itself corrects a subscriber that shows this context.

        The replay opens the context, or opens another context of the type while the context is still named.
        """
        type_ = ref.partition("/")[0]
        return ref in self.open_refs or (
            ref in self.named_refs and bool(self.joiner_last_opened[TYPE_INDEX[type_]].ref)
        )


def missed_by(
    session: Session, subscription: Subscription, delivered_until: float, joiner_last_opened: LastOpened, env: Env
) -> list[Message]:
    """The closes and updates that a returning subscription is sent before its replay, oldest first.

    - Events that were accepted while the subscription had no socket.
    - Events that were written to its last socket and may not have arrived.
    - For each dropped close of a context that is closed now: a new close. New closes come first.
    - Not sent: closes that may have arrived, of contexts that are open again. Nor the updates before such closes (SUB-42).
    - Not sent: derived closes of contexts that the replay corrects (DER-20).

    `delivered_until` is the subscription's, in epoch seconds.
    """
    open_refs = session.contexts.keys() | {last.ref for last in joiner_last_opened if not last.named_by}
    replay = _Replay(open_refs, implied_refs(session), joiner_last_opened)
    events = _missed_events(session, subscription, delivered_until, replay, env)
    closed = {event.ref for event in events if event.closes}
    keys = subscription.keys
    new_closes = [
        _new_close(session, type_, id_, env)
        for ref, (type_, id_) in _dropped_closes_after(session, received_until(delivered_until)).items()
        if f"{type_.lower()}-close" in keys and not (ref in closed or replay.needs_no_close(ref))
    ]
    return [*new_closes, *((event.frame, event.event_ref) for event in events)]


def _missed_events(
    session: Session, subscription: Subscription, delivered_until: float, replay: _Replay, env: Env
) -> list[RetainedEvent]:
    """The retained events that a returning subscription is sent, oldest first."""
    lost_at = subscription.connected_or_lost_at if not subscription.connection else env.now
    received, keys = received_until(delivered_until), subscription.keys
    missed: list[RetainedEvent] = []
    closed: set[str] = set()
    reopened: set[str] = set()  # closed before the socket was lost, and open again
    for event in reversed(session.retained.values()):
        was_connected = event.accepted_at < lost_at
        is_derived = bool(event.event)
        if was_connected and event.closes and event.ref in replay.open_refs:
            reopened.add(event.ref)
        elif (
            # A close may be heard twice. Some subscribers would apply an update twice.
            event.accepted_at > (received if event.closes else delivered_until)
            and event.key in keys
            and not (is_derived and (replay.needs_no_close(event.ref) or event.ref in closed))
            and not (was_connected and event.ref in reopened)
        ):
            missed.append(event)
            if event.closes:
                closed.add(event.ref)
    missed.reverse()
    return missed


def _with_dropped(dropped_closes: dict[str, float], events: Iterable[RetainedEvent]) -> dict[str, float]:
    """The dropped closes with those of `events`, which are retained no more. Other events leave no trace."""
    closes = [event for event in events if event.closes]
    if not closes:
        return dropped_closes  # the same object: the store does not write it again
    after = dropped_closes.copy()
    for event in closes:
        context = f"{event.type}/{event.ref.partition('/')[2]}"
        after.pop(context, None)
        after[context] = event.accepted_at
        if len(after) > REMEMBERED_CLOSES:
            del after[next(iter(after))]
    return after


def _dropped_closes_after(session: Session, accepted_at: float) -> dict[str, tuple[str, str]]:
    """The contexts with a dropped close that was accepted after this time: ref -> type (as spelled) and id."""
    dropped = (context.partition("/") for context, at in session.dropped_closes.items() if at > accepted_at)
    return {f"{type_.lower()}/{id_}": (type_, id_) for type_, _, id_ in dropped}


def _received_by_all_until(session: Session, at: float, dead_socket_seconds: float) -> float:
    """As of `at`, every returning subscription has received all events accepted before this time.

    Infinity: there is no such subscription.
    """
    # Sockets that connected before this time have answered a ping since, or were found dead.
    received = proven_until = received_until(at - dead_socket_seconds)
    found = False
    for subscription in _returning_subscriptions(session):
        found = True
        if not subscription.connection or subscription.connected_or_lost_at > proven_until:
            received = min(received, received_until(subscription.delivered_until))
    return received if found else math.inf


def _returning_subscriptions(session: Session) -> Iterator[Subscription]:
    """The subscriptions that had a socket once, and so are sent missed events on a return."""
    return (other for other in session.subscriptions.values() if not (other.never_connected or other.callback))


def _new_close(session: Session, type_: str, id_: str, env: Env) -> Message:
    """A close of the hub's own, in place of a dropped one."""
    key, name, event_id = anchor_keys(type_.lower())[0], spelling(f"{type_}-close"), env.ids.uuid()
    context = encode([{"key": key, "resource": {"resourceType": type_, "id": id_}}])
    frame = event_frame(session.topic, name, event_id, rfc3339(env.now), context)
    return frame, EventRef(event_id, event_id, name)
