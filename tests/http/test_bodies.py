"""A body that is too large, too odd or incomplete harms nobody."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.http.wire import request, wire
from tests.running import TOPIC, event, running_hub

FORM = {"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": TOPIC, "hub.events": "Patient-open"}
AS_JSON = {"Content-Type": "application/json"}
MEGABYTE = 1 << 20
PATIENT = {"resourceType": "Patient", "id": "p1"}

# --- too much ---


def padded(size: int) -> bytes:
    """An event of so many bytes."""
    empty = json.dumps(event("Patient-open", also=[{"key": "padding", "data": ""}])).encode()
    return empty.replace(b'"data": ""', b'"data": "%b"' % (b"x" * (size - len(empty))))


async def in_chunks(body: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    """A body whose length nobody says before."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.req("EVT-7")
async def test_the_limit_is_exact_with_and_without_a_length() -> None:
    """A body of MAX_BODY_BYTES is taken, one byte more gets 413, whether its length is said before or not."""
    async with running_hub(max_body_bytes=100_000) as hub:
        headers = hub.headers(**AS_JSON)
        for size, status in ((100_000, 202), (100_001, 413)):
            body = padded(size)
            assert len(body) == size
            for content in (body, in_chunks(body), in_chunks(body, 999), in_chunks(body, 100_000)):
                assert (await hub.client.post(hub.url, content=content, headers=headers)).status_code == status
        form = str(httpx.QueryParams(FORM | {"x": "y" * 100_000})).encode()
        headers = hub.headers(**{"Content-Type": "application/x-www-form-urlencoded"})
        assert (await hub.client.post(hub.url, content=form, headers=headers)).status_code == 413


async def thirty_megabytes() -> AsyncIterator[bytes]:
    """A body that is never in memory as a whole."""
    for _ in range(30 * 16):
        yield b" " * (MEGABYTE // 16)


@pytest.mark.req("EVT-7")
@pytest.mark.parametrize("declared", [True, False])
async def test_thirty_megabytes_are_refused_and_not_kept(declared: bool) -> None:
    """The client, who sends to the end, sees 413; meanwhile the hub never holds more than a fraction of it."""
    async with running_hub() as hub:
        headers = hub.headers(**AS_JSON) | ({"Content-Length": str(30 * MEGABYTE)} if declared else {})
        tracemalloc.start()
        try:
            answer = await hub.client.post(hub.url, content=thirty_megabytes(), headers=headers)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert answer.status_code == 413
        assert peak < 8 * MEGABYTE
        assert (await hub.publish(event("Patient-open"))).status_code == 202


@pytest.mark.req("EVT-7")
async def test_who_asks_before_sending_is_spared_it() -> None:
    """With `Expect: 100-continue`: 413 before any of the body; within the limit 100, and then as ever."""
    async with running_hub() as hub:
        headers = hub.headers(**AS_JSON, Expect="100-continue")
        async with wire(hub) as connection:
            await connection.send(request("POST", "/api/hub", headers | {"Content-Length": str(MEGABYTE + 1)}))
            assert (await connection.reply()).status == 413
            assert await connection.ended()
        body = json.dumps(event("Patient-open")).encode()
        async with wire(hub) as connection:
            await connection.send(request("POST", "/api/hub", headers | {"Content-Length": str(len(body))}))
            assert (await connection.reply()).status == 100
            await connection.send(body)
            assert (await connection.reply()).status == 202


# --- odd bytes ---


@pytest.mark.req("EVT-6")
async def test_random_bytes_are_a_client_error() -> None:
    """Three hundred bodies of noise, as JSON and as a form, and as many events with a few bytes changed: never a failure."""
    noise = random.Random(4711)
    good = json.dumps(event("Patient-open", also=[{"key": "x", "resource": PATIENT}])).encode()
    form = str(httpx.QueryParams(FORM)).encode()
    async with running_hub(rate_limit_token=0) as hub:
        for number in range(300):
            body = noise.randbytes(noise.randrange(200))
            bad = bytearray(form if number % 3 else good)
            for _ in range(noise.randrange(1, 4)):
                bad[noise.randrange(len(bad))] = noise.randrange(256)
            for content in (body, bytes(bad)):
                for sent in ("application/json", "application/x-www-form-urlencoded"):
                    headers = hub.headers(**{"Content-Type": sent})
                    answer = await hub.client.post(hub.url, content=content, headers=headers)
                    expected = (400, 404) if content is body else (202, 400, 404)
                    assert answer.status_code in expected, (sent, content)


async def test_half_a_body_does_nothing() -> None:
    """A client that goes away while it sends has published nothing, and the hub goes on."""
    async with running_hub() as hub, hub.follow(await hub.subscribe()) as follower:
        body = json.dumps(event("Patient-open")).encode()
        for head in ({"Content-Length": str(len(body) + 1)}, {"Transfer-Encoding": "chunked"}):
            async with wire(hub) as connection:
                sent = body if "Content-Length" in head else b"%x\r\n%b\r\n" % (len(body), body)
                await connection.send(request("POST", "/api/hub", hub.headers(**AS_JSON) | head) + sent)
        assert await follower.silent()
        assert (await hub.publish(event("Patient-open"))).status_code == 202


@pytest.mark.req("EVT-13")
async def test_requests_sent_at_once_are_answered_and_accepted_in_order() -> None:
    """Five events in one packet on one connection: five answers, and the subscriber sees them in that order."""
    async with running_hub() as hub, hub.follow(await hub.subscribe("UserLogout")) as follower:
        bodies = [json.dumps(event("UserLogout", event_id=str(number))).encode() for number in range(5)]
        bodies.insert(2, b"{}")
        async with wire(hub) as connection:
            headers = hub.headers(**AS_JSON)
            await connection.send(b"".join(request("POST", "/api/hub", headers, body) for body in bodies))
            assert [(await connection.reply()).status for _ in bodies] == [202, 202, 400, 202, 202, 202]
        assert [(await follower.next())["id"] for _ in range(5)] == list("01234")


async def test_a_body_in_the_smallest_pieces_is_one_body() -> None:
    """Chunks of a byte each, a chunk extension, a trailer: what counts is the text they make."""
    async with running_hub() as hub:
        body = json.dumps(event("Patient-open")).encode()
        chunks = b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in body) + b"0\r\nX-Trailer: x\r\n\r\n"
        async with wire(hub) as connection:
            headers = hub.headers(**AS_JSON) | {"Transfer-Encoding": "chunked"}
            await connection.send(request("POST", "/api/hub", headers) + chunks)
            assert (await connection.reply()).status == 202


async def test_lengths_that_contradict_each_other_are_refused() -> None:
    """A second length, or a length beside chunks, is how requests are smuggled past a proxy: 400, and no more is read."""
    async with running_hub() as hub:
        inner = request("GET", f"/api/hub/{TOPIC}", hub.headers())
        for head in (
            {"Content-Length": "0", "content-length": str(len(inner))},
            {"Content-Length": str(len(inner)), "Transfer-Encoding": "chunked"},
            {"Content-Length": "-1"},
            {"Content-Length": "1e3"},
        ):
            async with wire(hub) as connection:
                await connection.send(request("POST", "/api/hub", hub.headers(**AS_JSON) | head) + inner)
                assert (await connection.reply()).status == 400, head
                assert await connection.ended()
