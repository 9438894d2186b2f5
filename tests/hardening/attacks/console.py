"""Attacks on the operator's console: its files, its state, its streams; with and without the scope for them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable

from tests.hardening.attacks.attacker import NEVER, Attack, Attacker, swarm
from tests.hardening.attacks.lines import Line, head

#: Requests in each write: as many as may wait on a connection.
_PIPELINED = 16
#: Characters of the longest topic, and of the longest name.
_TOPIC, _NAME = 1024, 256


async def doors(attacker: Attacker) -> None:
    """Fifty connections ask for the page, its files, the login and the state, without a token."""
    paths = ("", "/console.js", "/views.js", "/config", "/state", "/stream", "/nowhere")
    requests = itertools.cycle([head("GET", f"/console{path}") for path in paths])
    await attacker.begin()
    await swarm(50, lambda _: attacker.repeat(lambda: next(requests), _PIPELINED))


async def without_scope(attacker: Attacker) -> None:
    """Fifty connections of an application ask for state and stream, and end sessions."""
    ask = [head("GET", f"/console/{path}", attacker.token) for path in ("state", "stream", "state?search=x")]
    body = b'{"topic":"victim","reason":"x"}'
    length = str(len(body))
    end = head("POST", "/console/sessions/end", attacker.token, content_type="application/json", content_length=length)
    requests = itertools.cycle([*ask, end + body])
    await attacker.begin()
    await swarm(50, lambda _: attacker.repeat(lambda: next(requests), _PIPELINED))


async def searches(attacker: Attacker) -> None:
    """Fifty connections of an operator search for texts, hashes and sessions that are nowhere."""
    await _fill(attacker)
    token = attacker.tokens["console"]
    kinds = itertools.cycle(("search=", "session=", "search=user"))
    await attacker.begin()

    def request() -> bytes:
        return head("GET", f"/console/state?{next(kinds)}{random.getrandbits(48):012x}", token)

    await swarm(50, lambda _: attacker.repeat(request, _PIPELINED))


def unread_streams(read_seconds: float) -> Callable[[Attacker], Awaitable[None]]:
    """An operator opens two hundred streams of the longest names, and reads a byte in so many seconds, with 0 none."""

    async def run(attacker: Attacker) -> None:
        await _fill(attacker)
        request = head("GET", "/console/stream", attacker.tokens["console"])
        await attacker.begin()

        async def use(line: Line) -> None:
            """Change all that the streams show."""
            for topic in itertools.cycle(_topics(attacker)):
                await line.ask(attacker.post(attacker.event("Patient-open", "p1", topic=topic)))

        await swarm(
            202, lambda number: attacker.again(use) if number < 2 else attacker.read_slowly(request, read_seconds)
        )

    return run


def _topics(attacker: Attacker) -> list[str]:
    """The longest topics: markup, and what changes the direction of writing."""
    return [
        f"{attacker.user}{number:03}<img src=x onerror=alert(1)>\u202e".ljust(_TOPIC, "\U0001f480")
        for number in range(200)
    ]


async def _fill(attacker: Attacker) -> None:
    """The sessions of the longest topics, with a subscriber of the longest name in each."""
    line = await attacker.dial()
    for topic in _topics(attacker):
        name = "<script>\u202e".ljust(_NAME, "\U0001f480")
        status, body = await line.ask(attacker.form(hub__topic=topic, subscriber__name=name))
        assert status == 202, body
    attacker.drop(line)


#: Sessions are the user's to hold. The kernel takes what a stream sends, so the attacker does not see that the stream ended.
CONSOLE = {
    "open doors": Attack(doors),
    "without the scope": Attack(without_scope),
    "searches": Attack(searches, held=8 << 20),
    "unread streams": Attack(unread_streams(0), held=8 << 20, refused_after=NEVER),
    "streams read by the byte": Attack(unread_streams(1), held=8 << 20, refused_after=NEVER),
}
