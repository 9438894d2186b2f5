"""The proxy before the database, with a server that answers each line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.nodes.proxy import Proxy

PATIENCE = 5


class Lines:
    """What reached the server, and a proxy before the server."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self.proxy = Proxy(0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            self.arrived.put_nowait(line)
            writer.write(b"done: " + line)
        writer.close()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client's connection through the proxy."""
        return await asyncio.open_connection("127.0.0.1", self.proxy.port)


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes before the end of a connection that is cut."""
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE)
    except ConnectionError:
        return b""


@pytest.fixture
async def lines() -> AsyncIterator[Lines]:
    made = Lines()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.proxy.lead_to(server.sockets[0].getsockname()[1])
    await made.proxy.start()
    yield made
    await made.proxy.stop()
    server.close()
    await server.wait_closed()


async def test_an_answer_is_lost_after_its_request_arrived(lines: Lines) -> None:
    reader, writer = await lines.connect()
    lines.proxy.hold(requests=False)
    writer.write(b"commit\n")
    assert await asyncio.wait_for(lines.arrived.get(), PATIENCE) == b"commit\n"
    lines.proxy.cut()
    lines.proxy.release()
    assert await rest(reader) == b""
    writer.close()


async def test_bytes_that_were_held_come_later(lines: Lines) -> None:
    reader, writer = await lines.connect()
    lines.proxy.hold()
    writer.write(b"commit\n")
    await writer.drain()
    lines.proxy.release()
    assert await asyncio.wait_for(reader.readline(), PATIENCE) == b"done: commit\n"
    writer.close()


async def test_new_connections_are_refused_until_release(lines: Lines) -> None:
    lines.proxy.cut(refusing=True)
    reader, writer = await lines.connect()
    assert await rest(reader) == b""
    writer.close()
    lines.proxy.release()
    reader, writer = await lines.connect()
    writer.write(b"commit\n")
    assert await asyncio.wait_for(reader.readline(), PATIENCE) == b"done: commit\n"
    writer.close()
