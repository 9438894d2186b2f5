"""A hub with a system client that begins and ends sessions."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx

from tests.running import Follower, RunningHub, event, running_hub

SCOPE = "fhircast-hub/sessions.write"
INVALID, INSUFFICIENT = 'Bearer error="invalid_token"', f'Bearer error="insufficient_scope", scope="{SCOPE}"'


class Administered:
    """A hub with the system clients `ehr` and `pacs`."""

    def __init__(self, hub: RunningHub) -> None:
        self.hub = hub
        self.url = f"{hub.origin}/sessions"

    @property
    def ehr(self) -> str:
        """The EHR's authorization server's token."""
        return self.hub.token("ehr", f"{SCOPE} openid", client_id="ehr")

    @property
    def pacs(self) -> str:
        """Of a system client that may not administer."""
        return self.hub.token("pacs", client_id="pacs")

    async def post(self, body: Any, token: str | None = None) -> httpx.Response:
        """POST /sessions."""
        headers = self.hub.headers(token or self.ehr, **{"Content-Type": "application/json"})
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.hub.client.post(self.url, content=content, headers=headers)

    async def begin(self, user: str = "user-1", **members: Any) -> str:
        """The topic of a session for this user."""
        answer = await self.post({"user": user, **members})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["hub.topic"])

    async def look(self, topic: str, token: str | None = None) -> httpx.Response:
        """GET /sessions/{topic}/participants."""
        url = f"{self.url}/{quote(topic, safe='')}/participants"
        return await self.hub.client.get(url, headers=self.hub.headers(token or self.pacs))

    async def end(self, topic: str, token: str | None = None) -> httpx.Response:
        """DELETE /sessions/{topic}."""
        url = f"{self.url}/{quote(topic, safe='')}"
        return await self.hub.client.delete(url, headers=self.hub.headers(token or self.ehr))

    async def may(self, topic: str, token: str | None = None) -> list[int]:
        """The statuses of subscribing, publishing and reading."""
        answers = [
            await self.hub.form(token, hub__events="Patient-open", hub__topic=topic),
            await self.hub.publish(event("Patient-open", topic=topic), token),
            await self.hub.context(token, topic),
        ]
        return [answer.status_code for answer in answers]

    @property
    def topics(self) -> int:
        """How many sessions there are."""
        return self.hub.hub.service.usage.topics

    async def later(self, seconds: float) -> None:
        """Time passes, and what was due is done."""
        self.hub.clock.now += seconds
        await self.hub.hub.service.tick()


@asynccontextmanager
async def administered(**options: Any) -> AsyncIterator[Administered]:
    """A hub whose issuer has two system clients."""
    own = {"system_clients": ["ehr", "pacs"], **options.pop("own", {})}
    async with running_hub(own=own, **options) as hub:
        yield Administered(hub)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and challenge of a refusal that says in one line why, in JSON to who sent JSON."""
    if "json" in answer.request.headers.get("Content-Type", ""):
        assert answer.headers["Content-Type"] == "application/json"
        assert re.fullmatch(r"[^\n]+", answer.json()["message"]), answer.text
    else:
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert re.fullmatch(r"[^\n]+\n", answer.text), answer.text
    return answer.status_code, answer.headers.get("WWW-Authenticate", "")


class Watched:
    """A session with a participant, whose state is looked at."""

    def __init__(self, api: Administered, topic: str) -> None:
        self.api, self.hub, self.topic = api, api.hub, topic
        self._events = 0

    async def state(self, name: str) -> str:
        """That of the participant of this name."""
        found = [each for each in (await self.api.look(self.topic)).json() if each["name"] == name]
        assert len(found) == 1
        return str(found[0]["state"])

    async def comes_to(self, name: str, state: str) -> None:
        """Wait for a state that a participant comes to in its own time."""
        async with asyncio.timeout(5):
            while await self.state(name) != state:  # noqa: ASYNC110  # the hub has no event for it, and needs none
                await asyncio.sleep(0.005)

    async def subscribe(self, name: str, events: str = "Patient-open,Patient-close") -> str:
        return await self.hub.subscribe(events, hub__topic=self.topic, **{"subscriber.name": name})

    async def publish(self, name: str = "Patient-open") -> None:
        self._events += 1
        id_ = f"{self._events}"
        posted = event(name, "p1", topic=self.topic, event_id=id_)
        assert (await self.hub.publish(posted)).status_code == 202

    async def answer(self, follower: Follower, status: object) -> None:
        """Read the next message and acknowledge it."""
        message = await follower.next()
        await follower.connection.send(json.dumps({"id": message["id"], "status": status}))

    async def missed_ack(self) -> None:
        """The time for acknowledgements passes."""
        self.hub.clock.now += 11
        self.hub.hub.ack_timer.check()


@asynccontextmanager
async def watched(**options: Any) -> AsyncIterator[Watched]:
    async with administered(**options) as api:
        yield Watched(api, await api.begin())
