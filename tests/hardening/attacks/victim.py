"""The victim: another user of the hub, who opens a patient every 50 ms and looks when that arrives."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.hardening.attacks.lines import form_post, json_post

#: Seconds between two opens, and those after which an event counts as late.
EVERY, LATE = 0.05, 1.0
#: Of so many opens one is on a connection of its own.
NEWCOMER = 20
#: Seconds that are waited for the last events.
PATIENCE = 10.0
_ADDRESS = "127.0.0.1"


@dataclass
class Sample:
    """One open: when its POST began, its answer's status, and seconds until its frame had come; None for what did not."""

    at: float
    status: int | None = None
    seconds: float | None = None


class Victim:
    """One user with a subscriber on a WebSocket and a publisher on keep-alive connections. Use it as `async with`.

    The publisher takes turns with `tokens`: twenty opens a second are more than RATE_LIMIT_TOKEN gives one. It waits for no answer
    before the next open. Each NEWCOMER-th is on a new connection, as applications come and go.
    """

    def __init__(self, port: int, tokens: list[str]) -> None:
        self.samples: list[Sample] = []
        self._port, self._tokens = port, itertools.cycle(tokens)
        self._path, self._topic = "/api/hub", "victim"
        self._waiting: dict[str, Sample] = {}
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._posts: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        form = {"hub__channel__type": "websocket", "hub__mode": "subscribe", "hub__events": "Patient-open"}
        status, body = await self._ask(
            form_post(self._path, next(self._tokens), hub__topic=self._topic, subscriber__name="victim", **form)
        )
        assert status == 202, body
        endpoint = json.loads(body)["hub.channel.endpoint"]
        self._socket = await connect(endpoint, compression=None, proxy=None, ping_interval=None)
        self._listener = asyncio.create_task(self._listen(self._socket))
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._listener.cancel()
        for post in self._posts:
            post.cancel()
        await asyncio.gather(self._listener, *self._posts, return_exceptions=True)
        self._socket.transport.abort()
        for _, writer in self._idle:
            writer.close()

    async def work(self, seconds: float) -> list[Sample]:
        """Open patients for so many seconds; what came of each, once it has arrived or PATIENCE is over."""
        samples: list[Sample] = []
        start = time.monotonic()
        for number in itertools.count():
            due = start + number * EVERY
            if due - start >= seconds:
                break
            await asyncio.sleep(due - time.monotonic())
            samples.append(self._open())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while self._waiting or self._posts:  # noqa: ASYNC110  # what comes last is known only by waiting
                    await asyncio.sleep(0.02)
        self._waiting.clear()
        return samples

    def _open(self) -> Sample:
        number = next(self._numbers)
        event = {
            "timestamp": datetime.now(UTC).isoformat(),
            "id": f"victim-{number}",
            "event": {
                "hub.topic": self._topic,
                "hub.event": "Patient-open",
                "context": [{"key": "patient", "resource": {"resourceType": "Patient", "id": f"p{number % 2}"}}],
            },
        }
        sample = Sample(time.monotonic())
        self._waiting[f"victim-{number}"] = sample
        request = json_post(self._path, next(self._tokens), json.dumps(event).encode())
        post = asyncio.create_task(self._post(request, sample, new=number % NEWCOMER == NEWCOMER - 1))
        self._posts.add(post)
        post.add_done_callback(self._posts.discard)
        return sample

    async def _post(self, request: bytes, sample: Sample, new: bool) -> None:
        with contextlib.suppress(OSError, EOFError):  # then it has no status
            sample.status, _ = await self._ask(request, new)
        if sample.status != 202:
            self._waiting = {id_: waiting for id_, waiting in self._waiting.items() if waiting is not sample}

    async def _ask(self, request: bytes, new: bool = False) -> tuple[int, bytes]:
        reader, writer = (
            self._idle.pop() if self._idle and not new else await asyncio.open_connection(_ADDRESS, self._port)
        )
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(
                (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
            )
            body = await reader.readexactly(size)
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))
        return int(head.split()[1]), body

    async def _listen(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):  # then nothing arrives any more, which the samples say
            async for message in socket:
                now, id_ = time.monotonic(), json.loads(message).get("id")
                if sample := self._waiting.pop(str(id_), None):
                    sample.seconds = now - sample.at
                    await socket.send(json.dumps({"id": id_, "status": 200}))


def percentile(samples: list[Sample], part: float) -> float:
    """Seconds, by nearest rank, such as `part=0.99`; what did not arrive took PATIENCE."""
    ordered = sorted(PATIENCE if sample.seconds is None else sample.seconds for sample in samples)
    return ordered[math.ceil(part * len(ordered)) - 1]
