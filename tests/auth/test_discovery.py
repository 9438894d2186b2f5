"""Where an issuer's keys are found, and what is not believed."""

from __future__ import annotations

import gzip
import json

import httpx
import pytest

from fhircast_hub.auth.discovery import MAX_BYTES, FetchError, fetch_jwks, is_secure
from fhircast_hub.auth.issuers import Issuer
from tests.auth.issuer_server import JWKS, OPENID, SMART, Answer, IssuerServer

SET = {"keys": [{"kty": "EC"}]}


@pytest.mark.req("AUT-12")
async def test_jwks_uri(server: IssuerServer, client: httpx.AsyncClient) -> None:
    """With a jwks_uri nothing needs to be discovered."""
    server.publish(JWKS, SET)
    assert await fetch_jwks(Issuer(server.url, "hub", jwks_uri=server.url + JWKS), client) == SET
    assert server.asked == {JWKS: 1}


@pytest.mark.req("AUT-12", "EVT-23")
async def test_byte_order_mark(server: IssuerServer, client: httpx.AsyncClient) -> None:
    """An issuer may write one before its documents, as .NET does."""
    for path, document in {SMART: {"issuer": server.url, "jwks_uri": server.url + JWKS}, JWKS: SET}.items():
        server.answers[path] = Answer(200, b"\xef\xbb\xbf" + json.dumps(document).encode())
    assert await fetch_jwks(Issuer(server.url, "hub"), client) == SET


@pytest.mark.req("AUT-12")
async def test_smart_configuration_first(server: IssuerServer, client: httpx.AsyncClient) -> None:
    """A smart-configuration that names issuer and keys is enough."""
    server.publish(JWKS, SET)
    server.publish(SMART, {"issuer": server.url, "jwks_uri": server.url + JWKS})
    assert await fetch_jwks(Issuer(server.url, "hub"), client) == SET
    assert server.asked == {SMART: 1, JWKS: 1}


@pytest.mark.req("AUT-12")
@pytest.mark.parametrize(
    "smart",
    [
        {},
        {"jwks_uri": "/jwks"},
        {"issuer": "SELF"},
        {"issuer": "SELF", "jwks_uri": None},
        {"issuer": "https://other.example", "jwks_uri": "https://other.example/jwks"},
        [],
    ],
)
async def test_openid_configuration_next(server: IssuerServer, client: httpx.AsyncClient, smart: object) -> None:
    """Where the smart-configuration does not name this issuer's keys, the openid-configuration does."""
    if isinstance(smart, dict) and smart.get("issuer") == "SELF":
        smart = {**smart, "issuer": server.url}
    server.publish(SMART, smart)
    server.publish_keys(SET)
    assert await fetch_jwks(Issuer(server.url, "hub"), client) == SET
    assert server.asked == {SMART: 1, OPENID: 1, JWKS: 1}


@pytest.mark.req("AUT-12")
async def test_issuer_with_path_and_slash(server: IssuerServer, client: httpx.AsyncClient) -> None:
    """The well-known path follows the issuer's own path, with one slash between."""
    issuer = server.url + "/realms/h/"
    server.publish("/realms/h" + OPENID, {"issuer": issuer, "jwks_uri": server.url + JWKS})
    server.publish(JWKS, SET)
    assert await fetch_jwks(Issuer(issuer, "hub"), client) == SET


@pytest.mark.req("AUT-12")
async def test_discovered_issuer_differs(server: IssuerServer, client: httpx.AsyncClient) -> None:
    """A document of another issuer, even by a slash, does not say whose keys count."""
    server.publish_keys(SET)
    for other in (server.url + "/", "https://other.example", None):
        server.publish(OPENID, {"issuer": other, "jwks_uri": server.url + JWKS})
        with pytest.raises(FetchError, match="is not of this issuer"):
            await fetch_jwks(Issuer(server.url, "hub"), client)
    assert server.asked[JWKS] == 0


@pytest.mark.req("AUT-12", "AUT-31")
@pytest.mark.parametrize("moved", [OPENID, JWKS])
async def test_redirect(server: IssuerServer, client: httpx.AsyncClient, moved: str) -> None:
    """A redirect is not followed, not even by a client that would."""
    client.follow_redirects = True
    server.publish_keys(SET)
    server.answers["/elsewhere"] = server.answers[moved]
    server.answers[moved] = Answer(302, headers=(f"Location: {server.url}/elsewhere",))
    with pytest.raises(FetchError, match="answered 302"):
        await fetch_jwks(Issuer(server.url, "hub"), client)
    assert server.asked["/elsewhere"] == 0


@pytest.mark.req("AUT-12")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(500), "answered 500"),
        (Answer(200, b"<html>"), "answered no JSON object"),
        (Answer(200, b"[]"), "answered no JSON object"),
        (Answer(200, b"\xff"), "answered no JSON object"),
        (Answer(200, b'{"a":' * 100_00 + b"1" + b"}" * 100_00), "answered no JSON object"),
        (Answer(200, b'{"keys": "' + b"k" * MAX_BYTES + b'"}'), f"answered more than {MAX_BYTES} bytes"),
        (Answer(200, headers=("Content-Length: junk",)), "RemoteProtocolError"),
    ],
)
async def test_bad_answers(server: IssuerServer, client: httpx.AsyncClient, answer: Answer, reason: str) -> None:
    """Whatever an issuer answers, it is a JSON object of bounded size or a reason for the log."""
    server.answers[JWKS] = answer
    with pytest.raises(FetchError, match=reason):
        await fetch_jwks(Issuer(server.url, "hub", jwks_uri=server.url + JWKS), client)


@pytest.mark.req("AUT-12", "AUT-31")
async def test_nothing_is_inflated(server: IssuerServer, client: httpx.AsyncClient) -> None:
    """No encoding is asked for, of either document, and an encoded answer is refused as it came: few bytes may stand for many."""
    server.publish_keys(SET)
    await fetch_jwks(Issuer(server.url, "hub"), client)
    for head in server.heads:
        assert [line for line in head.lower().splitlines() if line.startswith("accept-encoding")] == [
            "accept-encoding: identity"
        ]
    text = json.dumps(SET).encode()
    server.answers[JWKS] = Answer(200, text, ("Content-Encoding: Identity",))
    assert await fetch_jwks(Issuer(server.url, "hub"), client) == SET
    for encoding in ("gzip", "identity, gzip", "x-unknown"):
        server.answers[JWKS] = Answer(200, gzip.compress(text), (f"Content-Encoding: {encoding}",))
        with pytest.raises(FetchError, match="answered with a Content-Encoding"):
            await fetch_jwks(Issuer(server.url, "hub"), client)


@pytest.mark.req("SEC-4")
async def test_discovered_jwks_uri_without_https(server: IssuerServer, client: httpx.AsyncClient) -> None:
    """Discovery does not lead out of https either."""
    for uri in ("http://keys.example/jwks", "file:///etc/passwd", "/jwks", "", "http://["):
        server.publish(OPENID, {"issuer": server.url, "jwks_uri": uri})
        with pytest.raises(FetchError, match="not an https address"):
            await fetch_jwks(Issuer(server.url, "hub"), client)


@pytest.mark.req("SEC-4")
@pytest.mark.parametrize(
    ("url", "secure"),
    [
        ("https://idp.example", True),
        ("http://localhost:9000/a", True),
        ("http://127.0.0.1", True),
        ("http://127.8.8.8", True),
        ("http://[::1]:80", True),
        ("http://idp.example", False),
        ("http://localhost.example", False),
        ("http://127.0.0.1.example", False),
        ("http://127.0.0.1@idp.example", False),
        ("ftp://localhost", False),
        ("https://", False),
        ("idp.example", False),
        ("http://[", False),
    ],
)
def test_is_secure(url: str, secure: bool) -> None:
    """https, or http that never leaves the machine."""
    assert is_secure(url) is secure


@pytest.mark.req("SEC-4")
def test_is_secure_allow_insecure() -> None:
    """ALLOW_INSECURE allows http, and nothing else."""
    assert is_secure("http://idp.example", allow_insecure=True)
    assert not is_secure("ftp://idp.example", allow_insecure=True)
    assert not is_secure("http://", allow_insecure=True)
