"""Writes the AuditEvents of the audit trail (AUD-2), which audit/event.py makes: as JSON lines to a file or stdout, or to a FHIR server.

Entries go through a bounded queue, and no request waits for the sink. Entries beyond the queue are lost, counted and reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import httpx
import msgspec
import structlog

from fhircast_hub.audit.event import AuditEntry, make_audit_event
from fhircast_hub.telemetry.metrics import Metrics

#: Entries in the queue: an hour of a busy hospital, some 20 MB.
MAX_WAITING = 10_000
#: AuditEvents in one batch.
BATCH = 100
#: Seconds before the first retry of a failed batch. Doubles for each further retry, up to LONGEST_WAIT.
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
#: Seconds for the answer to a batch, and its bytes. An entry of an answer has half a kilobyte at most.
ANSWER_SECONDS, MAX_ANSWER = 30.0, 1 << 20
#: Seconds for the rest of the queue when the hub stops.
STOP_SECONDS = 2.0
#: Seconds that an append waits while another process appends to the file.
LOCK_SECONDS = 0.5
#: Errors of a file system without locks.
_NO_LOCKS = frozenset((errno.ENOTSUP, errno.ENOLCK, errno.EINVAL))

_log = structlog.get_logger()


class Sink(Protocol):
    """Writes AuditEvents, in order."""

    async def write(self, events: list[bytes]) -> int:
        """Write the AuditEvents, as JSON. Returns how many were refused for good. Raises if none was written: all are retried."""
        ...


class JsonLinesSink:
    """JSON lines in a file. A new file is readable by its owner only. `path` None: stdout."""

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


class UnusableToken(Exception):
    """The file of the bearer token is unusable. The message is for the operator, and has nothing of what is in the file."""


class _Response(msgspec.Struct):
    status: str = ""


class _BatchEntry(msgspec.Struct):
    response: _Response = msgspec.field(default_factory=_Response)


class _BatchResponse(msgspec.Struct):
    """The members of a batch-response that the hub reads."""

    entry: list[_BatchEntry] = []


class FhirServerSink:
    """A FHIR server with the base URL `base`. Each write is one batch. The caller closes `client`.

    `read_token` returns the bearer token, from a file that may change at any time. It raises ValueError for an unusable file.
    """

    def __init__(self, base: str, client: httpx.AsyncClient, read_token: Callable[[], str] | None = None) -> None:
        self._base = base
        self._client = client
        self._read_token = read_token

    async def write(self, events: list[bytes]) -> int:
        """See Sink. "The success or failure of one [entry] should not affect the success or failure" of another (FHIR, batch)."""
        entry = b",".join(b'{"resource":%b,"request":{"method":"POST","url":"AuditEvent"}}' % event for event in events)
        body = b'{"resourceType":"Bundle","type":"batch","entry":[%b]}' % entry
        headers = {"Content-Type": "application/fhir+json", "Accept": "application/fhir+json"}
        headers["Accept-Encoding"] = "identity"
        if self._read_token is not None:  # each time: tokens are short-lived, and a batch that got 401 is retried
            headers["Authorization"] = f"Bearer {await _read(self._read_token)}"
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            self._client.stream("POST", self._base, content=body, headers=headers, follow_redirects=False) as answer,
        ):
            answer.raise_for_status()
            if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
                return 0  # compressed answers are not read
            text = bytearray()
            async for chunk in answer.aiter_bytes():
                text += chunk
                if len(text) > MAX_ANSWER:
                    return 0  # the status says that the batch was accepted
        return _refusals(text)


async def _read(read_token: Callable[[], str]) -> str:
    """The token. Raises UnusableToken."""
    try:
        return await asyncio.to_thread(read_token)
    except ValueError as error:
        raise UnusableToken(f"FHIRCAST_AUDIT_TOKEN_FILE {error}") from None


def _refusals(text: bytearray) -> int:
    """The refused entries of a batch-response. 0: the answer cannot be read."""
    try:
        answer = msgspec.json.decode(text, type=_BatchResponse)
    except ValueError:  # also msgspec's errors
        return 0
    return sum(not each.response.status.startswith("2") for each in answer.entry)


class Auditor:
    """The queue before a sink. `sink` None: entries are dropped. `hub_url` identifies the hub in the AuditEvents.

    `log_hash` makes the hash by which log lines name a topic.
    """

    def __init__(
        self, sink: Sink | None, hub_url: str, log_hash: Callable[[str], str], metrics: Metrics | None = None
    ) -> None:
        self._sink = sink
        self._hub_url = hub_url
        self._log_hash = log_hash
        self._waiting: deque[AuditEntry] = deque()
        self._wake, self._stop = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        #: Lost entries that the log does not report yet.
        self._unreported = 0
        self.metrics = metrics or Metrics()

    @property
    def is_on(self) -> bool:
        """Whether entries go to a sink."""
        return self._sink is not None

    def record(self, entry: AuditEntry) -> None:
        """Queue an entry. Never waits, never raises."""
        if self._sink is None:
            return
        if len(self._waiting) >= MAX_WAITING or self._stop.is_set():
            if not self._unreported:
                _log.error("audit entries are being lost", reason="the audit sink does not take them")
            self._lose(1)
            return
        self._waiting.append(entry)
        self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(self._sink))

    async def stop(self) -> None:
        """Write the rest of the queue, within STOP_SECONDS."""
        self._stop.set()
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_SECONDS)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._lose(len(self._waiting))
        self._waiting.clear()
        self._report()

    async def _run(self, sink: Sink) -> None:
        wait = FIRST_WAIT
        while True:
            if not self._waiting:
                if self._stop.is_set():
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            stopping = self._stop.is_set()
            if await self._write(sink, list(islice(self._waiting, BATCH))):
                wait = FIRST_WAIT
            elif stopping:
                return
            else:
                # A stop ends the pause, and the batch is retried once.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), wait)
                wait = min(wait * 2, LONGEST_WAIT)

    async def _write(self, sink: Sink, batch: list[AuditEntry]) -> bool:
        try:
            refused = await sink.write([make_audit_event(entry, self._hub_url, self._log_hash) for entry in batch])
        except Exception as error:  # no error of a sink ends the trail
            _log.error("audit sink fails", error=type(error).__name__, count=len(self._waiting), **_reason(error))
            return False
        for _ in batch:
            self._waiting.popleft()
        self._lose(refused)
        self._report()
        return True

    def _lose(self, count: int) -> None:
        self.metrics.audit_lost.inc(count)
        self._unreported += count

    def _report(self) -> None:
        if self._unreported:
            _log.error("audit entries lost", count=self._unreported)
            self._unreported = 0


def _reason(error: Exception) -> dict[str, str]:
    """The field `reason` of a log line, for the errors whose text an operator needs and may see."""
    match error:
        case httpx.HTTPStatusError():
            return {"reason": f"answered {error.response.status_code}"}
        case UnusableToken():
            return {"reason": str(error)}
        case OSError(strerror=str(text)):
            return {"reason": text}
    return {}


def make_sink(
    setting: str | None, client: httpx.AsyncClient, read_token: Callable[[], str] | None = None
) -> Sink | None:
    """The sink of the setting AUDIT: `-` for stdout, `file:///path`, or a FHIR base URL. None: no audit trail.

    A FHIR server gets the token of `read_token`, see FhirServerSink.
    """
    if setting is None:
        return None
    if setting == "-":
        return JsonLinesSink(None)
    parts = urlsplit(setting)
    return (
        JsonLinesSink(Path(unquote(parts.path)))
        if parts.scheme == "file"
        else FhirServerSink(setting, client, read_token)
    )


def _append(path: Path, text: bytes) -> None:
    """Append all of `text`, or nothing. Failed batches are retried, and half a line would spoil the next one.

    Raises OSError where the file cannot be written, or where another process keeps the file for LOCK_SECONDS.
    """
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(file)
        before = os.fstat(file).st_size
        try:
            while text:
                text = text[os.write(file, text) :]
        except OSError:
            os.ftruncate(file, before)
            raise
    finally:
        os.close(file)


def _lock(file: int) -> None:
    """Keep other processes out until the file is closed. Raises BlockingIOError where another keeps the file for LOCK_SECONDS.

    An endless wait in a thread would hang the stop of the hub: asyncio waits for its threads.
    """
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            # Workers append to one file, and a failure must not cut the line of another.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return
            if not isinstance(error, BlockingIOError) or time.monotonic() >= end:
                raise
            time.sleep(LOCK_SECONDS / 50)
        else:
            return
