"""A hub with its console switched on, and an operator who asks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from fhircast_hub.console.app import Console
from fhircast_hub.telemetry.keyed_hash import user_hash
from tests.running import PATIENCE, TOPIC, RunningHub, event, running_hub

READ, WRITE = "fhircast-hub/console.read", "fhircast-hub/console.write"
Parts = dict[str, dict[str, Any]]


class Stream:
    """An open stream: the newest parts, and how it ended."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.parts: Parts = {}
        #: All that came.
        self.text = ""

    async def next(self) -> str:
        """The name of the next event, whose part is kept."""
        name = ""
        async with asyncio.timeout(PATIENCE):
            async for line in self._lines:
                self.text += line + "\n"
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    self.parts[name] = json.loads(line.removeprefix("data: "))
                elif not line and name:
                    return name
        raise EOFError

    async def until(self, name: str, shown: Any) -> dict[str, Any]:
        """Wait until a part is so. `shown` is a function of the part."""
        while name not in self.parts or not shown(self.parts[name]):
            await self.next()
        return self.parts[name]


class Operated:
    """A hub, its console, and operators' tokens."""

    def __init__(self, hub: RunningHub) -> None:
        self.hub = hub
        self.url = f"{hub.origin}/console"
        assert hub.hub._console
        self.console: Console = hub.hub._console

    @property
    def reader(self) -> str:
        """Who may look."""
        return self.hub.token("reader", READ, client_id="console")

    @property
    def operator(self) -> str:
        """Who may end sessions, too."""
        return self.hub.token("operator", WRITE, client_id="console")

    async def get(self, path: str = "", token: str | None = None, **query: str) -> httpx.Response:
        """GET below the console; without a token where `token` is ""."""
        headers = self.hub.headers(token or self.reader) if token != "" else {}
        return await self.hub.client.get(self.url + path, headers=headers, params=query)

    async def state(self, token: str | None = None, **query: str) -> Parts:
        """All parts."""
        answer = await self.get("/state", token, **query)
        assert answer.status_code == 200, answer.text
        parts: Parts = answer.json()
        return parts

    def hash(self, topic: str = TOPIC) -> str:
        """The hash of a topic, as in the log."""
        return self.hub.hub._log_hash(topic)

    def user_hash(self, name: str, realm: str | None = None) -> str:
        """The hash of a user of a realm, as the console shows it."""
        return user_hash(self.hub.hub._log_hash, realm or self.hub.idp.issuer, f"user:{name}")

    async def session(self, topic: str = TOPIC, token: str | None = None) -> dict[str, Any]:
        """One session, as the console shows it."""
        return (await self.state(token, session=self.hash(topic)))["session"]

    async def end(self, body: Any, token: str | None = None) -> httpx.Response:
        """POST /console/sessions/end."""
        headers = self.hub.headers(token or self.operator, **{"Content-Type": "application/json"})
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.hub.client.post(f"{self.url}/sessions/end", content=content, headers=headers)

    @asynccontextmanager
    async def stream(self, token: str | None = None, **query: str) -> AsyncIterator[Stream]:
        """An open stream."""
        headers = self.hub.headers(token or self.reader)
        async with self.hub.client.stream("GET", f"{self.url}/stream", headers=headers, params=query) as answer:
            assert answer.status_code == 200, await answer.aread()
            yield Stream(aiter(answer.aiter_lines()))

    async def open(self, patient: str = "p1", topic: str = TOPIC, event_id: str | None = None) -> None:
        """An application opens a patient."""
        posted = event("Patient-open", patient, topic=topic, event_id=event_id)
        assert (await self.hub.publish(posted)).status_code == 202


@asynccontextmanager
async def operated(**options: Any) -> AsyncIterator[Operated]:
    """A hub with a console."""
    async with running_hub(console=True, **options) as hub:
        yield Operated(hub)
