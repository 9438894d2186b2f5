"""Slots for requests to callbacks, and for threads of the resolver, are shared fairly between users."""

from __future__ import annotations

import asyncio

import pytest

from fhircast_hub.webhook.fair_slots import FairSlots, User

ANN, BOB, EVE = ("realm", "user:ann"), ("realm", "user:bob"), ("realm", "user:eve")


def filled(slots: FairSlots, user: User) -> int:
    """How many more slots the user can have."""
    count = 0
    while slots.take(user):
        count += 1
    return count


async def begun(*tasks: asyncio.Task[None]) -> list[bool]:
    """Which of these have come to their ends, when all have gone as far as they can."""
    for _ in range(3):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


def wanting(slots: FairSlots, *users: User) -> list[asyncio.Task[None]]:
    """Tasks that want a place each, in this order."""
    return [asyncio.create_task(slots.acquire(user)) for user in users]


@pytest.mark.req("WHK-15")
def test_two_users_leave_most_slots_to_others() -> None:
    """A user has a quarter as many as are free; so a third one finds nearly as many as the first did."""
    slots = FairSlots(512)
    assert [filled(slots, user) for user in (ANN, BOB, EVE)] == [102, 82, 65]


@pytest.mark.req("WHK-15")
def test_every_place_may_be_somebodys() -> None:
    """While one is free, each user may have one."""
    slots = FairSlots(3)
    assert [filled(slots, user) for user in (ANN, BOB, EVE, ("realm", "user:late"))] == [1, 1, 1, 0]


@pytest.mark.req("WHK-15")
async def test_users_take_turns() -> None:
    """However many one wants; and what one wants comes in order."""
    slots = FairSlots(1)
    assert slots.take(EVE)
    waiting = wanting(slots, EVE, EVE, ANN, ANN, BOB)
    assert await begun(*waiting) == [False] * 5
    order: list[int] = []
    holder = EVE
    while len(order) < len(waiting):
        slots.release(holder)
        (found,) = [n for n, done in enumerate(await begun(*waiting)) if done and n not in order]
        order.append(found)
        holder = (EVE, EVE, ANN, ANN, BOB)[found]
    assert order == [0, 2, 4, 1, 3]


@pytest.mark.req("WHK-15")
async def test_who_has_a_share_waits_for_ones_own() -> None:
    """A returned place goes to a user with none, even one that came later, before a user with many."""
    slots = FairSlots(2)
    assert slots.take(EVE)
    assert slots.take(ANN)
    eve, bob = wanting(slots, EVE, BOB)
    assert await begun(eve, bob) == [False, False]
    slots.release(ANN)
    assert await begun(eve, bob) == [False, True]
    slots.release(EVE)
    assert await begun(eve, bob) == [True, True]


@pytest.mark.req("WHK-15")
@pytest.mark.parametrize("given", [False, True])
async def test_who_is_cancelled_keeps_no_place(given: bool) -> None:
    """A request may be cancelled while waiting, or when its place is given. Nothing is remembered of it."""
    slots = FairSlots(1)
    assert slots.take(EVE)
    first, second = wanting(slots, ANN, BOB)
    await begun(first, second)
    if given:
        slots.release(EVE)
        first.cancel()
    else:
        first.cancel()
        await begun(first)
        assert list(slots._waiting) == [BOB]
        slots.release(EVE)
    assert await begun(first, second) == [True, True]
    assert first.cancelled()
    async with asyncio.timeout(1):
        slots.release(BOB)
        async with slots.slot(EVE):
            assert not slots.take(EVE)
    assert slots._held == {}
    assert slots._waiting == {}
