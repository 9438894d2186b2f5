"""The Caddyfile of docs/tls.md, run by a real Caddy: what it passes on, what it keeps inside, and what it logs."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.certificates import make_certificate
from tests.docs.blocks import titled
from tests.ports import free_port
from tests.process.hub_process import PATIENCE, IssuerThread, hub_process
from tests.process.proxy_world import Proxy, ProxyVisitor, check_inside, check_session, wait_for
from tests.running import TOPIC, until
from tools.unpacked import unpacked


def configuration(folder: Path, port: int, hub_port: int) -> str:
    """The page's Caddyfile. The port, the hub and the certificate are the test's, and Caddy listens nowhere else."""
    certificate, key = make_certificate(folder)
    text = titled("docs/tls.md", "/etc/caddy/Caddyfile").text
    for of_page, of_test in {
        "{\n\tlog {": "{\n\tadmin off\n\tauto_https off\n\tlog {",
        "hub.hospital.example {": f"https://127.0.0.1:{port} {{\n\ttls {certificate} {key}",
        "reverse_proxy 127.0.0.1:8080": f"reverse_proxy 127.0.0.1:{hub_port}",
    }.items():
        assert text.count(of_page) == 1, of_page
        text = text.replace(of_page, of_test)
    return text


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, issuer: IssuerThread) -> Iterator[Proxy]:
    """Caddy with the page's file, and a hub that trusts Caddy. What Caddy prints is in the folder's file `stderr`."""
    folder = tmp_path_factory.mktemp("caddy")
    port = free_port()
    settings = {
        "issuers": issuer.settings,
        "public_url": f"https://127.0.0.1:{port}/api/hub",
        "trusted_proxies": ["127.0.0.1"],
        "audit": (folder / "trail").as_uri(),
    }
    with hub_process(folder, **settings) as hub:
        (folder / "Caddyfile").write_text(configuration(folder, port, hub.port))
        trust = ssl.create_default_context(cafile=str(folder / "hub.pem"))
        environment = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        command = (unpacked("caddy"), "run", "--adapter", "caddyfile", "--config", folder / "Caddyfile")
        with (folder / "stderr").open("wb") as stderr:
            process = subprocess.Popen(command, env=environment, stdout=stderr, stderr=stderr)
        try:
            wait_for(port, process, trust)
            yield Proxy(hub, folder, port, trust)
        finally:
            process.terminate()
            process.wait(PATIENCE)


@pytest.mark.req("SUB-1", "EVT-1")
async def test_a_session_through_caddy(proxy: Proxy, issuer: IssuerThread) -> None:
    await check_session(proxy, issuer)


@pytest.mark.req("AUD-1")
async def test_the_hub_knows_who_asks(proxy: Proxy, issuer: IssuerThread) -> None:
    """The address is the one from which the client came, and not the one which the client claims."""
    async with ProxyVisitor(proxy, issuer, "127.0.0.3") as visitor:
        headers = visitor.headers(**{"X-Forwarded-For": "203.0.113.7"})
        assert (await visitor.client.get(f"{visitor.url}/{TOPIC}", headers=headers)).status_code == 200
    trail = proxy.folder / "trail"
    await until(lambda: '"127.0.0.3"' in trail.read_text())
    assert "203.0.113" not in trail.read_text()


@pytest.mark.req("OPS-1")
async def test_what_stays_inside(proxy: Proxy, issuer: IssuerThread) -> None:
    """Caddy shows hub.url and the session API. Health, metrics, console and description stay inside."""
    await check_inside(proxy, issuer)


@pytest.mark.req("SEC-1")
async def test_no_endpoint_is_in_caddys_log(proxy: Proxy, issuer: IssuerThread) -> None:
    """Caddy logs each request that the hub does not answer. The path of a WebSocket is its ticket (SEC-1)."""
    async with ProxyVisitor(proxy, issuer) as visitor:
        endpoint = await visitor.subscribe(hub__topic="logged")
        proxy.hub.process.kill()
        proxy.hub.process.wait(PATIENCE)
        with pytest.raises(httpx.HTTPStatusError, match="502"):
            (await visitor.client.get(endpoint.replace("wss://", "https://"))).raise_for_status()
    log = proxy.folder / "stderr"
    await until(lambda: "http.log.error" in log.read_text())
    assert endpoint.rpartition("/")[2] not in log.read_text()
