"""Looks at all sessions take turns, and rest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fhircast_hub.budgets.accounts import Accounts
from fhircast_hub.console import paced, scans, sessions
from fhircast_hub.console.paced import Paced
from fhircast_hub.console.scans import BURST, OF_OPERATOR, Scans
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import TooMany, Unavailable
from fhircast_hub.service.session_list import LocalSessions, SessionRow, Wanted
from tests.console.console_world import operated
from tests.core.world import token
from tests.running import Clock, until

pytestmark = pytest.mark.req("CSL-16")


class Scanning:
    """Scans whose turns tests give back by hand."""

    def __init__(self) -> None:
        self.clock, self.accounts = Clock(1000.0), Accounts()
        self.scans = Scans(self.accounts, self.clock)
        #: Names of the scans in the order of their turns, and who was refused.
        self.began: list[str] = []
        self.refused: list[str] = []
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def ask(self, operator: str, name: str) -> asyncio.Task[None]:
        """Begin a scan, and let all run that can."""
        task = asyncio.create_task(self._scan(token(operator), name))
        self._tasks.append(task)
        await settle()
        return task

    async def finish(self, seconds: float = 0.0) -> None:
        """The present scan took so long, and is over."""
        self.clock.now += seconds
        self._over.set()
        await settle()

    async def _scan(self, operator: Principal, name: str) -> None:
        try:
            async with self.scans.turn(operator):
                self.began.append(name)
                self._over.clear()
                await self._over.wait()
        except TooMany as error:
            self.refused.append(f"{name}: {error}")


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_scan_at_a_time_and_operators_take_turns() -> None:
    """An operator with many searches does not keep another one waiting for all of them."""
    world = Scanning()
    for name in ("a1", "a2", "a3"):
        await world.ask("a", name)
    await world.ask("b", "b1")
    assert world.began == ["a1"]
    for _ in range(4):
        await world.finish()
    assert world.began == ["a1", "a2", "b1", "a3"]
    assert len(world.scans) == 0


async def test_a_newer_search_takes_the_place_of_the_operators_oldest_that_waits() -> None:
    world = Scanning()
    await world.ask("b", "under way")
    await world.ask("b", "b1")
    for number in range(OF_OPERATOR + 2):
        await world.ask("a", f"a{number}")
    words = "newer searches of the same operator took this search's place"
    assert world.refused == [f"a0: {words}", f"a1: {words}"]
    assert len(world.scans) == OF_OPERATOR + 1


async def test_beyond_all_that_may_wait_a_search_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "OF_ALL", 2)
    world = Scanning()
    for operator in "abcd":
        await world.ask(operator, operator)
    assert world.refused == ["d: as many searches wait as may; search again in a while"]


async def test_in_the_long_run_scans_have_a_fiftieth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a burst the next scan comes when fifty times the excess is over. The operator's account has the cost."""
    world, rests = Scanning(), list[Any]()
    loop = asyncio.get_running_loop()

    def call_later(*rest: Any) -> str:
        rests.append(rest)
        return "handle"

    monkeypatch.setattr(loop, "call_later", call_later)
    await world.ask("a", "a1")
    await world.finish(BURST + 0.5)
    assert world.accounts.of(token("a")).used()["cpu"] >= 1
    await world.ask("a", "a2")
    assert world.began == ["a1"]
    ((seconds, rested),) = rests
    assert seconds == pytest.approx(25.0)
    world.clock.now += seconds + 1e-6
    rested()
    await settle()
    assert world.began == ["a1", "a2"]


@pytest.mark.parametrize("at_its_turn", [False, True])
async def test_a_cancelled_search_gives_its_turn_on(at_its_turn: bool) -> None:
    world = Scanning()
    await world.ask("a", "a1")
    waiting = await world.ask("a", "a2")
    await world.ask("b", "b1")
    await world.ask("c", "c1")
    if at_its_turn:
        world._over.set()
        await asyncio.sleep(0)
    waiting.cancel()
    await settle()
    for _ in range(3):
        await world.finish()
    assert [name for name in world.began if name != "a2"] == ["a1", "b1", "c1"]


async def test_many_searches_of_an_operator_are_few_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of thirty different searches, few wait. The others are answered at once, and drop no list."""
    monkeypatch.setattr(sessions, "LISTS", 40)
    asked, free = list[str](), asyncio.Event()

    async def newest(_: Any, wanted: Wanted, most: int) -> tuple[list[SessionRow], int]:
        asked.append(wanted.text)
        await free.wait()
        return [], 0

    monkeypatch.setattr(LocalSessions, "newest", newest)
    monkeypatch.setattr(paced, "PATIENCE", 60)
    async with operated() as console:
        searches = [asyncio.ensure_future(console.get("/state", search=f"s{number}")) for number in range(30)]
        await until(lambda: sum(search.done() for search in searches) == 30 - 1 - OF_OPERATOR)
        refused = [search.result() for search in searches if search.done()]
        assert {answer.status_code for answer in refused} == {429}
        assert all(answer.headers["Retry-After"] for answer in refused)
        assert len(asked) == 1
        assert len(console.console.sessions._lists) == 1 + OF_OPERATOR
        free.set()
        answers = await asyncio.gather(*searches)
        assert sum(answer.status_code == 200 for answer in answers) == 1 + OF_OPERATOR
        assert len(asked) == 1 + OF_OPERATOR


async def test_a_list_that_is_dropped_is_not_searched_for_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who still waits for it gets a sentence."""
    monkeypatch.setattr(sessions, "LISTS", 1)
    began, ended = list[str](), list[str]()

    async def newest(_: Any, wanted: Wanted, most: int) -> tuple[list[SessionRow], int]:
        began.append(wanted.text)
        try:
            await asyncio.sleep(0.05 if wanted.text == "new" else 3600)
        finally:
            ended.append(wanted.text)
        return [], 0

    monkeypatch.setattr(LocalSessions, "newest", newest)
    async with operated() as console:
        old = asyncio.create_task(console.get("/state", search="old"))
        await until(lambda: began == ["old"])
        assert (await console.state(search="new"))["sessions"]["rows"] == []
        assert (await old).status_code == 429
        assert ended == ["old", "new"]


async def test_where_a_new_answer_is_late_the_last_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while. Without one, the look ends with a sentence, and the question goes on."""
    monkeypatch.setattr(paced, "PATIENCE", 0.01)
    clock, turn, answers = Clock(), asyncio.Event(), iter([1, 2])

    async def find() -> int:
        await turn.wait()
        return next(answers)

    number = Paced(find, 1.0, clock)
    with pytest.raises(Unavailable, match="the answer takes longer than usual"):
        await number.get()
    turn.set()
    assert await number.get() == 1
    turn.clear()
    clock.now += 2
    assert await number.get() == 1
    clock.now += paced.KEPT
    with pytest.raises(Unavailable):
        await number.get()
