"""A hub for an application's tests: in the same process, without sockets and ports.

    async with FakeHub() as hub:
        client = hub.client("viewer")
        ...
        event = await hub.publish("Patient-open", {"resourceType": "Patient", "id": "p1"})
        assert (await hub.acknowledged(event)).status == 200

It is no measure of a hub: it believes every token, knows one session, and looks at little of what it is sent.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import parse_qsl

import httpx

from fhircast_client.client import FHIRcastClient
from fhircast_client.errors import HubError
from fhircast_client.events import Event, Kind, Resource, context_of, kind_of, make_event, parse_event
from fhircast_client.fake_contexts import FakeContexts
from fhircast_client.fake_sockets import FakeSocket, Line
from fhircast_client.syncerrors import make_sync_error

_ENDPOINT = "hub.channel.endpoint"
_PATH = "/hub"
_WELL_KNOWN = "/.well-known/fhircast-configuration"
_NORMAL, _GOING_AWAY, _ABNORMAL, _TAKEN_OVER = 1000, 1001, 1006, 1008
#: Seconds that an answer is on its way: as with most hubs, what an application publishes comes back sooner than the answer.
_LATENCY = 0.001
#: Seconds that `acknowledged` waits.
_PATIENCE = 15.0
_EVENTS = (
    *(
        f"{type_}-{verb}"
        for type_ in ("Patient", "Encounter", "ImagingStudy", "DiagnosticReport")
        for verb in ("open", "close")
    ),
    *("DiagnosticReport-update", "DiagnosticReport-select", "SyncError", "UserLogout", "UserHibernate", "Home-open"),
)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What an application answered: its name, the event by id and name, the status, and the reason of a refusal."""

    client: str
    event_id: str
    event: str
    status: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer instead of the hub's own. An ingress would answer with `text/html`."""

    status: int
    body: str = ""
    retry_after: int | None = None
    content_type: str = "text/plain"


class _Subscription:
    def __init__(self, client: str, events: list[str], line: Line) -> None:
        self.client, self.events, self.line = client, events, line
        self.socket: FakeSocket | None = None
        self.lease = 0.0
        self.end: asyncio.TimerHandle | None = None
        self.missed: list[dict[str, Any]] | None = None  # None before its first socket

    def wants(self, name: str) -> bool:
        return name.lower() in (event.lower() for event in self.events)


class FakeHub:
    """A hub in the manner of STU3 (versions, content, a replay for who joins, GET, heartbeat) or STU2 (none of these).

    `lease_seconds` is granted to who asks for none. `acknowledgements` and `messages` are what came and what was distributed,
    in order; `tokens` those of the requests. `replays`: whether who joins is told what is open. Clients are made by `client` and have
    a connection each, which can be `cut`.
    """

    url = f"http://hub.invalid{_PATH}"

    def __init__(
        self, version: Literal["STU3", "STU2"] = "STU3", *, topic: str = "session", lease_seconds: int = 3600
    ) -> None:
        self._stu3 = version == "STU3"
        self.topic = topic
        self.acknowledgements: list[Acknowledgement] = []
        self.messages: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.replays = self._stu3
        self._lease_seconds = lease_seconds
        self._contexts = FakeContexts(versions=self._stu3)
        self._subscriptions: dict[str, _Subscription] = {}
        self._lines: dict[str, Line] = {}
        self._https: list[httpx.AsyncClient] = []
        self._answers: dict[str, list[Answer]] = {}
        self._names: dict[str, str] = {}  # of events, by id
        self._news = asyncio.Event()
        self._to_lose = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for endpoint in list(self._subscriptions):
            self._drop(endpoint, _GOING_AWAY)
        for http in self._https:
            await http.aclose()

    def client(self, name: str, **options: Any) -> FHIRcastClient:
        """A client of this hub, with a connection of its own; `options` are those of FHIRcastClient."""
        line = self._lines.setdefault(name, Line())

        async def answer(request: httpx.Request) -> httpx.Response:
            await line.pass_request(request)
            response = self._answer(request, name, line)
            await asyncio.sleep(_LATENCY)
            return response

        async def connect(endpoint: str) -> FakeSocket:
            await line.pass_handshake()
            return self._connect(endpoint)

        http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        self._https.append(http)
        given: dict[str, Any] = {"token": "fake-token", "http": http, "connect": connect, **options}
        return FHIRcastClient(self.url, self.topic, name=name, **given)

    async def publish(self, event: str | Event | dict[str, Any], *resources: Resource) -> Event:
        """Distribute an event as if another application had published it: a name and resources, an Event or a message."""
        made = make_event(self.topic, event, context_of(resources), own=False) if isinstance(event, str) else event
        message = self._accept(made.body if isinstance(made, Event) else made)
        return parse_event(message)

    async def sync_error(
        self, about: Event, subscriber: str = "another application", reason: str = "no reason"
    ) -> Event:
        """Distribute a SyncError: the subscriber did not follow the event."""
        return await self.publish(self._sync_error(about, subscriber, reason))

    async def acknowledged(self, event: Event, by: str | None = None) -> Acknowledgement:
        """Wait for the acknowledgement of an event, by a client of this name or by any. Raises TimeoutError after 15 s."""
        async with asyncio.timeout(_PATIENCE):
            while True:
                for found in self.acknowledgements:
                    if found.event_id == event.id and by in (None, found.client):
                        return found
                self._news.clear()
                await self._news.wait()

    def heartbeat(self, period: float) -> None:
        """Send a heartbeat to who wants them, saying that the next comes after `period` seconds."""
        event = make_event(self.topic, "heartbeat", [{"key": "period", "decimal": str(period)}])
        self._distribute(event.body)

    def cut(self, name: str | None = None, *, silently: bool = False) -> None:
        """Cut the connections of a client, or of all, until `restore`; silently: nothing is closed, and nothing passes."""
        for line in self._chosen(name):
            line.cut(silently=silently)

    def restore(self, name: str | None = None) -> None:
        """Let a client, or all, connect again; connections that were cut stay dead."""
        for line in self._chosen(name):
            line.restore()

    def disconnect(self, name: str | None = None) -> None:
        """Break the connections of a client, or of all; new ones are taken."""
        for line in self._chosen(name):
            for socket in list(line.sockets):
                socket.shut(_ABNORMAL)

    def deny(self, name: str | None = None, reason: str = "the session has ended") -> None:
        """End the subscriptions of a client, or of all."""
        for endpoint, subscription in list(self._subscriptions.items()):
            if name in (None, subscription.client):
                self._drop(endpoint, _NORMAL, reason)

    def answer_next(self, kind: str, *answers: Answer) -> None:
        """Give these answers to the next requests of a kind: subscribe, unsubscribe, publish, context or configuration."""
        self._answers.setdefault(kind, []).extend(answers)

    def lose_next(self, count: int) -> None:
        """Lose the next messages on their way to all who are subscribed."""
        self._to_lose = count

    def subscribed(self, name: str) -> tuple[str, ...]:
        """The events that a client is subscribed to, () where it is not."""
        found = [one for one in self._subscriptions.values() if one.client == name]
        return tuple(found[-1].events) if found else ()

    def _chosen(self, name: str | None) -> list[Line]:
        return list(self._lines.values()) if name is None else [self._lines[name]]

    # HTTP

    def _answer(self, request: httpx.Request, client: str, line: Line) -> httpx.Response:
        kind, body = _kind(request)
        if kind != "configuration":
            self.tokens.append(request.headers.get("authorization", "").removeprefix("Bearer "))
        if queued := self._answers.get(kind):
            answer = queued.pop(0)
            headers = {} if answer.retry_after is None else {"Retry-After": str(answer.retry_after)}
            headers["Content-Type"] = answer.content_type
            return httpx.Response(answer.status, text=answer.body, headers=headers)
        try:
            return self._handle(kind, body, client, line)
        except HubError as error:
            if "json" in request.headers.get("content-type", "") + request.headers.get("accept", ""):
                return httpx.Response(error.status, json={"message": error.message})
            return httpx.Response(error.status, text=error.message)

    def _handle(self, kind: str, body: dict[str, Any], client: str, line: Line) -> httpx.Response:
        match kind:
            case "subscribe":
                return httpx.Response(202, json={_ENDPOINT: self._subscribe(body, client, line)})
            case "unsubscribe":
                if body.get(_ENDPOINT) not in self._subscriptions:
                    raise HubError(404, "expected a live endpoint")
                self._drop(body[_ENDPOINT], _NORMAL, "unsubscribed")
                return httpx.Response(202, json={_ENDPOINT: body[_ENDPOINT]})
            case "publish":
                self._accept(body)
                return httpx.Response(202, json={})
            case "configuration":
                return httpx.Response(200, json=self._configuration())
            case "context" if self._stu3:
                return httpx.Response(200, json=self._contexts.current())
        raise HubError(404, "there is nothing here")

    def _configuration(self) -> dict[str, Any]:
        if not self._stu3:
            names = [name.lower() for name in _EVENTS]
            return {
                "eventsSupported": names,
                "websocketSupport": True,
                "webhookSupport": False,
                "fhircastVersion": "STU2",
            }
        return {
            "eventsSupported": [*_EVENTS, "heartbeat"],
            "websocketSupport": True,
            "fhircastVersion": "3.0.0",
            "capabilities": {"supportsGetCurrentContext": True},
        }

    # Subscriptions

    def _subscribe(self, form: dict[str, Any], client: str, line: Line) -> str:
        events = [name for name in form.get("hub.events", "").split(",") if name]
        if not events or not form.get("hub.channel.type"):
            raise HubError(400, "hub.events: expected at least one")
        endpoint = form.get(_ENDPOINT)
        if endpoint is None:
            for other, one in list(self._subscriptions.items()):
                if one.client == client and (one.socket is None or not one.socket.alive):
                    self._drop(other, _NORMAL)
            endpoint = f"ws://hub.invalid/{secrets.token_urlsafe(16)}"
            self._subscriptions[endpoint] = _Subscription(client, events, line)
        elif endpoint not in self._subscriptions:
            raise HubError(404, "expected a live endpoint")
        subscription = self._subscriptions[endpoint]
        subscription.events = events
        self._lease(endpoint, subscription, float(form.get("hub.lease_seconds") or self._lease_seconds))
        if self._stu3 and subscription.socket is not None:
            self._confirm(subscription)
        return str(endpoint)

    def _lease(self, endpoint: str, subscription: _Subscription, seconds: float) -> None:
        if subscription.end is not None:
            subscription.end.cancel()
        loop = asyncio.get_running_loop()
        subscription.lease = loop.time() + seconds
        subscription.end = loop.call_later(seconds, self._drop, endpoint, _NORMAL, "the lease has ended")

    def _connect(self, endpoint: str) -> FakeSocket:
        subscription = self._subscriptions.get(endpoint)
        if subscription is None:
            raise HubError(404, "there is no such endpoint")
        if subscription.socket is not None:
            subscription.socket.shut(_TAKEN_OVER)
        heard = lambda text: self._heard(subscription, text)  # noqa: E731
        socket = subscription.socket = FakeSocket(subscription.line, heard, self._closed(subscription))
        self._confirm(subscription)
        missed, subscription.missed = subscription.missed or [], []
        if self.replays:
            for message in [
                *(m for m in missed if not self._contexts.is_open(parse_event(m).anchor) or _shares(m)),
                *self._contexts.replay(),
            ]:
                self._send(subscription, message)
        return socket

    def _closed(self, subscription: _Subscription) -> Callable[[FakeSocket], None]:
        def closed(socket: FakeSocket) -> None:
            if subscription.socket is socket:
                subscription.socket = None

        return closed

    def _confirm(self, subscription: _Subscription) -> None:
        left = subscription.lease - asyncio.get_running_loop().time()
        events = subscription.events if self._stu3 else [name.lower() for name in subscription.events]
        assert subscription.socket is not None
        subscription.socket.put(
            {
                "hub.mode": "subscribe",
                "hub.topic": self.topic,
                "hub.events": ",".join(events),
                "hub.lease_seconds": max(1, int(left)),
            }
        )

    def _drop(self, endpoint: str, code: int, reason: str = "") -> None:
        subscription = self._subscriptions.pop(endpoint, None)
        if subscription is None:
            return
        if subscription.end is not None:
            subscription.end.cancel()
        if subscription.socket is not None:
            if reason:
                events = ",".join(subscription.events)
                denial = {"hub.mode": "denied", "hub.topic": self.topic, "hub.events": events, "hub.reason": reason}
                subscription.socket.put(denial)
            subscription.socket.shut(code)

    # Events

    def _accept(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            event = parse_event(message)
        except ValueError as error:
            raise HubError(400, str(error)) from None
        accepted = self._contexts.accept(message)
        self._names[event.id] = event.name
        if accepted is not None:
            self._distribute(accepted)
        return accepted or message

    def _distribute(self, message: dict[str, Any], but: _Subscription | None = None) -> None:
        self.messages.append(message)
        if self._to_lose:
            self._to_lose -= 1
            return
        for subscription in list(self._subscriptions.values()):
            if subscription is not but and subscription.wants(message["event"]["hub.event"]):
                self._send(subscription, message)

    def _send(self, subscription: _Subscription, message: dict[str, Any]) -> None:
        name = message["event"]["hub.event"]
        if not subscription.wants(name):
            return
        if subscription.socket is not None and subscription.socket.alive:
            subscription.socket.put(message)
        elif subscription.missed is not None and kind_of(name) in (Kind.CLOSE, Kind.UPDATE):
            subscription.missed.append(message)

    def _heard(self, subscription: _Subscription, text: str) -> None:
        """An acknowledgement came; one that says no is told to the others."""
        answer = json.loads(text)
        name = self._names.get(answer.get("id"), "")
        if "status" not in answer or not name or kind_of(name) in (Kind.SYNC_ERROR, Kind.HEARTBEAT):
            return
        status, reason = int(answer["status"]), str(answer.get("reason", ""))
        self.acknowledgements.append(Acknowledgement(subscription.client, answer["id"], name, status, reason))
        self._news.set()
        if not 200 <= status < 300 and kind_of(name) not in (Kind.UPDATE, Kind.SELECT):
            about = make_event(self.topic, name, [], id=answer["id"])
            self._distribute(self._sync_error(about, subscription.client, reason).body, but=subscription)

    def _sync_error(self, about: Event, subscriber: str, reason: str) -> Event:
        event = make_sync_error(self.topic, about, subscriber, reason)
        if self._stu3:
            return event
        inner = {**event.body["event"], "hub.event": "syncerror"}
        return parse_event({**event.body, "event": inner})


def _shares(message: dict[str, Any]) -> bool:
    return kind_of(message["event"]["hub.event"]) is Kind.UPDATE


def _kind(request: httpx.Request) -> tuple[str, dict[str, Any]]:
    """What a request asks for, and its body."""
    if request.method == "GET":
        return ("configuration" if request.url.path.endswith(_WELL_KNOWN) else "context"), {}
    if request.headers.get("content-type", "").startswith("application/json"):
        return "publish", json.loads(request.content)
    form = dict(parse_qsl(request.content.decode(), keep_blank_values=True))
    return ("unsubscribe" if form.get("hub.mode") == "unsubscribe" else "subscribe"), form
