"""Clients of a hub of several nodes: each asks any node, and goes to another one where a node fails."""

from __future__ import annotations

import asyncio
import json
import random
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from tests.nodes.checker import REPORTED
from tests.nodes.history import History, now
from tests.running import NO_TLS, event

EVENTS = "Patient-open,Patient-close,SyncError"
#: Seconds that clients wait for an answer: longer than a commit takes, shorter than a node sleeps.
PATIENCE = 3.0
#: How often publishers repeat an event. The first ones give up at once.
MANY = 1000
ATTEMPTS = (1, 2, MANY)
#: Seconds for which an event is repeated: the hub knows repeats of the last 64 changes (EVT-17).
REPEATED = 5.0
#: Events that a publisher leaves without a 202 by its own choice.
UNSURE = 8
_LOST = re.compile(r"(\S+) lost its connection")
_ABNORMAL = 1006
_NOT_FOUND = 404


class Nodes:
    """The nodes as clients know them: their ports, and a token that is good everywhere."""

    def __init__(self, ports: list[int], token: str, history: History, chance: random.Random) -> None:
        self.ports, self.history, self.chance = ports, history, chance
        self.headers = {"Authorization": f"Bearer {token}"}
        self.http = httpx.AsyncClient(trust_env=False, timeout=PATIENCE, verify=NO_TLS)

    def any(self) -> int:
        """Any node."""
        return self.chance.randrange(len(self.ports))

    def url(self, node: int, path: str = "") -> str:
        """hub.url at a node."""
        return f"http://127.0.0.1:{self.ports[node]}/api/hub{path}"

    async def ask(self, method: str, url: str, **more: Any) -> httpx.Response | None:
        """The answer. None: none came."""
        headers = self.headers | more.pop("headers", {})
        try:
            return await self.http.request(method, url, headers=headers, **more)
        except httpx.HTTPError:
            return None


class Ways(NamedTuple):
    """How often a client does what, in seconds between two times on average."""

    pause: float = 0.3
    #: Until a subscriber cuts its own connection, and comes back.
    stay: float = 15.0


async def publish(nodes: Nodes, topic: str, name: str, ways: Ways, stopping: asyncio.Event) -> None:
    """Open patients, and close most of them, until it is time to stop.

    A patient without a 202 of its open stays as it is, and so does one without a 202 of its close. Few may: a session has
    at most 64 open contexts (LIM-4).
    """
    opened: list[str] = []
    number = unsure = 0
    while not stopping.is_set():
        number += 1
        patient = f"{name}-{number}"
        if await _posted(nodes, topic, "open", patient, gives_up=unsure < UNSURE):
            opened.append(patient)
        else:
            unsure += 1
        await asyncio.sleep(nodes.chance.expovariate(1 / ways.pause))
        while opened and nodes.chance.random() < 0.6:  # some stay open for a while
            patient = opened.pop(nodes.chance.randrange(len(opened)))
            unsure += not await _posted(nodes, topic, "close", patient, gives_up=unsure < UNSURE)


async def _posted(nodes: Nodes, topic: str, verb: str, patient: str, *, gives_up: bool) -> bool:
    """Post an event, and repeat it at any node where no 202 came. Whether one came."""
    timestamp = datetime.now(UTC).isoformat(timespec="milliseconds")
    body = json.dumps(event(f"Patient-{verb}", patient, topic=topic, timestamp=timestamp)).encode()
    first = now()
    for _ in range(nodes.chance.choice(ATTEMPTS) if gives_up else MANY):
        node, begin = nodes.any(), now()
        if begin > first + REPEATED:
            break
        answer = await nodes.ask("POST", nodes.url(node), content=body, headers={"Content-Type": "application/json"})
        status = answer.status_code if answer else 0
        nodes.history.write(
            "post", topic=topic, event=f"{verb} {patient}", node=node, begin=begin, end=now(), status=status
        )
        if status == httpx.codes.ACCEPTED:
            return True
        await asyncio.sleep(nodes.chance.uniform(0.1, 0.5))
    return False


async def read(nodes: Nodes, topic: str, ways: Ways, stopping: asyncio.Event) -> None:
    """Ask for the current context, until it is time to stop."""
    while not stopping.is_set():
        node, begin = nodes.any(), now()
        answer = await nodes.ask("GET", nodes.url(node, f"/{topic}"))
        if answer and answer.status_code == httpx.codes.OK:
            context = answer.json()["context"]
            patient = context[0]["resource"]["id"] if context else ""
            nodes.history.write("get", topic=topic, node=node, begin=begin, end=now(), patient=patient)
        await asyncio.sleep(nodes.chance.expovariate(1 / ways.pause))


class Subscriber:
    """A subscriber, whose socket is now at one node and now at another, with the same endpoint."""

    def __init__(self, nodes: Nodes, topic: str, name: str, ways: Ways, events: str = EVENTS) -> None:
        self.name = name
        self._events = events
        self._nodes, self._topic, self._ways = nodes, topic, ways
        self._endpoint = ""
        self._connection: ClientConnection | None = None
        self._record: dict[str, Any] | None = None
        self._done = False

    @property
    def is_connected(self) -> bool:
        """Whether a hub has confirmed the present connection."""
        return self._record is not None

    async def run(self) -> None:
        """Be connected, until `finish`."""
        while not self._done:
            if not self._endpoint:
                await self._subscribe()
            if self._endpoint:
                await self._connect()
            if not self._done:
                await asyncio.sleep(self._nodes.chance.uniform(0.05, 0.3))

    def cut(self) -> None:
        """Cut the connection without a word. `run` comes back."""
        if self._connection is not None:
            self._end(_ABNORMAL)
            self._connection.transport.abort()

    async def leave(self) -> None:
        """Wait for a connection, cut it, and stay away for so long that others must be told. This instead of `run`."""
        while not self._endpoint:
            await self._subscribe()
        asyncio.get_running_loop().call_later(self._nodes.chance.uniform(1, 4), self._leave_now)
        while not self._done:
            await self._connect()
        await asyncio.sleep(REPORTED + 5)

    def _leave_now(self) -> None:
        if self._record is None:
            asyncio.get_running_loop().call_later(0.5, self._leave_now)
            return
        self._done = self._record["left"] = True
        self.cut()

    async def finish(self) -> None:
        """The end of the run: a connection that is open now was open to the end."""
        self._done = True
        if self._record is not None:
            self._end(0, still_open=True)
        if self._connection is not None:
            await self._connection.close()

    async def _subscribe(self) -> None:
        form = {
            "hub.channel.type": "websocket",
            "hub.mode": "subscribe",
            "hub.topic": self._topic,
            "hub.events": self._events,
            "subscriber.name": self.name,
        }
        answer = await self._nodes.ask("POST", self._nodes.url(self._nodes.any()), data=form)
        if answer and answer.status_code == httpx.codes.ACCEPTED:
            self._endpoint = str(answer.json()["hub.channel.endpoint"])

    async def _connect(self) -> None:
        """Be connected to any node for as long as that goes well."""
        node, begin = self._nodes.any(), now()
        url = urlsplit(self._endpoint)._replace(netloc=f"127.0.0.1:{self._nodes.ports[node]}").geturl()
        try:
            async with connect(
                url, proxy=None, compression=None, open_timeout=PATIENCE, close_timeout=1, ping_interval=None
            ) as self._connection:
                await self._listen(self._connection, node, begin)
        except InvalidStatus as refused:
            if refused.response.status_code == _NOT_FOUND:
                self._endpoint = ""
        except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed, EOFError):
            pass
        finally:
            self._connection = None

    async def _listen(self, connection: ClientConnection, node: int, begin: float) -> None:
        stay = asyncio.get_running_loop().call_later(self._nodes.chance.expovariate(1 / self._ways.stay), self.cut)
        try:
            async with asyncio.timeout(PATIENCE):
                await connection.recv()  # the confirmation
            self._record = {"name": self.name, "topic": self._topic, "node": node, "endpoint": self._endpoint[-16:]}
            self._record |= {"begin": begin, "confirmed": now(), "left": False, "frames": []}
            while True:
                await self._hear(connection, json.loads(await connection.recv()))
        finally:
            stay.cancel()
            self._end(connection.close_code or _ABNORMAL)

    async def _hear(self, connection: ClientConnection, message: dict[str, Any]) -> None:
        if self._record is None or "event" not in message:
            return  # cut, or a denial
        if (frame := _frame(message)) is not None:
            self._record["frames"].append({"at": now(), **frame})
        await connection.send(json.dumps({"id": message["id"], "status": 200}))

    def _end(self, code: int, *, still_open: bool = False) -> None:
        """Write down the present connection, if it was confirmed."""
        record, self._record = self._record, None
        if record is not None:
            self._nodes.history.write("connection", **record, end=now(), open=still_open, code=code)


def _frame(message: dict[str, Any]) -> dict[str, Any] | None:
    """The record of an event. None: the event is of no interest."""
    told = message["event"]
    verb = told["hub.event"].partition("-")[2]
    if verb == "update":
        return {"update": message["id"], "prior": told["context.priorVersionId"], "version": told["context.versionId"]}
    resource = told["context"][0]["resource"]
    if verb:
        version = {"version": told["context.versionId"]} if verb == "open" else {}
        return {"event": f"{verb} {resource['id']}", **version}
    lost = _LOST.match(resource["issue"][0]["diagnostics"])
    return {"lost": lost[1], "id": message["id"]} if lost else None
