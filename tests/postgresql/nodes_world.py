"""Several nodes of one hub, in the test's own event loop, on one real database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import pytest

from fhircast_hub.postgresql import membership
from fhircast_hub.postgresql.store import PostgresStore
from tests.auth.issuer_server import IssuerServer
from tests.running import Clock, Follower, RunningHub, running_hub
from tests.tokens import Idp

REALM = {"realm": "hospital", "user_claim": "sub"}
SECRET_KEY = "a-secret-key-of-all-nodes-of-this-hub"


class RealClock(Clock):
    """The machine's time: all nodes go by the database's."""

    @property
    def now(self) -> float:  # type: ignore[override]  # here nobody sets the time
        return time.time()

    def __init__(self) -> None:
        pass

    def __call__(self) -> float:
        return time.time()


@asynccontextmanager
async def nodes(database: str, count: int = 2, **settings: Any) -> AsyncIterator[list[RunningHub]]:
    """So many nodes with these settings, whose tokens are of one issuer."""
    async with AsyncExitStack() as stack, IssuerServer() as keys:
        shared: dict[str, Any] = {"idp": Idp(keys.url), "issuer": keys, "own": REALM}
        values = {"store": database, "secret_key": SECRET_KEY, **settings}
        yield [
            await stack.enter_async_context(running_hub(clock=RealClock(), **shared, **values)) for _ in range(count)
        ]


def store_of(hub: RunningHub) -> PostgresStore:
    """The node's store."""
    return cast("PostgresStore", hub.hub._stored.store)


def at(hub: RunningHub, endpoint: str) -> str:
    """An endpoint that another node gave, at this node."""
    return f"ws://127.0.0.1:{hub.port}/" + endpoint.split("/", 3)[3]


async def die(hub: RunningHub) -> None:
    """From now on the node gives no sign of life, reads nothing and writes nothing, as a process that was stopped."""
    store = store_of(hub)
    await store.membership.stop()
    await store._follower.stop()
    assert hub.hub._duties
    await hub.hub._duties.stop()
    await hub.hub._webhooks.stop()


def hurry(monkeypatch: pytest.MonkeyPatch, *, dead: float = 1.0) -> None:
    """Nodes give signs of life often, and are dead after so many seconds."""
    monkeypatch.setattr(membership, "BEAT_SECONDS", dead / 5)
    monkeypatch.setattr(membership, "DEAD_SECONDS", dead)
    monkeypatch.setattr(membership, "MARGIN", dead / 5)


async def all_names(follower: Follower, count: int) -> list[str]:
    """Names and ids of the next events."""
    return [(await follower.next())["id"] for _ in range(count)]


async def eventually(condition: Any, seconds: float = 8.0) -> None:
    """Wait for what a node finds out by itself. `condition` is asynchronous."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  # the nodes have no event for it, and need none
            await asyncio.sleep(0.02)
