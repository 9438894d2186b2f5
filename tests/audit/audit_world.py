"""A hub with an audit trail."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fhir.resources.R4B.auditevent import AuditEvent

from fhircast_hub.audit.event import Act, AuditEntry
from tests.running import RunningHub, running_hub, until


def entry(number: int) -> AuditEntry:
    """One of many."""
    return AuditEntry(Act.PUBLISH, 1_800_000_000.0, event=f"org.example.{number}")


def number(line: bytes | str) -> int:
    """Which of them."""
    return int(json.loads(line)["subtype"][2]["code"].rpartition(".")[2])


class Asked:
    """What the audit trail of a hub says so far, by the hub's own name of what was done."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> list[dict[str, Any]]:
        """All whole lines so far, each of which is valid. The hub may be writing the last one."""
        text = self._path.read_text() if self._path.exists() else ""
        lines = text.split("\n")[:-1]
        for line in lines:
            AuditEvent.model_validate_json(line)
        return [json.loads(line) for line in lines]

    async def of(self, act: str, count: int = 1) -> list[dict[str, Any]]:
        """The entries of this kind, once there are so many."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines() if line["subtype"][1]["code"] == act]

        await until(lambda: len(found()) >= count)
        assert len(found()) == count
        return found()


@asynccontextmanager
async def audited(folder: Path, **settings: Any) -> AsyncIterator[tuple[RunningHub, Asked]]:
    """A hub that writes its trail to a file."""
    path = folder / "trail.jsonl"
    async with running_hub(audit=path.as_uri(), **settings) as hub:
        yield hub, Asked(path)


class FhirStub:
    """Takes batches; `open` is cleared to let it hang."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.statuses: Callable[[int], list[str]] = lambda count: ["201 Created"] * count
        self.status = 200
        self.location = ""
        self.encode: Callable[[bytes], tuple[bytes, bytes]] = lambda body: (b"identity", body)
        #: an answer without end: so many bytes at a time, and the seconds between them
        self.endless: tuple[int, float] | None = None
        self.requests: list[tuple[str, dict[str, Any]]] = []
        #: What each request brought in Authorization.
        self.tokens: list[str] = []
        #: The only Authorization that is taken; others are answered with 401. None: any.
        self.wanted: str | None = None

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
        """Serves. Yields the base URL."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/fhir"
        finally:
            self.open.set()
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            whole = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.tokens += re.findall(r"^Authorization: (.*)\r$", whole, re.MULTILINE | re.IGNORECASE)
            head = whole.lower()
            length = int(head.partition("content-length: ")[2].partition("\r")[0])
            bundle = json.loads(await reader.readexactly(length))
            self.requests.append((head, bundle))
            await self.open.wait()
            if self.endless is not None:
                writer.write(b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n")
            while self.endless is not None:
                writer.write(b" " * self.endless[0])
                await writer.drain()
                await asyncio.sleep(self.endless[1])
            entries = [{"response": {"status": status}} for status in self.statuses(len(bundle["entry"]))]
            body = json.dumps({"resourceType": "Bundle", "type": "batch-response", "entry": entries}).encode()
            encoding, body = self.encode(body)
            status = 401 if self.wanted is not None and self.tokens[-1:] != [self.wanted] else self.status
            writer.write(b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Encoding: %b\r\n" % (status, encoding))
            writer.write(f"Location: {self.location}\r\n".encode() if self.location else b"")
            writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
