"""How the page learns where operators log in."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from fhircast_hub.console.login import origin_of
from fhircast_hub.settings.errors import SettingsError
from fhircast_hub.settings.issuers import IssuerSettings
from fhircast_hub.settings.serving import require_all
from fhircast_hub.settings.settings import Settings
from tests.auth.issuer_server import OPENID, SMART, IssuerServer
from tests.console.console_world import READ, WRITE, Operated, operated
from tests.console.login_server import LoginServer

CLIENT = "fhircast-console"


async def config(console: Operated) -> dict[str, Any]:
    """GET /console/config."""
    answer = await console.get("/config", "")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.req("CSL-10", "CSL-11")
async def test_the_endpoints_come_from_the_issuers_discovery() -> None:
    """Asked once. The page may then send requests to the token endpoint's origin, and to no other."""
    async with LoginServer() as server:
        server.publish_login()
        async with operated(issuer=server, console_client_id=CLIENT) as console:
            for _ in range(3):
                assert await config(console) == {
                    "hasLogin": True,
                    "fault": "",
                    "maxReason": 200,
                    "login": {
                        "issuer": server.url,
                        "authorizationEndpoint": f"{server.url}/authorize",
                        "tokenEndpoint": f"{server.url}/token",
                        "clientId": CLIENT,
                        "scope": f"{READ} {WRITE}",
                        "resource": console.hub.url,
                        "namesItself": True,
                    },
                }
            assert server.asked[OPENID] == 1
            policy = (await console.get("", "")).headers["content-security-policy"]
            assert f"connect-src 'self' {server.url};" in policy


@pytest.mark.req("CSL-10")
@pytest.mark.parametrize(
    "document",
    [
        {},
        {"authorization_endpoint": "https://a.example/a"},
        {"authorization_endpoint": "http://a.example/a", "token_endpoint": "https://a.example/t"},
        {"authorization_endpoint": "https://a.example/a", "token_endpoint": "javascript:alert(1)"},
        {
            "issuer": "https://evil.example",
            "authorization_endpoint": "https://a.example",
            "token_endpoint": "https://a.example",
        },
    ],
)
async def test_a_document_that_does_not_suffice_is_no_login(document: dict[str, str]) -> None:
    """The page says that there should be one. The hub itself works."""
    async with IssuerServer() as server:
        server.publish(SMART, {"issuer": server.url} | document)
        async with operated(issuer=server, console_client_id=CLIENT) as console:
            found = await config(console)
            assert (found["login"], found["hasLogin"]) == (None, True)
            assert "connect-src 'self';" in (await console.get("", "")).headers["content-security-policy"]
            await console.state()


@pytest.mark.req("CSL-10")
async def test_without_a_client_id_nobody_is_asked() -> None:
    async with LoginServer() as server:
        server.publish_login()
        async with operated(issuer=server) as console:
            found = await config(console)
            assert (found["login"], found["hasLogin"]) == (None, False)
            assert not server.asked[OPENID]


@pytest.mark.req("CSL-10", "SEC-3")
def test_the_issuer_must_be_one_whose_tokens_count() -> None:
    issuer = IssuerSettings(issuer="https://idp.example", audience="hub")
    require_all(Settings(issuers=(issuer,), console_issuer="https://idp.example"))
    with pytest.raises(SettingsError, match="FHIRCAST_CONSOLE_ISSUER must be an issuer of FHIRCAST_ISSUERS"):
        require_all(Settings(issuers=(issuer,), console_issuer="https://other.example"))


@pytest.mark.req("CSL-11")
@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://idp.example/realms/a/token?x=1", "https://idp.example"),
        ("https://user@idp.example:8443/token", "https://idp.example:8443"),
        ("http://[::1]:80/token", "http://[::1]:80"),
        ("https://idp.example;script-src *", ""),
        ("https://idp.example 'unsafe-inline'/x", ""),
    ],
)
def test_no_url_adds_a_rule_to_the_policy(url: str, origin: str) -> None:
    assert origin_of(url) == origin


def reload(console: Operated, *issuers: IssuerServer) -> None:
    """The hub reads its settings again, which have these issuers."""
    found = tuple(IssuerSettings(issuer=each.url, audience="hub") for each in issuers)
    console.hub.hub.reload(console.hub.hub._settings.model_copy(update={"issuers": found}))


@pytest.mark.req("CSL-17", "OPS-20")
async def test_after_a_reload_the_login_is_of_an_issuer_that_counts_now() -> None:
    """Without CONSOLE_ISSUER the first of the list. No page sends operators, or lets a browser send, to one that is gone."""
    async with LoginServer() as old, LoginServer() as new:
        for server in (old, new):
            server.publish_login()
        async with operated(issuer=old, console_client_id=CLIENT) as console:
            assert (await config(console))["login"]["issuer"] == old.url
            reload(console, new, old)
            assert (await config(console))["login"]["tokenEndpoint"] == f"{new.url}/token"
            policy = (await console.get("", "")).headers["content-security-policy"]
            assert f"connect-src 'self' {new.url};" in policy
            assert old.url not in policy
            reload(console)
            found = await config(console)
            assert (found["login"], found["hasLogin"]) == (None, False)
            assert "connect-src 'self';" in (await console.get("", "")).headers["content-security-policy"]


@pytest.mark.req("CSL-17", "OPS-20")
async def test_the_issuer_of_the_settings_must_count_still() -> None:
    """With CONSOLE_ISSUER no other issuer takes its place. The page says what is wrong."""
    async with LoginServer() as old, LoginServer() as new:
        for server in (old, new):
            server.publish_login()
        async with operated(issuer=old, console_client_id=CLIENT, console_issuer=old.url) as console:
            assert (await config(console))["login"]["issuer"] == old.url
            reload(console, new)
            found = await config(console)
            assert (found["login"], found["hasLogin"]) == (None, True)
            assert found["fault"] == f"{old.url} is no issuer whose tokens count"
            assert "connect-src 'self';" in (await console.get("", "")).headers["content-security-policy"]
            reload(console, new, old)
            assert (await config(console))["login"]["issuer"] == old.url


@pytest.mark.req("CSL-17", "OPS-18")
async def test_a_login_that_is_not_found_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the page and in the log, with the reason, and once a minute however often the page asks."""
    monkeypatch.setattr("fhircast_hub.console.login.FAILED_SECONDS", 0.0)
    async with LoginServer() as server:
        server.publish(OPENID, {"issuer": server.url, "authorization_endpoint": f"{server.url}/authorize"})
        async with operated(issuer=server, console_client_id=CLIENT) as console:
            with structlog.testing.capture_logs() as captured:
                found = [await config(console) for _ in range(3)]
                server.publish_login()
                assert (await config(console))["fault"] == ""
            reason = f"discovery: {SMART} answered 404, {OPENID} names no token_endpoint"
            assert {each["fault"] for each in found} == {f"{server.url} {reason}"}
            (issuer,) = (await console.state())["issuers"]["issuers"]
            assert issuer["failure"] == reason
    told = [(line["event"], line["reason"]) for line in captured if line.get("issuer") == server.url]
    assert [each for each in told if each[1] in (reason, "login")] == [
        ("endpoints of login not found", reason),
        ("issuer answers again", "login"),
    ]


@pytest.mark.req("CSL-17")
async def test_a_server_that_does_not_answer_is_told() -> None:
    async with LoginServer() as server:
        server.publish_login()
        async with operated(issuer=server, console_client_id=CLIENT) as console:
            await server.stop()
            assert (await config(console))["fault"] == f"{server.url} discovery: not reached (ConnectError)"
