"""CLT-10: a lease that the hub does not renew ends, also at a hub that says nothing then. In virtual time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fhircast_client.connection import Connection
from fhircast_client.errors import HubError
from fhircast_client.frames import Confirmation
from fhircast_client.hub import Configuration
from fhircast_client.lease import Lease
from fhircast_client.socket import Channel, Connect
from fhircast_client.timings import Timings
from tests.clients import virtual_time

LEASE = 100


class _Hub:
    """Gives an endpoint, and answers renewals with `error`."""

    def __init__(self, error: HubError) -> None:
        self.error = error
        self.asked: list[tuple[float, str | None]] = []

    async def configuration(self) -> Configuration:
        return Configuration()

    async def subscribe(self, events: Any, *, endpoint: str | None = None, **_: Any) -> str:
        self.asked.append((asyncio.get_running_loop().time(), endpoint))
        if endpoint is not None:
            raise self.error
        return f"ws://hub.invalid/{len(self.asked)}"


class _Socket:
    """Confirms, and says nothing more."""

    close_code: int | None = None

    def __init__(self) -> None:
        self.frames = [json.dumps({"hub.mode": "subscribe", "hub.events": "x", "hub.lease_seconds": LEASE})]

    async def recv(self) -> str:
        if not self.frames:
            await asyncio.Event().wait()
        return self.frames.pop()

    async def send(self, message: str) -> None: ...

    async def close(self, code: int = 1000) -> None: ...


class _Listener:
    def __init__(self) -> None:
        self.lost: list[tuple[float, str]] = []

    def confirmed(self, confirmation: Confirmation, *, first: bool, ordered: bool) -> None: ...

    def unreadable(self, channel: Channel, event_id: str) -> None: ...

    def received(self, channel: Channel, message: Any) -> float | None: ...

    def disconnected(self, why: str) -> None:
        self.lost.append((asyncio.get_running_loop().time(), why))

    def denied(self, message: dict[str, Any]) -> None: ...


@pytest.mark.req("CLT-10")
@pytest.mark.parametrize(("status", "tries"), [(403, 1), (503, 3)])
def test_a_lease_that_is_not_renewed_ends_the_connection(status: int, tries: int) -> None:
    listener = _Listener()
    hub = played(status, listener)
    renewals = [at for at, endpoint in hub.asked if endpoint == "ws://hub.invalid/1"]
    assert len(renewals) >= tries
    assert 75 <= renewals[0] < 80
    (lost, why), *_ = listener.lost
    assert why == "the hub did not renew the subscription"
    assert lost == pytest.approx(LEASE, abs=1)
    assert next(endpoint for at, endpoint in hub.asked if at >= lost) is None, "it subscribes anew"


@pytest.mark.req("CLT-9", "CLT-11")
def test_an_endpoint_of_a_hub_that_is_busy_is_kept_as_long_as_its_lease_lasts() -> None:
    """After that, what answers may be something else in the hub's place, which will not say that the endpoint is gone."""
    tries: list[float] = []

    async def connect(endpoint: str) -> _Socket:
        if not endpoint.endswith("/1"):
            return _Socket()
        tries.append(asyncio.get_running_loop().time())
        if len(tries) > 1:
            raise HubError(503, "busy")
        return _Lost()

    hub = played(503, connect=connect, leases=3)
    moments = [at for at, _ in hub.asked]
    assert len([at for at in tries if at < LEASE]) > 4
    assert len([at for at in tries if at > LEASE]) == 3
    assert moments[1] > tries[-1]


class _Lost(_Socket):
    """Confirms, and is lost."""

    async def recv(self) -> str:
        if not self.frames:
            raise ConnectionError
        return self.frames.pop()


async def _always(endpoint: str) -> _Socket:
    return _Socket()


def played(status: int, listener: _Listener | None = None, *, connect: Connect = _always, leases: float = 1.5) -> _Hub:
    """A hub that answered renewals so, for so many leases."""
    hub = _Hub(HubError(status, "no"))

    async def play() -> None:
        connection = Connection(
            hub,  # type: ignore[arg-type]
            listener or _Listener(),
            connect,
            Timings(),
            events=["x"],
            name="",
            lease_seconds=None,
            heartbeat=False,
        )
        running = asyncio.create_task(connection.run())
        await asyncio.sleep(LEASE * leases)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    virtual_time.run(play())
    return hub


@pytest.mark.req("CLT-10")
def test_a_confirmation_that_comes_meanwhile_prolongs_the_lease() -> None:
    lasted: list[bool] = []

    async def play() -> None:
        loop = asyncio.get_running_loop()
        lease = Lease(loop.time)
        lease.granted(100, new_socket=True)
        loop.call_later(80, lambda: lease.granted(100, new_socket=False))
        await asyncio.sleep(76)
        lasted.append(await lease.lasts(60))
        await lease.over()
        assert loop.time() == pytest.approx(180)

    virtual_time.run(play())
    assert lasted == [True]


@pytest.mark.req("CLT-10")
def test_a_hub_that_does_not_say_gives_what_was_asked_for_or_given_before() -> None:
    lease = Lease(lambda: 1000.0, asked=100)
    lease.granted(None, new_socket=True)
    assert lease.renew_at is not None
    assert 1070 < lease.renew_at < 1080
    lease.asking()
    lease.granted(50, new_socket=False)
    lease.granted(None, new_socket=False)
    assert lease.renew_at < 1050
    silent = Lease(lambda: 1000.0)
    silent.granted(None, new_socket=True)
    assert silent.renew_at is None


@pytest.mark.req("CLT-10")
def test_renewals_are_tried_less_and_less_often() -> None:
    hub = played(503)
    renewals = [at for at, endpoint in hub.asked if endpoint == "ws://hub.invalid/1"]
    assert len(renewals) < 9, renewals
