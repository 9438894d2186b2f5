"""Attacks by what is posted: slow to parse, more than memory, or for ever on its way."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

from tests.hardening.attacks.attacker import NEVER, Attack, Attacker, swarm
from tests.hardening.attacks.lines import Line, head

#: Bytes of the largest body (MAX_BODY_BYTES), less what stands around it.
LARGE = (1 << 20) - 4096


def _beside(attacker: Attacker, filling: str) -> bytes:
    """An open with a further member of the envelope; `filling` is name and value."""
    body = attacker.event("Patient-open", "p1")
    return body[:-1] + b"," + filling.encode() + b"}"


def escaped_names(attacker: Attacker) -> bytes:
    """A member whose name holds an escaped quote, before thousands of objects."""
    return _beside(attacker, r'"x\u0022\":":[' + "{}," * (LARGE // 3) + "{}]")


def nested(attacker: Attacker) -> bytes:
    """Brackets in brackets, as deep as is allowed, over and over."""
    deep = '{"a":' * 30 + "[" * 30 + "]" * 30 + "}" * 30
    return _beside(attacker, '"x":[' + f"{deep}," * (LARGE // (len(deep) + 1)) + "0]")


def escapes(attacker: Attacker) -> bytes:
    """Nothing but escapes: in a name, in a text, and quotes that look like the end of one."""
    part = LARGE // 3
    return _beside(
        attacker, f'"{_times(chr(92) + "u0041", part)}":"{_times(chr(92) * 2, part)}{_times(chr(92) + chr(34), part)}"'
    )


def _times(text: str, size: int) -> str:
    return text * (size // len(text))


def entries(attacker: Attacker) -> bytes:
    """An update of 500 resources, made on no version: all of it is read before it is refused."""
    shared = [
        {
            "fullUrl": f"https://ehr.example/Observation/o{number}",
            "request": {"method": "PUT", "url": f"Observation/o{number}"},
            "resource": {"resourceType": "Observation", "id": f"o{number}", "component": [{}] * 400},
        }
        for number in range(500)
    ]
    bundle = {"resourceType": "Bundle", "id": "b", "type": "transaction", "entry": shared}
    body = json.loads(attacker.event("DiagnosticReport-update", "r1"))
    body["event"]["context"] = [
        {"key": "report", "reference": {"reference": "DiagnosticReport/r1"}},
        {"key": "updates", "resource": bundle},
    ]
    return json.dumps(body, separators=(",", ":")).encode()


def slow_to_parse(make: Callable[[Attacker], bytes], scope: str = "all") -> Callable[[Attacker], Awaitable[None]]:
    """Ten connections post it over and over; by the token that is called `scope`."""

    async def run(attacker: Attacker) -> None:
        attacker.token = attacker.tokens[scope]
        request = attacker.post(make(attacker))
        await attacker.begin()
        await swarm(10, lambda _: attacker.repeat(lambda: request))

    return run


async def many_topics(attacker: Attacker) -> None:
    """A megabyte is opened in one topic after the other."""
    large: dict[str, Any] = {"key": "x", "resource": {"resourceType": "Basic", "x": "x" * LARGE}}
    topics = itertools.cycle([f"{attacker.user}-{number}" for number in range(1000)])
    await attacker.begin()
    await swarm(
        8,
        lambda _: attacker.repeat(
            lambda: attacker.post(attacker.event("Patient-open", "p1", large, topic=next(topics)))
        ),
    )


def slow_bodies(token: bool) -> Callable[[Attacker], Awaitable[None]]:
    """Six hundred connections send most of a megabyte at once, and a byte each second."""

    async def run(attacker: Attacker) -> None:
        given = attacker.token if token else None
        start = head("POST", attacker.path, given, content_type="application/json", content_length=str(LARGE))
        start += b"{" + b" " * (LARGE - 1000)
        await attacker.begin()

        async def drip(line: Line) -> None:
            await line.send(start)
            while not line.ended():
                await asyncio.sleep(1)
                await line.send(b" ")

        async def one(number: int) -> None:
            await asyncio.sleep(number / 600)
            await attacker.hold(drip)

        await swarm(600, one)

    return run


async def byte_chunks(attacker: Attacker) -> None:
    """Ten connections send bodies of which each byte is a chunk, as fast as the hub reads."""
    start = head("POST", attacker.path, attacker.token, content_type="application/json", transfer_encoding="chunked")
    chunks = b"1\r\n \r\n" * 20_000
    await attacker.begin()

    async def send(line: Line) -> None:
        await line.send(start)
        while True:
            await line.send(chunks)

    await swarm(10, lambda _: attacker.again(send))


PARSING = {
    "escaped names": Attack(slow_to_parse(escaped_names), held=1 << 20, refused_after=NEVER),
    "nested": Attack(slow_to_parse(nested), held=1 << 20, refused_after=NEVER),
    "escapes": Attack(slow_to_parse(escapes), held=1 << 20, refused_after=NEVER),
    "updates of 500": Attack(slow_to_parse(entries)),
    "without the scope for it": Attack(slow_to_parse(escaped_names, scope="little")),
}
#: Of these the user may hold MAX_BYTES_PER_USER, 64 MiB.
TOPICS = {"a thousand topics": Attack(many_topics, held=64 << 20, refused_after=30)}
SLOW = {
    "of a user": Attack(slow_bodies(token=True), refused_after=30),
    "without a token": Attack(slow_bodies(token=False)),
    "a byte a chunk": Attack(byte_chunks, refused_after=30),
}
