"""OPS-22: discovery, keys and introspection, as `check-config --online` tells of them."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.online import finding as findings_module
from fhircast_hub.online.finding import Finding
from tests.auth.introspection_server import INTROSPECT, IntrospectionServer
from tests.auth.issuer_server import JWKS, OPENID, SMART, Answer, IssuerServer
from tests.certificates import make_certificate
from tests.online.online_world import about, findings
from tests.proxy_environment import say_of_proxies
from tests.tokens import Idp


async def checked(server: IssuerServer, **members: Any) -> list[Finding]:
    """The findings of one issuer."""
    return await findings(ISSUERS=[{"issuer": server.url, "audience": "hub", **members}])


# --- discovery and keys ---


@pytest.mark.req("OPS-22", "AUT-12")
@pytest.mark.parametrize("path", [SMART, OPENID])
async def test_an_issuer_that_is_right(path: str) -> None:
    """The line says which document has the keys, how many are usable, and for what."""
    async with IssuerServer() as server:
        jwks = Idp(server.url).jwks()
        server.publish(path, {"issuer": server.url, "jwks_uri": f"{server.url}{JWKS}?code=hunter2"})
        server.publish(f"{JWKS}?code=hunter2", {"keys": [*jwks["keys"], {"kty": "oct", "k": "hunter2"}]})
        found = await checked(server)
    discovery, keys = about(found, "discovery"), about(found, "keys")
    assert str(discovery) == (
        f"ok      FHIRCAST_ISSUERS[0] {server.url} discovery: {path} names {server.url}{JWKS}?***"
    )
    assert keys.is_ok
    assert keys.what == f"FHIRCAST_ISSUERS[0] {server.url} keys at {server.url}{JWKS}?***"
    assert keys.said.startswith(f"{len(jwks['keys'])} of {len(jwks['keys']) + 1} keys are usable, for ")
    assert "hunter2" not in str(found)


#: The documents at the two paths of discovery, and what the line says of them. URL stands for the issuer.
DISCOVERY: list[tuple[Any, Any, str]] = [
    (None, None, f"{SMART} answered 404, {OPENID} answered 404"),
    ({"issuer": "URL"}, None, f"{SMART} has no jwks_uri, {OPENID} answered 404"),
    ({"jwks_uri": "URL/x"}, None, f"{SMART} names no issuer, {OPENID} answered 404"),
    (None, {"issuer": "URL/", "jwks_uri": "URL/x"}, f"{SMART} answered 404, {OPENID} is of the issuer 'URL/'"),
    ({"issuer": "x" * 900, "jwks_uri": "URL/x"}, None, f"{SMART} is of the issuer '{'x' * 199}..., {OPENID} answered 404"),
    (b"<html>", b"[]", f"{SMART} answered no JSON object, {OPENID} answered no JSON object"),
]  # fmt: skip


@pytest.mark.req("OPS-22", "AUT-12")
@pytest.mark.parametrize(("smart", "openid", "said"), DISCOVERY, ids=[said[:60] for *_, said in DISCOVERY])
async def test_discovery_that_finds_nothing_says_why_of_each_document(smart: Any, openid: Any, said: str) -> None:
    """A URL that differs by its last slash is told. Without discovery there is no line of keys."""
    async with IssuerServer() as server:
        for path, document in ((SMART, smart), (OPENID, openid)):
            if document is not None:
                body = document if isinstance(document, bytes) else json.dumps(document).encode()
                server.answers[path] = Answer(200, body.replace(b"URL", server.url.encode()))
        found = await checked(server)
    discovery = about(found, "discovery")
    assert (discovery.is_ok, discovery.said) == (False, said.replace("URL", server.url))
    assert discovery.advice == "check issuer letter by letter, or set jwks_uri"
    assert not [each for each in found if " keys " in each.what]


#: What is at jwks_uri, and what the line says.
KEYS: list[tuple[Answer, str]] = [
    (Answer(404), "answered 404"),
    (Answer(302, headers=("Location: /",)), "answered 302"),
    (Answer(200, b"{}"), "answered no JWK Set"),
    (Answer(200, b'{"keys": []}'), "0 keys, and none is usable"),
    (Answer(200, b'{"keys": [{"kty": "oct", "k": "aGk"}]}'), "1 keys, and none is usable"),
]


@pytest.mark.req("OPS-22")
@pytest.mark.parametrize(("answer", "said"), KEYS, ids=[said for _, said in KEYS])
async def test_keys_that_verify_nothing(answer: Answer, said: str) -> None:
    async with IssuerServer() as server:
        server.answers[JWKS] = answer
        found = await checked(server, jwks_uri=server.url + JWKS)
    keys = about(found, "keys")
    assert (keys.is_ok, keys.said) == (False, said)
    assert not [each for each in found if "discovery" in each.what]


@pytest.mark.req("OPS-22")
async def test_a_server_that_is_not_there() -> None:
    async with IssuerServer() as server:
        pass
    discovery = about(await checked(server), "discovery")
    assert (discovery.is_ok, discovery.said) == (False, "Connection refused")
    gone = about(await findings(ISSUERS=[{"issuer": "https://nobody.invalid", "audience": "a"}]), "discovery")
    assert gone.said.startswith("the name is not resolved: ")


@pytest.mark.req("OPS-22")
async def test_a_server_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """All checks wait at the same time."""
    monkeypatch.setattr(findings_module.found, "__defaults__", (0.2,))
    async with IssuerServer() as one, IssuerServer() as two:
        one.open.clear()
        two.open.clear()
        members = [{"issuer": each.url, "audience": "hub"} for each in (one, two)]
        found = await findings(ISSUERS=members)
        assert [each.said for each in found if "discovery" in each.what] == 2 * ["no answer within 0.2 s"]
        assert (one.asked.total(), two.asked.total()) == (1, 1)
        one.open.set()
        two.open.set()


@pytest.mark.req("OPS-22")
async def test_a_certificate_that_is_not_trusted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As serve would see it. With the authority in SSL_CERT_FILE all is well."""
    certificate, key = make_certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    async with IssuerServer(tls) as server:
        server.publish_keys(Idp(server.url).jwks())
        discovery = about(await checked(server), "discovery")
        assert not discovery.is_ok
        assert discovery.said.startswith("the certificate is not trusted: ")
        assert "SSL_CERT_FILE" in discovery.advice
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert all(each.is_ok for each in await checked(server))


@pytest.mark.req("OPS-22", "SEC-6")
async def test_the_proxy_of_serve_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that cannot be used is told without its password."""
    async with IssuerServer() as proxy:
        proxy.publish("http://login.example" + JWKS, Idp("http://login.example").jwks())
        members = {"issuer": "http://login.example", "audience": "hub", "jwks_uri": "http://login.example" + JWKS}
        say_of_proxies(monkeypatch, HTTP_PROXY=proxy.url)
        assert about(await findings(ISSUERS=[members], ALLOW_INSECURE="true"), "keys").is_ok
        say_of_proxies(monkeypatch, HTTP_PROXY="foo://me:hunter2@proxy")
        keys = about(await findings(ISSUERS=[members], ALLOW_INSECURE="true"), "keys")
        assert keys.said.startswith("HTTP_PROXY must be the URL of a proxy")
        assert "hunter2" not in str(keys)


# --- introspection ---


async def introspected(server: IntrospectionServer, path: str = INTROSPECT) -> Finding:
    members = {"introspection_endpoint": server.url + path, "introspection_client_id": "hub"}
    found = await checked(server, jwks_uri=server.url + JWKS, **members, introspection_client_secret="hunter2")
    assert "hunter2" not in str(found)
    return about(found, "introspection")


@pytest.mark.req("OPS-22", "AUT-14")
async def test_a_made_up_token_is_inactive() -> None:
    """It is asked about with the hub's credentials, and is a new one each time."""
    async with IntrospectionServer() as server:
        for _ in range(2):
            assert await introspected(server) == Finding(
                True,
                f"FHIRCAST_ISSUERS[0] {server.url} introspection at {server.url}{INTROSPECT}",
                "a made-up token is inactive",
            )
        assert server.asked_by == 2 * ["Basic hub:hunter2"]
        assert server.forms[0]["token"] != server.forms[1]["token"]


#: What the endpoint answers, what the line says, and a word of the advice.
ANSWERS: list[tuple[Answer, str, str]] = [
    (Answer(200, b'{"active": true}'), "a made-up token is active", "every token"),
    (Answer(200, b"{}"), "the answer has no active", "path"),
    (Answer(200, b'{"active": "false"}'), "the answer has no active", "path"),
    (Answer(200, b"<html>"), "answered no JSON object", "page for people"),
    (Answer(302, headers=("Location: /",)), "answered 302", "leads to"),
    (Answer(400, b'{"error": "invalid_client"}'), "answered 400", "introspection_client_id"),
    (Answer(401), "answered 401", "introspection_client_id"),
    (Answer(403), "answered 403", "rights"),
    (Answer(405), "answered 405", "POST"),
    (Answer(503), "answered 503", "server's log"),
]


@pytest.mark.req("OPS-22")
@pytest.mark.parametrize(("answer", "said", "advice"), ANSWERS, ids=[f"{said} {word}" for _, said, word in ANSWERS])
async def test_what_is_wrong_with_introspection(answer: Answer, said: str, advice: str) -> None:
    async with IntrospectionServer() as server:
        server.instead = answer
        finding = await introspected(server)
    assert not finding.is_ok
    assert finding.said.startswith(said)
    assert advice in finding.advice


@pytest.mark.req("OPS-22")
async def test_a_wrong_path_of_introspection() -> None:
    async with IntrospectionServer() as server:
        finding = await introspected(server, "/elsewhere")
    assert (finding.is_ok, finding.said) == (False, "answered 404")
    assert "path of introspection_endpoint" in finding.advice


# --- the login of the console ---


@pytest.mark.req("CSL-17", "OPS-22")
@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({}, "authorization_endpoint URL/a, token_endpoint URL/t?***"),
        (
            {"code_challenge_methods_supported": ["plain", "S256"]},
            "authorization_endpoint URL/a, token_endpoint URL/t?***",
        ),
        ({"code_challenge_methods_supported": ["plain"]}, "code_challenge_methods_supported has no S256"),
        ({"token_endpoint": None}, f"discovery: {SMART} answered 404, {OPENID} names no token_endpoint"),
        ({"token_endpoint": "ftp://x"}, "token_endpoint is no https address"),
    ],
)
async def test_the_login_of_the_console(members: dict[str, Any], said: str) -> None:
    async with IssuerServer() as server:
        document = {
            "issuer": server.url,
            "authorization_endpoint": f"{server.url}/a",
            "token_endpoint": f"{server.url}/t?x",
        }
        server.publish(OPENID, document | members)
        issuers = [{"issuer": server.url, "audience": "hub"}]
        found = await findings(ISSUERS=issuers, CONSOLE="true", CONSOLE_CLIENT_ID="console")
        finding = about(found, "login")
        assert finding.what == f"FHIRCAST_CONSOLE login at {server.url}"
        assert (finding.said, finding.is_ok) == (said.replace("URL", server.url), said.startswith("auth"))
        assert not [each for each in await findings(ISSUERS=issuers) if "login" in each.what]


@pytest.mark.req("CSL-17", "OPS-22")
async def test_a_login_whose_server_is_away_says_so_once_as_the_issuers_own_line_does() -> None:
    issuers = [{"issuer": "http://127.0.0.1:1", "audience": "hub"}]
    found = await findings(ISSUERS=issuers, CONSOLE="true", CONSOLE_CLIENT_ID="console")
    discovery, login = about(found, "discovery"), about(found, "login")
    assert login.said == discovery.said == "Connection refused"
    assert login.advice == f"{discovery.advice}; until then the console's page finds no login"
