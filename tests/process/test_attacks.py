"""What is thrown at a hub on an open network, and that it goes on for everybody else."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.process.hub_process import PATIENCE, HubProcess, IssuerThread, Visitor, hub_process
from tests.running import TOPIC, event

MEGABYTE = 1 << 20
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, issuer: IssuerThread) -> Iterator[HubProcess]:
    """A hub to attack; it must be as well at the end as at the start."""
    with hub_process(tmp_path_factory.mktemp("target"), issuers=issuer.settings) as hub:
        yield hub
        assert hub.stop() == 0
        assert hub.stderr == ""
        assert {line["level"] for line in hub.lines()} <= {"info", "warning"}


def peak(hub: HubProcess) -> int:
    """The most memory the process has had, in bytes."""
    status = Path(f"/proc/{hub.process.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))


async def raw(hub: HubProcess, data: bytes, seconds: float = 1) -> bytes:
    """What the hub says to these bytes before it hangs up, or within so many seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(300), seconds)
    except (ConnectionError, TimeoutError):
        return b""
    finally:
        writer.close()


async def works(visitor: Visitor) -> None:
    """A subscriber is told of an event."""
    async with visitor.follow(await visitor.subscribe("Patient-open", hub__topic="works")) as follower:
        answer = await visitor.publish(event("Patient-open", topic="works", event_id=str(random.random())))
        assert answer.status_code == 202
        while (await follower.next())["event"]["hub.event"] != "Patient-open":
            pass


@pytest.mark.req("EVT-7")
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_thirty_megabytes(target: HubProcess, issuer: IssuerThread, chunked: bool) -> None:
    """413, whether or not its size is said before, without keeping it in memory."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * MEGABYTE

    async with Visitor(target, issuer.idp) as visitor:
        await works(visitor)
        before = peak(target)
        content = chunks() if chunked else b"x" * 30 * MEGABYTE
        answer = await visitor.client.post(visitor.url, content=content, headers=visitor.headers(**JSON))
        assert answer.status_code == 413
        assert peak(target) - before < 8 * MEGABYTE
        await works(visitor)


@pytest.mark.req("EVT-7")
async def test_headers_without_end(target: HubProcess, issuer: IssuerThread) -> None:
    """Somebody without a token sends headers for as long as anybody listens: the hub hangs up, and does not keep them."""
    before = peak(target)
    _, writer = await asyncio.open_connection("127.0.0.1", target.port)
    sent = 0
    try:
        writer.write(b"GET /api/hub/x HTTP/1.1\r\nHost: hub\r\n")
        for sent in range(1000):
            writer.write(b"X-%d: %b\r\n" % (sent, b"x" * 16_000))
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
    assert (sent < 999, peak(target) - before < 8 * MEGABYTE) == (True, True)


@pytest.mark.req("EVT-6", "SUB-5")
@pytest.mark.parametrize("headers", [JSON, FORM])
async def test_ten_thousand_random_bytes_as_a_body(
    target: HubProcess, issuer: IssuerThread, headers: dict[str, str]
) -> None:
    """400, with one line of reason."""
    async with Visitor(target, issuer.idp) as visitor:
        for seed in range(20):
            body = random.Random(seed).randbytes(10_000)
            answer = await visitor.client.post(visitor.url, content=body, headers=visitor.headers(**headers))
            assert answer.status_code == 400
            reason = answer.json()["message"] if headers is JSON else answer.text
            assert len(reason.splitlines()) == 1


@pytest.mark.req("SUB-5", "SUB-16", "EVT-6")
@pytest.mark.parametrize("name", ["hub.topic", "subscriber.name", "hub.channel.endpoint"])
async def test_half_a_character_in_a_json_form(target: HubProcess, issuer: IssuerThread, name: str) -> None:
    """JSON can say half of a surrogate pair, which no UTF-8 can: 400, and the store still takes what others send."""
    form = {"hub.channel.type": "websocket", "hub.mode": "subscribe", "hub.topic": TOPIC, "hub.events": "Patient-open"}
    body = json.dumps(form | {name: "\ud800"}).encode()
    async with Visitor(target, issuer.idp) as visitor:
        answer = await visitor.client.post(visitor.url, content=body, headers=visitor.headers(**JSON))
        assert (await visitor.form(hub__topic="another", hub__events="Patient-open")).status_code == 202
    assert answer.status_code == 400


@pytest.mark.req("EVT-3")
@pytest.mark.parametrize("path", ["/api/h%75b/room", "/api/hub%2Froom"])
async def test_an_escape_in_the_path_of_hub_url(target: HubProcess, issuer: IssuerThread, path: str) -> None:
    """A path that is hub.url only when it is decoded leads to the same topic, or nowhere: never to another topic."""
    async with Visitor(target, issuer.idp) as visitor:
        assert (await visitor.publish(event("Patient-open", topic="room"))).status_code == 202
        answer = await visitor.client.get(target.origin + path, headers=visitor.headers())
    assert (answer.status_code == 404) or answer.json()["context.type"] == "Patient"


@pytest.mark.req("SEC-2")
async def test_headers_that_come_slowly_block_nobody(target: HubProcess, issuer: IssuerThread) -> None:
    """Three hundred connections that stop amid their headers or their body, and the others are served as ever."""
    async with Visitor(target, issuer.idp) as visitor:
        authorization = visitor.headers()["Authorization"]
        starts = (
            b"GET /api/hub/x HTTP/1.1\r\nHost: hub\r\nX-Slow:",
            b"POST /api/hub HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\nContent-Length: 99\r\n"
            b"Authorization: %b\r\n\r\n{" % authorization.encode(),
            b"GET /api/hub/ws/x HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
        )
        slow = [await asyncio.open_connection("127.0.0.1", target.port) for _ in range(300)]
        try:
            for number, (_, writer) in enumerate(slow):
                writer.write(starts[number % 3])
            async with asyncio.timeout(15):  # the hub closes the connections later
                await works(visitor)
        finally:
            for _, writer in slow:
                writer.close()
        await works(visitor)


@pytest.mark.req("EVT-1", "EVT-11", "EVT-14")
async def test_two_hundred_at_once(target: HubProcess, issuer: IssuerThread) -> None:
    """Two hundred subscribers of four sessions connect at the same time; each is told its own session's event, once."""
    topics = [f"crowd-{number}" for number in range(4)]
    connected = asyncio.Barrier(201)

    async with Visitor(target, issuer.idp) as visitor:
        visitor.client = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_connections=None), timeout=15)

        async def one(topic: str) -> None:
            async with visitor.follow(await visitor.subscribe("Patient-open", hub__topic=topic)) as follower:
                await connected.wait()
                assert (await follower.next())["event"]["hub.topic"] == topic
                assert await follower.silent()

        async def all_sessions() -> None:
            await connected.wait()
            answers = await asyncio.gather(*(visitor.publish(event("Patient-open", topic=topic)) for topic in topics))
            assert {answer.status_code for answer in answers} == {202}

        await asyncio.gather(all_sessions(), *(one(topic) for topic in topics * 50))


@pytest.mark.req("SEC-2", "OPS-2")
async def test_garbage_instead_of_http(target: HubProcess, issuer: IssuerThread) -> None:
    """Random bytes, TLS, another protocol, two lengths at once: 400 or nothing, and the hub goes on."""
    garbage = [random.Random(seed).randbytes(5000) for seed in range(30)]
    garbage += [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"\x00" * 100 + b"\r\n\r\n",
        b"POST /api/hub HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST /api/hub HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\n",
        b"POST /api/hub HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFF\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://evil.example/api/hub/x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT hub:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET //api/hub HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET ?x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/hub/ws/x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + b"\xff" * 100_000,
        b"POST /api/hub/ws/x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 9\r\n\r\nabc",
    ]
    for data in garbage:
        answer = await raw(target, data)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), (data[:60], answer)
    async with Visitor(target, issuer.idp) as visitor:
        await works(visitor)
    assert target.process.poll() is None
    assert all(json.dumps(line) for line in target.lines())


@pytest.mark.req("SYN-15")
async def test_garbage_on_a_socket(target: HubProcess, issuer: IssuerThread) -> None:
    """Random bytes after the handshake end that socket only."""
    async with Visitor(target, issuer.idp) as visitor:
        for seed in range(20):
            endpoint = await visitor.subscribe(hub__topic="garbage", subscriber__name="garbage")
            path = endpoint.partition(str(target.port))[2]
            shake = (
                f"GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            answer = await raw(target, shake.encode() + random.Random(seed).randbytes(3000), PATIENCE)
            assert answer.startswith(b"HTTP/1.1 101")
        await works(visitor)
