"""Budgets: leaky buckets, the accounts of users, the turns of the loop, and the cost of a request."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import time
from pathlib import Path

import pytest

from fhircast_hub.budgets import accounts as user_accounts
from fhircast_hub.budgets import leaky_bucket, table
from fhircast_hub.budgets.accounts import Account, Accounts
from fhircast_hub.budgets.leaky_bucket import LeakyBucket, LeakyBuckets
from fhircast_hub.budgets.meter import Meter, MeteredCoroutine
from fhircast_hub.budgets.table import BIG_ANSWERS, BODIES, BODY_BYTES, CPU, CPU_BURST, WAITING
from fhircast_hub.budgets.turns import Turns
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.access.scopes import Scopes
from fhircast_hub.core.errors import TooMany
from fhircast_hub.settings.settings import NAMES
from tests.running import Clock, event, running_hub

NOBODY = Scopes(frozenset(), frozenset())


def principal(user: str | None, client: str = "app", *, system: bool = False) -> Principal:
    return Principal("realm", user, client, NOBODY, expires=0, system=system)


def test_a_bucket_refills_evenly() -> None:
    """A burst at once, then as much as the rate gives; a clock that was set back gives nothing."""
    drain = LeakyBucket(10, 2)
    drain.use(10, 100)
    assert drain.wait(100) == 0
    drain.use(4, 100)
    assert (drain.wait(100), drain.wait(101), drain.wait(102), drain.wait(90)) == (2, 1, 0, 2)
    drain.use(0, 200)
    drain.use(10, 200)
    assert drain.wait(200) == 0


def test_the_newest_buckets_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used name is forgotten. A refusal costs nothing."""
    monkeypatch.setattr(leaky_bucket, "MAX_HELD", 2)
    drains = LeakyBuckets(1, 1)
    assert [drains.take(name, 0) for name in "aab"] == [0, 1, 0]
    assert [drains.take(name, 0.5) for name in "ab"] == [0.5, 0.5]
    assert drains.take("c", 0.5) == 0
    assert drains.take("a", 0.5) == 0


@pytest.mark.req("LIM-3")
async def test_a_user_who_costs_too_much_waits() -> None:
    """Until the budget has refilled. If the wait is too long, the answer is 429 with Retry-After."""
    clock = Clock(0)
    account = Account(clock)
    account.charge(CPU_BURST.most)
    await account.wait_for_budget()
    over = [account.over_budget]
    account.charge(CPU.most * 4)
    assert [*over, account.over_budget] == [False, True]
    waiting = asyncio.ensure_future(account.wait_for_budget())
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    account.charge(CPU.most * 4)
    with pytest.raises(TooMany) as refusal:
        await account.wait_for_budget()
    assert refusal.value.retry_after == 5
    clock.now += 8
    await account.wait_for_budget()


@pytest.mark.req("LIM-3")
async def test_bodies_and_answers_of_a_user_are_bounded() -> None:
    """At a time, and in time."""
    clock = Clock(0)
    account = Account(clock)
    account.add_body(int(BODIES.most))
    with pytest.raises(TooMany, match="bodies of this user's requests may have at most"):
        account.add_body(1)
    account.bodies -= int(BODIES.most)
    assert account.idle
    account.bodies = 0
    await account.wait_for_budget()
    account.add_body(int(2 * BODY_BYTES.most))
    with_more = asyncio.ensure_future(account.wait_for_budget())
    await asyncio.sleep(0)
    assert not with_more.done()
    with_more.cancel()
    clock.now += 2
    await account.wait_for_budget()
    account.add_answer(int(BIG_ANSWERS.most))
    with pytest.raises(TooMany, match="large answers"):
        account.add_answer(1)


@pytest.mark.req("LIM-17")
def test_accounts_are_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the application; a client without a user is one; a system client pays nothing. Who has something under way stays."""
    monkeypatch.setattr(user_accounts, "MAX_HELD", 2)
    accounts = Accounts(clock=Clock(0))
    one = accounts.of(principal("a", "app"))
    assert accounts.of(principal("a", "other")) is one
    assert accounts.of(principal(None, "a")) is not one
    system = principal(None, "engine", system=True)
    assert accounts.of(system) is not accounts.of(system)
    one.add_body(1)
    for user in "bcd":
        accounts.of(principal(user))
    assert accounts.of(principal("a")) is one
    one.bodies = 0
    for user in "bcd":
        accounts.of(principal(user))
    assert accounts.of(principal("a")) is not one


@pytest.mark.req("LIM-3")
async def test_all_steps_of_a_request_are_paid() -> None:
    """What it took before its user was known too, and not what it waited for; what is thrown at it arrives."""
    meter, account, seen = Meter(), Account(Clock(0)), list[str]()

    busy = time.thread_time() + 0.002

    async def work() -> None:
        while time.thread_time() < busy:
            pass
        meter.account = account
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def run() -> None:
        await MeteredCoroutine(work(), meter)

    task = asyncio.ensure_future(run())
    await asyncio.sleep(0)
    assert 0.001 <= account._cpu._used < 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert seen == ["cancelled"]


@pytest.mark.req("LIM-3", "LIM-13", "LIM-14")
async def test_keys_take_turns() -> None:
    """So many begin at once; of what waits, each key's first comes first, then each key's second."""
    turns, begun = Turns(2), list[str]()
    assert [turns.claim_step(), turns.claim_step(), turns.claim_step()] == [True, True, False]
    for name in ("a1", "a2", "a3", "a4", "b1", "c1"):
        assert turns.queue_step(name[0], functools.partial(begun.append, name))
    assert begun == []
    await asyncio.sleep(0)
    assert begun == ["a1", "b1"]
    assert not turns.claim_step()  # what comes now is behind those who wait
    await asyncio.sleep(0)
    assert begun == ["a1", "b1", "c1", "a2"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert begun[4:] == ["a3", "a4"]
    await asyncio.sleep(0)
    assert turns.claim_step()


@pytest.mark.req("LIM-3", "LIM-14")
async def test_strangers_leave_known_users_their_half() -> None:
    """However many connections without a known token wait, each turn has room for users."""
    turns, begun = Turns(4), list[str]()
    while turns.claim_step():
        pass
    for number in range(100):
        assert turns.queue_step(number, functools.partial(begun.append, "stranger"), address_key=b"here")
    for user in ("a", "b", "c"):
        assert turns.queue_step(user, functools.partial(begun.append, user))
    await asyncio.sleep(0)
    assert begun == ["a", "stranger", "b", "stranger"]
    await asyncio.sleep(0)
    assert begun[4:] == ["c", "stranger", "stranger", "stranger"]


@pytest.mark.req("LIM-3", "LIM-14")
async def test_who_is_over_budget_comes_last() -> None:
    """With one step in any case, and with all that the others leave."""
    turns, begun = Turns(4), list[str]()

    async def step(name: str, *, over: bool) -> None:
        await turns.wait_for_step(name, over=over)
        begun.append(name)

    tasks = [asyncio.ensure_future(step(name, over=False)) for name in "abcdefgh"]
    tasks += [asyncio.ensure_future(step("over", over=True)) for _ in range(6)]
    for _ in range(6):
        await asyncio.sleep(0)
    assert begun == [*"abcd", "over", *"efgh", *["over"] * 5]
    await asyncio.gather(*tasks)


@pytest.mark.req("LIM-3", "LIM-13")
async def test_of_big_bodies_one_begins_in_a_turn() -> None:
    """Users take turns; small steps go on beside them."""
    turns, begun = Turns(2), list[str]()

    async def big(name: str) -> None:
        await turns.wait_for_step(name[0], big=True)
        begun.append(name)

    tasks = [asyncio.ensure_future(big(name)) for name in ("a1", "a2", "a3", "b1")]
    counts = []
    for _ in range(8):
        await asyncio.sleep(0)
        counts.append(len(begun))
        assert turns.claim_step()
    assert begun == ["a1", "a2", "b1", "a3"]
    assert all(later - before <= 1 for before, later in itertools.pairwise(counts))
    await asyncio.gather(*tasks)


@pytest.mark.req("LIM-3")
async def test_what_waits_has_an_end() -> None:
    """More of one key are turned away; whoever went away meanwhile takes nothing along."""
    turns = Turns(1)
    assert turns.claim_step()
    gone = asyncio.ensure_future(turns.wait_for_step("a", big=False))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    turns = Turns(1)
    turns.claim_step()
    assert all(turns.queue_step("a", int) for _ in range(int(WAITING.most)))
    with pytest.raises(TooMany):
        await turns.wait_for_step("a", big=False)
    assert turns.queue_step("b", int)


@pytest.mark.req("LIM-3")
async def test_bodies_of_one_user_leave_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many bytes at a time are 429, and are given back; the user's next request, and others', are taken."""
    async with running_hub() as hub:
        account = hub.hub.accounts.of_user(hub.idp.issuer, "user:user-1")
        account.bodies = int(BODIES.most)
        answer = await hub.publish(event("Patient-open"))
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "5"
        assert (await hub.publish(event("Patient-open", topic="other"), hub.token("user-2"))).status_code == 202
        account.bodies = 0
        assert (await hub.publish(event("Patient-open"))).status_code == 202
        assert account.bodies == 0


def test_the_table_is_in_security() -> None:
    """Word for word, and nothing else is under its heading; each setting that it names is one."""
    text = (Path(__file__).parents[2] / "SECURITY.md").read_text(encoding="utf-8")
    section = text.partition("\n## Budgets\n")[2].partition("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("|")][2:] == table.rows()
    assert {f"FHIRCAST_{setting}" for _, _, setting, _ in table.SETTINGS} <= NAMES.keys()


@pytest.mark.req("EVT-7", "LIM-3")
async def test_a_setting_for_large_bodies_is_kept() -> None:
    """A user has room for two of the largest, whatever the table says."""
    async with running_hub(max_body_bytes=20 << 20) as hub:
        large = event("Patient-open", also=[{"key": "extension", "data": "x" * (7 << 20)}])
        assert (await hub.publish(json.dumps(large).encode() + b" " * (12 << 20))).status_code == 202


@pytest.mark.req("LIM-3")
async def test_a_step_may_let_another_wait() -> None:
    """A request that was read is to be answered: in the place of the first step there are others still."""
    turns, begun = Turns(2), list[int]()

    def read(number: int) -> None:
        begun.append(number)
        assert turns.queue_step(number, functools.partial(begun.append, -number), address_key=b"here")

    while turns.claim_step():
        pass
    for number in range(1, 20):
        assert turns.queue_step(number, functools.partial(read, number), address_key=b"here")
    for _ in range(40):
        await asyncio.sleep(0)
    assert sorted(begun) == sorted([*range(1, 20), *range(-19, 0)])
