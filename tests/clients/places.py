"""Where the clients of a test meet: a real hub in a process of its own, behind a network that can be cut, or a fake one."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import httpx
from websockets.asyncio.client import connect

from fhircast_client import FHIRcastClient, HubError
from fhircast_client.testing import FakeHub
from tests.clients.proxy import Proxy
from tests.process.hub_process import HubProcess, command, hub_process
from tests.running import NO_TLS

ACCEPTED = 202
SCENARIOS = Path(__file__).parents[2] / "clients" / "scenarios.json"


@contextmanager
def dev_hub(folder: Path, **settings: Any) -> Iterator[DevHub]:
    """`fhircast-hub dev` on a free port, with these settings, and a token for it."""
    with hub_process(folder, "dev", log_format="json", **settings) as hub:
        token = command(folder, "token", environ=hub.environ)
        assert token.returncode == 0, token.stderr
        yield DevHub(hub, token.stdout.strip())


class DevHub:
    """A running dev hub, and a token of its clinician."""

    def __init__(self, process: HubProcess, token: str) -> None:
        self.process, self.token = process, token


class RealPlace:
    """A session at a real hub; each client has a network connection of its own. Use it with `async with`."""

    def __init__(self, hub: DevHub) -> None:
        self.hub, self.topic = hub, f"topic-{uuid.uuid4()}"
        self.proxies: dict[str, Proxy] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for proxy in self.proxies.values():
            await proxy.stop()

    async def client(self, name: str, **options: Any) -> FHIRcastClient:
        """A client called `name`, which is not started."""
        port = self.hub.process.port
        proxy = self.proxies[name] = await Proxy.start(port)

        async def through_proxy(endpoint: str) -> Any:
            return await connect(endpoint.replace(f":{port}/", f":{proxy.port}/"), proxy=None, close_timeout=2)

        options = {"token": self.hub.token, "connect": through_proxy, **options}
        return FHIRcastClient(f"http://127.0.0.1:{proxy.port}/api/hub", self.topic, name=name, **options)

    async def post(self, message: dict[str, Any]) -> int:
        """The status with which the hub answers what an application without this library posts."""
        url, headers = (
            f"http://127.0.0.1:{self.hub.process.port}/api/hub",
            {"Authorization": f"Bearer {self.hub.token}"},
        )
        async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as client:
            return (await client.post(url, json=message, headers=headers)).status_code

    async def cut(self, name: str, *, silently: bool = False) -> None:
        """Cut the client's network."""
        await self.proxies[name].cut(silently=silently)

    async def restore(self, name: str) -> None:
        """Mend it."""
        await self.proxies[name].restore()


class FakePlace:
    """A session at a fake hub. Use it with `async with`."""

    def __init__(self, version: Literal["STU3", "STU2"]) -> None:
        self.hub = FakeHub(version)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hub.__aexit__()

    async def client(self, name: str, **options: Any) -> FHIRcastClient:
        """A client called `name`, which is not started."""
        return self.hub.client(name, **options)

    async def post(self, message: dict[str, Any]) -> int:
        """As at a real hub."""
        try:
            await self.hub.publish(message)
        except HubError as error:
            return error.status
        return ACCEPTED

    async def cut(self, name: str, *, silently: bool = False) -> None:
        """Cut the client's network."""
        self.hub.cut(name, silently=silently)

    async def restore(self, name: str) -> None:
        """Mend it."""
        self.hub.restore(name)


def scenarios() -> dict[str, Any]:
    """What clients/scenarios.json says."""
    found: dict[str, Any] = json.loads(SCENARIOS.read_text(encoding="utf-8"))
    return found


async def within(seconds: float, condition: Any, said: Any) -> None:
    """Wait until `condition()`; `said()` is what is reported when it does not come true."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110  # a client has no event for all that a test can ask
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(said()) from None
