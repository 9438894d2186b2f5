"""`fhircast check`: joins a session step by step, and says at which step it fails and what that usually means.

The steps are those of the specification: discovery (FHIRcast 3.0.0, 2.7), token (2.2), subscription, socket, confirmation (2.4),
and an event of one's own that comes back (2.5, 2.6). The event has a reverse-domain name, so that nobody's context changes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

#: Published and subscribed to by the check; an application that follows it would be a surprise.
EVENT = "org.fhircast.check"
#: Seconds that each step may take.
PATIENCE = 10


class Step(NamedTuple):
    """How one step went: `good` is None where it could not be tried; `text` says what came, or what to look at."""

    name: str
    good: bool | None
    text: str


class _Failed(Exception):
    """A step did not succeed. The text is for people."""


async def check(hub_url: str, topic: str, token: str | None, name: str, events: str) -> AsyncIterator[Step]:
    """The steps, one after the other, until one fails whose result the next ones need. `events` is a list with commas."""
    async with httpx.AsyncClient(timeout=PATIENCE, follow_redirects=False) as http:
        yield await _tried("discovery", _discovery(http, hub_url))
        yield await _tried("token", _token(token))
        hub = _Hub(http, hub_url, topic, token, name, events)
        last: Step | None = None
        for step, attempt in hub.steps():
            last = await _tried(step, attempt())
            yield last
            if last.good is False:
                break
        await hub.leave()


async def _tried(name: str, attempt: Awaitable[str]) -> Step:
    try:
        return Step(name, True, await attempt)
    except _Failed as failure:
        return Step(name, False, str(failure))
    except _NotTried as reason:
        return Step(name, None, str(reason))
    except TimeoutError:
        return Step(name, False, f"nothing came within {PATIENCE} seconds")
    except httpx.InvalidURL as error:
        return Step(name, False, f"hub.url is no URL: {error}")
    except (httpx.HTTPError, WebSocketException, OSError) as error:
        return Step(name, False, f"{type(error).__name__}: {error}".rstrip(": "))


class _NotTried(Exception):
    """A step that says nothing here."""


async def _discovery(http: httpx.AsyncClient, hub_url: str) -> str:
    answer = await http.get(f"{hub_url.rstrip('/')}/.well-known/fhircast-configuration")
    if answer.status_code != httpx.codes.OK:
        raise _Failed(
            f"HTTP {answer.status_code}: is {hub_url} the hub.url? It has no .well-known/fhircast-configuration"
        )
    found = _object(answer)
    if found.get("websocketSupport") is not True:
        raise _Failed("the hub declares no websocketSupport")
    names = found.get("eventsSupported")
    count = len(names) if isinstance(names, list) else 0
    return f"FHIRcast {found.get('fhircastVersion', 'of unknown version')}, {count} events"


async def _token(token: str | None) -> str:
    """What the token says of itself; whether the hub believes it is the next step."""
    if not token:
        raise _NotTried("none given: only a hub without authorization takes that")
    parts = token.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, ValueError, binascii.Error):
        raise _NotTried("opaque: it says nothing of itself, the hub asks its issuer") from None
    if not isinstance(claims, dict):
        raise _Failed("a JWT whose claims are no object")
    left = claims.get("exp", 0) - time.time() if isinstance(claims.get("exp"), int | float) else 0.0
    if left <= 0:
        raise _Failed(f"it expired {-left:.0f} seconds ago" if claims.get("exp") else "it has no exp")
    scopes = claims.get("scope") or claims.get("scp") or ""
    given = scopes.split() if isinstance(scopes, str) else [str(scope) for scope in scopes]
    fhircast = [scope for scope in given if scope.lower().startswith("fhircast/")]
    if not fhircast:
        raise _Failed("it has no fhircast/ scope")
    return f"issuer {claims.get('iss')}, audience {claims.get('aud')}, {left:.0f} s left, {' '.join(fhircast)}"


class _Hub:
    """One subscription, step by step."""

    def __init__(
        self, http: httpx.AsyncClient, url: str, topic: str, token: str | None, name: str, events: str
    ) -> None:
        self._http, self._url, self._topic, self._name, self._events = http, url, topic, name, events
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._endpoint = ""
        self._socket: ClientConnection | None = None
        self._granted: list[str] = []

    def steps(self) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
        return [
            ("subscribe", self._subscribe),
            ("socket", self._connect),
            ("confirmation", self._confirmation),
            ("echo", self._echo),
        ]

    async def _subscribe(self) -> str:
        form = {
            "hub.channel.type": "websocket",
            "hub.mode": "subscribe",
            "hub.topic": self._topic,
            "hub.events": f"{self._events},{EVENT}",
            "subscriber.name": self._name,
        }
        answer = await self._http.post(self._url, data=form, headers=self._headers)
        if answer.status_code != httpx.codes.ACCEPTED:
            raise _Failed(_explained(answer))
        endpoint = _object(answer).get("hub.channel.endpoint")
        if not isinstance(endpoint, str) or not endpoint.startswith(("ws://", "wss://")):
            raise _Failed("202, but its JSON has no hub.channel.endpoint that begins with wss://")
        self._endpoint = endpoint
        return "202 Accepted, with an endpoint"

    async def _connect(self) -> str:
        self._socket = await connect(self._endpoint, open_timeout=PATIENCE)
        return f"open at {httpx.URL(self._endpoint).host}"

    async def _confirmation(self) -> str:
        first = await self._next()
        if str(first.get("hub.mode")) != "subscribe":
            raise _Failed("the first frame is no confirmation (hub.mode subscribe)")
        events = first.get("hub.events", "")
        self._granted = [name for name in (events.split(",") if isinstance(events, str) else events) if name]
        asked = [name.strip() for name in self._events.split(",") if name.strip()]
        without = [name for name in asked if name.lower() not in {granted.lower() for granted in self._granted}]
        missing = f"; not granted: {', '.join(without)} (look at the token's scopes)" if without else ""
        return f"{', '.join(self._granted)}; a lease of {first.get('hub.lease_seconds')} s{missing}"

    async def _echo(self) -> str:
        """Publish, and hear it: the way of an event there and back."""
        if EVENT not in {name.lower() for name in self._granted}:
            raise _NotTried(f"the token may not read {EVENT}")
        event = {
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "id": str(uuid.uuid4()),
            "event": {"hub.topic": self._topic, "hub.event": EVENT, "context": []},
        }
        began = time.monotonic()
        answer = await self._http.post(self._url, json=event, headers=self._headers)
        if answer.status_code == httpx.codes.FORBIDDEN:
            raise _NotTried(f"the token may not publish {EVENT}")
        if not answer.is_success:
            raise _Failed(_explained(answer))
        while (message := await self._next()).get("id") != event["id"]:
            await self._acknowledge(message)
        await self._acknowledge(message)
        return f"an event of this check came back after {(time.monotonic() - began) * 1000:.0f} ms"

    async def _acknowledge(self, message: dict[str, Any]) -> None:
        assert self._socket
        if "id" in message:
            await self._socket.send(json.dumps({"id": message["id"], "status": 200}))

    async def _next(self) -> dict[str, Any]:
        assert self._socket
        async with asyncio.timeout(PATIENCE):
            frame = await self._socket.recv()
        try:
            message = json.loads(frame)
        except ValueError:
            raise _Failed("a frame that is not JSON") from None
        if not isinstance(message, dict):
            raise _Failed("a frame that is no JSON object")
        return message

    async def leave(self) -> None:
        """Unsubscribe and close, however far it came."""
        if self._endpoint:
            form = {
                "hub.channel.type": "websocket",
                "hub.mode": "unsubscribe",
                "hub.topic": self._topic,
                "hub.channel.endpoint": self._endpoint,
            }
            try:
                await self._http.post(self._url, data=form, headers=self._headers)
            except httpx.HTTPError:
                pass  # the lease ends by itself
        if self._socket is not None:
            await self._socket.close()


_USUAL = {
    400: "the hub does not accept the request",
    401: "the hub does not take the token: expired, another audience, or an issuer that the hub does not know",
    403: "the token's scopes do not allow it, or the session (hub.topic) is another user's",
    404: "nothing is there: is this hub.url, without the topic?",
    415: "the hub expects another Content-Type",
    429: "too many subscriptions or requests",
    503: "the hub cannot reach the token's issuer, or is starting",
}


def _explained(answer: httpx.Response) -> str:
    """Status, the usual reason, and the hub's own words."""
    usual = _USUAL.get(answer.status_code, "the hub has a problem" if answer.is_server_error else "unexpected")
    return f"HTTP {answer.status_code}: {usual}. The hub says: {answer.text.strip()[:300] or 'nothing'}"


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _Failed(f"HTTP {answer.status_code}, but its body is no JSON object")
    return found
