"""What all users share: places for requests, threads of the resolver, connections; and how many new callbacks a user may bring."""

from __future__ import annotations

import asyncio

import pytest

from fhircast_hub.webhook import shares
from fhircast_hub.webhook.shares import BURST, SECONDS_EACH, Newcomers, Shares, User

ANN, BOB, EVE = ("realm", "user:ann"), ("realm", "user:bob"), ("realm", "user:eve")


def filled(places: Shares, user: User) -> int:
    """How many more places the user can have."""
    count = 0
    while places.take(user):
        count += 1
    return count


async def begun(*tasks: asyncio.Task[None]) -> list[bool]:
    """Which of these have come to their ends, when all have gone as far as they can."""
    for _ in range(3):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


def wanting(places: Shares, *users: User) -> list[asyncio.Task[None]]:
    """Tasks that want a place each, in this order."""
    return [asyncio.create_task(places.acquire(user)) for user in users]


@pytest.mark.req("WHK-15")
def test_two_users_leave_most_places_to_others() -> None:
    """A user has a quarter as many as are free; so a third one finds nearly as many as the first did."""
    places = Shares(512)
    assert [filled(places, user) for user in (ANN, BOB, EVE)] == [102, 82, 65]


@pytest.mark.req("WHK-15")
def test_every_place_may_be_somebodys() -> None:
    """While one is free, each user may have one."""
    places = Shares(3)
    assert [filled(places, user) for user in (ANN, BOB, EVE, ("realm", "user:late"))] == [1, 1, 1, 0]


@pytest.mark.req("WHK-15")
async def test_users_take_turns() -> None:
    """However many one wants; and what one wants comes in order."""
    places = Shares(1)
    assert places.take(EVE)
    waiting = wanting(places, EVE, EVE, ANN, ANN, BOB)
    assert await begun(*waiting) == [False] * 5
    order: list[int] = []
    holder = EVE
    while len(order) < len(waiting):
        places.release(holder)
        (found,) = [n for n, done in enumerate(await begun(*waiting)) if done and n not in order]
        order.append(found)
        holder = (EVE, EVE, ANN, ANN, BOB)[found]
    assert order == [0, 2, 4, 1, 3]


@pytest.mark.req("WHK-15")
async def test_who_has_a_share_waits_for_ones_own() -> None:
    """A place that another gives back is not for who has many; it is for who has none, though that one came later."""
    places = Shares(2)
    assert places.take(EVE)
    assert places.take(ANN)
    eve, bob = wanting(places, EVE, BOB)
    assert await begun(eve, bob) == [False, False]
    places.release(ANN)
    assert await begun(eve, bob) == [False, True]
    places.release(EVE)
    assert await begun(eve, bob) == [True, True]


@pytest.mark.req("WHK-15")
@pytest.mark.parametrize("given", [False, True])
async def test_who_is_cancelled_keeps_no_place(given: bool) -> None:
    """Neither while waiting, nor in the moment in which the place is given; and nothing is remembered of anybody."""
    places = Shares(1)
    assert places.take(EVE)
    first, second = wanting(places, ANN, BOB)
    await begun(first, second)
    if given:
        places.release(EVE)
        first.cancel()
    else:
        first.cancel()
        await begun(first)
        assert list(places._waiting) == [BOB]
        places.release(EVE)
    assert await begun(first, second) == [True, True]
    assert first.cancelled()
    async with asyncio.timeout(1):
        places.release(BOB)
        async with places.of(EVE):
            assert not places.take(EVE)
    assert places._held == {}
    assert places._waiting == {}


@pytest.mark.req("WHK-13")
def test_new_callbacks_come_in_a_burst_and_then_at_a_rate() -> None:
    """And each user's are counted apart."""
    newcomers = Newcomers()
    for _ in range(BURST):
        assert newcomers.wait(EVE, 100.0) == 0
        newcomers.take(EVE, 100.0)
    assert newcomers.wait(EVE, 100.0) == SECONDS_EACH
    assert newcomers.wait(EVE, 100.5) == SECONDS_EACH - 0.5
    assert newcomers.wait(ANN, 100.0) == 0
    assert newcomers.wait(EVE, 100.0 + SECONDS_EACH) == 0
    newcomers.take(EVE, 100.0 + SECONDS_EACH)
    assert newcomers.wait(EVE, 100.0 + SECONDS_EACH) == SECONDS_EACH
    for _ in range(BURST):  # all is forgotten after a while
        newcomers.take(EVE, 1000.0)
    assert newcomers.wait(EVE, 1000.0) == SECONDS_EACH


@pytest.mark.req("WHK-13")
def test_the_counters_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were used last are kept."""
    monkeypatch.setattr(shares, "MAX_USERS", 2)
    newcomers = Newcomers()
    for user in (ANN, BOB, ANN, EVE):
        newcomers.take(user, 1.0)
    assert list(newcomers._full_at) == [ANN, EVE]
