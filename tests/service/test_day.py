"""A day of a hub in virtual time: sessions begin and end, subscribers come and go, and nothing is held for ever."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from typing import NamedTuple

import pytest

from fhircast_hub.auth import jwt
from fhircast_hub.budgets import accounts, leaky_bucket
from tests.service.day_world import VirtualLoop, World, acknowledge, held, objects, world

HOUR = 3600.0
OPENS = 4  # of each of two users in an hour
EVENTS = 12 * 2 * OPENS  # at least, from noon to midnight
#: The hub remembers so many tokens, and budgets of so many users and endpoints. The least recently used ones go first.
NAMES = 12
#: A user may have so many topics. The oldest without subscribers goes where its user begins another one.
TOPICS = 4
SETTINGS = {"default_lease": 5000, "session_ttl": 7200, "max_topics_per_user": TOPICS, "ping_seconds": 200}
#: Of these the hub must hold some, or the day proves nothing.
IN_USE = (
    ".registry._connections",
    ".ack_timer._tracker._peers",
    ".ack_timer._tracker._waiting",
    ".service._deadlines._at",
    ".service._answers._kept",
    "._stored.usage._counted",
    "._stored.usage._owners",
    "._stored.usage._subscriptions",
    "._stored.store._sessions",
    ".accounts._held",
    ".rates._tokens._held",
    ".sockets.endpoint_handshakes._held",
)


class Snapshot(NamedTuple):
    """What the hub holds at one moment: lengths by container, and objects by type; all objects of the process."""

    containers: Counter[str]
    objects: Counter[str]
    tracked: int


async def hour_of(world: World, user: str, topic: str, *, closes: bool) -> None:
    """One user's hour with four subscribers. One unsubscribes at its end, one is cut off, one refuses, one never answers.

    `closes`: the last patient is closed. Otherwise the session keeps its patient.
    """
    token = world.token(user)
    endpoints = [await world.subscribe(token, topic, f"{user}-{number}") for number in range(4)]
    sockets = [await world.connect(endpoint) for endpoint in endpoints]
    answers = zip(sockets, (200, 200, 409), strict=False)  # the fourth has none
    readers = [asyncio.create_task(acknowledge(socket, status)) for socket, status in answers]
    for number in range(OPENS):
        await world.publish(token, topic, "Patient-open", f"p{number}")
        await world.context(token, topic)
        await asyncio.sleep(HOUR / OPENS / 2)
        if number == OPENS // 2:
            sockets[1].lose()
        if closes or number < OPENS - 1:
            await world.publish(token, topic, "Patient-close", f"p{number}")
        await asyncio.sleep(HOUR / OPENS / 2)
    await world.unsubscribe(token, topic, endpoints[0])
    for socket in sockets[1:]:
        socket.lose()
    assert min(await asyncio.gather(*readers)) >= OPENS


async def day(monkeypatch: pytest.MonkeyPatch, hours: tuple[int, ...]) -> list[Snapshot]:
    """Snapshots in the midst of these hours, while all subscribers but one are connected and an event waits for answers."""
    taken = []
    async with world(monkeypatch, **SETTINGS) as made:
        for hour in range(hours[-1] + 1):
            staff = hour_of(made, "staff", f"staff-{hour}", closes=False)
            guest = hour_of(made, f"guest-{hour}", f"guest-{hour}", closes=True)
            users = [asyncio.create_task(each) for each in (staff, guest)]
            await asyncio.sleep(HOUR / 2 + 5)
            if hour in hours:
                taken.append(Snapshot(held(made.hub), objects(), len(gc.get_objects())))
            await asyncio.gather(*users)
    return taken


@pytest.mark.req("LIM-5")
def test_after_a_day_the_hub_holds_what_it_held_at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaky_bucket, "MAX_HELD", NAMES)
    monkeypatch.setattr(accounts, "MAX_HELD", NAMES)
    monkeypatch.setattr(jwt, "MAX_REMEMBERED", NAMES)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        noon, midnight = runner.run(day(monkeypatch, (12, 24)))
    assert [name for name in IN_USE if not midnight.containers[name]] == []
    assert midnight.containers == noon.containers
    assert midnight.objects == noon.objects
    assert midnight.tracked - noon.tracked < EVENTS, "not one object more for each event"


def test_a_container_that_grows_is_seen_wherever_the_hub_holds_it() -> None:
    buckets = leaky_bucket.LeakyBuckets(1, 1)
    lengths = []
    for name in ("one", "two"):
        buckets.take(name, 0)
        lengths.append(held(buckets)["._held"])
    assert lengths == [1, 2]
