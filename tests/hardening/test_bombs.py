"""Little that becomes much."""

from __future__ import annotations

import gzip
import json
import time
import zlib

import pytest
from websockets.frames import Frame, Opcode

from tests.running import TOPIC, event, running_hub

MEGABYTE = 1 << 20


@pytest.mark.req("EVT-6", "EVT-7")
@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(b"[" * 900_000, id="brackets"),
        pytest.param(b'{"a":' * 150_000, id="objects"),
        pytest.param(b'{"hub.mode":' + b"[" * 450_000 + b"]" * 450_000 + b"}", id="form"),
        pytest.param(b'{"id":' + b"9" * 900_000 + b"}", id="number"),
        pytest.param(b'{"id":1e' + b"9" * 900_000 + b"}", id="exponent"),
        pytest.param(b"{" + b",".join(b'"%d":0' % each for each in range(80_000)) + b"}", id="members"),
        pytest.param(b"{" + b'"id":0,' * 120_000 + b'"id":0}', id="the same member"),
        pytest.param(b'{"id":"' + b"\\u0000" * 140_000 + b'"}', id="escapes"),
        pytest.param(b'{"id":"' + b"\\" * 900_000 + b'"}', id="backslashes"),
        pytest.param(json.dumps([json.dumps([[]] * 9)] * 15_000).encode(), id="texts"),
    ],
)
async def test_json_bomb(bomb: bytes) -> None:
    """A megabyte that is made to be slow to read is refused in no time, and the hub is there for others."""
    async with running_hub() as hub:
        assert len(bomb) < MEGABYTE
        began = time.perf_counter()
        assert (await hub.publish(bomb)).status_code == 400
        assert time.perf_counter() - began < 2
        assert (await hub.publish(event("Patient-open"))).status_code == 202


@pytest.mark.req("EVT-6")
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
async def test_decompression_bomb(encoding: str) -> None:
    """Bodies are read as they come: a compressed one is no JSON, and never inflated."""
    async with running_hub() as hub:
        body = (zlib.compress if encoding == "deflate" else gzip.compress)(b" " * 50 * MEGABYTE)
        headers = hub.headers(**{"Content-Type": "application/json", "Content-Encoding": encoding})
        answer = await hub.client.post(f"{hub.url}/{TOPIC}", content=body, headers=headers)
        assert answer.status_code == 400


@pytest.mark.req("SYN-15")
async def test_compressed_frame() -> None:
    """Compression is never agreed on; a frame that is compressed all the same ends its socket, and is not inflated."""
    async with running_hub() as hub:
        endpoint = await hub.subscribe()
        async with hub.follow(endpoint) as follower:
            frame = bytearray(Frame(Opcode.TEXT, zlib.compress(b" " * MEGABYTE)).serialize(mask=True))
            frame[0] |= 0x40
            follower.connection.transport.write(bytes(frame))
            assert await follower.closed() == 1002
