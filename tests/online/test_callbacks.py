"""OPS-24: whether the hub would post to a callback."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.online.finding import Finding
from tests.auth.issuer_server import IssuerServer
from tests.certificates import make_certificate
from tests.online.online_world import about, findings
from tests.webhook.address_world import Names
from tests.webhook.callback_server import LOOPBACK, CallbackServer


async def of(url: str, **settings: Any) -> Finding:
    """What the line says of a callback."""
    (finding,) = (each for each in await findings(url, **settings) if each.what.startswith("--callback"))
    return finding


@pytest.mark.req("OPS-24", "WHK-2")
async def test_a_callback_that_the_hub_may_post_to() -> None:
    """The hub connects, and sends nothing. The query is not shown."""
    async with CallbackServer() as server:
        finding = await of(server.url("/callback?key=hunter2"), WEBHOOK_ALLOWED_NETWORKS=LOOPBACK)
        assert str(finding) == (
            f"ok      --callback {server.url('/callback')}?***: 127.0.0.1 is 127.0.0.1; the hub may post there,"
            f" and port {server.port} takes connections"
        )
        assert not server.requests


@pytest.mark.req("OPS-24", "SEC-5")
async def test_a_name_is_resolved_as_the_hub_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its addresses must be allowed, and one of them must answer."""
    async with CallbackServer() as server:
        url = f"http://app.example:{server.port}/callback"
        Names(monkeypatch, **{"app.example": [["127.0.0.9", "127.0.0.1"]]})
        finding = await of(url, WEBHOOK_ALLOWED_NETWORKS=LOOPBACK)
        assert finding.is_ok
        assert finding.said.startswith("app.example is 127.0.0.9, 127.0.0.1; ")
        Names(monkeypatch, **{"app.example": [["127.0.0.1", "10.0.0.1"]]})
        finding = await of(url, WEBHOOK_ALLOWED_NETWORKS=LOOPBACK)
        assert not finding.is_ok
        assert "neither public nor in FHIRCAST_WEBHOOK_ALLOWED_NETWORKS" in finding.said


#: A callback, settings, and what the line says.
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("https://127.0.0.1/x", {}, "its address is neither public nor in FHIRCAST_WEBHOOK_ALLOWED_NETWORKS"),
    ("http://8.8.8.8/x", {}, "http is for addresses in FHIRCAST_WEBHOOK_ALLOWED_NETWORKS only"),
    ("https://8.8.8.8:9000/x", {}, "its port must be 443 or 8443, not 9000"),
    ("https://8.8.8.8/x", {"WEBHOOK_FORBIDDEN_NETWORKS": ["8.0.0.0/8"]}, "in FHIRCAST_WEBHOOK_FORBIDDEN_NETWORKS"),
    ("https://nobody.invalid/x", {}, "the name 'nobody.invalid' is not resolved"),
    ("ftp://8.8.8.8/x", {}, "hub.callback must be an absolute http or https URL"),
    ("https://me:hunter2@8.8.8.8/x", {}, "hub.callback must be a URL without credentials"),
    ("https://8.8.8.8/x", {"WEBHOOKS": "false"}, "no callback is taken; FHIRCAST_WEBHOOKS is false"),
    ("http://127.0.0.1:1/x", {"WEBHOOK_ALLOWED_NETWORKS": LOOPBACK}, "Connection refused"),
]


@pytest.mark.req("OPS-24", "SEC-5")
@pytest.mark.parametrize(("url", "settings", "said"), REFUSED, ids=[said for *_, said in REFUSED])
async def test_a_callback_that_the_hub_does_not_reach(url: str, settings: dict[str, Any], said: str) -> None:
    finding = await of(url, **settings)
    assert not finding.is_ok
    assert said in str(finding)
    assert "hunter2" not in str(finding)


@pytest.mark.req("OPS-24")
async def test_a_callback_with_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its certificate must be trusted, as for a post."""
    certificate, key = make_certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    async with IssuerServer(tls) as server:
        url, port = f"{server.url}/callback", server.url.rpartition(":")[2]
        finding = await of(url, WEBHOOK_ALLOWED_NETWORKS=LOOPBACK)
        assert not finding.is_ok
        assert finding.said.startswith("the certificate is not trusted: ")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        finding = await of(url, WEBHOOK_ALLOWED_NETWORKS=LOOPBACK)
        assert finding.is_ok
        assert finding.said.endswith(f"port {port} speaks TLSv1.3")


@pytest.mark.req("OPS-24")
async def test_without_a_callback_the_line_says_which_are_allowed() -> None:
    said = about(await findings(), "FHIRCAST_WEBHOOKS")
    assert said.said == "callbacks may be public, by https at port 443 or 8443"
    networks: dict[str, Any] = {
        "WEBHOOK_ALLOWED_NETWORKS": ["10.1.0.0/16"],
        "WEBHOOK_FORBIDDEN_NETWORKS": ["8.8.0.0/16"],
    }
    said = about(await findings(**networks, ALLOW_INSECURE="true"), "FHIRCAST_WEBHOOKS")
    assert said.said == (
        "callbacks may be public, by https at port 443 or 8443, or by http at port 80 or 8080, or in 10.1.0.0/16,"
        " and not in 8.8.0.0/16"
    )
    assert about(await findings(WEBHOOKS="false"), "FHIRCAST_WEBHOOKS").said == "off: no callback is taken"
