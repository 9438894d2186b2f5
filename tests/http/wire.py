"""HTTP as bytes, for what a client would tidy up: raw paths, repeated headers, chunks, half a body, several requests at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from tests.running import RunningHub


class Reply(NamedTuple):
    """One answer; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """A connection to the hub."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Write, as far as the hub reads."""
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, *, body: bool = True) -> Reply:
        """The next answer; with `body=False` of a HEAD, which has none."""
        async with asyncio.timeout(8):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = int(headers.get("content-length", "0")) if body else 0
            return Reply(int(first.split(" ")[1]), headers, await self.reader.readexactly(length))

    async def ended(self) -> bool:
        """Whether the hub has closed the connection, with nothing more to say."""
        return await asyncio.wait_for(self.reader.read(1), 8) == b""


@asynccontextmanager
async def wire(hub: RunningHub) -> AsyncIterator[Wire]:
    """Connect to the hub."""
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def request(method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> bytes:
    """A request; with a body, its length too."""
    sized = headers if body is None else {"Content-Length": str(len(body)), **headers}
    lines = [f"{method} {path} HTTP/1.1", "Host: hub", *(f"{name}: {value}" for name, value in sized.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + (body or b"")


async def ask(hub: RunningHub, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
    """One request on a connection of its own."""
    await hub.remember(headers)
    async with wire(hub) as connection:
        await connection.send(request(method, path, headers, body))
        return await connection.reply(body=method != "HEAD")
