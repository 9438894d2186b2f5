"""Steps: all that can happen next in a world, what each does, and its words.

A step is a tuple of its kind and its arguments. `n` is a node, `k` an event, `s` a subscriber, `t` a topic.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model import database, duties, faults, following, node
from tests.model.scenarios import Scenario, place_of
from tests.model.values import Values
from tests.model.world import (
    ANEW,
    ASLEEP,
    DEAD,
    OK,
    REFUSED,
    SENT,
    UNDERWAY,
    UNSENT,
    UNSURE,
    UP,
    Cause,
    Commit,
    World,
    with_caller,
    with_duty,
    with_node,
    with_sub,
)

Step = tuple[str, int, int]


class Room:
    """The bounds of a search, and its values: what the steps of a world depend on."""

    def __init__(self, scenario: Scenario, values: Values, first: World) -> None:
        self.scenario, self.values, self.first = scenario, values, first
        groups: dict[tuple[object, ...], list[int]] = {}
        for n in range(scenario.nodes):
            topics = tuple(topic for topic, of in scenario.subs if of == n)
            groups.setdefault((topics, scenario.callback and n == 0), []).append(n)
        #: Node -> nodes before it that begin alike.
        self.alike = {n: tuple(each for each in group if each < n) for group in groups.values() for n in group}

    def enabled(self, world: World) -> Iterator[Step]:
        """The steps that may come next. Of nodes that begin alike and were in no step yet, only the first takes one."""
        for n in range(len(world.nodes)):
            alike = self.alike[n]
            if not (alike and self._is_untouched(world, n) and any(self._is_untouched(world, m) for m in alike)):
                yield from self._of_node(world, n)
        if world.budget.failovers:
            yield "failover", 0, 0
        if self.scenario.time and not world.late and any(self.values.awaits(each.session) for each in world.sessions):
            yield "late", 0, 0

    def _is_untouched(self, world: World, n: int) -> bool:
        return world.nodes[n] == self.first.nodes[n] and all(
            row.origin != world.nodes[n].name for row in (*world.log, *world.begun)
        )

    def _of_node(self, world: World, n: int) -> Iterator[Step]:
        now = world.nodes[n]
        yield from self._of_database(world, n)
        if now.life in (UP, UNSURE):
            if now.commit is not None and database.has_result(world, now.commit):
                yield "answer", n, 0
            if now.commit is not None and world.budget.lost_answers:
                yield "lose answer", n, 0
            yield from self._of_reading(world, n)
        if now.life == UP and now.commit is None and not node.is_waited_for(world, now):
            yield from self._of_requests(world, n)
            yield from self._of_duties(world, n)
        yield from self._of_posts(world, n)
        yield from self._of_lives(world, n)

    def _of_database(self, world: World, n: int) -> Iterator[Step]:
        now = world.nodes[n]
        for place, commit in enumerate((now.commit, now.left)):
            if commit is None:
                continue
            if commit.phase == UNDERWAY and database.succeeds(world, commit) and not database.waits(world, commit):
                yield "commit", n, place
            if database.is_begun(world, commit):
                yield "end commit", n, place
        if now.left is not None and now.left.phase == UNDERWAY and database.succeeds(world, now.left):
            yield "drop", n, 0

    def _of_reading(self, world: World, n: int) -> Iterator[Step]:
        now = world.nodes[n]
        if self.scenario.notices:
            for written in world.notices[n]:
                yield "notice", n, written
                yield "lose notice", n, written
        if following.has_to_read(world, n):
            yield "read", n, 0
        if now.life == UNSURE:
            yield "beat", n, 0

    def _of_requests(self, world: World, n: int) -> Iterator[Step]:
        for k, state in enumerate(world.callers):
            if (state == UNSENT and self._is_next(world, k)) or state == REFUSED or faults.is_given_up(world, state):
                yield "post", n, k
        for s, sub in enumerate(world.subs):
            if world.budget.returns and faults.may_return(world, s, sub):
                yield "return", n, s

    def _is_next(self, world: World, k: int) -> bool:
        """Events of a topic are alike, so they are named in the order of their posts."""
        topics = self.scenario.events
        return all(world.callers[other] != UNSENT for other in range(k) if topics[other] == topics[k])

    def _of_duties(self, world: World, n: int) -> Iterator[Step]:
        for place in range(len(world.nodes[n].duties)):
            yield "duty", n, place
        for topic, stored in enumerate(world.sessions):
            if lost_nodes(self.values, world, topic):
                yield "lost", n, topic
            if world.late and node.is_overdue_there(self.values, stored, world.nodes[n].name):
                yield "tick", n, topic

    def _of_posts(self, world: World, n: int) -> Iterator[Step]:
        if duties.may_post(world.nodes[n]):
            yield "begin post", n, 0
        if world.nodes[n].posting and world.nodes[n].life in (UP, UNSURE):
            yield "end post", n, 0

    def _of_lives(self, world: World, n: int) -> Iterator[Step]:
        now, others = world.nodes[n], any(m != n and each.life == UP for m, each in enumerate(world.nodes))
        if now.life in (UP, UNSURE) and world.budget.deaths:
            yield "die", n, 0
        if now.life == UP and world.budget.sleeps:
            yield "sleep", n, 0
        if now.life == ASLEEP:
            yield "wake", n, 0
        if now.life in (ASLEEP, DEAD, UNSURE) and others and database.may_mark(world, now.name):
            yield "mark", n, 0
        if now.life == ANEW:
            yield "join", n, 0


def lost_nodes(values: Values, world: World, topic: int) -> list[str]:
    """Store.orphans: dead nodes that the session still names."""
    return sorted(world.marked & values.nodes(world.sessions[topic].session))


def take(room: Room, world: World, step: Step) -> World:
    """The world after a step, and after the readings that change nothing. Raises Violation."""
    world = _take(room, world, step)
    return world if room.scenario.lost_rows else following.skip_rows(world)


def _take(room: Room, world: World, step: Step) -> World:
    kind, n, argument = step
    values = room.values
    match kind:
        case "post":
            world = with_caller(world, argument, SENT + n)
            return node.submit(values, world, n, Cause("event", room.scenario.events[argument], argument))
        case "return":
            return _return(room, world, n, argument)
        case "duty":
            return node.submit(values, world, n, world.nodes[n].duties[argument])
        case "lost":
            name = lost_nodes(values, world, argument)[0]
            return node.submit(values, world, n, Cause("lost", argument, 0, name))
        case "tick":
            return node.submit(values, world, n, Cause("tick", argument))
        case "commit" | "end commit":
            return _commit(room, world, n, argument, begins=kind == "commit")
        case "answer":
            return node.take_answer(values, _with_refusal(values, world, n), n)
        case "read":
            return following.read_log(values, world, n)
        case "notice":
            return following.take_notice(values, _without_notice(world, n, argument), n, argument)
        case "lose notice":
            return _without_notice(world, n, argument)
        case "beat":
            return node.beat(values, world, n)
        case "join":
            return node.join(world, n)
        case "begin post":
            return duties.begin_post(world, n)
        case "end post":
            return duties.end_post(world, n)
    return faults.take(room.scenario, values, world, step)


def _return(room: Room, world: World, n: int, s: int) -> World:
    sub = world.subs[s]
    connection = f"{world.nodes[n].name}-{100 * s + sub.returns + 1}"
    if sub.node:  # the node that is asleep finds the socket's end when it wakes up
        world = with_duty(world, place_of(sub.node), Cause("gone", sub.topic, s, sub.connection))
    world = with_sub(world, s, sub._replace(node="", connection=connection, told=0, returns=sub.returns + 1))
    world = world._replace(budget=world.budget._replace(returns=world.budget.returns - 1))
    return node.submit(room.values, world, n, Cause("connect", sub.topic, s, connection))


def _commit(room: Room, world: World, n: int, place: int, *, begins: bool) -> World:
    """The database carries out the commit that node `n` waits for, or the one that it has left."""
    now = world.nodes[n]
    commit = now.left if place else now.commit
    assert commit is not None
    if begins:
        world, commit = database.begin_commit(room.values, world, commit)
    if commit.phase == OK and not (begins and room.scenario.slow_commits):
        world = database.end_commit(room.values, world, commit)
        if room.scenario.notices:
            others = enumerate(world.notices)
            notices = tuple(each if m == n else (*each, commit.written) for m, each in others)
            world = world._replace(notices=notices)
    return _with_result(world, n, place, commit)


def _with_refusal(values: Values, world: World, n: int) -> World:
    """The world where the commit of node `n` has its result. A refusal changes nothing, so it comes with its answer."""
    now = world.nodes[n]
    assert now.commit is not None
    if now.commit.phase != UNDERWAY:
        return world
    world, commit = database.begin_commit(values, world, now.commit)
    return with_node(world, n, now._replace(commit=commit))


def _with_result(world: World, n: int, place: int, commit: Commit) -> World:
    now = world.nodes[n]
    if not place:
        return with_node(world, n, now._replace(commit=commit))
    return with_node(world, n, now._replace(left=commit if database.is_begun(world, commit) else None))


def _without_notice(world: World, n: int, written: int) -> World:
    left = tuple(each for each in world.notices[n] if each != written)
    return world._replace(notices=(*world.notices[:n], left, *world.notices[n + 1 :]))
