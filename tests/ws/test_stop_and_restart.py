"""A stop of the hub makes no SyncErrors. After a restart, subscribers have time to come back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.running import Clock, event, running_hub, until
from tests.tokens import Idp
from tests.ws.acknowledgements_world import answered, error, gone, passes, subscriptions, viewer, watched_hub


@pytest.mark.req("OPS-3")
async def test_a_stop_is_no_storm() -> None:
    """Everybody is closed with 1001, and hears nothing of the others."""
    async with running_hub(ack_policy="strict") as hub:
        sockets = [
            await connect(await hub.subscribe("SyncError,Patient-open", subscriber__name=f"v{number}"), proxy=None)
            for number in range(6)
        ]
        await hub.publish(event("Patient-open"))
    for socket in sockets:
        heard = [json.loads(message) async for message in socket]
        assert [message.get("hub.mode") or message["event"]["hub.event"] for message in heard] == [
            "subscribe",
            "Patient-open",
        ]
        assert socket.close_code == 1001
    timer = hub.hub.ack_timer._timer
    assert timer is not None
    assert timer.cancelled()


@pytest.mark.req("OPS-3")
async def test_after_its_stop_a_hub_reports_nothing() -> None:
    """Neither a missed acknowledgement nor a loss is reported."""
    async with watched_hub(ack_timeout=1, ack_policy="strict") as (hub, monitor), viewer(hub):
        await hub.publish(event("Patient-open"))
        hub.clock.now += 2
        hub.hub.ack_timer.stop()
        assert await monitor.silent()
        timer = hub.hub.ack_timer._timer
        assert timer is not None
        assert timer.cancelled()
        await hub.publish(event("Patient-open", "p2"))
        assert hub.hub.ack_timer._timer is timer


class Places:
    """Two hubs, one after the other, on the same file."""

    def __init__(self, path: Path) -> None:
        self.clock, self.idp = Clock(), Idp()
        self._path = path

    def hub(self, file: str = "hub.db", **settings: Any) -> Any:
        store = f"sqlite:///{self._path / file}"
        return running_hub(store=store, clock=self.clock, idp=self.idp, own={"realm": "hospital"}, **settings)


@pytest.mark.req("SUB-23", "SUB-41")
@pytest.mark.parametrize("end", ["crash", "stop"])
@pytest.mark.parametrize("pause", [1, 100])
async def test_after_a_restart_everybody_has_thirty_seconds(tmp_path: Path, end: str, pause: float) -> None:
    """Subscribers that return in time are not lost, others are reported, however the last process ended."""
    places, moved = Places(tmp_path), tmp_path / "moved"
    async with places.hub() as hub:
        endpoints = {
            name: await hub.subscribe("SyncError", subscriber__name=name)
            for name in ("Monitor", "Back", "Gone", "Left", "Lost")
        }
        sockets = {name: await connect(endpoint, proxy=None) for name, endpoint in endpoints.items()}
        await until(lambda: all(each.connection for each in subscriptions(hub).values()))
        await sockets["Left"].close()
        sockets["Lost"].transport.abort()
        await gone(hub, "Left")
        await gone(hub, "Lost")
        if end == "crash":
            shutil.copytree(tmp_path, moved)
    if end == "stop":
        shutil.copytree(tmp_path, moved)
    places.clock.now += pause
    async with places.hub("moved/hub.db") as again:
        here = {
            name: f"ws://127.0.0.1:{again.port}/api/hub/ws/{of.rpartition('/')[2]}" for name, of in endpoints.items()
        }
        async with again.follow(here["Monitor"]) as monitor:
            await passes(again, 29)
            assert await monitor.silent()
            async with again.follow(here["Back"]):
                await passes(again, 2)
                assert sorted([(await error(monitor)).who for _ in range(2)]) == ["Gone", "Lost"]
                await passes(again, 999)
                assert await monitor.silent()


@pytest.mark.req("SYN-6", "SUB-23")
async def test_after_a_restart_who_acknowledged_is_missed(tmp_path: Path) -> None:
    """The file has the subscriber's acknowledging, and its number of missed acknowledgements."""
    places = Places(tmp_path)
    async with places.hub(ack_strikes=2) as hub:
        endpoints = [await hub.subscribe("SyncError"), await hub.subscribe("Patient-open", subscriber__name="Viewer")]
        async with hub.follow(endpoints[0]) as monitor, hub.follow(endpoints[1]) as follower:
            for number in range(2):
                await hub.publish(event("Patient-open", f"p{number}"))
                await follower.next()
                if not number:
                    await answered(hub, follower, {"id": "Patient-open-p0", "status": 200})
            await passes(hub, 11)
            assert (await error(monitor)).who == "Viewer"
    async with places.hub(ack_strikes=2) as again:
        moved = [endpoint.replace(str(hub.port), str(again.port)) for endpoint in endpoints]
        async with again.follow(moved[0]) as monitor, again.follow(moved[1]) as follower:
            await follower.next()
            await passes(again, 11)
            assert (await error(monitor)).id == "Patient-open-p1"
            assert (await follower.next())["hub.mode"] == "denied"
