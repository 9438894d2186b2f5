"""Attacks by many requests: answers that nobody reads, callbacks, cheap questions, subscriptions and updates without end."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
from collections.abc import Awaitable, Callable

from tests.hardening.attacks.attacker import NEVER, Attack, Attacker, swarm
from tests.hardening.attacks.lines import Line, form_post, head

#: Requests in each write: as many as may wait on a connection.
_PIPELINED = 16


async def large_context(attacker: Attacker) -> None:
    """Open a report, and share seven megabytes in it."""
    patient = {"key": "patient", "resource": {"resourceType": "Patient", "id": "p1"}}
    await attacker.accepted(attacker.post(attacker.event("DiagnosticReport-open", "r1", patient)))
    read = head("GET", f"{attacker.path}/{attacker.user}", attacker.token)
    for number in range(7):
        version = json.loads(await attacker.accepted(read))["context.versionId"]
        resource = {"resourceType": "Basic", "id": f"b{number}", "x": "x" * 1_000_000}
        await attacker.accepted(attacker.post(update(attacker, version, resource)))


def update(attacker: Attacker, version: str, resource: dict[str, str]) -> bytes:
    """An update of the report r1 that shares this resource."""
    entry = {"request": {"method": "PUT"}, "resource": resource}
    bundle = {"resourceType": "Bundle", "id": "b", "type": "transaction", "entry": [entry]}
    body = json.loads(attacker.event("DiagnosticReport-update", "r1", **{"context.versionId": version}))
    body["event"]["context"] = [
        {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}},
        {"key": "updates", "resource": bundle},
    ]
    return json.dumps(body).encode()


def unread_answers(pipelined: int, read_seconds: float) -> Callable[[Attacker], Awaitable[None]]:
    """Two hundred connections ask for a context of seven megabytes; each reads a byte in so many seconds, with 0 none."""

    async def run(attacker: Attacker) -> None:
        await large_context(attacker)
        request = head("GET", f"{attacker.path}/{attacker.user}", attacker.token) * pipelined
        await attacker.begin()
        await swarm(200, lambda _: attacker.read_slowly(request, read_seconds))

    return run


async def callbacks(attacker: Attacker) -> None:
    """Callbacks without end, each at another address and port of this machine; what they are asked is counted."""
    asked = attacker.ends

    async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked["asked a callback"] += 1
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.close()

    servers = [await asyncio.start_server(fail, "0.0.0.0") for _ in range(8)]
    ports = itertools.cycle([server.sockets[0].getsockname()[1] for server in servers])
    numbers = itertools.count()

    def request() -> bytes:
        number = next(numbers)
        callback = f"http://127.1.{number >> 8 & 255}.{number & 255}:{next(ports)}/{number}"
        return attacker.form(
            hub__channel__type="webhook", hub__callback=callback, hub__topic=f"{attacker.user}-{number % 500}"
        )

    await attacker.begin()
    try:
        await swarm(8, lambda _: attacker.repeat(request))
    finally:
        for server in servers:
            server.close()


def cheap(*paths: str) -> Callable[[Attacker], Awaitable[None]]:
    """Fifty connections ask for these, sixteen requests in each write; without paths what a hub refuses."""

    async def run(attacker: Attacker) -> None:
        path, topic = attacker.path, f"{attacker.path}/{attacker.user}"
        forged = attacker.token[:-8] + "AAAAAAAA"
        refused = [
            head("GET", topic),
            head("GET", topic, forged),
            head("GET", topic, attacker.tokens["none"]),
            head("GET", "/nowhere", attacker.token),
            head("GET", topic, attacker.token),
            form_post(path, attacker.token, nothing="x"),
        ]
        requests = itertools.cycle([head("GET", each) for each in paths] or refused)
        await attacker.begin()
        await swarm(50, lambda _: attacker.repeat(lambda: next(requests), _PIPELINED))

    return run


async def refused_events(attacker: Attacker) -> None:
    """A hundred connections post what is no event, with a known token. Each write has as many small requests as may wait."""
    request = attacker.post(b"{}")
    await attacker.begin()
    await swarm(100, lambda _: attacker.repeat(lambda: request, _PIPELINED))


async def connections(attacker: Attacker) -> None:
    """Sixty-four connections after another ask once, and are gone."""
    request = head("GET", "/health/live")
    await attacker.begin()

    async def ask(line: Line) -> None:
        status, _ = await line.ask(request)
        attacker.ends[f"http {status}"] += 1

    await swarm(64, lambda _: attacker.again(ask))


async def subscriptions(attacker: Attacker) -> None:
    """Subscribes, renews and unsubscribes as fast as it can, on sixteen connections."""
    first = json.loads(await attacker.accepted(attacker.form()))["hub.channel.endpoint"]
    numbers = itertools.count()

    def request() -> bytes:
        number = next(numbers)
        name = f"name {number // 2 % 40}"
        match number % 5:
            case 0 | 2:
                return attacker.form(subscriber__name=name, hub__topic=f"{attacker.user}-{number % 3}")
            case 1 | 3:
                return attacker.form(
                    hub__mode="unsubscribe", subscriber__name=name, hub__topic=f"{attacker.user}-{number % 3}"
                )
            case _:
                return attacker.form(hub__channel__endpoint=first)

    await attacker.begin()
    await swarm(16, lambda _: attacker.repeat(request))


async def updates(attacker: Attacker) -> None:
    """Shares one small resource after another in a report of seven megabytes, and reads it all for the next version."""
    await large_context(attacker)
    read = head("GET", f"{attacker.path}/{attacker.user}", attacker.token)
    await attacker.begin()

    async def share(number: int, line: Line) -> None:
        while True:
            status, body = await line.ask(read)
            attacker.ends[f"http {status}"] += 1
            version = str(json.loads(body).get("context.versionId")) if status == 200 else ""
            resource = {"resourceType": "Basic", "id": f"c{number}"}
            status, _ = await line.ask(attacker.post(update(attacker, version, resource)))
            attacker.ends[f"http {status}"] += 1

    await swarm(8, lambda number: attacker.again(functools.partial(share, number)))


#: A context of seven megabytes is the user's to hold, in the store and in the answer that was made last.
ANSWERS = {
    "not read": Attack(unread_answers(1, 0), held=16 << 20, refused_after=30),
    "read by the byte": Attack(unread_answers(1, 1), held=16 << 20, refused_after=30),
    "pipelined": Attack(unread_answers(_PIPELINED, 0), held=16 << 20, refused_after=30),
}
CALLBACKS = {"thousands": Attack(callbacks)}
CHEAP = {
    "refused": Attack(cheap()),
    "refused events": Attack(refused_events),
    "open doors": Attack(cheap("/metrics", "/health/ready", "/openapi.json"), refused_after=NEVER),
    "new connections": Attack(connections, refused_after=NEVER),
}
SUBSCRIBING = {"on and off": Attack(subscriptions), "updates": Attack(updates, held=16 << 20)}
