"""Attacks over WebSockets: frames without end, handshakes without end, sockets that read nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from tests.hardening.attacks.attacker import NEVER, Attack, Attacker, handshake, swarm
from tests.hardening.attacks.lines import Line, frame

#: Bytes in each write of a flood, at least one frame.
_WRITE = 1 << 18
#: First bytes of frames: a whole text, binary, ping; the first part of a text, and a further part.
_TEXT, _BINARY, _PING, _BEGINS, _GOES_ON = 0x81, 0x82, 0x89, 0x01, 0x00
#: Bytes in the largest frame that the hub reads (SYN-15).
_LARGEST = 65536
#: Many members, none of which ends: the slowest text that was found to read.
_UNENDED = (b'{"id":"x","status":200' + b',"a":0' * _LARGEST)[:_LARGEST]

_BRACES = frame(_TEXT, b"{}")


def _filled(data: bytes) -> bytes:
    return data * max(1, _WRITE // len(data))


class Flood:
    """One socket after another that sends `data` as fast as the hub reads; without `again` only the first."""

    def __init__(self, attacker: Attacker, data: bytes, *, start: bytes = b"", again: bool = True) -> None:
        self._attacker, self._data, self._start, self._again = attacker, _filled(data), start, again
        self._endpoint = ""

    async def prepare(self) -> None:
        """Subscribe."""
        self._endpoint = await self._attacker.endpoint()

    async def run(self) -> None:
        """Connect and send, at once again after each end; a dead endpoint is replaced."""
        while True:
            try:
                line = await self._attacker.connected(self._endpoint)
            except OSError:
                await self._renew()
                continue
            await self._send(line)
            if not self._again:
                return

    async def _send(self, line: Line) -> None:
        ending = asyncio.create_task(line.ending())
        try:
            await line.send(self._start)
            while not ending.done():
                await line.send(self._data)
        except OSError:
            pass
        self._attacker.ends[await ending] += 1
        self._attacker.drop(line)

    async def _renew(self) -> None:
        try:
            await self.prepare()
        except (OSError, AssertionError):
            await asyncio.sleep(0.01)


def flood(sockets: int, *kinds: tuple[bytes, bytes], again: bool = True) -> Callable[[Attacker], Awaitable[None]]:
    """So many sockets which send these kinds of frames in turn; each kind is what is sent first, and then without end."""

    async def run(attacker: Attacker) -> None:
        floods = [
            Flood(attacker, kinds[number % len(kinds)][1], start=kinds[number % len(kinds)][0], again=again)
            for number in range(sockets)
        ]
        for one in floods:
            await one.prepare()
        await attacker.begin()
        await swarm(sockets, lambda number: floods[number].run())

    return run


async def acknowledgements(attacker: Attacker) -> None:
    """Eight sockets are sent one event, and acknowledge it for ever."""
    endpoints = [await attacker.endpoint(subscriber__name=f"parrot {number}") for number in range(8)]
    lines = [await attacker.connected(endpoint) for endpoint in endpoints]
    body = attacker.event("Patient-open", "parrot")
    await attacker.accepted(attacker.post(body))
    data = _filled(frame(_TEXT, json.dumps({"id": json.loads(body)["id"], "status": 200}).encode()))
    await attacker.begin()

    async def one(number: int) -> None:
        ending = asyncio.create_task(lines[number].ending())
        try:
            while not ending.done():
                await lines[number].send(data)
        except OSError:
            pass
        attacker.ends[await ending] += 1

    await swarm(len(lines), one)


def handshakes(known: bool) -> Callable[[Attacker], Awaitable[None]]:
    """Thirty-two connections after another each ask for a WebSocket, at an endpoint of the user's, or at one made up."""

    async def run(attacker: Attacker) -> None:
        endpoint = await attacker.endpoint()
        request = handshake(endpoint if known else f"{attacker.path}/ws/{'x' * 43}")
        await attacker.begin()

        async def ask(line: Line) -> None:
            status, _ = await line.ask(request)
            attacker.ends[f"handshake {status}"] += 1

        await swarm(32, lambda _: attacker.again(ask))

    return run


def unread(sockets: int) -> Callable[[Attacker], Awaitable[None]]:
    """So many sockets read nothing, and their user opens a megabyte over and over."""

    async def run(attacker: Attacker) -> None:
        answers = [await attacker.accepted(attacker.form(subscriber__name=f"deaf {n}")) for n in range(sockets)]
        for answer in answers:
            path = urlsplit(str(json.loads(answer)["hub.channel.endpoint"])).path
            await attacker.connected(path, receive_bytes=4096)
        large = {"key": "x", "resource": {"resourceType": "Basic", "x": "x" * 1_000_000}}
        await attacker.begin()
        await swarm(4, lambda _: attacker.repeat(lambda: attacker.post(attacker.event("Patient-open", "p1", large))))

    return run


#: Those of row 1, and what else a socket can do.
FRAMES = {
    "one socket": Attack(flood(1, (b"", _BRACES), again=False)),
    "eight sockets": Attack(flood(8, (b"", _BRACES), again=False)),
    "sockets that come back": Attack(flood(8, (b"", _BRACES))),
    "pings, binary and empty fragments": Attack(
        flood(
            6,
            (b"", frame(_PING)),
            (b"", frame(_BINARY, b"x")),
            (frame(_BEGINS), frame(_GOES_ON)),
        )
    ),
    "large frames": Attack(flood(8, (b"", frame(_TEXT, _UNENDED)))),
    "repeated acknowledgements": Attack(acknowledgements, refused_after=30),
}
HANDSHAKES = {
    "known endpoint": Attack(handshakes(known=True), refused_after=NEVER),
    "made-up endpoints": Attack(handshakes(known=False)),
}
UNREAD = {
    "one socket": Attack(unread(1), held=1 << 20, refused_after=30),
    "sixty-four sockets": Attack(unread(64), held=1 << 20, refused_after=30),
}
