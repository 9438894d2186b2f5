"""Following: Follower and PostgresStore._hear as functions on values. Each docstring names the method that it restates."""

from __future__ import annotations

from tests.model import database, duties
from tests.model.values import Values
from tests.model.world import UNSURE, UP, Cause, Entry, Node, Row, World, with_duty, with_entry, with_node


def read_log(values: Values, world: World, n: int) -> World:
    """Follower._read: hand each row on once, in the order of the log."""
    node = world.nodes[n]
    if is_fenced(world, node) or not database.reaches_back(world, node) or has_lost_own(world, node):
        return duties.begin_anew(values, world, n)
    for row in database.follow(world, node):
        now = world.nodes[n]
        if answer_comes_first(now, row):
            break
        if place_of(row) in now.own:
            world = with_node(world, n, now._replace(own=tuple(each for each in now.own if each != place_of(row))))
        else:
            world = hear(values, world, n, row)
        world = with_node(world, n, world.nodes[n]._replace(cursor=row.position, written=row.written))
    return world


def place_of(row: Row) -> tuple[int, int]:
    """What tells a row of the log apart from any other that ever was."""
    return row.position, row.written


def has_lost_own(world: World, node: Node) -> bool:
    """Follower._read: whether the log has not, or not any more, what this node has committed."""
    return not set(node.own) <= set(map(place_of, world.log))


def knows(world: World, n: int) -> bool:
    """Follower.check: whether the log has the newest commit that the node knows. Else nothing is committed or confirmed."""
    node = world.nodes[n]
    newest = max([(node.cursor, node.written), *node.own])
    return not newest[0] or newest in map(place_of, world.log)


def has_to_read(world: World, n: int) -> bool:
    """Whether a reading of the log now would change what the node knows."""
    node = world.nodes[n]
    if is_fenced(world, node) or not database.reaches_back(world, node) or has_lost_own(world, node):
        return True
    row = next(iter(database.follow(world, node)), None)
    return row is not None and not answer_comes_first(node, row)


def answer_comes_first(node: Node, row: Row) -> bool:
    """Writer.settled: the log may be faster than the answer to the commit itself."""
    return row.origin == node.name and node.commit is not None and place_of(row) not in node.own


def skip_own(node: Node, position: int, written: int) -> Node:
    """Follower.committed: a row that follows directly needs no reading."""
    if position == node.cursor + 1:
        return node._replace(cursor=position, written=written)
    if position > node.cursor:
        return node._replace(own=tuple(sorted((*node.own, (position, written)))))
    return node


def skip_rows(world: World) -> World:
    """The world where each node has read the rows that follow next and tell it nothing. Nobody could see when it does."""
    for n, node in enumerate(world.nodes):
        if not world.log or node.life not in (UP, UNSURE) or node.cursor >= world.next_position - 1:
            continue
        if is_fenced(world, node) or not database.reaches_back(world, node) or has_lost_own(world, node):
            continue
        for row in database.follow(world, node):
            entry = node.entries[row.topic]
            known = place_of(row) in node.own
            if not known and (row.origin == node.name or (entry is not None and entry.revision < row.position)):
                break
            own = tuple(each for each in node.own if each != place_of(row)) if known else node.own
            node = node._replace(cursor=row.position, written=row.written, own=own)
        if node is not world.nodes[n]:
            world = with_node(world, n, node)
    return world


def take_notice(values: Values, world: World, n: int, written: int) -> World:
    """Follower._on_notice: a notice only wakes the node, which reads the log."""
    return read_log(values, world, n)


def is_fenced(world: World, node: Node) -> bool:
    """follow_1 and beat_1: both refuse a node that was marked dead."""
    return database.is_marked(world, node.name)


def hear(values: Values, world: World, n: int, row: Row) -> World:
    """PostgresStore._hear: take over what another node committed, or this one without an answer."""
    world = look_again(world, n, row) if row.origin == world.nodes[n].name else world
    node, topic = world.nodes[n], row.topic
    entry = node.entries[topic]
    if entry is None or entry.revision >= row.position:
        return world
    if node.name not in row.told:
        return with_entry(world, n, topic, entry._replace(stale=True, behind=True))
    if not row.changes or entry.revision != row.previous:
        return duties.abandon(values, world, n, topic)
    after = values.applied(entry.session, topic, row.changes)
    world = with_entry(world, n, topic, Entry(after, row.position))
    return duties.hand_on(values, world, n, topic, entry.session, after, row.effects, row.written)


def look_again(world: World, n: int, row: Row) -> World:
    """Duties.look_again: a connection that counted as refused may be in the session; posts are begun anew."""
    node = world.nodes[n]
    s, connection = row.cause.number, row.cause.name
    if row.cause.kind == "connect" and (world.subs[s].node, world.subs[s].connection) != (node.name, connection):
        world = with_duty(world, n, Cause("gone", row.topic, s, connection))
    if node.queue or node.posting or row.cause.kind in ("resume", "lost"):
        world = with_duty(world, n, Cause("resume", row.topic))
    return world
