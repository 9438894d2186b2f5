"""The world of the model: a database, three nodes, subscribers and callers, as one value that never changes.

Sessions, changes and effects are numbers of values.py. A state is small, and equal states are equal values.
Times are left out: `written` counts the commits of all times, and `late` says whether the time for a return has passed.
"""

from __future__ import annotations

from typing import NamedTuple

#: The lives of a node. UP: it serves. UNSURE: it was asleep, and others may have marked it. ANEW: it has yet to join again.
UP, UNSURE, ASLEEP, DEAD, ANEW = range(5)
LIVES = ("up", "unsure", "asleep", "dead", "anew")

#: The states of a caller's event. SENT + n: node n has the request.
UNSENT, REFUSED, TAKEN, CONFLICT, SENT = range(5)

#: The results of a commit (phase of Commit). Where it is OK, the commit has its row's position.
UNDERWAY, OK, STALE, FENCED = range(4)


class Cause(NamedTuple):
    """A command to the session of a topic: an event, or what a node has to do."""

    kind: str  # event, connect, gone, lost, tick, answered, resume
    topic: int
    #: Of an event, a subscriber or a post.
    number: int = 0
    #: Of a connection or a lost node.
    name: str = ""


class Row(NamedTuple):
    """A row of the table `log`."""

    position: int
    #: Counts the commits of all times: no two rows share it, also where positions are given again.
    written: int
    topic: int
    previous: int
    #: Name of the node that committed.
    origin: str
    #: Names of the nodes that must hear of the commit.
    told: frozenset[str]
    #: Number of the changes. 0: no other node than the writer must hear.
    changes: int
    effects: int
    cause: Cause
    #: The session before (for a failover that loses the row).
    before: int


class Stored(NamedTuple):
    """A row of the table `session`, with its parts."""

    revision: int
    session: int


class Commit(NamedTuple):
    """A commit that a node has sent (commits.py, Commit), and how far it is."""

    cause: Cause
    #: Name of the node when it sent the commit.
    node: str
    expected: int
    before: int
    after: int
    changes: int
    effects: int
    #: Highest position that anybody was answered about before the request came (for the invariants).
    floor: int
    phase: int = UNDERWAY
    position: int = 0
    written: int = 0


class Entry(NamedTuple):
    """A cached session (cache.py, Entry). It is pending while the node has a commit of its topic under way."""

    session: int
    revision: int
    stale: bool = False
    behind: bool = False


class Node(NamedTuple):
    """A process of the hub."""

    name: str
    entries: tuple[Entry | None, ...]
    life: int = UP
    #: Everything up to this position was handed on, with `written` of its row (follower.py, Follower).
    cursor: int = 0
    written: int = 0
    #: Positions beyond it that this node has committed, each with `written` of its row.
    own: tuple[tuple[int, int], ...] = ()
    #: The commit that waits for its answer.
    commit: Commit | None = None
    #: A commit that the node does not wait for any more, and that the database may still carry out.
    left: Commit | None = None
    #: Commands of the node's own, repeated until they are stored.
    duties: tuple[Cause, ...] = ()
    #: Numbers of posts that wait for their callback, and the post that is under way.
    queue: tuple[int, ...] = ()
    posting: int = 0


class Sub(NamedTuple):
    """A subscriber with a socket, as itself knows."""

    topic: int
    #: Name of the node that has the socket. "": there is no socket.
    node: str
    #: The socket's connection, of now or of before.
    connection: str
    #: `written` of the last row of the log that the socket was told.
    told: int = 0
    #: Sockets before this one.
    returns: int = 0


class Budget(NamedTuple):
    """Faults that may still happen."""

    deaths: int = 0
    sleeps: int = 0
    lost_answers: int = 0
    failovers: int = 0
    returns: int = 0


class World(NamedTuple):
    """A state of all."""

    sessions: tuple[Stored, ...]
    nodes: tuple[Node, ...]
    callers: tuple[int, ...]
    subs: tuple[Sub, ...]
    budget: Budget
    log: tuple[Row, ...] = ()
    #: Rows of transactions that have their position and are not yet visible.
    begun: tuple[Row, ...] = ()
    #: The next value of the sequence `position`, and of `written`.
    next_position: int = 1
    next_written: int = 1
    #: Names of nodes that were marked dead.
    marked: frozenset[str] = frozenset()
    #: Rows (`written`) that each node has yet to get a notice of.
    notices: tuple[tuple[int, ...], ...] = ((), (), ())
    #: Whether the time has passed that lost subscribers have for their return.
    late: bool = False
    #: Highest number of a post that the callback received.
    received: int = 0


def with_node(world: World, n: int, node: Node) -> World:
    """The world with this node at place `n`."""
    nodes = world.nodes
    return world._replace(nodes=(*nodes[:n], node, *nodes[n + 1 :]))


def with_entry(world: World, n: int, topic: int, entry: Entry | None) -> World:
    """The world where node `n` knows the session of `topic` like this."""
    entries = world.nodes[n].entries
    return with_node(world, n, world.nodes[n]._replace(entries=(*entries[:topic], entry, *entries[topic + 1 :])))


def with_sub(world: World, s: int, sub: Sub) -> World:
    """The world with this subscriber at place `s`."""
    subs = world.subs
    return world._replace(subs=(*subs[:s], sub, *subs[s + 1 :]))


def with_caller(world: World, k: int, state: int) -> World:
    """The world where the caller of event `k` knows this."""
    callers = world.callers
    return world._replace(callers=(*callers[:k], state, *callers[k + 1 :]))


def with_duty(world: World, n: int, duty: Cause) -> World:
    """The world where node `n` has this duty. A duty that it has already is one."""
    node = world.nodes[n]
    if duty in node.duties:
        return world
    return with_node(world, n, node._replace(duties=tuple(sorted((*node.duties, duty)))))


def without_duty(world: World, n: int, duty: Cause) -> World:
    """The world where node `n` has done this duty."""
    node = world.nodes[n]
    if duty not in node.duties:
        return world
    return with_node(world, n, node._replace(duties=tuple(each for each in node.duties if each != duty)))
