"""Requests to subscribe, and the state of subscriptions as a test observes the state."""

from __future__ import annotations

from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.running import RunningHub


async def post(hub: RunningHub, form: Any, token: str | None = None, **headers: str) -> httpx.Response:
    """Post a form as it is: a dict, or bytes."""
    if isinstance(form, bytes):
        sent = hub.headers(token, **{"Content-Type": "application/x-www-form-urlencoded"} | headers)
        return await hub.client.post(hub.url, content=form, headers=sent)
    return await hub.client.post(hub.url, data=form, headers=hub.headers(token, **headers))


async def lives(endpoint: str) -> bool:
    """Whether the endpoint still takes a socket."""
    try:
        async with connect(endpoint, proxy=None):
            return True
    except InvalidStatus as refusal:
        return refusal.response.status_code != 404
