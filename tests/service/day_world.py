"""A hub on virtual time: all timers of the event loop are due as fast as the work allows, and nothing ever waits.

The hub is the whole one, over its ASGI application and its own sockets. Only the network is fake.
"""

from __future__ import annotations

import asyncio
import gc
import json
import selectors
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from fhircast_client.fake_sockets import FakeClosed, FakeSocket, Line
from fhircast_hub.app import Hub
from fhircast_hub.settings.reading import load
from tests.running import NO_TLS, event
from tests.tokens import Idp

NOON = 1_800_000_000.0
URL = "http://127.0.0.1/api/hub"
ISSUER = "https://issuer.invalid"


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time goes on only when nothing is left to do, and then at once to the next timer."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Jump(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


class _Jump(selectors.SelectSelector):
    """Passes the time that it is asked to wait. Bytes of this process's own pipe come first."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "nothing is left to happen"
            self._loop.jump(timeout)
        return found


class World:
    """A hub that has started, and a client of its HTTP."""

    def __init__(self, hub: Hub, idp: Idp, http: httpx.AsyncClient) -> None:
        self.hub, self._idp, self._http = hub, idp, http
        self._loop = asyncio.get_running_loop()

    def now(self) -> float:
        """Epoch seconds."""
        return NOON + self._loop.time()

    def token(self, user: str) -> str:
        """A token of a user, good for two hours."""
        return self._idp.token(user, "fhircast/*.*", now=self.now(), exp=int(self.now()) + 7200)

    async def subscribe(self, token: str, topic: str, name: str) -> str:
        """Subscribe; the endpoint."""
        form = {"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": topic, "subscriber.name": name}
        answer = await self._post(token, data=form | {"hub.events": "Patient-open,Patient-close,SyncError"})
        return str(answer.json()["hub.channel.endpoint"])

    async def unsubscribe(self, token: str, topic: str, endpoint: str) -> None:
        form = {"hub.channel.type": "websocket", "hub.mode": "unsubscribe", "hub.topic": topic}
        await self._post(token, data=form | {"hub.channel.endpoint": endpoint})

    async def publish(self, token: str, topic: str, name: str, patient: str) -> None:
        await self._post(token, json=event(name, patient, topic=topic, event_id=f"{topic}-{name}-{patient}"))

    async def context(self, token: str, topic: str) -> None:
        """Read the current context."""
        answer = await self._http.get(f"{URL}/{topic}", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.text

    async def _post(self, token: str, **content: Any) -> httpx.Response:
        answer = await self._http.post(URL, headers={"Authorization": f"Bearer {token}"}, **content)
        assert answer.status_code == 202, answer.text
        return answer

    async def connect(self, endpoint: str) -> FakeSocket:
        """Open the socket of an endpoint."""
        state = SimpleNamespace(default_headers=[], connections=set())
        return await FakeSocket.connect(endpoint, Line(), self.hub.socket(server_state=state), lambda text: None)


async def acknowledge(socket: FakeSocket, status: int = 200) -> int:
    """Answer each event until the socket is closed. Returns the number of events."""
    count = 0
    try:
        while True:
            if (id_ := json.loads(await socket.recv()).get("id")) is not None:
                count += 1
                await socket.send(json.dumps({"id": id_, "status": status}))
    except FakeClosed:
        return count


class Keys(httpx.MockTransport):
    """Answers in place of the hub's ProxiedTransport."""

    def certificates(self) -> ssl.SSLContext:
        """See ProxiedTransport. There is no TLS."""
        return NO_TLS


@asynccontextmanager
async def world(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> AsyncIterator[World]:
    """A hub in memory with these settings beside the defaults, whose clock is the event loop's."""
    loop, idp = asyncio.get_running_loop(), Idp(ISSUER)
    keys = Keys(lambda request: httpx.Response(200, json=idp.jwks()))
    monkeypatch.setattr("fhircast_hub.app.ProxiedTransport", lambda hosts: keys)
    issuer = {"issuer": ISSUER, "audience": idp.audience, "jwks_uri": f"{ISSUER}/jwks"}
    values = {"public_url": URL, "store": "memory:", "issuers": [issuer], **settings}
    environ = {f"FHIRCAST_{k.upper()}": v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
    hub = Hub(load(None, environ), clock=lambda: NOON + loop.time())
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    answers: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
    messages.put_nowait({"type": "lifespan.startup"})
    lifespan = asyncio.create_task(hub({"type": "lifespan"}, messages.get, answers.put))
    assert (await answers.get())["type"] == "lifespan.startup.complete"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(hub, client=("10.0.0.1", 1))) as http:
        yield World(hub, idp, http)
    messages.put_nowait({"type": "lifespan.shutdown"})
    await lifespan


# --- what is held ----------------------------------------------------------------------------------------------------


def held(root: object) -> Counter[str]:
    """The lengths of all containers that an object of the hub holds, by the way to them, such as `.service._deadlines._at`."""
    sizes: Counter[str] = Counter()
    seen: set[int] = set()
    waiting: deque[tuple[str, object]] = deque([("", root)])
    while waiting:  # breadth first: the way is the shortest one
        path, value = waiting.popleft()
        if id(value) in seen or isinstance(value, str | bytes | int | float | type | None):
            continue
        seen.add(id(value))
        if isinstance(value, Mapping | list | set | frozenset | deque | tuple):
            sizes[path] += len(value)
            waiting += [(f"{path}[]", each) for each in items_of(value)]
        elif type(value).__module__.startswith("fhircast_hub."):
            waiting += [(f"{path}.{name}", each) for name, each in attributes_of(value)]
    return sizes


def items_of(container: Any) -> list[object]:
    """The values of a mapping and its keys, or the items."""
    return [*container.values(), *container.keys()] if isinstance(container, Mapping) else list(container)


def attributes_of(value: object) -> Iterator[tuple[str, object]]:
    """All attributes that are set, by name."""
    yield from vars(value).items() if hasattr(value, "__dict__") else ()
    for kind in type(value).__mro__:
        for name in getattr(kind, "__slots__", ()):
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name, getattr(value, name)


def objects() -> Counter[str]:
    """The objects of the hub's own types that the garbage collector knows, by type."""
    gc.collect()
    kinds = ((str(type(each).__module__), type(each).__qualname__) for each in gc.get_objects())
    return Counter(f"{module}.{name}" for module, name in kinds if module.startswith("fhircast_hub."))
