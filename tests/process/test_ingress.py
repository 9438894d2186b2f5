"""Both client libraries behind an ingress that answers for the hub while the hub restarts: nginx, in the ways of the field."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from fhircast_client import Event, FHIRcastClient, HubError, Status, Timings
from tests.clients.places import within
from tests.node import NODE
from tests.ports import free_port
from tests.process.hub_process import PATIENCE, HubProcess, IssuerThread, Visitor, hub_process
from tests.process.nginx import needs_nginx, nginx
from tests.running import event

FOLLOW = Path(__file__).parent / "follow.mjs"
TOPIC = "ingress"
#: Requests that an ingress answers for the hub, before the hub is back: some of each client.
_TRIES = 10
#: What an ingress answers while no hub is there: its status, and its page.
ANSWERS = {
    "404 of an ingress": "error_page 502 =404 @away; location @away { default_type text/html; return 404 '<h1>nothing</h1>'; }",
    "404 in plain text": "error_page 502 =404 @away; location @away { default_type text/plain; return 404 'default backend'; }",
    "403 of an ingress": "error_page 502 =403 @away; location @away { default_type text/html; return 403 '<h1>closed</h1>'; }",
    "502": "",
    "200 with a page": "error_page 502 =200 @away; location @away { default_type text/html; return 200 '<h1>back soon</h1>'; }",
}

pytestmark = needs_nginx


class Client:
    """A client of either library: its statuses, and whom it shows."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.statuses: list[tuple[str, bool, str]] = []
        self.shows = ""
        self.ended = ""

    @property
    def in_step(self) -> bool:
        return bool(self.statuses) and self.statuses[-1][1]

    def __repr__(self) -> str:
        return f"{self.label}: shows {self.shows}, {self.ended or self.statuses[-3:]}"


def configuration(folder: Path, ports: dict[str, int], hub_port: int) -> str:
    """An ingress for each answer."""
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port}; {ANSWERS[answer]} location / {{ proxy_pass http://127.0.0.1:{hub_port};"
        " proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $to_hub; } }"
        for answer, port in ports.items()
    )
    return (
        f"log_format port $server_port; access_log {folder}/access.log port;"
        f" map $http_upgrade $to_hub {{ default upgrade; '' close; }} {servers}"
    )


@pytest.fixture
def ingresses(tmp_path: Path) -> Iterator[tuple[dict[str, int], int]]:
    """The ports of the ingresses, and that of the hub to which all of them lead."""
    ports, hub_port = {answer: free_port() for answer in ANSWERS}, free_port()
    with nginx(tmp_path, configuration(tmp_path, ports, hub_port)):
        yield ports, hub_port


@asynccontextmanager
async def in_python(label: str, port: int, token: str) -> AsyncIterator[Client]:
    """A client of the Python library."""
    found = Client(f"{label}, Python")

    async def through_ingress(endpoint: str) -> Any:
        path = endpoint.removeprefix("ws://").partition("/")[2]
        return await connect(f"ws://127.0.0.1:{port}/{path}", proxy=None, close_timeout=2)

    timings = Timings(backoff_first=0.05, backoff_most=0.2, settle=0.1)
    client = FHIRcastClient(
        f"http://127.0.0.1:{port}/api/hub", TOPIC, token=token, name="python", timings=timings, connect=through_ingress
    )

    def show(event: Event) -> None:
        found.shows = event.anchor

    def tell(status: Status) -> None:
        found.statuses.append((status.connection, status.in_sync, status.why))

    client.on("Patient-open", show)
    client.on_status(tell)

    async def run() -> None:
        try:
            await client.run()
        except HubError as error:
            found.ended = str(error)

    running = asyncio.create_task(run())
    yield found
    await client.stop()
    await running


@asynccontextmanager
async def in_javascript(label: str, port: int, token: str) -> AsyncIterator[Client]:
    """A client of the JavaScript library."""
    found = Client(f"{label}, JavaScript")
    process = await asyncio.create_subprocess_exec(
        NODE,
        FOLLOW,
        f"http://127.0.0.1:{port}/api/hub",
        TOPIC,
        token,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def read() -> None:
        assert process.stdout
        async for line in process.stdout:
            said = json.loads(line)
            if "connection" in said:
                found.statuses.append((said["connection"], said["inSync"], said["why"]))
            found.shows, found.ended = said.get("shows", found.shows), said.get("ended", "")

    reading = asyncio.create_task(read())
    try:
        yield found
    finally:
        process.kill()
        await process.wait()
        await reading


def access_log(folder: Path) -> Callable[[int], int]:
    """How often something at a port of nginx was asked for from now on."""
    log = folder / "access.log"
    before = len(log.read_text().splitlines())
    return lambda port: log.read_text().splitlines()[before:].count(str(port))


async def all_of(clients: list[Client], what: str, condition: Any) -> None:
    """Wait until something is so for each client."""
    await within(PATIENCE, lambda: all(condition(each) for each in clients), lambda: f"{what}: {clients}")


@pytest.mark.req("CLT-24", "CLT-9", "CLT-54")
async def test_a_restart_behind_an_ingress_ends_no_client(
    ingresses: tuple[dict[str, int], int], tmp_path: Path, issuer: IssuerThread
) -> None:
    ports, hub_port = ingresses
    settings = {"port": hub_port, "issuers": issuer.settings}

    def hub() -> HubProcess:
        return hub_process(tmp_path, **settings)

    async with AsyncExitStack() as stack:
        with hub() as first:
            visitor = await stack.enter_async_context(Visitor(first, issuer.idp))
            clients = [
                await stack.enter_async_context(kind(answer, port, visitor.token()))
                for answer, port in ports.items()
                for kind in (in_python, in_javascript)
            ]
            await all_of(clients, "joined", lambda each: each.in_step)
            await visitor.publish(event("Patient-open", "p1", topic=TOPIC))
            await all_of(clients, "shows", lambda each: each.shows == "Patient/p1" and each.in_step)
            first.stop(signal.SIGKILL)
            before = {each.label: len(each.statuses) for each in clients}
            publisher = FHIRcastClient(
                f"http://127.0.0.1:{ports['200 with a page']}/api/hub", TOPIC, token=visitor.token(), name="publisher"
            )
            stack.push_async_callback(publisher.stop)
            await all_of(clients, "away", lambda each: not each.in_step)
            with pytest.raises(HubError, match=r"something else than the hub answered, with a page \(200\)"):
                await publisher.open({"resourceType": "Patient", "id": "p9"})
            asked = access_log(tmp_path)
            await within(PATIENCE, lambda: all(asked(port) >= _TRIES for port in ports.values()), lambda: clients)
        with hub():
            await all_of(clients, "back", lambda each: each.in_step)
            answer = await visitor.publish(event("Patient-open", "p2", topic=TOPIC))
            assert answer.status_code == 202
            await all_of(clients, "shows the next", lambda each: each.shows == "Patient/p2" and each.in_step)
    for each in clients:
        assert each.ended == "", each
        away = each.statuses[before[each.label] :]
        assert all(connection != "ended" or why == "Stopped" for connection, _, why in away), each
        assert not any("<" in why for _, _, why in away), each
