"""A hub with subscribers that acknowledge, refuse and watch for SyncErrors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from fhircast_hub.core.state.session import Subscription
from fhircast_hub.service.usage import LocalUsage
from tests.running import Follower, RunningHub, running_hub, until

MASK = b"\x5a\x01\xff\x80"


class Error(NamedTuple):
    """The id and name of a SyncError's event, and its subscriber."""

    id: str
    name: str
    who: str


async def error(monitor: Follower) -> Error:
    """The next message, which is a SyncError."""
    told = (await monitor.next())["event"]
    assert told["hub.event"] == "SyncError"
    id_, name, who, _ = (each["code"] for each in told["context"][0]["resource"]["issue"][0]["details"]["coding"])
    return Error(id_, name, who)


@asynccontextmanager
async def watched_hub(**settings: Any) -> AsyncIterator[tuple[RunningHub, Follower]]:
    """A hub, and a subscriber of SyncErrors only."""
    async with running_hub(**settings) as hub, hub.follow(await hub.subscribe("SyncError")) as monitor:
        yield hub, monitor


@asynccontextmanager
async def viewer(hub: RunningHub, name: str = "Viewer", events: str = "Patient-open") -> AsyncIterator[Follower]:
    """A subscriber of this name."""
    async with hub.follow(await hub.subscribe(events, subscriber__name=name)) as follower:
        yield follower


def subscriptions(hub: RunningHub) -> dict[str, Subscription]:
    """The subscriptions of the hub, by name."""
    usage = hub.hub.service.usage
    assert isinstance(usage, LocalUsage)
    owned = usage._subscriptions.values()
    return {subscription.name: subscription for each in owned for subscription in each.values()}


async def gone(hub: RunningHub, name: str = "Viewer") -> float:
    """Waits until the hub has noted the lost socket. Returns the deadline to return (0: not awaited)."""
    await until(lambda: not subscriptions(hub)[name].connection)
    return subscriptions(hub)[name].reconnect_deadline


async def passes(hub: RunningHub, seconds: float) -> None:
    """Time passes, and the hub does all work that was due."""
    hub.clock.now += seconds
    hub.hub.ack_timer.check()
    await asyncio.gather(*hub.hub.service._tasks)
    await hub.hub.service.tick()


async def answered(hub: RunningHub, follower: Follower, said: object) -> None:
    """A client sends this, and the hub has read it."""
    await follower.connection.send(said if isinstance(said, (str, bytes)) else json.dumps(said))
    await asyncio.wait_for(await follower.connection.ping(), 5)
    await asyncio.gather(*hub.hub.service._tasks)


def masked(payload: bytes, *, first: int = 0x81, size: int = 0, mask: bytes = MASK) -> bytes:
    """A client's frame, with its length in this many more bytes than usual."""
    length = (
        bytes((0x80 | len(payload),))
        if not size
        else bytes((0xFE if size == 2 else 0xFF,)) + len(payload).to_bytes(size)
    )
    return bytes((first,)) + length + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


def size(hub: RunningHub) -> list[int]:
    """The number of remembered entries about subscriptions and their sockets."""
    tracker, usage = hub.hub.ack_timer._tracker, hub.hub.service.usage
    assert isinstance(usage, LocalUsage)
    waiting = sum(1 + len(sent.repeats or ()) for topic in tracker._topics.values() for sent in topic.sent.values())
    counts = usage.subscriptions, usage.topics, len(usage._sessions), len(hub.hub.registry)
    return [
        *counts,
        len(tracker._topics),
        len(tracker._peers),
        len(tracker._latest),
        waiting,
        len(tracker._waiting),
    ]
