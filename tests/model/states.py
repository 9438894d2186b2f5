"""Invariants of states: what holds at any time, and where nothing more can happen."""

from __future__ import annotations

from tests.model import following, node
from tests.model.steps import Room
from tests.model.world import ANEW, DEAD, SENT, TAKEN, UNSENT, UP, World
from tests.simulation.violation import Violation


def accepted_events_stay(room: Room, world: World) -> None:
    """An event that was answered with 202 is in the log for good, also after a failover (NOD-12). An update is there once."""
    if room.scenario.lost_rows:
        return  # this promise is broken then, by the database
    for k, state in enumerate(world.callers):
        if state == TAKEN or room.scenario.updates:
            rows = sum(row.cause.kind == "event" and row.cause.number == k for row in world.log)
            if (state == TAKEN and not rows) or (room.scenario.updates and rows > 1):
                raise Violation("accepted_events_stay", f"event {k} is {rows} times in the log")


def reads_are_fresh(room: Room, world: World) -> None:
    """What a node answers to a read is never older than the last 202 before (NOD-7)."""
    for n, now in enumerate(world.nodes):
        for topic, stored in enumerate(world.sessions):
            entry = now.entries[topic]
            if entry is not None and entry.session != stored.session and node.may_answer(world, n, topic):
                raise Violation("reads_are_fresh", f"{now.name} answers revision {entry.revision} of {stored.revision}")


def followers_were_told_all(room: Room, world: World) -> None:
    """A node that has read the log, and has nothing under way, has told its sockets everything (NOD-5, NOD-11, NOD-14)."""
    for n, now in enumerate(world.nodes):
        if now.life != UP or now.commit or node.is_waited_for(world, now) or following.has_to_read(world, n):
            continue
        for topic, entry in enumerate(now.entries):
            stored = world.sessions[topic]
            if entry is not None and not entry.stale and (entry.revision, entry.session) != stored:
                raise Violation(
                    "followers_were_told_all", f"{now.name} has read the log, and knows {entry} of {stored}"
                )
        for sub in world.subs:
            if sub.node == now.name:
                _was_told_all(room, world, sub.connection, sub.topic, sub.told)


def _was_told_all(room: Room, world: World, connection: str, topic: int, told: int) -> None:
    newest = max(
        (row for row in world.log if row.topic == topic and _says(room, row.effects, connection)), default=None
    )
    if told != (newest.written if newest else 0):
        raise Violation("followers_were_told_all", f"{connection} was told commit {told}, and the newest is {newest}")


def _says(room: Room, effects: int, connection: str) -> bool:
    return connection in room.values.told(effects).frames


def one_node_posts(room: Room, world: World) -> None:
    """A post is under way from one node at a time (NOD-10)."""
    posting = [now.name for now in world.nodes if now.posting]
    if len(posting) > 1:
        raise Violation("one_node_posts", f"{' and '.join(posting)} post at once")


def fenced_nodes_have_no_sockets(room: Room, world: World) -> None:
    """Each socket is at a node that lives under the name that the socket's connection begins with (NOD-8)."""
    names = {now.name for now in world.nodes if now.life != DEAD}
    for sub in world.subs:
        if sub.node and sub.node not in names:
            raise Violation("fenced_nodes_have_no_sockets", f"{sub.connection} is at {sub.node}, which is no node")


IN_EACH_STATE = (
    accepted_events_stay,
    reads_are_fresh,
    followers_were_told_all,
    one_node_posts,
    fenced_nodes_have_no_sockets,
)


def nobody_waits(room: Room, world: World) -> None:
    """Where nothing more can happen, all are answered, and dead nodes were looked after (NOD-1, NOD-9)."""
    if not any(now.life == UP for now in world.nodes):
        return
    for now in world.nodes:
        if now.life == ANEW or (
            now.life != DEAD and (now.commit or node.is_waited_for(world, now) or now.duties or now.own)
        ):
            raise Violation("nobody_waits", f"{now.name} waits for ever")
    if any(state in (UNSENT,) or state >= SENT for state in world.callers):
        raise Violation("nobody_waits", f"callers wait for ever: {world.callers}")
    for stored in world.sessions:
        if names := world.marked & room.values.nodes(stored.session):
            raise Violation("nobody_waits", f"the session names the dead node {', '.join(sorted(names))}")


def no_post_is_lost(room: Room, world: World) -> None:
    """Where nothing more can happen, the callback has got and answered every post (NOD-3, NOD-10)."""
    if any(now.life == UP for now in world.nodes) and (left := room.values.waiting_posts(world.sessions[0].session)):
        raise Violation("no_post_is_lost", f"posts {sorted(left)} are never sent")


def absent_subscribers_are_known(room: Room, world: World) -> None:
    """Where nothing more can happen, a session names no socket that is gone (NOD-1)."""
    if not any(now.life == UP for now in world.nodes):
        return
    there = {sub.connection for sub in world.subs if sub.node}
    for stored in world.sessions:
        for each in room.values.session(stored.session).subscriptions.values():
            if each.connection and not each.callback and each.connection not in there:
                raise Violation("absent_subscribers_are_known", f"{each.connection} is no socket")


AT_THE_END = (nobody_waits, no_post_is_lost, absent_subscribers_are_known)


def check(room: Room, world: World, *, ends: bool) -> None:
    """Check a state. `ends`: no step is possible. Raises Violation."""
    for invariant in (*IN_EACH_STATE, *(AT_THE_END if ends else ())):
        invariant(room, world)
