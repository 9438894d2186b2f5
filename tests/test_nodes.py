"""Duties of a node: each once, whatever fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, cast

import pytest

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.errors import Unavailable
from fhircast_hub.core.state.commands import Command, Disconnected, NodeLost, ResumePosts, Tick
from fhircast_hub.core.state.effects import Post
from fhircast_hub.core.state.session import Session, Subscription
from fhircast_hub.nodes import MAX_PAUSE_SECONDS, Duties

FIRST, SECOND = SessionKey("realm", "first"), SessionKey("realm", "second")


class World:
    """A store with duties, a service that fails for some sessions, sockets and webhooks that note what is asked of them."""

    node = "here"

    def __init__(self) -> None:
        self.late: list[SessionKey] = []
        self.lost: list[list[tuple[SessionKey, str, float]]] = []
        self.failing: dict[SessionKey, Exception] = {}
        self.sessions: dict[SessionKey, Session] = {}
        self.submitted: list[tuple[SessionKey, Command]] = []
        self.asked: list[tuple[Any, ...]] = []
        self.queued: list[Post] = []
        world: Any = self
        self.duties = Duties(world, world, world, world)

    async def overdue(self, skip: Collection[SessionKey]) -> list[SessionKey]:
        return [key for key in self.late if key not in skip]

    async def orphans(self, skip: Collection[SessionKey]) -> list[tuple[SessionKey, str, float]]:
        return [each for each in self.lost.pop(0) if each[0] not in skip] if self.lost else []

    async def session(self, key: SessionKey) -> Session | None:
        return self.sessions.get(key)

    def has(self, name: str) -> bool:
        return name == "here-1"

    async def submit(self, key: SessionKey, command: Command) -> None:
        await asyncio.sleep(0)
        if key in self.failing:
            raise self.failing[key]
        self.submitted.append((key, command))

    def submit_soon(self, key: SessionKey, command: Command) -> None:
        self.submitted.append((key, command))

    def close(self, names: list[str], code: int, reason: str) -> None:
        self.asked.append(("close", names, code))

    def close_all(self, code: int, reason: str) -> None:
        self.asked.append(("close all", code))

    def forget(self, key: SessionKey | None = None) -> None:
        self.asked.append(("forget", key))

    def posts_of(self, key: SessionKey) -> list[Post]:
        return [post for post in self.queued if post.key == key]

    def drop(self, posts: list[Post]) -> None:
        self.queued = [post for post in self.queued if post not in posts]


@pytest.mark.req("NOD-1", "NOD-9")
async def test_sessions_of_dead_nodes_come_first() -> None:
    """All of them, some at a time; then the sessions whose deadline has passed."""
    world = World()
    world.late = [FIRST]
    world.lost = [[(FIRST, "gone", 5.0)], [(SECOND, "gone", 5.0)]]
    await world.duties.work()
    assert world.submitted == [(FIRST, NodeLost("gone", 5.0)), (SECOND, NodeLost("gone", 5.0)), (FIRST, Tick())]


@pytest.mark.req("NOD-9")
@pytest.mark.parametrize("error", [Unavailable("the session cannot be read"), RuntimeError("a fault")])
async def test_a_session_that_fails_stops_no_other_one(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left alone for a while, and then tried again."""
    world, now = World(), [100.0]
    monkeypatch.setattr(Duties, "_now", cast("Callable[[Duties], float]", lambda _: now[0]))
    world.failing[FIRST] = error
    world.late = [FIRST, SECOND]
    await world.duties.work()
    await world.duties.work()
    assert world.submitted == [(SECOND, Tick())] * 2
    del world.failing[FIRST]
    now[0] += MAX_PAUSE_SECONDS + 1
    await world.duties.work()
    assert (FIRST, Tick()) in world.submitted


@pytest.mark.req("NOD-9")
async def test_a_session_that_failed_for_days_is_still_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause stays at its most, however many failures there were."""
    world, now = World(), [100.0]
    monkeypatch.setattr(Duties, "_now", cast("Callable[[Duties], float]", lambda _: now[0]))
    world.failing[FIRST] = Unavailable("the session cannot be read")
    world.late = [FIRST]
    for _ in range(5000):
        await world.duties.work()
        now[0] += MAX_PAUSE_SECONDS + 1
    del world.failing[FIRST]
    await world.duties.work()
    assert world.submitted == [(FIRST, Tick())]


@pytest.mark.req("NOD-1")
async def test_a_dead_node_whose_sessions_all_fail_is_left_for_the_next_look() -> None:
    """There is no endless round."""
    world = World()
    world.failing[FIRST] = Unavailable("away")
    world.lost = [[(FIRST, "gone", 5.0)]] * 5
    await world.duties.work()
    assert len(world.lost) == 4


@pytest.mark.req("NOD-14", "NOD-10")
async def test_an_abandoned_session_ends_its_sockets_and_begins_its_posts_anew() -> None:
    world = World()
    world.duties.abandoned(FIRST, ["here-1"])
    await done(world)
    assert world.asked == [("close", ["here-1"], 1012)]
    assert world.submitted == [(FIRST, ResumePosts())]


@pytest.mark.req("NOD-10")
async def test_posts_are_begun_anew_once_at_a_time_and_until_that_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many causes at once are two rounds at most. A round that fails is tried again."""
    monkeypatch.setattr("fhircast_hub.nodes.POLL_SECONDS", 0.0)
    world = World()
    world.failing[FIRST] = Unavailable("away")
    for _ in range(20):
        world.duties.resume_posts(FIRST)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(world.duties._tasks) == 1
    del world.failing[FIRST]
    await done(world)
    assert 1 <= len(world.submitted) <= 2


@pytest.mark.req("NOD-12", "SYN-7")
async def test_a_connection_that_is_none_is_lost() -> None:
    """A handshake was refused, for its outcome was unknown. The connection is in the session all the same."""
    world = World()
    subscriptions = {
        name: Subscription(name, "user:u", "", (), expires=9e9, connected_or_lost_at=0.0, connection=name)
        for name in ("here-1", "here-2", "elsewhere-3")
    }
    world.sessions[FIRST] = Session(realm="realm", topic="first", owner="u", subscriptions=subscriptions)
    world.duties.look_again(FIRST)
    await done(world)
    assert (FIRST, Disconnected("here-2", "here-2", 0.0, 1006)) in world.submitted
    assert [command for _, command in world.submitted if isinstance(command, Disconnected)] == [
        Disconnected("here-2", "here-2", 0.0, 1006)
    ]


async def done(world: World) -> None:
    """Wait for what was begun."""
    while world.duties._tasks:
        await asyncio.gather(*world.duties._tasks)
        await asyncio.sleep(0)


@pytest.mark.req("NOD-8")
def test_a_node_that_begins_anew_ends_all_sockets_and_posts() -> None:
    world = World()
    world.duties.begin_anew()
    assert world.asked == [("close all", 1012), ("forget", None)]
    assert world.submitted == []


@pytest.mark.req("NOD-10", "WHK-8")
async def test_a_later_post_waits_for_those_that_are_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a round is under way, a post that waits asks for another round. Afterwards no post waits."""
    world = World()
    assert not world.duties.holds_posts(FIRST)
    world.duties.resume_posts(FIRST)
    await asyncio.sleep(0)  # the round has begun
    assert world.duties.holds_posts(FIRST)
    assert not world.duties.holds_posts(SECOND)
    await done(world)
    assert world.submitted == [(FIRST, ResumePosts())] * 2
    assert not world.duties.holds_posts(FIRST)


@pytest.mark.req("NOD-12", "WHK-5")
async def test_posts_that_a_session_has_no_more_are_dropped() -> None:
    """This node may have missed the end of their subscription. Posts of other sessions stay."""
    world = World()
    first, second = (Post(key, 1, "subscription", "https://app.example/", b"", b"{}") for key in (FIRST, SECOND))
    world.queued = [first, second]
    world.duties.resume_posts(FIRST)
    await done(world)
    assert world.queued == [second]
