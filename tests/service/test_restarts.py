"""A new process takes up the sessions of the old process."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from fhircast_hub.service import service
from fhircast_hub.storage.sqlite import SqliteStore
from tests.auth.issuer_server import IssuerServer
from tests.running import Clock, Follower, event, running_hub, until
from tests.service.service_world import moody
from tests.tokens import Idp

#: An issuer whose realm is the same in each process, though its port is not.
REALM = {"realm": "hospital", "user_claim": "sub"}


async def is_refused(endpoint: str) -> bool:
    """Whether the endpoint is dead."""
    try:
        async with connect(endpoint, proxy=None):
            return False
    except InvalidStatus as refusal:
        return refusal.response.status_code == 404


async def test_a_new_process_takes_up_where_the_last_one_was(tmp_path: Path) -> None:
    """Sessions with their owners, contexts with their versions, subscriptions under their endpoints, limits and deadlines."""
    store, clock, idp = f"sqlite:///{tmp_path / 'hub.db'}", Clock(), Idp()
    limits: dict[str, Any] = {"max_topics_per_user": 1, "max_subscriptions_per_user": 2}
    async with running_hub(store=store, clock=clock, idp=idp, own=REALM, **limits) as hub:
        endpoint = await hub.subscribe(hub__lease_seconds="500", subscriber__name="Viewer")
        async with hub.follow(endpoint) as follower:
            await hub.publish(event("Patient-open", "p1"))
            message = await follower.next()
            before = (await hub.context()).json()
    clock.now += 100
    async with running_hub(store=store, clock=clock, idp=idp, own=REALM, **limits) as again:
        assert (await again.context()).json() == before
        assert (await again.context(again.token("user-2"))).status_code == 403
        assert (await again.publish(event("Patient-open", topic="second"))).status_code == 429
        assert again.hub.service.usage.subscriptions == 1
        moved = endpoint.replace(str(hub.port), str(again.port))
        async with connect(moved, proxy=None) as connection:
            back = Follower(connection)
            confirmation = await back.next()
            assert confirmation["hub.lease_seconds"] == 400
            assert confirmation["hub.events"] == "Patient-open,Patient-close"
            assert await back.next() == message
            await again.publish(event("Patient-close", "p1"))
            assert await back.names(1) == ["Patient-close"]
            clock.now += 401
            await again.hub.service.tick()
            assert (await back.next())["hub.mode"] == "denied"
        assert await is_refused(moved)


@pytest.mark.req("LEA-4", "SUB-14", "LIM-1")
async def test_what_fell_due_while_no_process_ran_is_done_at_the_start(tmp_path: Path) -> None:
    """An ended lease, an endpoint that nobody used, and an old session are gone by themselves."""
    store, clock, idp = f"sqlite:///{tmp_path / 'hub.db'}", Clock(), Idp()
    async with running_hub(store=store, clock=clock, idp=idp, own=REALM, session_ttl=1000) as hub:
        ended = await hub.subscribe(hub__topic="one", hub__lease_seconds="100")
        async with hub.follow(ended):
            pass
        never = await hub.subscribe(hub__topic="two")
        await hub.publish(event("UserLogout", topic="three"))
    clock.now += 2000
    async with running_hub(store=store, clock=clock, idp=idp, own=REALM, session_ttl=1000) as again:
        for endpoint in (ended, never):
            assert await is_refused(endpoint.replace(str(hub.port), str(again.port)))
        await until(lambda: again.hub.service.usage.subscriptions == 0)
        await until(lambda: not any(session.topic == "three" for session in again.hub.service._store.sessions()))


@pytest.mark.req("SUB-23", "SUB-22")
async def test_after_a_crash_who_had_a_socket_has_time_to_come_back(tmp_path: Path) -> None:
    """A subscriber that was absent before the crash is evicted before one whose socket ended with the process."""
    clock, idp, crashed = Clock(), Idp(), tmp_path.with_name(f"{tmp_path.name}-crashed")
    rules: dict[str, Any] = {"own": REALM, "max_subscriptions_per_topic": 2, "clock": clock, "idp": idp}
    async with IssuerServer() as issuer:
        rules["issuer"] = issuer
        async with running_hub(store=f"sqlite:///{tmp_path / 'hub.db'}", **rules) as hub:
            connected = await hub.subscribe()
            named = await hub.subscribe(subscriber__name="Viewer", hub__topic="another")
            async with hub.follow(connected), hub.follow(named):
                clock.now += 1
                absent = await hub.subscribe()
                shutil.copytree(tmp_path, crashed)
        clock.now += 5
        async with running_hub(store=f"sqlite:///{crashed / 'hub.db'}", **rules) as again:
            await again.subscribe()
            assert await is_refused(absent.replace(str(hub.port), str(again.port)))
            assert not await is_refused(connected.replace(str(hub.port), str(again.port)))
            await again.subscribe(subscriber__name="Viewer", hub__topic="another")
            assert await is_refused(named.replace(str(hub.port), str(again.port))), (
                "its socket is gone, so it is replaced"
            )


@pytest.mark.req("OPS-3", "SUB-23")
async def test_stopping_notes_every_socket_before_the_store_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an orderly end the file has no socket, though the store was down when the hub began to stop."""
    monkeypatch.setattr(service, "RETRY_SECONDS", 0.05)
    path = tmp_path / "hub.db"
    async with AsyncExitStack() as sockets:
        async with running_hub(store=f"sqlite:///{path}") as hub:
            followers = [await sockets.enter_async_context(hub.follow(await hub.subscribe())) for _ in range(5)]
            away = moody(hub)
            away.down = True
            asyncio.get_running_loop().call_later(1, setattr, away, "down", False)
        assert [await follower.closed() for follower in followers] == [1001] * 5
    store = SqliteStore(path)
    await store.open(lambda effects: None)
    (session,) = store.sessions()
    await store.close()
    assert [subscription.connection for subscription in session.subscriptions.values()] == [""] * 5


@pytest.mark.req("OPS-3")
async def test_a_store_that_is_down_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes that miss the deadline are given up, and the next process settles them."""
    monkeypatch.setattr(service, "STOP_SECONDS", 0.05)
    async with asyncio.timeout(4), running_hub() as hub:
        async with hub.follow(await hub.subscribe()):
            moody(hub).down = True
        await until(lambda: len(hub.hub.service._tasks) > 0)
