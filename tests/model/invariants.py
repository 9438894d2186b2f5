"""Invariants that a step may break: of a commit, of a frame to a socket, of a post, of an answer. Those of states are in states.py."""

from __future__ import annotations

from tests.model.values import Values
from tests.model.world import CONFLICT, TAKEN, Commit, Row, World
from tests.simulation.violation import Violation


def one_commit_for_each_revision(values: Values, world: World, commit: Commit, row: Row, session: int) -> None:
    """Of all commits on one revision of a session, one is in the log (NOD-5)."""
    newest = world.sessions[row.topic].revision
    if row.previous != newest:
        raise Violation("one_commit_for_each_revision", f"{row} follows revision {newest}")


def database_holds_what_was_decided(values: Values, world: World, commit: Commit, row: Row, session: int) -> None:
    """After a commit the rows of the session are those of the session that the node decided (NOD-5)."""
    if session != commit.after:
        raise Violation("database_holds_what_was_decided", f"{row} makes session {session}, not {commit.after}")


def dead_nodes_write_nothing(values: Values, world: World, commit: Commit, row: Row, session: int) -> None:
    """Nothing that a node writes after it was marked dead is in the log (NOD-8)."""
    if row.origin in world.marked:
        raise Violation("dead_nodes_write_nothing", f"{row} is of a node that was marked dead")


def later_requests_come_later(values: Values, world: World, commit: Commit, row: Row, session: int) -> None:
    """An event that was answered before another was posted has the smaller position (EVT-20)."""
    if row.position <= commit.floor:
        raise Violation("later_requests_come_later", f"{row} came after the answer about position {commit.floor}")


def losses_are_reported_once(values: Values, world: World, commit: Commit, row: Row, session: int) -> None:
    """A subscriber that is lost is reported once, and nobody who is back (SYN-7, NOD-1)."""
    for name in values.told(row.effects).reported:
        sub = world.subs[int(name.rpartition("-")[2])]
        if any(name in values.told(other.effects).reported for other in world.log):
            raise Violation("losses_are_reported_once", f"{row} reports {name} again")
        if sub.node and sub.node not in world.marked:
            raise Violation("losses_are_reported_once", f"{row} reports {name}, whose socket {sub.connection} is there")


AT_EACH_COMMIT = (
    one_commit_for_each_revision,
    database_holds_what_was_decided,
    dead_nodes_write_nothing,
    later_requests_come_later,
    losses_are_reported_once,
)


def check_commit(values: Values, world: World, commit: Commit, row: Row, session: int) -> None:
    """Check a row that becomes visible, and the session that the database holds from then on. Raises Violation."""
    for invariant in AT_EACH_COMMIT:
        invariant(values, world, commit, row, session)


def sockets_are_told_the_log(values: Values, world: World, s: int, written: int, effects: int) -> None:
    """A socket is told what the log has for it: each row, in order, from its replay on (NOD-5, CTX-5). Raises Violation."""
    sub = world.subs[s]
    mine = (row for row in world.log if row.written > sub.told and row.topic == sub.topic)
    row = next((row for row in mine if sub.connection in values.told(row.effects).frames), None)
    if row is None or row.written != written or row.effects != effects:
        raise Violation("sockets_are_told_the_log", f"{sub} is told commit {written}, and the log's next is {row}")


def posts_come_in_order(world: World, number: int) -> None:
    """The callback is sent each post after all before (NOD-10, WHK-8). One that was sent may come again. Raises Violation."""
    if number > world.received + 1:
        raise Violation("posts_come_in_order", f"post {number} comes after {world.received}")


def repeats_are_answered_alike(world: World, k: int, answer: int) -> None:
    """An event that is in the log is not refused when it is repeated (NOD-12). Raises Violation."""
    if answer == CONFLICT and any((row.cause.kind, row.cause.number) == ("event", k) for row in world.log):
        raise Violation("repeats_are_answered_alike", f"event {k} is in the log, and its repeat is refused")
    assert answer in (TAKEN, CONFLICT)
