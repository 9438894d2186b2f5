"""The invariants at clients: for each received frame, and at rest, when all sent frames have arrived."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from fhircast_hub.acknowledgements.tracker import Policy
from fhircast_hub.core.rules.contexts import current_context
from tests.simulation.posts import FULL, TYPES, rfc3339
from tests.simulation.shown import is_blind
from tests.simulation.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.clients import Client
    from tests.simulation.network import Link
    from tests.simulation.sockets import Socket
    from tests.simulation.world import World

#: Seconds that a report may be late: the hub collects missed acknowledgements, and nodes decide again after conflicts.
SLACK = 2.0


# Frame by frame


def frames_arrive_between_confirmation_and_denial(
    client: Client, link: Link, number: int, frame: dict[str, Any]
) -> None:
    """SUB-3, LEA-4, UNS-6: the first frame is a confirmation, and the last a denial."""
    mode = frame.get("hub.mode")
    if link.denied:
        raise Violation(
            "frames_arrive_between_confirmation_and_denial", f"client {client.number}: {frame} after a denial"
        )
    if link.granted is None and mode != "subscribe":
        raise Violation("frames_arrive_between_confirmation_and_denial", f"client {client.number}: first came {frame}")
    link.denied = mode == "denied"
    if mode == "subscribe":
        link.granted = frozenset(frame["hub.events"].lower().split(","))


def only_granted_events_arrive(client: Client, link: Link, number: int, frame: dict[str, Any]) -> None:
    """EVT-11, EVT-12, AUT-4, DER-4: an event arrives only where it was asked for, confirmed and may be read."""
    event = frame.get("event")
    key = event["hub.event"].lower() if event else ""
    for name in (key,) if key else link.granted or ():
        if not client.token.reads(name) or name not in client.asked or (link.granted and name not in link.granted):
            raise Violation("only_granted_events_arrive", f"client {client.number}: {name}")
    topic = event["hub.topic"] if event else frame["hub.topic"]
    if topic != client.behaviour.topic:
        raise Violation("only_granted_events_arrive", f"client {client.number}: {frame} is of another session")


def frames_arrive_in_commit_order(client: Client, link: Link, number: int, frame: dict[str, Any]) -> None:
    """EVT-13, EVT-14: frames arrive at a socket in the order of commits, on every node."""
    if number < link.newest:
        raise Violation(
            "frames_arrive_in_commit_order", f"client {client.number}: {frame} of {number} after {link.newest}"
        )
    link.newest = number


ON_EACH_FRAME: tuple[Callable[[Client, Link, int, dict[str, Any]], None], ...] = (
    frames_arrive_between_confirmation_and_denial,
    only_granted_events_arrive,
    frames_arrive_in_commit_order,
)


# At rest


def followers_show_the_current_context(world: World, client: Client, socket: Socket) -> None:
    """CTX, SUB-12, EVT-1, GET: a connected client that has received all frames shows the hub's current context."""
    topic = world.oracle.topics[client.behaviour.topic]
    events = topic.subs[socket.subscription_id].events
    picture, current = client.picture, topic.current
    everything = (
        all(f"{type_}-{verb}" in events for type_ in TYPES for verb in ("open", "close")) and "home-open" in events
    )
    if current and f"{current.partition('/')[0]}-open" in events:
        if picture.current != current:
            raise Violation(
                "followers_show_the_current_context",
                f"client {client.number} shows {picture.current!r}, and {current!r} is current",
            )
    # After a renewal with more events, an earlier derived open may be shown whose source's close was not sent.
    elif (
        not current and everything and not picture.renewed and picture.current and picture.current not in topic.contexts
    ):
        raise Violation(
            "followers_show_the_current_context", f"client {client.number} shows {picture.current!r}, and nothing is"
        )


def no_closed_context_is_shown(world: World, client: Client, socket: Socket) -> None:
    """CTX-2, SUB-12: a client with closes shows no closed context."""
    topic = world.oracle.topics[client.behaviour.topic]
    for ref in client.picture.contexts:
        if not topic.is_open(ref):
            raise Violation("no_closed_context_is_shown", f"client {client.number} shows {ref}, which is closed")


def no_ended_derived_open_is_shown(world: World, client: Client, socket: Socket) -> None:
    """DER-9, SUB-12: a client with opens and closes of a type does not show an ended derived open of the type.

    Three kinds of clients are left out: they refused an open, changed their events, or have closes of a type and no opens.
    For the last kind the source's close says enough (DER-9).
    """
    topic = world.oracle.topics[client.behaviour.topic]
    sub = topic.subs[socket.subscription_id]
    if sub.refused or client.picture.has_renewed or is_blind(sub.events):
        return
    for type_, last in client.picture.last.items():
        own = last.ref if last.ref and not last.by and {f"{type_}-open", f"{type_}-close"} <= sub.events else ""
        if own and not topic.is_open(own):
            raise Violation("no_ended_derived_open_is_shown", f"client {client.number} was told {own} last")


def shared_content_is_the_same(world: World, client: Client, socket: Socket) -> None:
    """CON-2, CON-10, SUB-12: updates applied one after the other give the hub's version and its content."""
    topic = world.oracle.topics[client.behaviour.topic]
    for ref, known in client.picture.contexts.items():
        context = topic.contexts.get(ref)
        if context is None or known.version is None:
            continue
        if known.version not in context.since_open or len(topic.changes) > world.script.rules.retained_messages:
            continue  # an open was missed, or an update that is not retained any more (SUB-12)
        if known.version != context.version:
            raise Violation(
                "shared_content_is_the_same",
                f"client {client.number} has {known.version} of {ref}, the hub {context.version}",
            )
        if known.content is not None and known.content != context.content:
            raise Violation(
                "shared_content_is_the_same",
                f"client {client.number} has {known.content} in {ref}, the hub {context.content}",
            )


OF_EACH_FOLLOWER: tuple[Callable[[World, Client, Socket], None], ...] = (
    followers_show_the_current_context,
    no_closed_context_is_shown,
    no_ended_derived_open_is_shown,
    shared_content_is_the_same,
)


def silence_is_reported(world: World) -> None:
    """SYN-4, SYN-6: a missing acknowledgement is reported soon, if it was expected."""
    timeout, now = world.script.rules.ack_timeout, world.clock.now
    if world.script.policy is Policy.OFF:
        return
    for socket in world.sockets.values():
        since = 0.0 if world.script.policy is Policy.STRICT or socket.acknowledged_before else socket.answers_since
        gone = socket.ended_at[0] if socket.ended_at else now
        for sent in socket.ledger:
            due = sent.at + timeout
            if not sent.event_ref.reportable or since is None or sent.at < since or due + SLACK > min(gone, now):
                continue
            if sent.answered is not None and sent.answered <= due + 0.2:
                continue
            if socket.unsubscribed_at is not None and socket.unsubscribed_at <= due + SLACK:
                continue
            if not any(due <= at <= due + SLACK for at in socket.missed_acks):
                raise Violation(
                    "silence_is_reported", f"{socket.name} did not answer {sent.event_ref.name} at {sent.at:.3f}"
                )


def refusals_are_reported(world: World) -> None:
    """SYN-1: an acknowledgement whose status is not 2xx is reported."""
    for socket in world.sockets.values():
        for sent in socket.ledger:
            if (
                sent.refused is None
                or sent.reported
                or not sent.event_ref.reportable
                or socket.unsubscribed_at is not None
            ):
                continue
            if sent.refused <= sent.at + world.script.rules.ack_timeout and sent.refused + SLACK < world.clock.now:
                raise Violation("refusals_are_reported", f"{socket.name} refused {sent.event_ref.name}")


def nothing_is_overdue(world: World) -> None:
    """LEA-4, SUB-14, SYN-7: leases, grace periods and times to connect end when they are due."""
    now = world.clock.now
    for name, topic in world.oracle.topics.items():
        for sub in topic.subs.values():
            connect_by = sub.since + world.script.rules.connect_timeout if sub.never_connected else sub.expires
            for what, at in (
                ("lease", sub.expires),
                ("grace", sub.reconnect_deadline or now),
                ("connection", connect_by),
            ):
                if at + SLACK < now:
                    raise Violation(
                        "nothing_is_overdue", f"{name}: the {what} of {sub.subscription_id} was due at {rfc3339(at)}"
                    )


def lost_sockets_are_noticed(world: World) -> None:
    """SYN-7, SUB-23: a subscription does not keep a socket that has ended."""
    for socket in world.sockets.values():
        if socket.ended_at is None or socket.ended_at[0] + SLACK > world.clock.now:
            continue
        topic = world.oracle.topics.get(socket.topic)
        sub = topic.subs.get(socket.subscription_id) if topic else None
        if sub is not None and sub.connection == socket.name:
            raise Violation(
                "lost_sockets_are_noticed", f"{socket.name} is gone, and {sub.subscription_id} has it still"
            )


def get_matches_the_current_context(world: World) -> None:
    """GET-2 to GET-7, CON-4, CON-5: the current context, its version and its content."""
    for name, topic in world.oracle.topics.items():
        found = get(world, name)
        context = topic.contexts.get(topic.current)
        expected = (context.ref, context.version, context.content) if context else None
        if found != expected:
            raise Violation("get_matches_the_current_context", f"{found}, and it is {expected}")


AT_REST: tuple[Callable[[World], None], ...] = (
    silence_is_reported,
    refusals_are_reported,
    nothing_is_overdue,
    lost_sockets_are_noticed,
    get_matches_the_current_context,
)


def get(world: World, name: str) -> tuple[str, str, dict[str, int]] | None:
    """The current context of a topic, its version and its content, as GET says."""
    session, _ = world.store.load(name)
    if session is None:
        return None
    owner = FULL._replace(user=session.owner).principal()
    answer = msgspec.json.decode(current_context(session, owner, name, world.script.rules))
    if not answer["context.type"]:
        return None
    *_, content = answer["context"]
    shared = {
        f"{entry['resource']['resourceType'].lower()}/{entry['resource']['id']}": entry["resource"]["value"]
        for entry in content["resource"].get("entry", ())
    }
    type_ = answer["context.type"].lower()
    anchor = next(item for item in answer["context"] if item["key"] == TYPES[type_][1])
    return f"{type_}/{anchor['resource']['id']}", answer["context.versionId"], shared


def check_at_rest(world: World) -> None:
    """Check the invariants at rest; those of each follower for clients that have received all frames."""
    if not all(node.up for node in world.nodes) or world.risen + SLACK > world.clock.now:
        return
    for each in AT_REST:
        each(world)
    done = len(world.store.commits)
    if any(node.up and node.followed < done for node in world.nodes):
        return
    for client in world.clients:
        link = client.link
        socket = world.socket_of(link) if link is not None else None
        if link is None or socket is None or link.broken or not link.idle or socket.queue or not link.reading:
            continue
        topic = world.oracle.topics.get(socket.topic)
        sub = topic.subs.get(socket.subscription_id) if topic else None
        if sub is not None and sub.connection == socket.name and socket.ended_at is None and link.granted == sub.events:
            for follows in OF_EACH_FOLLOWER:
                follows(world, client, socket)
