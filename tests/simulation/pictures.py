"""What must hold of all that reached clients: frame by frame, and once everything that was said has arrived."""

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

#: Seconds that a report may take from when it is due: the hub collects silences, and nodes decide anew.
SLACK = 2.0


# Frame by frame


def frames_come_between_confirmation_and_end(client: Client, link: Link, number: int, frame: dict[str, Any]) -> None:
    """SUB-3, LEA-4, UNS-6: the first frame is a confirmation, and the last a denial."""
    mode = frame.get("hub.mode")
    if link.denied:
        raise Violation("frames_come_between_confirmation_and_end", f"client {client.number}: {frame} after a denial")
    if link.granted is None and mode != "subscribe":
        raise Violation("frames_come_between_confirmation_and_end", f"client {client.number}: first came {frame}")
    link.denied = mode == "denied"
    if mode == "subscribe":
        link.granted = frozenset(frame["hub.events"].lower().split(","))


def nobody_hears_what_is_not_theirs(client: Client, link: Link, number: int, frame: dict[str, Any]) -> None:
    """EVT-11, EVT-12, AUT-4, DER-4: an event comes to those to whom it was confirmed, who asked for it and may read it."""
    event = frame.get("event")
    key = event["hub.event"].lower() if event else ""
    for name in (key,) if key else link.granted or ():
        if not client.token.reads(name) or name not in client.asked or (link.granted and name not in link.granted):
            raise Violation("nobody_hears_what_is_not_theirs", f"client {client.number}: {name}")
    topic = event["hub.topic"] if event else frame["hub.topic"]
    if topic != client.temper.topic:
        raise Violation("nobody_hears_what_is_not_theirs", f"client {client.number}: {frame} is of another session")


def frames_come_in_the_one_order(client: Client, link: Link, number: int, frame: dict[str, Any]) -> None:
    """EVT-13, EVT-14: what comes to a socket is in the order in which it was decided, on every node."""
    if number < link.newest:
        raise Violation(
            "frames_come_in_the_one_order", f"client {client.number}: {frame} of {number} after {link.newest}"
        )
    link.newest = number


ON_EACH_FRAME: tuple[Callable[[Client, Link, int, dict[str, Any]], None], ...] = (
    frames_come_between_confirmation_and_end,
    nobody_hears_what_is_not_theirs,
    frames_come_in_the_one_order,
)


# At rest


def who_follows_shows_the_current_context(world: World, client: Client, socket: Socket) -> None:
    """CTX, SUB-12, EVT-1, GET: whoever is connected and has all that was sent to it shows what the hub says is current."""
    topic = world.oracle.topics[client.temper.topic]
    events = topic.subs[socket.subscription_id].events
    picture, current = client.picture, topic.current
    everything = (
        all(f"{type_}-{verb}" in events for type_ in TYPES for verb in ("open", "close")) and "home-open" in events
    )
    if current and f"{current.partition('/')[0]}-open" in events:
        if picture.current != current:
            raise Violation(
                "who_follows_shows_the_current_context",
                f"client {client.number} shows {picture.current!r}, and {current!r} is current",
            )
    # Whoever asks for more at last may have been told a derived open before, and never the close of its source.
    elif (
        not current and everything and not picture.renewed and picture.current and picture.current not in topic.contexts
    ):
        raise Violation(
            "who_follows_shows_the_current_context", f"client {client.number} shows {picture.current!r}, and nothing is"
        )


def nothing_closed_is_shown(world: World, client: Client, socket: Socket) -> None:
    """CTX-2, SUB-12: whoever was told an open, and asked for closes, shows nothing that was closed."""
    topic = world.oracle.topics[client.temper.topic]
    for ref in client.picture.contexts:
        if not topic.is_open(ref):
            raise Violation("nothing_closed_is_shown", f"client {client.number} shows {ref}, which is closed")


def nobody_stays_with_what_was_derived(world: World, client: Client, socket: Socket) -> None:
    """DER-9, SUB-12: a client that was told an open last, and asked for its closes, is told when nothing of the kind is open any more.

    Three kinds of clients are left out: those that refused an open, those that changed their events, and those that are told closes
    of a type and no opens, for which the source's close says all (DER-9).
    """
    topic = world.oracle.topics[client.temper.topic]
    sub = topic.subs[socket.subscription_id]
    if sub.refused or client.picture.has_renewed or is_blind(sub.events):
        return
    for type_, last in client.picture.last.items():
        own = last.ref if last.ref and not last.by and {f"{type_}-open", f"{type_}-close"} <= sub.events else ""
        if own and not topic.is_open(own):
            raise Violation("nobody_stays_with_what_was_derived", f"client {client.number} was told {own} last")


def shared_content_is_the_same(world: World, client: Client, socket: Socket) -> None:
    """CON-2, CON-10, SUB-12: updates applied one after the other give the hub's version and its content."""
    topic = world.oracle.topics[client.temper.topic]
    for ref, seen in client.picture.contexts.items():
        context = topic.contexts.get(ref)
        if context is None or seen.version is None:
            continue
        if seen.version not in context.since_open or len(topic.changes) > world.script.rules.retained_messages:
            continue  # it was opened again, and that was missed; or an update was, and is not held any more (SUB-12)
        if seen.version != context.version:
            raise Violation(
                "shared_content_is_the_same",
                f"client {client.number} has {seen.version} of {ref}, the hub {context.version}",
            )
        if seen.content is not None and seen.content != context.content:
            raise Violation(
                "shared_content_is_the_same",
                f"client {client.number} has {seen.content} in {ref}, the hub {context.content}",
            )


OF_EACH_WHO_FOLLOWS: tuple[Callable[[World, Client, Socket], None], ...] = (
    who_follows_shows_the_current_context,
    nothing_closed_is_shown,
    nobody_stays_with_what_was_derived,
    shared_content_is_the_same,
)


def silence_is_reported(world: World) -> None:
    """SYN-4, SYN-6: whoever is missed and does not answer in time is reported soon after that."""
    timeout, now = world.script.rules.ack_timeout, world.clock.now
    if world.script.policy is Policy.OFF:
        return
    for socket in world.sockets.values():
        since = 0.0 if world.script.policy is Policy.STRICT or socket.acknowledged_before else socket.answers_since
        gone = socket.gone[0] if socket.gone else now
        for told in socket.ledger:
            due = told.at + timeout
            if not told.event_ref.reportable or since is None or told.at < since or due + SLACK > min(gone, now):
                continue
            if told.answered is not None and told.answered <= due + 0.2:
                continue
            if socket.left_out_at is not None and socket.left_out_at <= due + SLACK:
                continue
            if not any(due <= at <= due + SLACK for at in socket.missed_acks):
                raise Violation(
                    "silence_is_reported", f"{socket.name} did not answer {told.event_ref.name} at {told.at:.3f}"
                )


def refusals_are_reported(world: World) -> None:
    """SYN-1: whoever answers with a status that is not 2xx is reported."""
    for socket in world.sockets.values():
        for told in socket.ledger:
            if told.refused is None or told.reported or not told.event_ref.reportable or socket.left_out_at is not None:
                continue
            if told.refused <= told.at + world.script.rules.ack_timeout and told.refused + SLACK < world.clock.now:
                raise Violation("refusals_are_reported", f"{socket.name} refused {told.event_ref.name}")


def nothing_is_overdue(world: World) -> None:
    """LEA-4, SUB-14, SYN-7: leases end, and the lost are given up, when their time has come."""
    now = world.clock.now
    for name, topic in world.oracle.topics.items():
        for sub in topic.subs.values():
            connect_by = sub.since + world.script.rules.connect_timeout if sub.fresh else sub.expires
            for what, at in (
                ("lease", sub.expires),
                ("grace", sub.reconnect_deadline or now),
                ("connection", connect_by),
            ):
                if at + SLACK < now:
                    raise Violation(
                        "nothing_is_overdue", f"{name}: the {what} of {sub.subscription_id} was due at {rfc3339(at)}"
                    )


def nobody_is_forgotten(world: World) -> None:
    """SYN-7, SUB-23: a socket that is gone counts as gone, and as lost unless it was closed with 1000 or 1001."""
    for socket in world.sockets.values():
        if socket.gone is None or socket.gone[0] + SLACK > world.clock.now:
            continue
        topic = world.oracle.topics.get(socket.topic)
        sub = topic.subs.get(socket.subscription_id) if topic else None
        if sub is not None and sub.connection == socket.name:
            raise Violation("nobody_is_forgotten", f"{socket.name} is gone, and {sub.subscription_id} has it still")


def get_says_what_is_open(world: World) -> None:
    """GET-2 to GET-7, CON-4, CON-5: the current context, its version and its content."""
    for name, topic in world.oracle.topics.items():
        found = get(world, name)
        context = topic.contexts.get(topic.current)
        expected = (context.ref, context.version, context.content) if context else None
        if found != expected:
            raise Violation("get_says_what_is_open", f"{found}, and it is {expected}")


AT_REST: tuple[Callable[[World], None], ...] = (
    silence_is_reported,
    refusals_are_reported,
    nothing_is_overdue,
    nobody_is_forgotten,
    get_says_what_is_open,
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
    """All of the above, of everybody who has all that was sent to them."""
    if not world.nodes[0].up or world.risen + SLACK > world.clock.now:
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
        if sub is not None and sub.connection == socket.name and socket.gone is None and link.granted == sub.events:
            for follows in OF_EACH_WHO_FOLLOWS:
                follows(world, client, socket)
