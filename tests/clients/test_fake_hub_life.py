"""Everything at a fake hub can be seen, and nothing of a hub is shared or left."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from fhircast_client import Timings
from fhircast_client.events import context_of, make_event
from fhircast_client.testing import Answer, FakeHub
from tests.clients import virtual_time
from tests.clients.fake_hub_world import P1, P2, names, viewer
from tests.clients.fakes import FAST, Heard, Sockets, patient, until

# What can be seen of it


@pytest.mark.req("CLT-27")
async def test_what_nobody_asked_for_is_seen_too() -> None:
    async with FakeHub() as hub:
        opened = make_event(hub.topic, "Patient-open", context_of([patient("p1")]))
        versions = {(await hub.publish(opened)).version for _ in range(2)}
        assert len(versions - {None}) == 1, "a repeat of the newest is told again"
        await hub.publish("Patient-open", patient("p2"))
        assert (hub.current, hub.opened) == (P2, [P1, P2])
        await hub.publish(opened)
        assert [message["event"]["context"][0]["resource"]["id"] for message in hub.messages] == ["p1", "p1", "p2"]
        await hub.publish("Home-open")
        await hub.publish("Patient-close", patient("p1"))
        assert (hub.current, hub.opened) == ("", [P2])
        assert names(hub)[-2:] == ["Home-open", "Patient-close"]


@pytest.mark.req("CLT-27")
async def test_a_thousand_events_come_in_their_order() -> None:
    async with FakeHub() as hub:
        heard = Heard()
        client = hub.client("viewer", timings=FAST)
        client.on("Patient-open", heard)
        async with client:
            for number in range(1000):
                event = await hub.publish("Patient-open", patient(f"p{number % 10}"))
                if number % 50 == 49:
                    await hub.acknowledged(event)
            assert heard.anchors == [f"Patient/p{number % 10}" for number in range(1000)]
            assert client.status.in_sync
        assert len(hub.messages) == len(hub.acknowledgements) == 1000


# Nothing is shared, and nothing is left


@pytest.mark.req("CLT-27")
async def test_hubs_share_nothing() -> None:
    async with (
        FakeHub() as one,
        FakeHub() as other,
        viewer(one, timings=FAST) as here,
        viewer(other, timings=FAST) as there,
    ):
        await one.acknowledged(await one.publish("Patient-open", patient("p1")))
        await other.acknowledged(await other.publish("Patient-open", patient("p2")))
        shown = [client.context.anchor for client in (here, there) if client.context]
        assert shown == [one.current, other.current] == [P1, P2]
        one.cut()
        await until(lambda: not here.status.in_sync)
        assert there.status.in_sync


class Timed(virtual_time.VirtualLoop):
    """A loop that remembers its timers."""

    def __init__(self) -> None:
        self.timers: list[asyncio.TimerHandle] = []
        super().__init__()

    def call_at(  # type: ignore[override]  # its own types every argument of the callback
        self, when: float, callback: Callable[..., Any], *args: Any, **more: Any
    ) -> asyncio.TimerHandle:
        self.timers.append(super().call_at(when, callback, *args, **more))
        return self.timers[-1]

    @property
    def running(self) -> list[asyncio.TimerHandle]:
        """The timers that still will go off."""
        return [timer for timer in self.timers if not timer.cancelled() and timer.when() > self.time()]


@pytest.mark.req("CLT-27")
@pytest.mark.parametrize("silently", [None, False, True])
def test_nothing_is_left_of_a_hub(silently: bool | None) -> None:
    async def play() -> None:
        async with FakeHub() as hub:
            client, ehr = viewer(hub), hub.client("ehr")
            await client.start()
            await ehr.start()
            await hub.publish("Patient-open", patient("p1"))
            await asyncio.sleep(1)
            if silently is not None:
                hub.cut("viewer", silently=silently)
            await client.stop()
            await ehr.stop()
            await hub.publish("Patient-open", patient("p2"))
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Timed)
        assert loop.running == []

    with asyncio.Runner(loop_factory=Timed) as runner:
        runner.run(play())
    gc.collect()  # what is forgotten in a bad state warns here


@pytest.mark.req("CLT-27")
async def test_a_hub_that_has_gone_is_away() -> None:
    async with FakeHub() as hub:
        sockets = Sockets(hub.connector("viewer"))
        client = viewer(hub, timings=FAST, connect=sockets)
        await client.start()
    await until(lambda: client.status.connection == "connecting")
    assert [socket.close_code for socket in sockets.opened] == [1001]
    with pytest.raises((httpx.ConnectError, RuntimeError)):
        await hub.http("viewer").get(hub.url)
    await client.stop()


@pytest.mark.req("CLT-27")
async def test_a_cut_comes_at_any_moment_of_a_subscription() -> None:
    for silently in (False, True):
        for turns in range(25):
            async with FakeHub() as hub:
                client = viewer(hub, timings=Timings(request=0.05, confirmation=0.05, backoff_first=0.01, settle=0.01))
                start = asyncio.create_task(client.start())
                for _ in range(turns):
                    await asyncio.sleep(0)
                hub.cut(silently=silently)
                await asyncio.sleep(0)
                hub.restore()
                await asyncio.wait_for(start, 10)
                event = await hub.publish("Patient-open", patient("p1"))
                if not silently:
                    assert (await hub.acknowledged(event)).status == 200
                await client.stop()


PLAIN = """
import asyncio
from fhircast_client.testing import Answer, FakeHub

hub = FakeHub()


async def main():
    client = hub.client("viewer")
    client.on("Patient-open", lambda event: None)
    await client.start()
    event = await hub.publish("Patient-open", {"resourceType": "Patient", "id": "p1"})
    assert (await hub.acknowledged(event)).status == 200
    hub.cut("viewer")
    hub.restore("viewer")
    await client.stop()


asyncio.run(main(), debug=True)
"""
WITHOUT_THE_HUB = """
import sys
sys.modules["fhircast_hub"] = None
import fhircast_client
import fhircast_client.testing
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run a program in which warnings are errors."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.req("CLT-27")
def test_it_prints_nothing_and_needs_no_async_with() -> None:
    result = run(PLAIN)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.req("CLT-27")
def test_without_the_hub_installed_it_says_what_to_install() -> None:
    result = run(WITHOUT_THE_HUB)
    assert result.returncode == 1
    assert "pip install 'fhircast-client[testing]'" in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].startswith("ImportError")
    assert "ModuleNotFoundError" in result.stderr


@pytest.mark.req("CLT-27")
async def test_mistakes_of_a_test_are_errors_at_once() -> None:
    with pytest.raises(ValueError, match="expected the version STU2 or STU3, got 'STU9'"):
        FakeHub("STU9")  # type: ignore[arg-type]
    async with FakeHub() as hub:
        hub.client("viewer")
        with pytest.raises(ValueError, match=r"expected a kind of request \(subscribe, .*\), got 'foo'"):
            hub.answer_next("foo", Answer(503))
        with pytest.raises(TypeError, match=r"expected answers such as Answer\(503\)"):
            hub.answer_next("publish", 503)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"expected a client of this hub \(viewer\), got 'Nobody'"):
            hub.cut("Nobody")
