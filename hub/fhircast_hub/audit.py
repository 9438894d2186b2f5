"""Where audit entries go (AUD-2): JSON lines to a file or stdout, or a FHIR server. Nothing waits for them.

Entries wait in a bounded queue for the one who writes. What does not fit is lost, counted, and said so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import httpx
import structlog

from fhircast_hub.core.audit import Entry, audit_event

#: Entries that wait: an hour of a busy hospital, some 20 MB.
MAX_WAITING = 10_000
#: AuditEvents that one request brings, and seconds until the first and longest pause after one that failed.
BATCH, FIRST_WAIT, LONGEST_WAIT = 100, 1.0, 60.0
#: Seconds for what waits when the hub stops.
STOP_SECONDS = 2.0

_log = structlog.get_logger()


class Sink(Protocol):
    """Takes AuditEvents, in order."""

    async def write(self, events: list[bytes]) -> None:
        """Take all of them. Raises OSError or httpx.HTTPError when it cannot: they are brought again."""
        ...


class Lines:
    """JSON lines, to a file that is made readable by its owner only, or to stdout."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    async def write(self, events: list[bytes]) -> None:
        """See Sink."""
        text = b"".join(event + b"\n" for event in events)
        if self._path is None:
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()
        else:
            await asyncio.to_thread(_append, self._path, text)


class FhirServer:
    """A FHIR base URL; events go there as one batch."""

    def __init__(self, base: str, client: httpx.AsyncClient) -> None:
        self._base = base
        self._client = client

    async def write(self, events: list[bytes]) -> None:
        """See Sink."""
        entry = b",".join(b'{"resource":%b,"request":{"method":"POST","url":"AuditEvent"}}' % event for event in events)
        body = b'{"resourceType":"Bundle","type":"batch","entry":[%b]}' % entry
        headers = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}
        answer = await self._client.post(self._base, content=body, headers=headers, follow_redirects=False)
        answer.raise_for_status()


class Auditor:
    """Takes entries from anywhere, and brings them to the sink; without one it forgets them."""

    def __init__(self, sink: Sink | None, hub_url: str) -> None:
        self._sink = sink
        self._hub_url = hub_url
        self._waiting: deque[Entry] = deque()
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.lost = 0

    def record(self, entry: Entry) -> None:
        """Remember one; never waits, never raises."""
        if self._sink is None:
            return
        if len(self._waiting) >= MAX_WAITING:
            if not self.lost:
                _log.error("audit entries lost", reason="the audit sink does not take them", count=MAX_WAITING)
            self.lost += 1
            return
        self._waiting.append(entry)
        self._empty.clear()
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work(self._sink))

    async def stop(self) -> None:
        """Bring what waits, within a few seconds."""
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), STOP_SECONDS)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._waiting:
            _log.error("audit entries lost", reason="the hub stopped", count=len(self._waiting))

    async def _work(self, sink: Sink) -> None:
        wait = FIRST_WAIT
        while True:
            if not self._waiting:
                self._wake.clear()
                self._empty.set()
                await self._wake.wait()
            batch = [self._waiting[place] for place in range(min(BATCH, len(self._waiting)))]
            try:
                await sink.write([audit_event(entry, self._hub_url) for entry in batch])
            except (OSError, httpx.HTTPError) as error:
                _log.error("audit sink fails", error=type(error).__name__, count=len(self._waiting))
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT)
                continue
            wait = FIRST_WAIT
            for _ in batch:
                self._waiting.popleft()


def make_sink(setting: str | None, client: httpx.AsyncClient) -> Sink | None:
    """The sink of the setting AUDIT: `-`, `file:///path`, or a FHIR base URL."""
    if setting is None:
        return None
    if setting == "-":
        return Lines(None)
    parts = urlsplit(setting)
    return Lines(Path(unquote(parts.path))) if parts.scheme == "file" else FhirServer(setting, client)


def _append(path: Path, text: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "ab") as appended:
        appended.write(text)
