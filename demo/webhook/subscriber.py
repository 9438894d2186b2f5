"""The duties of a subscriber: subscribe, answer only expected challenges, verify every signature, acknowledge."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Say = Callable[[str], None]


class Subscriber:
    """A callback's subscription, to one topic at a time. `hub` is hub.url, `callback` the URL of this subscriber."""

    def __init__(self, hub: str, token: str, callback: str, say: Say = print) -> None:
        self._hub, self._callback, self._say = hub, callback, say
        self._headers = {"Authorization": f"Bearer {token}"}
        #: shared with the hub: posts without its signature are not the hub's
        self._secret = secrets.token_urlsafe(32)
        self._topic = ""
        #: events that were asked for, until the hub's challenge
        self._pending: set[str] = set()

    async def subscribe(self, topic: str, events: str, lease: int = 7200) -> httpx.Response:
        """Subscribe. The hub answers 202 at once, and then sends a challenge to the callback."""
        self._topic, self._pending = topic, {name.strip().lower() for name in events.split(",")}
        form = {"hub.events": events, "hub.secret": self._secret, "hub.lease_seconds": str(lease)}
        return await self._ask("subscribe", form)

    async def unsubscribe(self) -> httpx.Response:
        """no events come after this"""
        return await self._ask("unsubscribe", {})

    async def _ask(self, mode: str, form: dict[str, str]) -> httpx.Response:
        form |= {"hub.channel.type": "webhook", "hub.mode": mode, "hub.topic": self._topic}
        # Without a proxy: with a given transport, httpx does not read the environment's proxies.
        async with httpx.AsyncClient(headers=self._headers, transport=httpx.AsyncHTTPTransport()) as http:
            return await http.post(self._hub, data=form | {"hub.callback": self._callback})

    def asked(self, query: dict[str, str]) -> Response:
        """The hub's challenge, or the end of the subscription."""
        mode, topic = query.get("hub.mode"), query.get("hub.topic", "")
        events = {name.lower() for name in query.get("hub.events", "").split(",")}
        ours = bool(self._topic) and hmac.compare_digest(topic.encode(), self._topic.encode())
        if ours and mode == "denied":
            self._say(f"denied: {query.get('hub.reason', 'no reason given')}")
            return Response()
        if not ours or mode != "subscribe" or not events <= self._pending:
            return Response("this was not asked for", 404)
        self._pending = set()
        self._say(f"subscribed to {query['hub.events']} for {query.get('hub.lease_seconds', '?')} seconds")
        return Response(query.get("hub.challenge", ""), media_type="text/plain")

    def received(self, body: bytes, signature: str) -> Response:
        """An event of the hub. The signature is over exactly these bytes: verify first, then read them."""
        expected = "sha256=" + hmac.new(self._secret.encode(), body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            return Response("the signature is not the hub's", 403)
        message = json.loads(body)
        event = message["event"]
        about = [item["resource"] for item in event["context"] if "resource" in item]
        names = ", ".join(f"{one['resourceType']}/{one.get('id', '-')}" for one in about)
        self._say(f"{event['hub.event']} {names}".rstrip() + f" ({message['id']})")
        return Response()  # 200 acknowledges; 409 would tell the other applications that this one did not follow


def make_app(subscriber: Subscriber) -> Starlette:
    """The application with the callback at /callback. It unsubscribes when it stops."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await subscriber.unsubscribe()

    async def ask(request: Request) -> Response:
        return subscriber.asked(dict(request.query_params))

    async def tell(request: Request) -> Response:
        return subscriber.received(await request.body(), request.headers.get("X-Hub-Signature", ""))

    routes = [Route("/callback", ask, methods=["GET"]), Route("/callback", tell, methods=["POST"])]
    return Starlette(routes=routes, lifespan=lifespan)
