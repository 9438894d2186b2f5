"""The database: the functions of schema.sql on values. Names in docstrings are those of schema.sql and postgresql/."""

from __future__ import annotations

from tests.model import invariants
from tests.model.scenarios import Scenario
from tests.model.values import Values
from tests.model.world import FENCED, OK, STALE, Commit, Node, Row, Stored, World


def is_marked(world: World, name: str) -> bool:
    """check_node_1: whether the node of this name was marked dead."""
    return name in world.marked


def may_write(world: World, commit: Commit) -> bool:
    """commit_1: whether check_node_1 lets the commit's node write, in the transaction of the commit."""
    return not is_marked(world, commit.node)


def is_current(world: World, commit: Commit) -> bool:
    """commit_1: whether the session still has the revision that the commit expects."""
    return world.sessions[commit.cause.topic].revision == commit.expected


def waits(world: World, commit: Commit) -> bool:
    """Whether a commit waits in the database: another one holds the lock of its session, or of the positions."""
    return any(row.topic == commit.cause.topic for row in world.begun) or positions_are_locked(world)


def positions_are_locked(world: World) -> bool:
    """commit_1: who takes a position holds pg_advisory_xact_lock to the end of the transaction."""
    return bool(world.begun)


def succeeds(world: World, commit: Commit) -> bool:
    """Whether commit_1 would take the commit now. A refused one is refused for ever."""
    return may_write(world, commit) and is_current(world, commit)


def has_result(world: World, commit: Commit) -> bool:
    """Whether the database is done with the commit, or would refuse it."""
    if commit.phase == OK:
        return not is_begun(world, commit)
    return not succeeds(world, commit)


def is_begun(world: World, commit: Commit) -> bool:
    """Whether a commit has its position, and its transaction has not ended."""
    return commit.phase == OK and any(row.written == commit.written for row in world.begun)


def begin_commit(values: Values, world: World, commit: Commit) -> tuple[World, Commit]:
    """commit_1 up to its position: the world, and the commit with its result. OK: the row has begun, and is not visible."""
    if not may_write(world, commit):
        return world, commit._replace(phase=FENCED)
    if not is_current(world, commit):
        return world, commit._replace(phase=STALE)
    position, written = world.next_position, world.next_written
    told = values.nodes(commit.before) | values.nodes(commit.after)
    changes = commit.changes if told - {commit.node} else 0
    topic, before = commit.cause.topic, commit.before
    row = Row(
        position, written, topic, commit.expected, commit.node, told, changes, commit.effects, commit.cause, before
    )
    world = world._replace(begun=(*world.begun, row), next_position=position + 1, next_written=written + 1)
    return world, commit._replace(phase=OK, position=position, written=written)


def end_commit(values: Values, world: World, commit: Commit) -> World:
    """The end of the transaction: session and row become visible, and each node is to get a notice."""
    row = next(row for row in world.begun if row.written == commit.written)
    topic = row.topic
    session = values.applied(world.sessions[topic].session, topic, commit.changes)
    invariants.check_commit(values, world, commit, row, session)
    sessions = (*world.sessions[:topic], Stored(row.position, session), *world.sessions[topic + 1 :])
    begun = tuple(other for other in world.begun if other is not row)
    return world._replace(sessions=sessions, begun=begun, log=(*world.log, row))


def follow(world: World, node: Node) -> tuple[Row, ...]:
    """follow_1: the rows after the node's cursor, in the order of their positions."""
    rows = [row for row in world.log if row.position > node.cursor]
    return tuple(sorted(rows) if len(rows) > 1 else rows)


def reaches_back(world: World, node: Node) -> bool:
    """follow_1: whether the log has the row that the node read last. Else the log has lost its end."""
    return not node.cursor or any((row.position, row.written) == (node.cursor, node.written) for row in world.log)


def newest(world: World) -> tuple[int, int]:
    """newest_1: the newest position of the log, and `written` of its row."""
    last = max(world.log, default=None)
    return (last.position, last.written) if last else (0, 0)


def may_mark(world: World, name: str) -> bool:
    """mark_1: a node is not marked while a commit of its own is between its check and its end."""
    return name not in world.marked and all(row.origin != name for row in world.begun)


def confirms(world: World, topic: int, revision: int) -> bool:
    """Store.confirm: whether the database has no newer revision."""
    return world.sessions[topic].revision == revision


def fail_over(scenario: Scenario, world: World) -> World:
    """A standby takes over. With synchronous commits it has all; its sequence may have gone on by a while.

    Else the last `lost_rows` rows are missing, and with `again` their positions are given again.
    """
    lost = lost_rows(scenario)
    if not lost:
        return world._replace(next_position=world.next_position + 1)
    kept = world.log[: max(len(world.log) - lost, 0)]
    last = max((row.position for row in kept), default=0)
    sessions = tuple(_stored(world, kept, topic) for topic in range(len(world.sessions)))
    next_position = last + 1 if scenario.again else world.next_position + 1
    return world._replace(log=kept, sessions=sessions, next_position=next_position)


def lost_rows(scenario: Scenario) -> int:
    """Rows of the log that the standby does not have."""
    return scenario.lost_rows


def _stored(world: World, kept: tuple[Row, ...], topic: int) -> Stored:
    """The session of a topic after the last of its rows that were kept."""
    later = [row for row in world.log if row.topic == topic and row not in kept]
    if not later:
        return world.sessions[topic]
    return Stored(later[0].previous, later[0].before)
