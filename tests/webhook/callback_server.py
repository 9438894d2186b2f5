"""A subscriber's HTTP server on loopback, in raw streams: it answers as a test says, however badly, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl

import httpx

from tests.running import TOPIC, RunningHub, running_hub, until

LOOPBACK = ["127.0.0.0/8"]
PATIENT = "Patient-open,Patient-close"


class Request(NamedTuple):
    """One request as received, with header names in lower case. `connection` counts connections from 1."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the query. Of a repeated parameter, the last, which is the hub's."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def label(self) -> str:
        """The request's event, in short: `Patient-open p1`."""
        event = json.loads(self.body)["event"]
        ids = [each["resource"]["id"] for each in event["context"] if "id" in each.get("resource", {})]
        return " ".join((event["hub.event"], *ids[:1]))


class Answer(NamedTuple):
    """What a request gets: this body (None: the challenge that it brings, in `echo`), or exactly the bytes of `raw` and the end.

    Nothing is said before `gate` is set, and nothing ever where it `hangs`; an `endless` body never ends, and of one that `drips`
    not even the headers do, a few bytes at a time.
    """

    status: int = 200
    body: bytes | None = b""
    headers: tuple[str, ...] = ()
    raw: bytes | None = None
    gate: asyncio.Event | None = None
    hangs: bool = False
    endless: bool = False
    drips: bool = False
    echo: bytes = b"%s"


ECHO, OK = Answer(body=None), Answer()
HANG, RESET, DRIP = Answer(hangs=True), Answer(raw=b""), Answer(raw=b"HTTP/1.1 200 OK\r\n", drips=True)


class CallbackServer:
    """Echoes challenges and answers posts with 200, unless `say` said otherwise. `host` is a loopback address."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self.requests: list[Request] = []
        #: answers that the hub did not want to the end
        self.cut = 0
        self._answers: defaultdict[tuple[str, str], list[Answer]] = defaultdict(list)
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, method: str, path: str, *answers: Answer) -> None:
        """The answers to the next requests there, in order. The last answer is for all that follow."""
        self._answers[method, path] = list(answers)

    def url(self, target: str = "/callback") -> str:
        """A callback here."""
        return f"http://127.0.0.1:{self.port}{target}"

    def gets(self, path: str = "/callback", mode: str = "subscribe") -> list[Request]:
        """The hub's GETs there: verifications, and denials (mode `denied`)."""
        return [
            each
            for each in self.requests
            if (each.method, each.path) == ("GET", path) and each.query["hub.mode"] == mode
        ]

    def posts(self, path: str = "/callback") -> list[Request]:
        """The hub's POSTs there."""
        return [each for each in self.requests if (each.method, each.path) == ("POST", path)]

    def news(self, path: str = "/callback") -> list[str]:
        """The same in short."""
        return [each.label for each in self.posts(path)]

    async def posted(self, count: int, path: str = "/callback") -> list[Request]:
        """Waits for so many posts there."""
        await until(lambda: len(self.posts(path)) >= count)
        return self.posts(path)

    async def asked(self, count: int = 1, path: str = "/callback", mode: str = "subscribe") -> list[Request]:
        """Waits for so many GETs there."""
        await until(lambda: len(self.gets(path, mode)) >= count)
        return self.gets(path, mode)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self._connections += 1
        connection = self._connections
        try:
            with suppress(asyncio.IncompleteReadError):
                while await self._exchange(connection, reader, writer):
                    pass
        except ConnectionError:
            self.cut += 1
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _exchange(self, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection may be used again."""
        request = await _read(connection, reader)
        self.requests.append(request)
        answer = self._next(request)
        if answer.gate is not None:
            await answer.gate.wait()
        if answer.hangs:
            await asyncio.Event().wait()
        if answer.raw is not None:
            writer.write(answer.raw)
        else:
            body = answer.echo % request.query["hub.challenge"].encode() if answer.body is None else answer.body
            length = "Transfer-Encoding: chunked" if answer.endless else f"Content-Length: {len(body)}"
            writer.write("\r\n".join([f"HTTP/1.1 {answer.status} X", length, *answer.headers, "", ""]).encode() + body)
        await writer.drain()
        while answer.endless:
            writer.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            await writer.drain()
        while answer.drips:
            await asyncio.sleep(0.02)
            writer.write(b"X: y\r\n")
            await writer.drain()
        return answer.raw is None

    def _next(self, request: Request) -> Answer:
        answers = self._answers[request.method, request.path]
        if not answers:
            return ECHO if request.method == "GET" and "hub.challenge" in request.query else OK
        return answers.pop(0) if len(answers) > 1 else answers[0]


async def _read(connection: int, reader: asyncio.StreamReader) -> Request:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        assert name.lower() not in headers, f"twice: {name}"
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body, connection)


@asynccontextmanager
async def hub_and_callbacks(**settings: Any) -> AsyncIterator[tuple[RunningHub, CallbackServer]]:
    """A hub that may post to loopback, and a server there."""
    async with running_hub(**{"webhook_allowed_networks": LOOPBACK, **settings}) as hub, CallbackServer() as server:
        yield hub, server


async def ask(
    hub: RunningHub, callback: str, events: str | None = PATIENT, token: str | None = None, **more: Any
) -> httpx.Response:
    """Ask for a webhook's subscription; `hub_topic` in `more` means hub.topic."""
    form = {"hub__channel.type": "webhook", "hub__callback": callback, "hub__events": events, **more}
    return await hub.form(token, **form)


async def subscribe(hub: RunningHub, server: CallbackServer, target: str = "/callback", **more: Any) -> None:
    """Subscribe a callback, and wait until the hub has verified it."""
    before = active(hub)
    answer = await ask(hub, server.url(target), **more)
    assert answer.status_code == 202, answer.text
    assert answer.json() == {}
    await until(lambda: bool(active(hub) - before))


def active(hub: RunningHub) -> set[str]:
    """The subscription_ids of the verified webhooks."""
    return {
        other.subscription_id
        for session in hub.hub.service._store.sessions()
        for other in session.subscriptions.values()
        if other.callback and other.connection
    }


async def unsubscribe(hub: RunningHub, callback: str, token: str | None = None, topic: str = TOPIC) -> httpx.Response:
    """End a webhook's subscription."""
    return await ask(hub, callback, None, token, hub__mode="unsubscribe", hub__topic=topic)


async def quiet(hub: RunningHub) -> None:
    """Wait until the hub has nothing more to do for any callback."""
    await until(lambda: not hub.hub._webhooks._tasks and not hub.hub.service._tasks)
