"""The session at the hub, as its applications reach it (FHIRcast 3.0.0, 2.4 and 2.5)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import httpx

from demo import DemoError
from demo.fhir import Message
from fhircast_hub.dev import LIFETIME


class Session(NamedTuple):
    """Where it is: hub.url and hub.topic, as every application gets them when it is launched."""

    url: str
    topic: str
    http: httpx.AsyncClient

    async def subscribe(self, token: str, name: str, events: Collection[str]) -> str:
        """Ask for these events; the endpoint to connect to."""
        wish = {"hub.events": ",".join(events), "subscriber.name": name, "hub.lease_seconds": str(LIFETIME)}
        answer = await self._form(token, "subscribe", wish)
        return str(answer.json()["hub.channel.endpoint"])

    async def unsubscribe(self, token: str, endpoint: str) -> None:
        """End a subscription; the hub closes its socket."""
        await self._form(token, "unsubscribe", {"hub.channel.endpoint": endpoint})

    async def publish(self, token: str, message: Message, expect: int = httpx.codes.ACCEPTED) -> None:
        """Tell everyone else of an event."""
        await self._post(token, expect, json=message)

    async def _form(self, token: str, mode: str, fields: dict[str, str]) -> httpx.Response:
        form = {"hub.channel.type": "websocket", "hub.mode": mode, "hub.topic": self.topic, **fields}
        return await self._post(token, httpx.codes.ACCEPTED, data=form)

    async def _post(self, token: str, expect: int, **body: Any) -> httpx.Response:
        answer = await self.http.post(self.url, headers={"Authorization": f"Bearer {token}"}, **body)
        if answer.status_code != expect:
            raise DemoError(f"the hub: expected {expect}, got {answer.status_code} {answer.text.strip()}")
        return answer
