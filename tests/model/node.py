"""A node: PostgresStore and Membership as functions on values. Each docstring names the method that it restates."""

from __future__ import annotations

from tests.model import database, duties, following
from tests.model.scenarios import life_of, name_of, number_of
from tests.model.values import Values
from tests.model.world import (
    CONFLICT,
    FENCED,
    OK,
    TAKEN,
    UNDERWAY,
    UNSENT,
    UP,
    Cause,
    Commit,
    Entry,
    Node,
    Stored,
    World,
    with_caller,
    with_duty,
    with_entry,
    with_node,
    with_sub,
    without_duty,
)


class _Fenced(Exception):
    """The node began anew while it read. `world` is the world after that."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world


def submit(values: Values, world: World, n: int, cause: Cause) -> World:
    """Service.submit, to the commit that it sends or to its answer. The node has nothing under way."""
    if not following.knows(world, n):
        return duties.refuse(world, n, cause)
    try:
        while True:
            world, entry = load(values, world, n, cause.topic)
            name = world.nodes[n].name
            if world.late and cause.kind not in ("tick", "lost") and is_overdue(values, entry, name):
                cause, world = Cause("tick", cause.topic), put_back(world, n, cause)
            found = values.decide(entry.session, cause, world.late, name)
            if not found.status and not (found.same and not found.effects):
                break
            if database.confirms(world, cause.topic, entry.revision):
                return duties.answer(without_duty(world, n, cause), n, cause, CONFLICT if found.status else TAKEN)
            world = with_entry(world, n, cause.topic, entry._replace(stale=True, behind=True))
    except _Fenced as fenced:
        return duties.refuse(fenced.world, n, cause)
    world = without_duty(world, n, cause)
    node, floor = world.nodes[n], highest_answered(world) if values.slow_commits else 0
    commit = Commit(cause, node.name, entry.revision, entry.session, found.after, found.changes, found.effects, floor)
    return with_node(world, n, node._replace(commit=commit, left=None))


def highest_answered(world: World) -> int:
    """The highest position of an event that was answered with 202."""
    taken = (
        row.position for row in world.log if row.cause.kind == "event" and world.callers[row.cause.number] == TAKEN
    )
    return max(taken, default=0)


def is_overdue(values: Values, entry: Entry, name: str) -> bool:
    """Service._overdue: whether the session must be ticked first, and the Tick changes something."""
    if not values.is_overdue(entry.session):
        return False
    found = values.decide(entry.session, Cause("tick", 0), True, name)
    return not found.same or bool(found.effects)


def is_overdue_there(values: Values, stored: Stored, name: str) -> bool:
    """Store.overdue: whether a session of the database must be ticked."""
    return is_overdue(values, Entry(stored.session, stored.revision), name)


def put_back(world: World, n: int, cause: Cause) -> World:
    """A command that waits for a Tick: it is as if it had yet to come."""
    match cause.kind:
        case "event":
            return with_caller(world, cause.number, UNSENT)
        case "connect":
            return world
    return with_duty(world, n, cause)


def load(values: Values, world: World, n: int, topic: int) -> tuple[World, Entry]:
    """PostgresStore.load: the session as the node knows it. Raises _Fenced."""
    while True:
        entry = world.nodes[n].entries[topic]
        if entry is None:
            stored = world.sessions[topic]
            world = with_entry(world, n, topic, Entry(stored.session, stored.revision))
        elif entry.stale:
            world = refresh(values, world, n, topic, entry)
        else:
            return world, entry


def refresh(values: Values, world: World, n: int, topic: int, entry: Entry) -> World:
    """PostgresStore._refresh: by the log where the node has something of the session, else by reading anew."""
    name = world.nodes[n].name
    if name not in values.nodes(entry.session):
        return with_entry(world, n, topic, None)
    world = following.read_log(values, world, n)
    if world.nodes[n].name != name:
        raise _Fenced(world)
    now = world.nodes[n].entries[topic]
    if now is None:
        return world
    if entry.behind and now.revision == entry.revision:
        return duties.abandon(values, world, n, topic)
    return with_entry(world, n, topic, now._replace(stale=False, behind=False))


def take_answer(values: Values, world: World, n: int) -> World:
    """Writer._write: what becomes of a commit whose result has arrived."""
    node = world.nodes[n]
    commit = node.commit
    assert commit is not None
    world = with_node(world, n, node._replace(commit=None))
    if commit.phase == OK:
        return committed(values, world, n, commit)
    topic, entry = commit.cause.topic, node.entries[commit.cause.topic]
    if commit.phase == FENCED:
        world = duties.refuse(world, n, commit.cause)
        return duties.begin_anew(values, world, n) if commit.node == node.name else world
    if entry is not None and entry.revision == commit.expected:
        world = with_entry(world, n, topic, entry._replace(stale=True, behind=True))
    if node.life != UP:
        return duties.refuse(world, n, commit.cause)
    if commit.cause.kind == "resume":
        world = with_duty(world, n, commit.cause)
    return submit(values, world, n, commit.cause)


def committed(values: Values, world: World, n: int, commit: Commit) -> World:
    """PostgresStore.committed: take over what was committed, and hand its effects on."""
    node, topic = world.nodes[n], commit.cause.topic
    if commit.node != node.name:  # the node began anew meanwhile
        world = duties.answer(world, n, commit.cause, TAKEN)
        if commit.cause.kind == "connect":
            world = duties.refuse(world, n, commit.cause)
        return duties.close_sockets(world, n, commit.after, topic, values)
    world = with_node(world, n, following.skip_own(node, commit.position, commit.written))
    world = with_entry(world, n, topic, Entry(commit.after, commit.position))
    if commit.cause.kind == "connect":
        world = open_socket(world, n, commit.cause)
    world = duties.hand_on(values, world, n, topic, commit.before, commit.after, commit.effects, commit.written)
    return duties.answer(world, n, commit.cause, TAKEN)


def open_socket(world: World, n: int, cause: Cause) -> World:
    """The subscriber has its socket, unless it has turned to another node meanwhile."""
    sub = world.subs[cause.number]
    if sub.node or number_of(cause.name) != number_of(sub.connection):
        return duties.refuse(world, n, cause)
    return with_sub(world, cause.number, sub._replace(node=world.nodes[n].name, connection=cause.name))


def lose_answer(values: Values, world: World, n: int) -> World:
    """PostgresStore.not_committed(Lost): the outcome is unknown, and the database may still carry the commit out."""
    node = world.nodes[n]
    commit = node.commit
    assert commit is not None
    may_come = commit.phase == UNDERWAY or database.is_begun(world, commit)
    world = with_node(world, n, node._replace(commit=None, left=commit if may_come else None))
    entry = node.entries[commit.cause.topic]
    if entry is not None:
        world = with_entry(world, n, commit.cause.topic, after_unknown_outcome(entry))
    if values.told(commit.effects).posts:
        world = with_duty(world, n, Cause("resume", commit.cause.topic))
    return duties.refuse(world, n, commit.cause)


def after_unknown_outcome(entry: Entry) -> Entry:
    """PostgresStore.not_committed: the session counts as stale, so that nothing is decided on what may not have happened."""
    return entry._replace(stale=True)


def join(world: World, n: int) -> World:
    """PostgresStore._join_again: begin at the end of the log. The earlier name is dead then (leave_1)."""
    node = world.nodes[n]
    position, written = database.newest(world)
    earlier = name_of(n, life_of(node.name) - 1)
    world = with_node(world, n, node._replace(life=UP, cursor=position, written=written))
    return world._replace(marked=world.marked | {earlier})


def beat(values: Values, world: World, n: int) -> World:
    """Membership.beat after a sleep: the node is sure again, or finds itself marked."""
    node = world.nodes[n]
    if following.is_fenced(world, node):
        return duties.begin_anew(values, world, n)
    return with_node(world, n, node._replace(life=UP))


def may_answer(world: World, n: int, topic: int) -> bool:
    """PostgresStore.load and confirm: whether a read is answered here and now with what the node knows."""
    node = world.nodes[n]
    entry = node.entries[topic]
    if node.life != UP or entry is None or entry.stale or is_pending(node, topic) or not following.knows(world, n):
        return False
    return database.confirms(world, topic, entry.revision)


def is_pending(node: Node, topic: int) -> bool:
    """Entry.pending: whether a commit of the node is under way."""
    return node.commit is not None and node.commit.cause.topic == topic


def is_waited_for(world: World, node: Node) -> bool:
    """Link._check_process: whether the database may still carry out a commit that the node has left."""
    return node.left is not None and not database.has_result(world, node.left)
