"""Events and sockets leave no garbage in cycles. The collector is lazy (server.py), and must have nothing to find."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager

import httptools
import pytest
from websockets.server import ServerProtocol

from tests.http.wire import request, wire
from tests.running import event, running_hub, until


@contextmanager
def garbage() -> Iterator[list[str]]:
    """The types of the hub's objects that only the collector would free. The list is filled at the end."""
    found: list[str] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        ours = (ServerProtocol, httptools.HttpRequestParser)
        garbage = [each for each in gc.garbage if is_ours(type(each)) or issubclass(type(each), ours)]
        found += sorted({type(each).__name__ for each in garbage})
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def is_ours(type_: type) -> bool:
    """Whether this is a class of the hub."""
    return str(type_.__module__).startswith("fhircast_hub")


@pytest.mark.req("EVT-1")
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_events_leave_no_garbage(store: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    url = store if store == "memory:" else f"sqlite:///{tmp_path_factory.mktemp('store')}/hub.db"
    async with running_hub(store=url) as hub, wire(hub) as connection, hub.follow(await hub.subscribe()) as follower:
        headers = hub.headers(**{"Content-Type": "application/json"})
        with garbage() as found:
            for count in range(20):
                for body in (json.dumps(event("Patient-open", str(count))).encode(), b"{}"):
                    await connection.send(request("POST", "/api/hub", headers, body))
                    await connection.reply()
                told = await follower.next()
                await follower.connection.send(json.dumps({"id": told["id"], "status": 200 if count % 2 else 409}))
        assert found == []


@pytest.mark.req("SUB-11")
@pytest.mark.parametrize("end", ["closed", "cut"])
async def test_sockets_leave_no_garbage(end: str) -> None:
    async with running_hub() as hub:
        async with hub.follow(await hub.subscribe()):
            pass
        with garbage() as found:
            for _ in range(3):
                async with hub.follow(await hub.subscribe()) as follower:
                    if end == "cut":
                        follower.connection.transport.abort()
            await until(lambda: len(hub.hub.registry) == 0)
        assert found == []


@pytest.mark.req("LIM-3")
async def test_connections_leave_no_garbage() -> None:
    async with running_hub() as hub:
        with garbage() as found:
            for _ in range(3):
                async with wire(hub) as connection:
                    await connection.send(request("GET", "/api/hub/none", hub.headers()))
                    await connection.reply()
            await asyncio.sleep(0.05)  # the hub hears of the end by itself
        assert found == []
