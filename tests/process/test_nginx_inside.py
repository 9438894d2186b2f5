"""What docs/nginx.conf.example has as a comment: /metrics for Prometheus, and the console for the operators' network."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

import httpx
import pytest

from tests.console.console_world import READ, Stream
from tests.docs.blocks import titled
from tests.ports import free_port
from tests.process.hub_process import IssuerThread, hub_process
from tests.process.nginx import needs_nginx, nginx
from tests.process.proxy_world import Proxy, ProxyVisitor, wait_for
from tests.process.test_nginx import EXAMPLE, configuration

#: Who is admitted, by the example and in the test.
PROMETHEUS, OPERATORS, STRANGER = "127.0.0.2", "127.0.0.3", "127.0.0.4"
ADMITTED = {"allow 10.20.0.9;": f"allow {PROMETHEUS};", "allow 10.20.30.0/24;": f"allow {OPERATORS};"}
_COMMENT = re.compile(r"^    # location .*\{\n(?:    #     .*\n)+    # \}\n", re.MULTILINE)


def locations() -> list[str]:
    """The example's locations that are comments, without the marks of the comment."""
    return [found.replace("    # ", "    ") for found in _COMMENT.findall(EXAMPLE.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, issuer: IssuerThread) -> Iterator[Proxy]:
    """nginx with the example and both locations, before a hub with a console."""
    folder = tmp_path_factory.mktemp("inside")
    port = free_port()
    url = f"https://127.0.0.1:{port}/api/hub"
    with hub_process(folder, issuers=issuer.settings, public_url=url, console=True) as hub:
        http = configuration(folder, port, hub.port)
        added = "".join(locations())
        for of_example, of_test in ADMITTED.items():
            assert added.count(of_example) == 1
            added = added.replace(of_example, of_test)
        site = folder / "site.conf"
        site.write_text(site.read_text(encoding="utf-8").replace("    location / {", f"{added}    location / {{"))
        trust = ssl.create_default_context(cafile=str(folder / "hub.pem"))
        with nginx(folder, http) as process:
            wait_for(port, process, trust)
            yield Proxy(hub, folder, port, trust)


async def answer(proxy: Proxy, issuer: IssuerThread, address: str, path: str) -> httpx.Response:
    """What nginx answers to this address."""
    async with ProxyVisitor(proxy, issuer, address) as visitor:
        return await visitor.client.get(f"{visitor.origin}{path}")


@pytest.mark.parametrize("page", ["docs/how-to/alerts.md", "docs/console.md"])
def test_the_pages_have_the_lines_of_the_comments(page: str) -> None:
    assert titled(page, "/etc/nginx/conf.d/fhircast.conf").text in locations()


@needs_nginx
@pytest.mark.req("OPS-1")
async def test_prometheus_alone_sees_metrics(proxy: Proxy, issuer: IssuerThread) -> None:
    admitted = await answer(proxy, issuer, PROMETHEUS, "/metrics")
    assert (admitted.status_code, "fhircast_sockets" in admitted.text) == (200, True)
    for address in (OPERATORS, STRANGER):
        assert (await answer(proxy, issuer, address, "/metrics")).status_code == 403
    assert (await answer(proxy, issuer, PROMETHEUS, "/health/live")).status_code == 404


@needs_nginx
@pytest.mark.req("CSL-1")
async def test_operators_alone_see_the_console(proxy: Proxy, issuer: IssuerThread) -> None:
    assert (await answer(proxy, issuer, OPERATORS, "/console")).status_code == 200
    for address in (PROMETHEUS, STRANGER):
        assert (await answer(proxy, issuer, address, "/console")).status_code == 403


@needs_nginx
@pytest.mark.req("CSL-8")
async def test_the_consoles_stream_is_not_held_back(proxy: Proxy, issuer: IssuerThread) -> None:
    async with ProxyVisitor(proxy, issuer, OPERATORS) as visitor:
        headers = {"Authorization": f"Bearer {visitor.token('operator', READ)}"}
        async with visitor.client.stream("GET", f"{visitor.origin}/console/stream", headers=headers) as response:
            assert response.status_code == 200
            stream = Stream(aiter(response.aiter_lines()))
            assert (await stream.until("sessions", lambda part: True))["total"] == 0
            await visitor.subscribe()
            await stream.until("sessions", lambda part: part["total"] == 1)
