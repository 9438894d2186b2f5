"""docs/nginx.conf.example, run by a real nginx: the hub as a hospital's network sees it."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from certificates import make_certificate
from process.hub_process import PATIENCE, HubProcess, IssuerThread, Visitor, free_port, hub_process
from process.nginx import needs_nginx, nginx
from running import TOPIC, event, until

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "nginx.conf.example"
#: nginx gives up on a socket that nothing came from for so long; the hub pings more often.
READ_TIMEOUT, PING_SECONDS = 2, 1

pytestmark = needs_nginx


def configuration(folder: Path, port: int, hub_port: int) -> str:
    """A whole configuration around the example, whose ports, files and patience are the test's."""
    certificate, key = make_certificate(folder)
    text = EXAMPLE.read_text(encoding="utf-8")
    for of_example, of_test in {
        "server 127.0.0.1:8080;": f"server 127.0.0.1:{hub_port};",
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/etc/ssl/certs/hub.pem": str(certificate),
        "/etc/ssl/private/hub.key": str(key),
        "proxy_read_timeout 75s;": f"proxy_read_timeout {READ_TIMEOUT}s;",
        "    location / {": "    location /plain/ { proxy_set_header Host $host; proxy_pass http://fhircast/api/hub/; }\n"
        "    location / {",
    }.items():
        assert text.count(of_example) == 1, of_example
        text = text.replace(of_example, of_test)
    (folder / "site.conf").write_text(text)
    return f"access_log {folder}/access.log; include {folder}/site.conf;"


def wait_for(port: int, process: subprocess.Popen[bytes], trust: ssl.SSLContext) -> None:
    """Until nginx answers."""
    deadline = time.monotonic() + PATIENCE
    with httpx.Client(trust_env=False, verify=trust) as client:
        while time.monotonic() < deadline:
            assert process.poll() is None, "nginx ended"
            try:
                client.get(f"https://127.0.0.1:{port}/")
            except httpx.TransportError:
                time.sleep(0.02)
            else:
                return
    raise AssertionError("nginx does not answer")


class Proxy:
    """nginx before a hub."""

    def __init__(self, hub: HubProcess, folder: Path, port: int, trust: ssl.SSLContext) -> None:
        self.hub, self.folder, self.port, self.trust = hub, folder, port, trust


class ProxyVisitor(Visitor):
    """A client of the hub through nginx, from this address."""

    def __init__(self, proxy: Proxy, issuer: IssuerThread, address: str = "127.0.0.1") -> None:
        super().__init__(proxy.hub, issuer.idp)
        self.origin = f"https://127.0.0.1:{proxy.port}"
        self.url = f"{self.origin}/api/hub"
        transport = httpx.AsyncHTTPTransport(verify=proxy.trust, local_address=address)
        self.client = httpx.AsyncClient(trust_env=False, timeout=PATIENCE, transport=transport)


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
    }
    with hub_process(folder, **settings) as hub:
        http = configuration(folder, port, hub.port)
        trust = ssl.create_default_context(cafile=str(folder / "hub.pem"))
        with nginx(folder, http) as process:
            wait_for(port, process, trust)
            yield Proxy(hub, folder, port, trust)


@pytest.mark.req("SUB-1", "EVT-1")
async def test_a_session_through_nginx(proxy: Proxy, issuer: IssuerThread) -> None:
    """Subscribed over https, followed over wss, told of an event; closed with the hub's own code."""
    async with ProxyVisitor(proxy, issuer) as visitor:
        endpoint = await visitor.subscribe()
        assert endpoint.startswith(f"wss://127.0.0.1:{proxy.port}/api/hub/ws/")
        async with visitor.follow(endpoint, ssl=proxy.trust) as follower:
            assert (await visitor.publish(event("Patient-open"))).status_code == 202
            assert (await follower.next())["id"] == "Patient-open-1"
            await visitor.form(hub__mode="unsubscribe", **{"hub__channel.endpoint": endpoint})
            assert (await follower.next())["hub.mode"] == "denied"
            assert await follower.closed() == 1000


@pytest.mark.req("SYN-13")
async def test_an_idle_socket_outlives_nginxs_patience(proxy: Proxy, issuer: IssuerThread) -> None:
    """Twice as long as it waits for a silent hub, because the hub is not silent: it pings."""
    async with ProxyVisitor(proxy, issuer) as visitor:
        endpoint = await visitor.subscribe(hub__topic="idle")
        async with visitor.follow(endpoint, ssl=proxy.trust, ping_interval=None) as follower:
            await asyncio.sleep(2 * READ_TIMEOUT)  # of a real proxy's real clock
            await visitor.publish(event("Patient-open", topic="idle"))
            assert (await follower.next())["id"] == "Patient-open-1"


@pytest.mark.req("RAT-1", "AUD-1")
async def test_the_hub_knows_who_asks(proxy: Proxy, issuer: IssuerThread) -> None:
    """One address behind nginx uses up its own requests only, whatever it says of itself."""
    async with (
        ProxyVisitor(proxy, issuer, "127.0.0.2") as greedy,
        ProxyVisitor(proxy, issuer, "127.0.0.3") as modest,
    ):
        statuses = []
        for number in range(120):
            headers = greedy.headers(**{"X-Forwarded-For": f"203.0.113.{number}"})
            statuses.append((await greedy.client.get(f"{greedy.url}/{TOPIC}", headers=headers)).status_code)
        assert set(statuses[:100]) == {200}
        assert statuses[-1] == 429
        assert (await modest.context()).status_code == 200
    trail = proxy.folder / "trail"
    await until(lambda: '"127.0.0.3"' in trail.read_text())
    assert '"127.0.0.2"' in trail.read_text()
    assert "203.0.113" not in trail.read_text()


@pytest.mark.req("EVT-7")
async def test_the_hubs_words_reach_the_client(proxy: Proxy, issuer: IssuerThread) -> None:
    """413 and 426 are the hub's, with its request id."""
    async with ProxyVisitor(proxy, issuer) as visitor:
        large = await visitor.publish(b" " * (3 << 20))
        assert (large.status_code, "x-request-id" in large.headers) == (413, True)
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
    async with ProxyVisitor(proxy, issuer) as visitor:
        for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json", "/"):
            assert (await visitor.client.get(f"{visitor.origin}{path}")).status_code == 404
        assert (await visitor.client.post(f"{visitor.origin}/sessions", json={})).status_code == 401
        assert (await visitor.client.get(f"{visitor.url}/metadata")).status_code == 200
    assert not (proxy.folder / "access.log").exists() or (proxy.folder / "access.log").read_text() == ""
