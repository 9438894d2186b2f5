"""A node: PostgresStore, Follower and Membership as functions on values. Each docstring names the method that it restates."""

from __future__ import annotations

from tests.model import database, invariants
from tests.model.scenarios import life_of, name_of, number_of
from tests.model.values import Values
from tests.model.world import (
    ANEW,
    CONFLICT,
    FENCED,
    OK,
    REFUSED,
    SENT,
    TAKEN,
    UNDERWAY,
    UNSENT,
    UNSURE,
    UP,
    Cause,
    Commit,
    Entry,
    Node,
    Row,
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


# Service and store: load, decide, commit


def submit(values: Values, world: World, n: int, cause: Cause) -> World:
    """Service.submit, to the commit that it sends or to its answer. The node has nothing under way."""
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
                return answer(without_duty(world, n, cause), n, cause, CONFLICT if found.status else TAKEN)
            world = with_entry(world, n, cause.topic, entry._replace(stale=True, behind=True))
    except _Fenced as fenced:
        return refuse(fenced.world, n, cause)
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
    world = read_log(values, world, n)
    if world.nodes[n].name != name:
        raise _Fenced(world)
    now = world.nodes[n].entries[topic]
    if now is None:
        return world
    if entry.behind and now.revision == entry.revision:
        return abandon(values, world, n, topic)
    return with_entry(world, n, topic, now._replace(stale=False, behind=False))


# Answers of the database


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
        world = refuse(world, n, commit.cause)
        return begin_anew(values, world, n) if commit.node == node.name else world
    if entry is not None and entry.revision == commit.expected:
        world = with_entry(world, n, topic, entry._replace(stale=True, behind=True))
    if node.life != UP:
        return refuse(world, n, commit.cause)
    if commit.cause.kind == "resume":
        world = with_duty(world, n, commit.cause)
    return submit(values, world, n, commit.cause)


def committed(values: Values, world: World, n: int, commit: Commit) -> World:
    """PostgresStore.committed: take over what was committed, and hand its effects on."""
    node, topic = world.nodes[n], commit.cause.topic
    if commit.node != node.name:  # the node began anew meanwhile
        world = answer(world, n, commit.cause, TAKEN)
        if commit.cause.kind == "connect":
            world = refuse(world, n, commit.cause)
        return close_sockets(world, n, commit.after, topic, values)
    world = with_node(world, n, skip_own(node, commit.position, commit.written))
    world = with_entry(world, n, topic, Entry(commit.after, commit.position))
    if commit.cause.kind == "connect":
        world = open_socket(world, n, commit.cause)
    world = hand_on(values, world, n, topic, commit.before, commit.after, commit.effects, commit.written)
    return answer(world, n, commit.cause, TAKEN)


def open_socket(world: World, n: int, cause: Cause) -> World:
    """The subscriber has its socket, unless it has turned to another node meanwhile."""
    sub = world.subs[cause.number]
    if sub.node or number_of(cause.name) != number_of(sub.connection):
        return refuse(world, n, cause)
    return with_sub(world, cause.number, sub._replace(node=world.nodes[n].name, connection=cause.name))


def skip_own(node: Node, position: int, written: int) -> Node:
    """Follower.committed: a row that follows directly needs no reading."""
    if position == node.cursor + 1:
        return node._replace(cursor=position, written=written)
    if position > node.cursor:
        return node._replace(own=tuple(sorted((*node.own, position))))
    return node


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
    return refuse(world, n, commit.cause)


def after_unknown_outcome(entry: Entry) -> Entry:
    """PostgresStore.not_committed: the session counts as stale, so that nothing is decided on what may not have happened."""
    return entry._replace(stale=True)


def answer(world: World, n: int, cause: Cause, state: int) -> World:
    """A command is done: tell its caller, if the caller waits for this node."""
    if cause.kind == "event" and world.callers[cause.number] == SENT + n:
        invariants.repeats_are_answered_alike(world, cause.number, state)
        return with_caller(world, cause.number, state)
    return world


def refuse(world: World, n: int, cause: Cause) -> World:
    """503: a caller may repeat its event, and a socket is refused. The node repeats its own commands."""
    match cause.kind:
        case "event":
            return with_caller(world, cause.number, REFUSED) if world.callers[cause.number] == SENT + n else world
        case "connect":
            return with_duty(world, n, Cause("gone", cause.topic, cause.number, cause.name))
        case "lost" | "tick":
            return world  # found again in the database
    return with_duty(world, n, cause)


# Following


def read_log(values: Values, world: World, n: int) -> World:
    """Follower._read: hand each row on once, in the order of the log."""
    node = world.nodes[n]
    if is_fenced(world, node) or not database.reaches_back(world, node):
        return begin_anew(values, world, n)
    for row in database.follow(world, node):
        now = world.nodes[n]
        if answer_comes_first(now, row):
            break
        if row.position in now.own:
            world = with_node(world, n, now._replace(own=tuple(each for each in now.own if each != row.position)))
        else:
            world = hear(values, world, n, row)
        world = with_node(world, n, world.nodes[n]._replace(cursor=row.position, written=row.written))
    return world


def has_to_read(world: World, n: int) -> bool:
    """Whether a reading of the log now would change what the node knows."""
    node = world.nodes[n]
    if is_fenced(world, node) or not database.reaches_back(world, node):
        return True
    row = next(iter(database.follow(world, node)), None)
    return row is not None and not answer_comes_first(node, row)


def answer_comes_first(node: Node, row: Row) -> bool:
    """Writer.settled: the log may be faster than the answer to the commit itself."""
    return row.origin == node.name and node.commit is not None and row.position not in node.own


def skip_rows(world: World) -> World:
    """The world where each node has read the rows that follow next and tell it nothing. Nobody could see when it does."""
    for n, node in enumerate(world.nodes):
        if not world.log or node.life not in (UP, UNSURE) or node.cursor >= world.next_position - 1:
            continue
        if is_fenced(world, node) or not database.reaches_back(world, node):
            continue
        for row in database.follow(world, node):
            entry = node.entries[row.topic]
            known = row.position in node.own
            if not known and (row.origin == node.name or (entry is not None and entry.revision < row.position)):
                break
            own = tuple(each for each in node.own if each != row.position) if known else node.own
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
        return abandon(values, world, n, topic)
    after = values.applied(entry.session, topic, row.changes)
    world = with_entry(world, n, topic, Entry(after, row.position))
    return hand_on(values, world, n, topic, entry.session, after, row.effects, row.written)


def look_again(world: World, n: int, row: Row) -> World:
    """Duties.look_again: a connection that counted as refused may be in the session; posts are begun anew."""
    node = world.nodes[n]
    s, connection = row.cause.number, row.cause.name
    if row.cause.kind == "connect" and (world.subs[s].node, world.subs[s].connection) != (node.name, connection):
        world = with_duty(world, n, Cause("gone", row.topic, s, connection))
    if node.queue or node.posting or row.cause.kind in ("resume", "lost"):
        world = with_duty(world, n, Cause("resume", row.topic))
    return world


def hand_on(
    values: Values, world: World, n: int, topic: int, before: int, after: int, effects: int, written: int
) -> World:
    """PostgresStore._hand_on: frames go to the node's sockets, and posts to the session's poster alone."""
    name, told = world.nodes[n].name, values.told(effects)
    for s, sub in enumerate(world.subs):
        if sub.node != name or sub.topic != topic:
            continue
        if sub.connection in told.frames:
            invariants.sockets_are_told_the_log(values, world, s, written, effects)
            world = with_sub(world, s, world.subs[s]._replace(told=written))
        if sub.connection in told.closed:
            world = with_sub(world, s, world.subs[s]._replace(node=""))
    node = world.nodes[n]
    if told.posts and posts_here(values, name, before, after) and not (values.holds_posts and resumes(node, topic)):
        world = with_node(world, n, node._replace(queue=enqueued(node.queue, told.posts)))
    return world


def posts_here(values: Values, name: str, before: int, after: int) -> bool:
    """PostgresStore._hand_on: whether the node of this name is the session's poster."""
    return (values.session(after).poster or values.session(before).poster) == name


def resumes(node: Node, topic: int) -> bool:
    """Duties._resuming: whether the node has yet to begin the session's posts anew."""
    commands = (*node.duties, *((node.commit.cause,) if node.commit else ()))
    return Cause("resume", topic) in commands


def enqueued(queue: tuple[int, ...], posts: tuple[int, ...]) -> tuple[int, ...]:
    """Webhooks._enqueue: posts that are begun anew come again, and later ones after them."""
    for number in posts:
        queue = (*(each for each in queue if each <= number), *((number,) if number not in queue else ()))
    return queue


def abandon(values: Values, world: World, n: int, topic: int) -> World:
    """PostgresStore._abandon: forget a session whose changes were missed. Its sockets end, and its posts are begun anew."""
    entry = world.nodes[n].entries[topic]
    assert entry is not None
    return close_sockets(with_entry(world, n, topic, None), n, entry.session, topic, values)


def close_sockets(world: World, n: int, session: int, topic: int, values: Values) -> World:
    """PostgresStore._close_sockets and Duties.abandoned: each socket becomes a lost one, as its end says later."""
    for s, sub in enumerate(world.subs):
        if sub.topic == topic and sub.node == world.nodes[n].name:
            world = _close(world, n, s)
    if values.session(session).poster:
        world = with_duty(world, n, Cause("resume", topic))
    return world


def _close(world: World, n: int, s: int) -> World:
    sub = world.subs[s]
    world = with_sub(world, s, sub._replace(node=""))
    return with_duty(world, n, Cause("gone", sub.topic, s, sub.connection))


# Membership


def begin_anew(values: Values, world: World, n: int) -> World:
    """PostgresStore._begin_anew: the node forgets all and closes its sockets. It has yet to join under another name."""
    node = world.nodes[n]
    for s, sub in enumerate(world.subs):
        if sub.node == node.name:
            world = _close(world, n, s)
    node = world.nodes[n]
    name, entries = name_of(n, life_of(node.name) + 1), (None,) * len(node.entries)
    node = node._replace(name=name, entries=entries, life=ANEW, cursor=0, written=0, own=(), queue=(), posting=0)
    return with_node(world, n, node)


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
    if is_fenced(world, node):
        return begin_anew(values, world, n)
    return with_node(world, n, node._replace(life=UP))


def may_answer(world: World, n: int, topic: int) -> bool:
    """PostgresStore.load and confirm: whether a read is answered here and now with what the node knows."""
    node = world.nodes[n]
    entry = node.entries[topic]
    if node.life != UP or entry is None or entry.stale or is_pending(node, topic):
        return False
    return database.confirms(world, topic, entry.revision)


def is_pending(node: Node, topic: int) -> bool:
    """Entry.pending: whether a commit of the node is under way."""
    return node.commit is not None and node.commit.cause.topic == topic


def is_waited_for(world: World, node: Node) -> bool:
    """Link._check_process: whether the database may still carry out a commit that the node has left."""
    return node.left is not None and not database.has_result(world, node.left)


# Posts


def may_post(node: Node) -> bool:
    """Webhooks._post: whether the node may begin its next post. In doubt whether it was marked, it may not (NOD-10)."""
    return bool(node.queue) and not node.posting and node.life == UP


def begin_post(world: World, n: int) -> World:
    """Webhooks._attempt: the callback gets the first post of the queue."""
    node = world.nodes[n]
    number = node.queue[0]
    invariants.posts_come_in_order(world, number)
    world = world._replace(received=max(world.received, number))
    return with_node(world, n, node._replace(posting=number))


def end_post(world: World, n: int) -> World:
    """Webhooks._post_all: the callback has answered, and the post leaves the session."""
    node = world.nodes[n]
    queue = tuple(each for each in node.queue if each != node.posting)
    world = with_node(world, n, node._replace(queue=queue, posting=0))
    return with_duty(world, n, Cause("answered", 0, node.posting))


def forget_posts_of(world: World, n: int) -> World:
    """A node that dies or sleeps: the attempt under way has ended before another node may post (NOD-10)."""
    return with_node(world, n, world.nodes[n]._replace(posting=0))
