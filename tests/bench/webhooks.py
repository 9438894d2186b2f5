"""Shape W of bench.py: events to callbacks of which half hang."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import statistics
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.bench.servers import LOAD_CPU, drive

CALLBACKS = 200
WEBHOOK_EVENTS = 20  # fewer than a queue holds, and over before anybody has hung for too long


class Callbacks:
    """A server for callbacks, in a thread: /fast/... answers, /slow/... never does. `heard` is for each post to the former."""

    def __init__(self) -> None:
        self.heard, self.agreed = threading.Semaphore(0), threading.Semaphore(0)
        self._listens = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        self._listens.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _run(self) -> None:
        os.sched_setaffinity(0, {LOAD_CPU})
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        self._listens.set()
        await self._over.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                await reader.readexactly(int(head.lower().partition("content-length: ")[2].partition("\r")[0] or 0))
                method, target, _ = head.split(" ", 2)
                if method == "POST" and target.startswith("/slow"):
                    await reader.read()  # until the hub has had enough
                    return
                challenge = parse_qs(urlsplit(target).query).get("hub.challenge", [""])[0]
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(challenge)}\r\n\r\n{challenge}".encode())
                (self.agreed if challenge else self.heard).release()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()


def shape_w(target: drive.Target, endpoints: Path) -> dict[str, Any]:
    """Half of the callbacks alone, then beside as many that hang; in one run, so that one is to be compared with the other."""
    callbacks, half = Callbacks(), CALLBACKS // 2
    try:
        alone = fan_out(target, callbacks, "alone", half, 0)
        beside = fan_out(target, callbacks, "beside", half, half)
    finally:
        callbacks.stop()
    return {"alone_us": alone, "beside_us": beside, "ratio": beside / alone}


def fan_out(target: drive.Target, callbacks: Callbacks, topic: str, fast: int, slow: int) -> float:
    """Median us from the POST of an event until the last fast callback has it."""
    url = urlsplit(target.publish_url)
    hub = http.client.HTTPConnection(str(url.hostname), url.port, timeout=30)
    headers = dict(line.split(": ", 1) for line in target.headers)

    def post(body: str, media_type: str) -> None:
        hub.request("POST", url.path, body, headers | {"Content-Type": media_type})
        answer = hub.getresponse()
        if (text := answer.read()) and answer.status != http.HTTPStatus.ACCEPTED:
            raise RuntimeError(f"answered with {answer.status} {text[:200]!r}")

    for number in range(fast + slow):
        path = f"{'fast' if number < fast else 'slow'}/{topic}/{number}"
        form = {"hub.channel.type": "webhook", "hub.callback": f"http://127.0.0.1:{callbacks.port}/{path}"}
        form |= {"hub.mode": "subscribe", "hub.topic": topic, "hub.events": "Patient-open", "hub.secret": "bench"}
        post(urlencode(form), "application/x-www-form-urlencoded")
    took(callbacks.agreed, fast + slow)
    time.sleep(1)  # the last yes has been said, and must be taken in
    times = []
    for number in range(WEBHOOK_EVENTS):
        context = [{"key": "patient", "resource": {"resourceType": "Patient", "id": f"p{number}"}}]
        event = {"hub.topic": topic, "hub.event": "Patient-open", "context": context}
        began = time.perf_counter()
        post(
            json.dumps({"timestamp": "2026-01-01T00:00:00Z", "id": f"{topic}-{number}", "event": event}),
            "application/json",
        )
        took(callbacks.heard, fast)
        times.append((time.perf_counter() - began) * 1e6)
        time.sleep(0.05)
    hub.close()
    return statistics.median(times[3:])


def took(semaphore: threading.Semaphore, count: int) -> None:
    for _ in range(count):
        if not semaphore.acquire(timeout=30):
            raise RuntimeError("a callback that answers was not posted to within 30 s")
