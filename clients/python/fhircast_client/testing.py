"""A hub for an application's tests: in the same process, without sockets and ports.

    async with FakeHub() as hub:
        client = hub.client("viewer")
        ...
        event = await hub.publish("Patient-open", {"resourceType": "Patient", "id": "p1"})
        assert (await hub.acknowledged(event)).status == 200

What it takes, refuses and says is decided by the code of fhircast-hub, which the extra `testing` installs. Fake are the network,
which can be cut, and the belief in every token. It knows one session, and its time is the event loop's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import parse_qsl

import httpx

from fhircast_client.client import FHIRcastClient
from fhircast_client.errors import HubError
from fhircast_client.events import (
    Event,
    Kind,
    Resource,
    context_of,
    decode,
    encode,
    kind_of,
    make_event,
    parse_event,
)
from fhircast_client.fake_sockets import FakeSocket, Line
from fhircast_client.socket import Connect
from fhircast_client.syncerrors import make_sync_error

try:
    from msgspec.structs import replace

    from fhircast_client import fake_messages
    from fhircast_hub.core.limits import Rules
    from fhircast_hub.core.rules.audiences import subscribers_of
    from fhircast_hub.core.state.effects import Effect, EventRef, Send
    from fhircast_hub.core.wire.acknowledgement import read_acknowledgement
    from fhircast_hub.http.posting import post
    from fhircast_hub.local import LocalHub
except ModuleNotFoundError as error:
    raise ImportError(
        "fhircast_client.testing is made of the hub itself, which is not installed: pip install 'fhircast-client[testing]'"
    ) from error

_PATH = "/hub"
_WELL_KNOWN = "/.well-known/fhircast-configuration"
_ACCEPTED = 202
#: Seconds that an answer is on its way: as with most hubs, what an application publishes comes back sooner than the answer.
_LATENCY = 0.001
_KINDS = ("subscribe", "unsubscribe", "publish", "context", "configuration")
#: Seconds that `acknowledged` waits.
_PATIENCE = 15.0
#: Events whose acknowledgements say nothing.
_UNANSWERED = (Kind.SYNC_ERROR, Kind.HEARTBEAT)
_OTHERS, _ADDRESS = "another application", ("127.0.0.1", 0)


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
        if version not in ("STU2", "STU3"):
            raise ValueError(f"expected the version STU2 or STU3, got {version!r}")
        self._stu2 = fake_messages.ConfirmationsOfStu2() if version == "STU2" else None
        self.topic = topic
        self.acknowledgements: list[Acknowledgement] = []
        self.messages: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.replays = self._stu2 is None
        self._began: float | None = None  # the world's clock where that of the loop was 0
        self._hub = LocalHub(self.url, topic, self._clock, _rules(lease_seconds, derives=self.replays), self._passes)
        self._others = self._hub.api(_OTHERS)
        self._lines: dict[str, Line] = {}
        self._https: list[httpx.AsyncClient] = []
        self._answers: dict[str, list[Answer]] = {}
        self._names: dict[str, str] = {}  # of events, by id
        self._news = asyncio.Event()
        self._to_lose = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hub.leave()
        self.cut()
        await self._hub.stop()
        for http in self._https:
            await http.aclose()

    # Clients

    def client(self, name: str, **options: Any) -> FHIRcastClient:
        """A client of this hub, with a connection of its own; `options` are those of FHIRcastClient."""
        given: dict[str, Any] = {"token": "fake-token", "connect": self.connector(name), **options}
        if "http" not in given:
            given["http"] = self.http(name)
        return FHIRcastClient(self.url, self.topic, name=name, **given)

    def http(self, name: str) -> httpx.AsyncClient:
        """What a client called `name` sends its requests with; closed with the hub."""
        line = self._line(name)
        hub = httpx.ASGITransport(self._hub.api(name), client=_ADDRESS)

        async def answer(request: httpx.Request) -> httpx.Response:
            await line.pass_request(request)
            response = await self._answer(request, hub)
            await asyncio.sleep(_LATENCY)
            return response

        made = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        self._https.append(made)
        return made

    def connector(self, name: str) -> Connect:
        """What a client called `name` opens its sockets with."""
        line = self._line(name)

        async def connect(endpoint: str) -> FakeSocket:
            await line.pass_handshake()
            return await FakeSocket.connect(endpoint, line, self._hub.socket(), lambda text: self._heard(name, text))

        return connect

    def _line(self, name: str) -> Line:
        return self._lines.setdefault(name, Line())

    # What the hub does

    async def publish(self, event: str | Event | dict[str, Any], *resources: Resource) -> Event:
        """Publish an event as another application: a name and resources, an Event or a message; the event as it was distributed.

        Raises HubError where the hub refuses it.
        """
        await asyncio.sleep(0)  # what was begun comes first: a cut, a denial
        made = make_event(self.topic, event, context_of(resources), own=False) if isinstance(event, str) else event
        body = self._readable(made.body if isinstance(made, Event) else made)
        before = len(self.messages)
        status, said = await post(self._others, _PATH, encode(body), _ADDRESS)
        if status != _ACCEPTED:
            raise HubError(status, said)
        return parse_event(self._accepted(body, before))

    async def sync_error(
        self, about: Event, subscriber: str = "another application", reason: str = "no reason"
    ) -> Event:
        """Publish a SyncError: the subscriber did not follow the event."""
        return await self.publish(make_sync_error(self.topic, about, subscriber, reason))

    def heartbeat(self, period: float) -> None:
        """Send a heartbeat to who wants them, beside the hub's own: the next comes after `period` seconds."""
        session = self._hub.session
        event = make_event(self.topic, "heartbeat", [{"key": "period", "decimal": str(period)}])
        to = subscribers_of(session.audiences, "heartbeat") if session else ()
        event_ref = EventRef(event.id, event.id, event.name, reportable=False)
        self._hub.send(self._passes([Send(to, encode(event.body), event_ref)]))

    def send_frame(self, text: str, name: str | None = None) -> None:
        """Send a text, whatever it is, to a client, or to all."""
        for line in self._chosen(name):
            for socket in line.sockets:
                socket.put(text)

    def deny(self, name: str | None = None, reason: str = "the session has ended") -> None:
        """End the subscriptions of a client, or of all."""
        for subscription in self._hub.subscriptions(name):
            self._hub.end(subscription, reason)

    def answer_next(self, kind: str, *answers: Answer) -> None:
        """Give these answers to the next requests of a kind: subscribe, unsubscribe, publish, context or configuration. Raises
        ValueError for another kind, TypeError for what is no Answer."""
        if kind not in _KINDS:
            raise ValueError(f"expected a kind of request ({', '.join(_KINDS)}), got {kind!r}")
        if not all(isinstance(answer, Answer) for answer in answers):
            raise TypeError("expected answers such as Answer(503)")
        self._answers.setdefault(kind, []).extend(answers)

    def lose_next(self, count: int) -> None:
        """Lose the next messages on their way to all who are subscribed."""
        self._to_lose = count

    # The network

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
                socket.lose()

    def _chosen(self, name: str | None) -> list[Line]:
        if name is not None and name not in self._lines:
            raise ValueError(
                f"expected a client of this hub ({', '.join(self._lines) or 'there is none'}), got {name!r}"
            )
        return list(self._lines.values()) if name is None else [self._lines[name]]

    # What can be seen of it

    @property
    def current(self) -> str:
        """What is current, "Patient/p1"; "" where nothing is."""
        session = self._hub.session
        return fake_messages.spelled(session.contexts[session.current]) if session and session.current else ""

    @property
    def opened(self) -> list[str]:
        """What is open, "Patient/p1", what was opened last at the end."""
        session = self._hub.session
        return [fake_messages.spelled(context) for context in session.contexts.values()] if session else []

    def subscribed(self, name: str) -> tuple[str, ...]:
        """The events that a client is subscribed to, () where it is not."""
        found = self._hub.subscriptions(name)
        return found[-1].events if found else ()

    async def acknowledged(self, event: Event, by: str | None = None) -> Acknowledgement:
        """Wait for the acknowledgement of an event, by a client of this name or by any. Raises TimeoutError after 15 s."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while True:
                    for found in self.acknowledgements:
                        if found.event_id == event.id and by in (None, found.client):
                            return found
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            session = self._hub.session
            why = (
                ""
                if session and subscribers_of(session.audiences, event.name.lower())
                else ", and nobody is subscribed to it"
            )
            raise TimeoutError(f"expected an acknowledgement of {event.name} within {_PATIENCE:g} s{why}") from None

    # Requests

    async def _answer(self, request: httpx.Request, hub: httpx.ASGITransport) -> httpx.Response:
        kind = _kind(request)
        if kind != "configuration":
            self.tokens.append(request.headers.get("authorization", "").removeprefix("Bearer "))
        if queued := self._answers.get(kind):
            return _response(queued.pop(0))
        if self._stu2 and kind == "configuration":
            return httpx.Response(200, json=fake_messages.CONFIGURATION_OF_STU2)
        if kind == "other" or (self._stu2 and kind == "context"):
            return httpx.Response(404, text="there is nothing here")
        if kind != "publish":
            return await hub.handle_async_request(request)
        return await self._posted(request, hub)

    async def _posted(self, request: httpx.Request, hub: httpx.ASGITransport) -> httpx.Response:
        try:
            body = decode(request.content)
        except (ValueError, RecursionError):
            return await hub.handle_async_request(request)
        if (readable := self._readable(body)) is not body:
            headers = {name: value for name, value in request.headers.items() if name != "content-length"}
            request = httpx.Request(request.method, request.url, headers=headers, content=encode(readable))
        before = len(self.messages)
        response = await hub.handle_async_request(request)
        if response.status_code == _ACCEPTED and "event" in body:
            self._accepted(readable, before)
        return response

    def _readable(self, body: Any) -> Any:
        """What is posted, as the hub takes it."""
        return fake_messages.from_stu2(body, self._hub.session) if self._stu2 else body

    def _accepted(self, body: dict[str, Any], before: int) -> dict[str, Any]:
        """A posted event as it was distributed: one of the messages since `before`. What nobody was told is noted here."""
        if told := [message for message in self.messages[before:] if message["id"] == body["id"]]:
            return told[-1]
        message = fake_messages.accepted(body, self._hub.session)
        message = fake_messages.to_stu2(message) if self._stu2 else message
        return message if fake_messages.is_overtaken(message, self._hub.session) else self._noted(message)

    # Messages

    def _passes(self, effects: Sequence[Effect]) -> list[Effect]:
        """What is done of the effects of one commit; a confirmation among them says that the others are for who joins."""
        joins = any(isinstance(effect, Send) and _is_confirmation(effect) for effect in effects)
        passed = (self._pass(effect, joins=joins) if isinstance(effect, Send) else effect for effect in effects)
        return [effect for effect in passed if effect is not None]

    def _pass(self, send: Send, *, joins: bool) -> Send | None:
        """What is sent to clients; None for nothing."""
        message = decode(send.frame)
        if send.event_ref is None:
            return self._stu2.told(send, message) if self._stu2 and _is_confirmation(send) else send
        if self._stu2:
            message = fake_messages.to_stu2(message)
            send = replace(send, frame=encode(message))
        if joins:
            self._names[message["id"]] = message["event"]["hub.event"]
            return send if self.replays else None
        self._noted(message)
        if self._to_lose:
            self._to_lose -= 1
            return None
        return send

    def _noted(self, message: dict[str, Any]) -> dict[str, Any]:
        self._names[message["id"]] = message["event"]["hub.event"]
        self.messages.append(message)
        return message

    def _heard(self, client: str, text: str) -> None:
        """A client sent this."""
        answer = read_acknowledgement(text.encode())
        name = self._names.get(answer.id, "") if answer else ""
        if answer is None or answer.status is None or not name or kind_of(name) in _UNANSWERED:
            return
        self.acknowledgements.append(Acknowledgement(client, answer.id, name, answer.status, answer.reason))
        self._news.set()

    def _clock(self) -> float:
        """The hub's time goes as that of the loop, or of the world where that is ahead: a test may let either go as it likes."""
        now, moment = time.time(), asyncio.get_running_loop().time()
        if self._began is None:
            self._began = now - moment
        return max(self._began + moment, now)


def _rules(lease_seconds: int, *, derives: bool) -> Rules:
    longest = max(lease_seconds, Rules().max_lease)
    return Rules(default_lease=lease_seconds, max_lease=longest, derive_opens=derives, derive_closes=derives)


def _is_confirmation(send: Send) -> bool:
    return send.event_ref is None and decode(send.frame)["hub.mode"] == "subscribe"


def _response(answer: Answer) -> httpx.Response:
    headers = {} if answer.retry_after is None else {"Retry-After": str(answer.retry_after)}
    headers["Content-Type"] = answer.content_type
    return httpx.Response(answer.status, text=answer.body, headers=headers)


def _kind(request: httpx.Request) -> str:
    """What a request asks for."""
    path = request.url.path
    if path != _PATH and not path.startswith(f"{_PATH}/"):
        return "other"
    if request.method != "POST":
        return "configuration" if path.endswith(_WELL_KNOWN) else "context"
    if "json" in request.headers.get("content-type", ""):
        return "publish"
    form = dict(parse_qsl(request.content.decode(errors="replace"), keep_blank_values=True))
    return "unsubscribe" if form.get("hub.mode") == "unsubscribe" else "subscribe"
