"""TLS that the hub ends itself: what it serves, what it refuses to start with, and a reader that does not read."""

from __future__ import annotations

import asyncio
import http.client
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from websockets.exceptions import ConnectionClosedError

from fhircast_hub.server import GRACE_SECONDS
from tests.certificates import make_certificate
from tests.ports import free_port
from tests.process.hub_process import PATIENCE, HubProcess, IssuerThread, Visitor, command, environment
from tests.process.workers_world import settings_of
from tests.running import Follower, event

#: The frame by which a hub that stops closes a socket.
CLOSED = b"\x88\x15\x03\xe9the hub is stopping"


class TlsHub(HubProcess):
    """A hub that serves TLS; `trust` is what its clients need."""

    def __init__(self, folder: Path, *more: str, **settings: Any) -> None:
        certificate, key = make_certificate(folder)
        self.trust = ssl.create_default_context(cafile=str(certificate))
        port = str(free_port())
        values = {"port": port, "public_url": f"https://127.0.0.1:{port}/api/hub", **settings}
        arguments = ("serve", "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), *more)
        super().__init__(folder, arguments, environment(folder, **values))
        self.origin = f"https://127.0.0.1:{port}"

    def wait_until_ready(self) -> None:
        """See HubProcess."""
        deadline = time.monotonic() + PATIENCE
        with httpx.Client(timeout=PATIENCE, trust_env=False, verify=self.trust) as client:
            while time.monotonic() < deadline:
                assert self.process.poll() is None, self.stderr
                try:
                    if client.get(f"{self.origin}/health/ready").status_code == 200:
                        return
                except httpx.TransportError:
                    time.sleep(0.02)
        raise AssertionError(f"not ready within {PATIENCE} s: {self.stdout} {self.stderr}")


class TlsVisitor(Visitor):
    """Its clients, who trust its certificate."""

    def __init__(self, hub: TlsHub, issuer: IssuerThread) -> None:
        super().__init__(hub, issuer.idp)
        self.client = httpx.AsyncClient(trust_env=False, timeout=PATIENCE, verify=hub.trust)


@pytest.fixture(scope="module")
def tls_hub(tmp_path_factory: pytest.TempPathFactory, issuer: IssuerThread) -> Iterator[TlsHub]:
    """One for all that need nothing special."""
    settings = {"issuers": issuer.settings, "queue_bytes": 200_000}
    with TlsHub(tmp_path_factory.mktemp("tls"), **settings) as hub:
        yield hub
        assert hub.stop() == 0
        assert hub.stderr == ""


@pytest.mark.req("SUB-1", "EVT-1", "SEC-7", "SEC-12")
async def test_a_session_over_tls(tls_hub: TlsHub, issuer: IssuerThread) -> None:
    """An endpoint with wss, a confirmation, an event, an orderly end."""
    async with TlsVisitor(tls_hub, issuer) as visitor:
        endpoint = await visitor.subscribe()
        assert endpoint.startswith(f"wss://127.0.0.1:{visitor.port}/api/hub/")
        async with visitor.follow(endpoint, ssl=tls_hub.trust) as follower:
            answer = await visitor.publish(event("Patient-open"))
            assert (answer.status_code, answer.headers["strict-transport-security"]) == (202, "max-age=31536000")
            assert (await follower.next())["id"] == "Patient-open-1"
            await visitor.form(hub__mode="unsubscribe", **{"hub__channel.endpoint": endpoint})
            assert (await follower.next())["hub.mode"] == "denied"
            assert await follower.closed() == 1000


async def test_what_is_no_tls_is_not_served(tls_hub: TlsHub) -> None:
    """Plain HTTP, and TLS of before 2008, get no answer."""
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as client:
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://127.0.0.1:{tls_hub.port}/health/live")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", tls_hub.port, ssl=old)


@pytest.mark.req("SYN-14")
async def test_a_slow_reader_over_tls(tls_hub: TlsHub, issuer: IssuerThread) -> None:
    """What waits for it is bounded, and it is let go; the other is told everything meanwhile, in time."""
    async with TlsVisitor(tls_hub, issuer) as visitor:
        slow = await visitor.subscribe(hub__topic="slow", subscriber__name="slow")
        quick = await visitor.subscribe(hub__topic="slow", subscriber__name="quick")
        async with (
            visitor.follow(slow, ssl=tls_hub.trust, max_queue=1) as stalled,
            visitor.follow(quick, ssl=tls_hub.trust) as follower,
        ):
            stalled.connection.transport.pause_reading()
            padding = [{"key": "padding", "data": "x" * 150_000}]
            for number in range(60):
                opened = event("Patient-open", event_id=f"{number}", topic="slow", also=padding)
                assert (await visitor.publish(opened)).status_code == 202
                assert (await follower.next())["id"] == f"{number}"
            stalled.connection.transport.resume_reading()
            told = [message async for message in drained(stalled)]
            assert len(told) < 60
            assert await stalled.closed() in (1006, 1013)


async def drained(follower: Follower) -> AsyncIterator[str | bytes]:
    """What is left for a follower until it is closed."""
    try:
        async for message in follower.connection:
            yield message
    except ConnectionClosedError:
        pass


async def test_half_a_handshake_delays_nobody(tls_hub: TlsHub, issuer: IssuerThread) -> None:
    """A hundred clients that begin TLS and stop there."""
    stuck = [await asyncio.open_connection("127.0.0.1", tls_hub.port) for _ in range(100)]
    for _, writer in stuck:
        writer.write(b"\x16\x03\x01\x02\x00\x01")
    async with TlsVisitor(tls_hub, issuer) as visitor:
        assert (await visitor.publish(event("Patient-open"))).status_code == 202
    for _, writer in stuck:
        writer.close()


@pytest.mark.req("SEC-3")
@pytest.mark.parametrize(
    "wrong", ["no key", "no certificate", "missing", "no pem", "swapped", "another key", "passphrase", "a folder"]
)
def test_files_that_cannot_be_used(tmp_path: Path, issuer: IssuerThread, wrong: str) -> None:
    """Exit code 2, nothing on stdout, and one line that names the options; nobody is asked for a passphrase."""
    other = tmp_path / "other"
    other.mkdir()
    certificate, key = make_certificate(
        tmp_path, protection=BestAvailableEncryption(b"secret") if wrong == "passphrase" else None
    )
    _, other_key = make_certificate(other)
    (tmp_path / "text").write_text("certificate")
    files: dict[str, tuple[Path | None, Path | None]] = {
        "no key": (certificate, None),
        "no certificate": (None, key),
        "missing": (tmp_path / "missing", key),
        "no pem": (tmp_path / "text", key),
        "swapped": (key, certificate),
        "another key": (certificate, other_key),
        "passphrase": (certificate, key),
        "a folder": (tmp_path, key),
    }
    given = [
        part
        for option, path in zip(("--ssl-certfile", "--ssl-keyfile"), files[wrong], strict=True)
        if path
        for part in (option, str(path))
    ]
    environ = environment(tmp_path, issuers=issuer.settings, port="0", store="memory:")
    ended = command(tmp_path, "serve", *given, environ=environ)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("--ssl-certfile")
    assert ended.stderr.count("\n") == 1
    assert "Traceback" not in ended.stderr


def shaken(hub: TlsHub, endpoint: str) -> ssl.SSLSocket:
    """A WebSocket after its handshake, which reads nothing by itself."""
    connection = hub.trust.wrap_socket(
        socket.create_connection(("127.0.0.1", hub.port), PATIENCE), server_hostname="127.0.0.1"
    )
    path = endpoint.partition(str(hub.port))[2]
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
    return connection


@pytest.mark.req("OPS-3", "OPS-43", "SYN-25")
async def test_no_idle_client_delays_the_end(tmp_path: Path, issuer: IssuerThread) -> None:
    """Neither a connection that is kept alive, nor a socket that does not answer the close: neither ends its side of TLS."""
    with (
        TlsHub(tmp_path, issuers=issuer.settings, webhooks=False) as hub,
        closing(http.client.HTTPSConnection("127.0.0.1", hub.port, context=hub.trust)) as idle,
    ):
        idle.request("GET", "/health/live")
        assert idle.getresponse().read() == b"live\n"
        async with (
            TlsVisitor(hub, issuer) as visitor,
            visitor.follow(await visitor.subscribe(), ssl=hub.trust) as follower,
        ):
            silent = await asyncio.to_thread(shaken, hub, await visitor.subscribe(subscriber__name="silent"))
            started = time.monotonic()
            hub.send(signal.SIGTERM)
            assert await follower.closed() == 1001
            assert await asyncio.to_thread(hub.ended) == 0
            assert time.monotonic() - started < GRACE_SECONDS - 2
            assert b"".join(iter(lambda: silent.recv(4096), b"")).endswith(CLOSED)
            silent.close()
        assert [line["code"] for line in hub.lines("socket closed")] == [1001, 1001]
        assert [line for line in hub.lines() if line["level"] == "error"] == []


@pytest.mark.req("OPS-43")
async def test_an_answer_that_is_read_late_is_whole(tmp_path: Path, issuer: IssuerThread) -> None:
    """The hub that stops cuts no connection whose client has yet to receive."""
    with TlsHub(tmp_path, issuers=issuer.settings) as hub:
        async with TlsVisitor(hub, issuer) as visitor:
            opened = event("Patient-open", also=[{"key": "padding", "data": "x" * 400_000}])
            assert (await visitor.publish(opened)).status_code == 202
            token = visitor.headers()["Authorization"]
        with socket.socket() as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            plain.connect(("127.0.0.1", hub.port))
            with hub.trust.wrap_socket(plain, server_hostname="127.0.0.1") as late:
                path = f"/api/hub/{opened['event']['hub.topic']}"
                late.sendall(f"GET {path} HTTP/1.1\r\nHost: hub\r\nAuthorization: {token}\r\n\r\n".encode())
                begin = late.recv(1)
                hub.send(signal.SIGTERM)
                await asyncio.sleep(1)
                answer = begin + b"".join(iter(lambda: late.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head.lower()
        assert len(body) > 400_000
        assert await asyncio.to_thread(hub.ended) == 0


@pytest.mark.req("NOD-15")
async def test_workers_serve_tls(tmp_path: Path, issuer: IssuerThread, database: str) -> None:
    """With the same files."""
    with TlsHub(tmp_path, "--workers", "2", **settings_of(database, issuer)) as hub:
        async with (
            TlsVisitor(hub, issuer) as visitor,
            visitor.follow(await visitor.subscribe(), ssl=hub.trust) as follower,
        ):
            assert (await visitor.publish(event("Patient-open", "p1"))).status_code == 202
            assert (await follower.next())["id"] == "Patient-open-p1"
        assert hub.stop() == 0
