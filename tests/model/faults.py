"""Faults: what happens to nodes, answers and the database, within a budget."""

from __future__ import annotations

from tests.model import database, duties, node
from tests.model.scenarios import Scenario, place_of
from tests.model.values import Values
from tests.model.world import (
    ASLEEP,
    DEAD,
    REFUSED,
    SENT,
    UNDERWAY,
    UNSURE,
    Budget,
    Sub,
    World,
    with_caller,
    with_node,
    with_sub,
)


def is_given_up(world: World, caller: int) -> bool:
    """Whether the node that has an event is asleep, so that its caller turns to another one."""
    return caller >= SENT and world.nodes[caller - SENT].life == ASLEEP


def may_return(world: World, s: int, sub: Sub) -> bool:
    """Whether a subscriber connects again: its socket ended, or its node is asleep. It has one handshake at a time."""
    if sub.node and world.nodes[place_of(sub.node)].life != ASLEEP:
        return False
    commits = (each.commit for each in world.nodes if each.life not in (ASLEEP, DEAD) and each.commit is not None)
    return all((commit.cause.kind, commit.cause.number) != ("connect", s) for commit in commits)


def take(scenario: Scenario, values: Values, world: World, step: tuple[str, int, int]) -> World:
    """The world after the fault."""
    kind, n, _ = step
    match kind:
        case "lose answer":
            world = node.lose_answer(values, world, n)
            return _spent(world, lost_answers=world.budget.lost_answers - 1)
        case "drop":
            return with_node(world, n, world.nodes[n]._replace(left=None))
        case "die":
            return _spent(_die(world, n), deaths=world.budget.deaths - 1)
        case "sleep":
            world = duties.forget_posts_of(world, n)
            world = with_node(world, n, world.nodes[n]._replace(life=ASLEEP))
            return _spent(world, sleeps=world.budget.sleeps - 1)
        case "wake":
            return with_node(world, n, world.nodes[n]._replace(life=UNSURE))
        case "mark":
            return world._replace(marked=world.marked | {world.nodes[n].name})
        case "late":
            return world._replace(late=True)
    assert kind == "failover"
    return _spent(_fail_over(scenario, values, world), failovers=world.budget.failovers - 1)


def _spent(world: World, **left: int) -> World:
    budget: Budget = world.budget._replace(**left)
    return world._replace(budget=budget)


def _die(world: World, n: int) -> World:
    """The process is gone, with its sockets. Its callers see their connections end. What it sent may still be carried out."""
    now = world.nodes[n]
    for s, sub in enumerate(world.subs):
        if sub.node == now.name:
            world = with_sub(world, s, sub._replace(node=""))
    for k, caller in enumerate(world.callers):
        if caller == SENT + n:
            world = with_caller(world, k, REFUSED)
    pending = (now.commit, now.left)
    left = next(
        (each for each in pending if each is not None and (each.phase == UNDERWAY or database.is_begun(world, each))),
        None,
    )
    gone = now._replace(
        life=DEAD, entries=(None,) * len(now.entries), cursor=0, written=0, own=(), commit=None, left=left
    )
    return with_node(world, n, gone._replace(duties=(), queue=(), posting=0))


def _fail_over(scenario: Scenario, values: Values, world: World) -> World:
    """Another server is the primary. What was under way at the old one is lost, or its answer is."""
    for n, now in enumerate(world.nodes):
        if now.commit is not None:
            world = node.lose_answer(values, world, n)
        world = with_node(world, n, world.nodes[n]._replace(left=None))
    return database.fail_over(scenario, world._replace(begun=()))
