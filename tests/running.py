"""A real hub on a free loopback port, in the test's own event loop, with a real issuer and real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from fhircast_hub.app import Hub
from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.errors import HubError
from fhircast_hub.server import make_server
from fhircast_hub.settings.reading import load
from tests.auth.issuer_server import JWKS, IssuerServer
from tests.tokens import Idp

SPEC = Path(__file__).parent / "spec"
TOPIC = "fdb2f928-5546-4f52-87a0-0648e9ded065"
#: Seconds until something must have come, on a machine that does much else. The hub closes stalled connections after 20.
PATIENCE = 15
#: For clients that use no TLS. To read the trusted certificates would take them longer than a hub takes to start.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Clock:
    """Time that passes only when a test says so, in seconds."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Follower:
    """A subscriber's socket: what it is told, message by message."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def next(self) -> dict[str, Any]:
        """The next message."""
        message: dict[str, Any] = json.loads(await asyncio.wait_for(self.connection.recv(), PATIENCE))
        return message

    async def names(self, count: int) -> list[str]:
        """The events of the next messages."""
        return [(await self.next())["event"]["hub.event"] for _ in range(count)]

    async def silent(self) -> bool:
        """Whether nothing has come: what the hub had written before a pong would be here by now."""
        await asyncio.wait_for(await self.connection.ping(), PATIENCE)
        try:
            await asyncio.wait_for(self.connection.recv(), 0.02)
        except TimeoutError:
            return True
        return False

    async def closed(self) -> int:
        """The code with which the hub closes."""
        await asyncio.wait_for(self.connection.wait_closed(), PATIENCE)
        assert self.connection.close_code is not None
        return self.connection.close_code


class RunningHub:
    """The hub as its clients see it."""

    #: Whether the hub remembers each token from before its first request. So a first request may take the direct way.
    remembers_all = False

    def __init__(self, hub: Hub, idp: Idp, clock: Clock, port: int, client: httpx.AsyncClient) -> None:
        self.hub, self.idp, self.clock, self.port, self.client = hub, idp, clock, port, client
        self._tokens: dict[str, str] = {}
        self._of_known_key: set[str] = set()
        client.event_hooks["request"].append(lambda request: self.remember(request.headers))
        self.origin = f"http://127.0.0.1:{port}"
        self.url = f"{self.origin}/api/hub"

    def token(self, sub: Any = "user-1", scope: Any = "fhircast/*.*", **claims: Any) -> str:
        """A token of the hub's issuer, good for a day. The same token for the same claims: the hub remembers tokens."""
        wanted = repr((sub, scope, self.clock.now, self.idp.issuer, claims))
        if wanted not in self._tokens:
            more = {"exp": int(self.clock.now) + 86400} | claims
            token = self._tokens[wanted] = self.idp.token(sub, scope, now=self.clock.now, **more)
            if "headers" not in claims:
                self._of_known_key.add(token)
        return self._tokens[wanted]

    async def remember(self, headers: Mapping[str, str]) -> None:
        """With `remembers_all`, have the hub verify the token of these headers, if `token` has made the token for a known key."""
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        if self.remembers_all and token in self._of_known_key:
            with suppress(HubError):  # the request itself is refused
                await self.hub._verifier.verify(token)

    def headers(self, token: str | None = None, **more: str) -> dict[str, str]:
        """Headers with a token."""
        return {"Authorization": f"Bearer {token or self.token()}", **more}

    async def form(self, token: str | None = None, **parameters: str) -> httpx.Response:
        """Post a subscription form; `hub_events` means hub.events, and None leaves a parameter out."""
        defaults: dict[str, str | None] = {"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": TOPIC}
        given = defaults | {name.replace("__", ".", 1): value for name, value in parameters.items()}
        data = {name: value for name, value in given.items() if value is not None}
        return await self.client.post(self.url, data=data, headers=self.headers(token))

    async def subscribe(self, events: str = "Patient-open,Patient-close", token: str | None = None, **more: str) -> str:
        """Subscribe; the endpoint."""
        answer = await self.form(token, hub__events=events, **more)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["hub.channel.endpoint"])

    @asynccontextmanager
    async def follow(self, endpoint: str, **options: Any) -> AsyncIterator[Follower]:
        """Connect to an endpoint; the confirmation has been read."""
        async with connect(endpoint, compression=None, proxy=None, **options) as connection:
            follower = Follower(connection)
            assert (await follower.next())["hub.mode"] == "subscribe"
            yield follower

    async def publish(self, event: dict[str, Any] | bytes, token: str | None = None, path: str = "") -> httpx.Response:
        """Post an event."""
        body = event if isinstance(event, bytes) else json.dumps(event, ensure_ascii=False).encode()
        headers = self.headers(token) | {"Content-Type": "application/json"}
        return await self.client.post(self.url + path, content=body, headers=headers)

    async def context(self, token: str | None = None, topic: str = TOPIC) -> httpx.Response:
        """Read the current context."""
        return await self.client.get(f"{self.url}/{topic}", headers=self.headers(token))


@asynccontextmanager
async def opened(hub: RunningHub) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection to the hub, for what no client would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    yield reader, writer
    writer.close()


async def to_the_end(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the hub ends the connection, also where a reset ends it."""
    came = b""
    async with asyncio.timeout(PATIENCE):
        try:
            while chunk := await reader.read(65536):
                came += chunk
        except ConnectionError:
            pass
    return came


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens in the hub by itself."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # the hub has no event for it, and needs none
            await asyncio.sleep(0.005)


def shell_program(path: Path, script: str) -> None:
    """A program of the test's own at this path."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def event(name: str, id_: str = "1", *, topic: str = TOPIC, event_id: str | None = None, **more: Any) -> dict[str, Any]:
    """An event about one resource, such as `event("Patient-open", "p1")`, with what it cannot be without, and `also` these items."""
    type_ = name.partition("-")[0]
    key = {"ImagingStudy": "study", "DiagnosticReport": "report", "SyncError": "operationoutcome"}.get(
        type_, type_.lower()
    )
    resource_type = "OperationOutcome" if type_ == "SyncError" else type_
    context = [{"key": key, "resource": {"resourceType": resource_type, "id": id_}}, *more.pop("also", [])]
    if name in ("Encounter-open", "DiagnosticReport-open") and all(item["key"] != "patient" for item in context):
        context.append({"key": "patient", "resource": {"resourceType": "Patient", "id": "p1"}})
    return {
        "timestamp": more.pop("timestamp", "2026-11-22T10:00:00.000Z"),
        "id": event_id or f"{name}-{id_}",
        "event": {"hub.topic": topic, "hub.event": name, "context": context, **more},
    }


def spec(name: str) -> dict[str, Any]:
    """A message of the specification."""
    message: dict[str, Any] = json.loads((SPEC / f"{name}.json").read_text())
    return message


def issuer_setting(server: IssuerServer, idp: Idp, **members: Any) -> dict[str, Any]:
    """Let the server publish the keys of `idp`; its object in FHIRCAST_ISSUERS, with these members too."""
    idp.issuer = server.url
    server.publish(JWKS, idp.jwks())
    return {"issuer": server.url, "audience": idp.audience, "jwks_uri": server.url + JWKS, **members}


@asynccontextmanager
async def running_hub(
    *,
    clock: Clock | None = None,
    anonymous: Principal | None = None,
    idp: Idp | None = None,
    issuer: IssuerServer | None = None,
    own: dict[str, Any] | None = None,
    others: Iterable[dict[str, Any]] = (),
    **settings: Any,
) -> AsyncIterator[RunningHub]:
    """Run a hub with these settings (`ping_seconds=1`) beside the defaults; in memory unless `store` says otherwise.

    `issuer` serves the keys of `idp`, a new one unless given; `own` are members of it (`user_claim`), `others` are issuers beside
    it (see `issuer_setting`).
    """
    clock = clock or Clock()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    async with nullcontext(issuer) if issuer else IssuerServer() as keys:
        idp = idp or Idp(keys.url)
        issuers = [issuer_setting(keys, idp, **(own or {})), *others]
        values = {"public_url": f"http://127.0.0.1:{port}/api/hub", "store": "memory:", "issuers": issuers, **settings}
        environ = {
            f"FHIRCAST_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
            for name, value in values.items()
        }
        hub = Hub(load(None, environ), anonymous=anonymous, clock=clock)
        server = make_server(hub)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await until(lambda: server.started or task.done())
            assert server.started, hub.failure
            async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE, verify=NO_TLS) as client:
                yield RunningHub(hub, idp, clock, port, client)
        finally:
            server.should_exit = True
            await task
