"""docs/nginx.conf.example, run by a real nginx: the hub as a hospital's network sees it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.certificates import make_certificate
from tests.ports import free_port
from tests.process.hub_process import IssuerThread, hub_process
from tests.process.nginx import needs_nginx, nginx
from tests.process.proxy_world import Proxy, ProxyVisitor, check_inside, check_session, wait_for
from tests.running import TOPIC, event, until

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "nginx.conf.example"
#: nginx gives up on a socket that nothing came from for so long; the hub pings more often.
READ_TIMEOUT, PING_SECONDS = 8, 3
#: What nginx takes of one address in a burst, and at the same time.
BURST, CONNECTIONS = 150, 20
REFUSAL = "too many requests, or too many connections, come from this address\n"
#: Requests of one address after which it must have been refused, on a slow machine too.
MOST_REQUESTS = 1000

pytestmark = needs_nginx


def configuration(folder: Path, port: int, hub_port: int) -> str:
    """A whole configuration around the example, whose ports, files and patience are the test's."""
    certificate, key = make_certificate(folder)
    text = EXAMPLE.read_text(encoding="utf-8")
    for of_example, of_test in {
        "server 127.0.0.1:8080;": f"server 127.0.0.1:{hub_port};",
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl sndbuf=16k;",
        "/etc/ssl/certs/hub.pem": str(certificate),
        "/etc/ssl/private/hub.key": str(key),
        "proxy_read_timeout 75s;": f"proxy_read_timeout {READ_TIMEOUT}s;",
        # At this level the file would have no warning of a body on the disk.
        "error_log /var/log/nginx/error.log crit;": f"error_log {folder}/warnings.log warn;",
        "rate=100r/s;": "rate=1r/s;",
        "burst=1000 ": f"burst={BURST} ",
        "limit_conn fhircast_connections 1000;": f"limit_conn fhircast_connections {CONNECTIONS};",
        "    location / {": "    location /plain/ { proxy_set_header Host $host; proxy_pass http://fhircast/api/hub/; }\n"
        "    location / {",
    }.items():
        assert text.count(of_example) == 1, of_example
        text = text.replace(of_example, of_test)
    (folder / "site.conf").write_text(text)
    return f"access_log {folder}/access.log; include {folder}/site.conf;"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, issuer: IssuerThread) -> Iterator[Proxy]:
    """nginx with the example, and a hub that trusts it."""
    folder = tmp_path_factory.mktemp("nginx")
    port = free_port()
    settings = {
        "issuers": issuer.settings,
        "public_url": f"https://127.0.0.1:{port}/api/hub",
        "trusted_proxies": ["127.0.0.1"],
        "rate_limit_address": 100,
        "ping_seconds": PING_SECONDS,
        "audit": (folder / "trail").as_uri(),
        "console": True,
    }
    with hub_process(folder, **settings) as hub:
        http = configuration(folder, port, hub.port)
        trust = ssl.create_default_context(cafile=str(folder / "hub.pem"))
        with nginx(folder, http) as process:
            wait_for(port, process, trust)
            yield Proxy(hub, folder, port, trust)


@pytest.mark.req("SUB-1", "EVT-1")
async def test_a_session_through_nginx(proxy: Proxy, issuer: IssuerThread) -> None:
    await check_session(proxy, issuer)


@pytest.mark.req("SYN-13", "SYN-34")
async def test_an_idle_socket_outlives_nginxs_patience(proxy: Proxy, issuer: IssuerThread) -> None:
    """Twice as long as it waits for a silent hub, because the hub is not silent: it pings."""
    async with ProxyVisitor(proxy, issuer) as visitor:
        endpoint = await visitor.subscribe(hub__topic="idle")
        async with visitor.follow(endpoint, ssl=proxy.trust, ping_interval=None) as follower:
            await asyncio.sleep(READ_TIMEOUT + 2)  # of a real proxy's real clock
            await visitor.publish(event("Patient-open", topic="idle"))
            assert (await follower.next())["id"] == "Patient-open-1"


@pytest.mark.req("RAT-1", "AUD-1")
async def test_the_hub_knows_who_asks(proxy: Proxy, issuer: IssuerThread) -> None:
    """One address behind nginx uses up its own requests only, whatever it says of itself."""
    async with (
        ProxyVisitor(proxy, issuer, "127.0.0.2") as greedy,
        ProxyVisitor(proxy, issuer, "127.0.0.3") as modest,
    ):
        statuses: list[int] = []
        while 429 not in statuses:
            headers = greedy.headers(**{"X-Forwarded-For": f"203.0.113.{len(statuses)}"})
            statuses.append((await greedy.client.get(f"{greedy.url}/{TOPIC}", headers=headers)).status_code)
            assert len(statuses) < MOST_REQUESTS
        assert set(statuses[:100]) == {200}
        assert (await modest.context()).status_code == 200
    trail = proxy.folder / "trail"
    await until(lambda: '"127.0.0.3"' in trail.read_text())
    assert '"127.0.0.2"' in trail.read_text()
    assert "203.0.113" not in trail.read_text()


@pytest.mark.req("RAT-1")
async def test_one_address_has_its_requests(proxy: Proxy, issuer: IssuerThread) -> None:
    """What is more than a burst gets 429 in words, from nginx, and is no news to the hub; another address is another."""
    async with (
        ProxyVisitor(proxy, issuer, "127.0.0.4") as greedy,
        ProxyVisitor(proxy, issuer, "127.0.0.5") as modest,
    ):
        configuration = "/.well-known/fhircast-configuration"
        answers: list[httpx.Response] = []
        while not answers or answers[-1].text != REFUSAL:
            answers.append(await greedy.client.get(f"{greedy.url}{configuration}"))
            assert len(answers) < MOST_REQUESTS
        assert [answer.status_code for answer in answers[:90]] == [200] * 90  # the hub of this test takes a hundred
        refused = answers[-1]
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert (refused.headers["Content-Type"], "x-request-id" in refused.headers) == ("text/plain", False)
        assert (await modest.context()).status_code == 200


@pytest.mark.req("RAT-1", "RAT-2")
async def test_one_address_has_its_sockets(proxy: Proxy, issuer: IssuerThread) -> None:
    """Each open one counts; the next is refused until one has gone, and another address is another."""
    async with ProxyVisitor(proxy, issuer, "127.0.0.6") as visitor, AsyncExitStack() as sockets:
        ours: dict[str, Any] = {"ssl": proxy.trust, "local_addr": ("127.0.0.6", 0)}
        endpoints = [await visitor.subscribe(hub__topic="many") for _ in range(CONNECTIONS + 1)]
        last = await sockets.enter_async_context(visitor.follow(endpoints[0], **ours))
        for endpoint in endpoints[1:-1]:
            await sockets.enter_async_context(visitor.follow(endpoint, **ours))
        with pytest.raises(InvalidStatus) as refused:
            await connect(endpoints[-1], proxy=None, **ours)
        assert refused.value.response.status_code == 429
        async with visitor.follow(endpoints[-1], ssl=proxy.trust):
            pass
        await last.connection.close()
        await sockets.enter_async_context(visitor.follow(endpoints[-1], **ours))


@pytest.mark.req("SEC-1")
async def test_patients_stay_off_nginxs_disk(proxy: Proxy, issuer: IssuerThread) -> None:
    """A body as large as the hub takes, and a context that is read slowly, are in memory only."""
    async with ProxyVisitor(proxy, issuer, "127.0.0.7") as visitor:
        opening = event("Patient-open", topic="large")
        opening["event"]["context"][0]["resource"]["photo"] = "x" * (1000 << 10)
        assert (await visitor.publish(opening)).status_code == 202
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", proxy.port))
            reader, writer = await asyncio.open_connection(
                sock=slow, ssl=proxy.trust, server_hostname="127.0.0.1", limit=1024
            )
            head = f"GET /api/hub/large HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {visitor.token()}\r\n\r\n"
            writer.write(head.encode())
            await asyncio.sleep(0.2)  # in which nginx gets more than it gets rid of
            assert len(await reader.read(-1)) > 1000 << 10
            writer.close()
    assert "is buffered to a temporary file" not in (proxy.folder / "warnings.log").read_text()


@pytest.mark.req("EVT-7")
async def test_the_hubs_words_reach_the_client(proxy: Proxy, issuer: IssuerThread) -> None:
    """413 and 426 are the hub's, with its request id; of bodies that are far too large nginx says the same."""
    async with ProxyVisitor(proxy, issuer) as visitor:
        large = await visitor.publish(b" " * (3 << 19))
        assert (large.status_code, "x-request-id" in large.headers) == (413, True)
        larger = await visitor.publish(b" " * (3 << 20))
        assert (larger.status_code, larger.text) == (413, "the body may have at most 2 MiB\n")
        assert larger.headers["Content-Type"] == "text/plain"
        absent = await visitor.client.get(f"{visitor.url}/ws/none", headers=visitor.headers())
        assert (absent.status_code, "x-request-id" in absent.headers) == (426, True)


@pytest.mark.req("SUB-25")
async def test_a_proxy_without_upgrade_is_named(proxy: Proxy, issuer: IssuerThread) -> None:
    """A location that sets headers of its own inherits none: the handshake comes as a plain GET, and the hub says so."""
    async with ProxyVisitor(proxy, issuer) as visitor:
        endpoint = await visitor.subscribe(hub__topic="without upgrade")
        with pytest.raises(InvalidStatus) as refused:
            async with connect(endpoint.replace("/api/hub/", "/plain/"), proxy=None, ssl=proxy.trust):
                pass
        answer = refused.value.response
        assert answer.status_code == 426
        assert b"Upgrade and Connection" in (answer.body or b"")
        async with visitor.follow(endpoint, ssl=proxy.trust):
            pass


@pytest.mark.req("OPS-1", "SEC-1")
async def test_what_stays_inside(proxy: Proxy, issuer: IssuerThread) -> None:
    """Health, metrics and the description are not shown, the session API is; nothing is in nginx's access log."""
    await check_inside(proxy, issuer)
    assert not (proxy.folder / "access.log").exists() or (proxy.folder / "access.log").read_text() == ""
