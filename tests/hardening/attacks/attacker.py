"""What an attack has in hand: a user's token, connections to the hub, and a count of how the hub answered."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from tests.hardening.attacks.lines import Line, form_post, head, json_post

#: For attacks of which each request is one that the hub serves.
NEVER = math.inf
#: Statuses from which on the hub has said no.
REFUSED = 400


class Attacker:
    """One user who means harm.

    `tokens` are by name: `all` is good for all of fhircast, `little` for reading heartbeats, `none` for none of it. `begin` waits
    until all attackers are ready.
    """

    def __init__(self, user: str, port: int, tokens: dict[str, str], begin: Callable[[], Awaitable[None]]) -> None:
        self.user, self.port, self.tokens, self.begin = user, port, tokens, begin
        self.token = tokens["all"]
        self.path = "/api/hub"
        self.ends: Counter[str] = Counter()
        self.lines: list[Line] = []
        self._ids = itertools.count()

    async def dial(self, receive_bytes: int = 0) -> Line:
        """A new connection, which is held when the attack is over. Raises OSError."""
        line = await Line.dial(self.port, receive_bytes)
        self.lines.append(line)
        return line

    def drop(self, line: Line) -> None:
        """Hang up."""
        line.close()
        self.lines.remove(line)

    def event(self, name: str, id_: str, *more: dict[str, Any], topic: str = "", **members: Any) -> bytes:
        """An event in the user's own session; `more` are further items of its context."""
        type_ = name.partition("-")[0]
        key = {"DiagnosticReport": "report"}.get(type_, type_.lower())
        context: list[dict[str, Any]] = [{"key": key, "resource": {"resourceType": type_, "id": id_}}, *more]
        return json.dumps(
            {
                "timestamp": datetime.now(UTC).isoformat(),
                "id": f"{self.user}-{next(self._ids)}",
                "event": {"hub.topic": topic or self.user, "hub.event": name, **members, "context": context},
            }
        ).encode()

    def post(self, body: bytes) -> bytes:
        """The request that publishes `body`."""
        return json_post(self.path, self.token, body)

    def form(self, **parameters: str) -> bytes:
        """The request that subscribes to the user's own session, with these parameters besides."""
        defaults = {
            "hub__channel__type": "websocket",
            "hub__mode": "subscribe",
            "hub__topic": self.user,
            "hub__events": "Patient-open",
        }
        return form_post(self.path, self.token, **(defaults | parameters))

    async def accepted(self, request: bytes) -> bytes:
        """Send a request that prepares the attack; the body of its answer."""
        line = await self.dial()
        status, body = await line.ask(request)
        assert status < REFUSED, (status, body)
        self.drop(line)
        return body

    async def endpoint(self, **parameters: str) -> str:
        """Subscribe; the path of the endpoint."""
        answer = json.loads(await self.accepted(self.form(**parameters)))
        return urlsplit(str(answer["hub.channel.endpoint"])).path

    async def connected(self, endpoint: str, receive_bytes: int = 0) -> Line:
        """A WebSocket to this endpoint. Raises OSError where it is refused, which is counted."""
        line = await self.dial(receive_bytes)
        await line.send(handshake(endpoint))
        status, _ = await line.answer()
        if status != 101:
            self.ends[f"handshake {status}"] += 1
            self.drop(line)
            raise ConnectionRefusedError(status)
        return line

    async def repeat(self, request: Callable[[], bytes], pipelined: int = 1) -> None:
        """Ask over and over on one connection, a new one whenever the hub hangs up; so many requests in each write."""

        async def ask(line: Line) -> None:
            while True:
                await line.send(b"".join(request() for _ in range(pipelined)))
                for _ in range(pipelined):
                    status, _ = await line.answer()
                    self.ends[f"http {status}"] += 1

        await self.again(ask)

    async def again(self, work: Callable[[Line], Awaitable[None]]) -> None:
        """Work on one connection after the other, each until the work ends or the hub hangs up."""
        while True:
            try:
                line = await self.dial()
                try:
                    await work(line)
                finally:
                    self.drop(line)
            except OSError:
                self.ends["cut off"] += 1
                await asyncio.sleep(0)

    async def hold(self, use: Callable[[Line], Awaitable[None]], receive_bytes: int = 0) -> None:
        """Hold one connection after the other, each until the hub hangs up. `use` ends then, or raises OSError."""
        while True:
            line = None
            try:
                line = await self.dial(receive_bytes)
                await use(line)
            except OSError:
                pass
            self.ends["cut off"] += 1
            if line:
                self.drop(line)
            await asyncio.sleep(0.1)

    async def read_slowly(self, request: bytes, read_seconds: float) -> None:
        """Send a request on one connection after the other, and read a byte of the answer in so many seconds; with 0 none."""

        async def read(line: Line) -> None:
            await line.send(request)
            while not line.ended():
                if read_seconds:
                    await line.recv(1)
                await asyncio.sleep(read_seconds or 0.5)

        await self.hold(read, receive_bytes=4096)

    def settle(self) -> dict[str, int]:
        """How it all ended: answers by status, closes by code, connections that the hub cut off or left open."""
        for line in self.lines:
            self.ends["cut off" if line.ended() else line.unread() or "left open"] += 1
            line.close()
        return dict(self.ends)


@dataclass(frozen=True)
class Attack:
    """One attack. `run` attacks once `begin` returns, until cancelled.

    `settings` are the hub's. `held` are bytes that the attacker's user may keep by right. After `refused_after` seconds the hub
    must have refused or closed the attacker. NEVER: the hub may let the attacker wait.
    """

    run: Callable[[Attacker], Awaitable[None]]
    settings: dict[str, Any] = field(default_factory=dict)
    held: int = 0
    refused_after: float = 0


async def swarm(count: int, one: Callable[[int], Awaitable[None]]) -> None:
    """So many of these at a time, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(_awaited(one(number)))


async def _awaited(work: Awaitable[None]) -> None:
    await work


def handshake(endpoint: str) -> bytes:
    """The request that opens a WebSocket."""
    return head(
        "GET",
        endpoint,
        Upgrade="websocket",
        Connection="Upgrade",
        Sec_WebSocket_Version="13",
        Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAAAA==",
    )
