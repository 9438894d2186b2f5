"""Duties: what a node does with effects, sockets and posts, and what it owes. Each docstring names the method that it restates."""

from __future__ import annotations

from tests.model import invariants
from tests.model.scenarios import life_of, name_of
from tests.model.values import Values
from tests.model.world import (
    ANEW,
    REFUSED,
    SENT,
    UP,
    Cause,
    Node,
    World,
    with_caller,
    with_duty,
    with_entry,
    with_node,
    with_sub,
)


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
    if told.posts and posts_here(values, name, before, after):
        if holds_posts(values, node, topic, after, told.posts):
            return with_duty(world, n, Cause("resume", topic))
        world = with_node(world, n, node._replace(queue=enqueued(node.queue, told.posts)))
    return world


def holds_posts(values: Values, node: Node, topic: int, after: int, posts: tuple[int, ...]) -> bool:
    """PostgresStore._hand_on and Duties.holds_posts: whether posts wait for older ones, which have yet to be begun anew."""
    return resumes(node, topic) and not values.waiting_posts(after) <= set(posts)


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
            world = close_socket(world, n, s)
    if values.session(session).poster:
        world = with_duty(world, n, Cause("resume", topic))
    return world


def close_socket(world: World, n: int, s: int) -> World:
    sub = world.subs[s]
    world = with_sub(world, s, sub._replace(node=""))
    return with_duty(world, n, Cause("gone", sub.topic, s, sub.connection))


def begin_anew(values: Values, world: World, n: int) -> World:
    """PostgresStore._begin_anew: the node forgets all and closes its sockets. It has yet to join under another name."""
    node = world.nodes[n]
    for s, sub in enumerate(world.subs):
        if sub.node == node.name:
            world = close_socket(world, n, s)
    node = world.nodes[n]
    name, entries = name_of(n, life_of(node.name) + 1), (None,) * len(node.entries)
    node = node._replace(name=name, entries=entries, life=ANEW, cursor=0, written=0, own=(), queue=(), posting=0)
    return with_node(world, n, node)


def may_post(node: Node) -> bool:
    """Webhooks._post_all: whether the node may begin its next post. In doubt whether it was marked, it may not (NOD-10)."""
    return bool(node.queue) and not node.posting and node.life == UP and not stores_answer(node)


def stores_answer(node: Node) -> bool:
    """Webhooks._post_all: whether the answer of the last post has yet to be stored."""
    commands = (*node.duties, *((node.commit.cause,) if node.commit else ()))
    return any(each.kind == "answered" for each in commands)


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
