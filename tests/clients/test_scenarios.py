"""clients/scenarios.json, which the libraries of both languages play: at a real hub, and at the fake one in both manners."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from tests.clients.places import DevHub, FakePlace, RealPlace, scenarios
from tests.clients.player import Place, Player

_ALL = scenarios()
#: Makes a session for the clients of one scenario.
Meet = Callable[[], AbstractAsyncContextManager[Place]]
#: Scenarios that are played at the same time: they mostly wait.
_AT_ONCE = 8
#: Seconds until all of them must be over.
_PATIENCE = 300


def _cases(*, stu2: bool) -> list[Any]:
    return [
        pytest.param(one["name"], id=one["name"], marks=pytest.mark.req(*one["proves"]))
        for one in _ALL["scenarios"]
        if one["stu2" if stu2 else "stu3"]
    ]


class Plays:
    """Plays scenarios at one kind of hub, several at once, in a thread of its own."""

    def __init__(self, names: list[str], meet: Meet, *, tells: bool) -> None:
        self._meet, self._tells = meet, tells
        self._steps = {one["name"]: one["steps"] for one in _ALL["scenarios"] if one["name"] in names}
        self._outcomes: dict[str, Future[None]] = {name: Future() for name in self._steps}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._play_all()))
        self._thread.start()

    def outcome(self, name: str) -> None:
        """Wait for a scenario to end; raises what it raised."""
        self._outcomes[name].result(_PATIENCE)

    def end(self) -> None:
        """Wait for all."""
        self._thread.join(_PATIENCE)

    async def _play_all(self) -> None:
        await asyncio.gather(*(self._play(name) for name in self._steps))

    async def _play(self, name: str) -> None:
        try:
            async with self._turns, self._meet() as there:
                player = Player(there, copy.deepcopy(_ALL["resources"]), tells=self._tells)
                await player.play(self._steps[name])
        except BaseException as error:
            self._outcomes[name].set_exception(error)
        else:
            self._outcomes[name].set_result(None)


def _chosen(request: pytest.FixtureRequest, test: str) -> list[str]:
    """The scenarios that this run is to play."""
    items = [item for item in request.session.items if item.name.startswith(f"{test}[")]
    return [item.name.partition("[")[2][:-1] for item in items]


@pytest.fixture(scope="module")
def at_a_real_hub(request: pytest.FixtureRequest, hub: DevHub) -> Iterator[Plays]:
    plays = Plays(_chosen(request, "test_at_a_real_hub"), lambda: RealPlace(hub), tells=True)
    yield plays
    plays.end()


@pytest.fixture(scope="module")
def at_the_fake_hub(request: pytest.FixtureRequest) -> Iterator[Plays]:
    plays = Plays(_chosen(request, "test_at_the_fake_hub"), lambda: FakePlace("STU3"), tells=True)
    yield plays
    plays.end()


@pytest.fixture(scope="module")
def at_a_hub_of_stu2(request: pytest.FixtureRequest) -> Iterator[Plays]:
    plays = Plays(_chosen(request, "test_at_a_hub_of_stu2"), lambda: FakePlace("STU2"), tells=False)
    yield plays
    plays.end()


@pytest.mark.parametrize("name", _cases(stu2=False))
def test_at_a_real_hub(name: str, at_a_real_hub: Plays) -> None:
    at_a_real_hub.outcome(name)


@pytest.mark.parametrize("name", _cases(stu2=False))
def test_at_the_fake_hub(name: str, at_the_fake_hub: Plays) -> None:
    at_the_fake_hub.outcome(name)


@pytest.mark.parametrize("name", _cases(stu2=True))
def test_at_a_hub_of_stu2(name: str, at_a_hub_of_stu2: Plays) -> None:
    at_a_hub_of_stu2.outcome(name)
