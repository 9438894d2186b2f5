"""Where audit entries go (AUD-2): JSON lines to a file or stdout, or a FHIR server. Nothing waits for them.

Entries wait in a bounded queue for the one who writes. What does not fit is lost, counted, and said so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque
from itertools import islice
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import httpx
import msgspec
import structlog

from fhircast_hub.audit.event import AuditEntry, make_audit_event
from fhircast_hub.telemetry.metrics import Metrics

#: Entries that wait: an hour of a busy hospital, some 20 MB.
MAX_WAITING = 10_000
#: AuditEvents that one request brings, and seconds until the first and longest pause after one that failed.
BATCH, FIRST_WAIT, LONGEST_WAIT = 100, 1.0, 60.0
#: Seconds for an answer to a batch, and bytes of it; half a kilobyte for each entry is much.
ANSWER_SECONDS, MAX_ANSWER = 30.0, 1 << 20
#: Seconds for what waits when the hub stops.
STOP_SECONDS = 2.0

_log = structlog.get_logger()


class Sink(Protocol):
    """Takes AuditEvents, in order."""

    async def write(self, events: list[bytes]) -> int:
        """Take them; how many of them it refused for good. Raises when it cannot: all of them are brought again."""
        ...


class JsonLinesSink:
    """JSON lines, to a file that is made readable by its owner only, or to stdout."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    async def write(self, events: list[bytes]) -> int:
        """See Sink."""
        text = b"".join(event + b"\n" for event in events)
        if self._path is None:
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()
        else:
            await asyncio.to_thread(_append, self._path, text)
        return 0


class _Answered(msgspec.Struct):
    status: str = ""


class _Entry(msgspec.Struct):
    response: _Answered = msgspec.field(default_factory=_Answered)


class _Batch(msgspec.Struct):
    """A batch-response, as much of it as counts."""

    entry: list[_Entry] = []


class FhirServerSink:
    """A FHIR base URL; events go there as one batch."""

    def __init__(self, base: str, client: httpx.AsyncClient) -> None:
        self._base = base
        self._client = client

    async def write(self, events: list[bytes]) -> int:
        """See Sink. "The success or failure of one [entry] should not affect the success or failure" of another (FHIR, batch)."""
        entry = b",".join(b'{"resource":%b,"request":{"method":"POST","url":"AuditEvent"}}' % event for event in events)
        body = b'{"resourceType":"Bundle","type":"batch","entry":[%b]}' % entry
        headers = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}
        headers["Accept-Encoding"] = "identity"
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            self._client.stream("POST", self._base, content=body, headers=headers, follow_redirects=False) as answer,
        ):
            answer.raise_for_status()
            if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
                return 0  # nothing is inflated
            text = bytearray()
            async for chunk in answer.aiter_bytes():
                text += chunk
                if len(text) > MAX_ANSWER:
                    return 0  # it has taken them, whatever it has to say about that
        try:
            answered = msgspec.json.decode(text, type=_Batch)
        except ValueError:  # of msgspec too
            return 0
        return sum(not each.response.status.startswith("2") for each in answered.entry)


class Auditor:
    """Takes entries from anywhere, and brings them to the sink; without one it forgets them. Lost entries are counted in `metrics`."""

    def __init__(self, sink: Sink | None, hub_url: str, metrics: Metrics | None = None) -> None:
        self._sink = sink
        self._hub_url = hub_url
        self._waiting: deque[AuditEntry] = deque()
        self._wake, self._stop = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._untold = 0
        self.metrics = metrics or Metrics()

    def record(self, entry: AuditEntry) -> None:
        """Remember one; never waits, never raises."""
        if self._sink is None:
            return
        if len(self._waiting) >= MAX_WAITING or self._stop.is_set():
            if not self._untold:
                _log.error("audit entries are being lost", reason="the audit sink does not take them")
            self._lose(1)
            return
        self._waiting.append(entry)
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work(self._sink))

    async def stop(self) -> None:
        """Bring what waits, within a few seconds."""
        self._stop.set()
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_SECONDS)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._lose(len(self._waiting))
        self._waiting.clear()
        self._tell()

    async def _work(self, sink: Sink) -> None:
        wait = FIRST_WAIT
        while True:
            if not self._waiting:
                if self._stop.is_set():
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            last = self._stop.is_set()
            if await self._bring(sink, list(islice(self._waiting, BATCH))):
                wait = FIRST_WAIT
            elif last:
                return
            else:
                # Who stops does not wait for this: it is tried once more at once.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), wait)
                wait = min(wait * 2, LONGEST_WAIT)

    async def _bring(self, sink: Sink, batch: list[AuditEntry]) -> bool:
        try:
            refused = await sink.write([make_audit_event(entry, self._hub_url) for entry in batch])
        except Exception as error:  # whatever it is, the trail goes on
            _log.error("audit sink fails", error=type(error).__name__, count=len(self._waiting))
            return False
        for _ in batch:
            self._waiting.popleft()
        self._lose(refused)
        self._tell()
        return True

    def _lose(self, count: int) -> None:
        self.metrics.audit_lost.inc(count)
        self._untold += count

    def _tell(self) -> None:
        if self._untold:
            _log.error("audit entries lost", count=self._untold)
            self._untold = 0


def make_sink(setting: str | None, client: httpx.AsyncClient) -> Sink | None:
    """The sink of the setting AUDIT: `-`, `file:///path`, or a FHIR base URL."""
    if setting is None:
        return None
    if setting == "-":
        return JsonLinesSink(None)
    parts = urlsplit(setting)
    return JsonLinesSink(Path(unquote(parts.path))) if parts.scheme == "file" else FhirServerSink(setting, client)


def _append(path: Path, text: bytes) -> None:
    """All of it, or nothing: it will be brought again, and half a line would spoil the next."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        before = os.fstat(file).st_size
        try:
            while text:
                text = text[os.write(file, text) :]
        except OSError:
            os.ftruncate(file, before)
            raise
    finally:
        os.close(file)
