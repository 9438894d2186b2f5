"""SEC-6: what the environment says of proxies, as the hub and the Python client read it; both have the same rules."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from fhircast_client import proxies as of_the_client
from fhircast_hub.settings import outbound_proxies as of_the_hub
from tests.auth.issuer_server import IssuerServer
from tests.certificates import make_certificate
from tests.proxy_environment import JUNK, ODD, reads, say_of_proxies
from tests.running import running_hub

SetEnvironment = Callable[..., None]
PROXY = "http://proxy.example:3128"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> SetEnvironment:
    """Sets what the environment says of proxies."""
    say_of_proxies(monkeypatch)
    return partial(say_of_proxies, monkeypatch)


def proxy_of(url: str) -> str | None:
    """The proxy for `url`, on which both agree."""
    found = of_the_hub.Proxies().of(httpx.URL(url))
    assert of_the_client._Proxies().of(httpx.URL(url)) == found
    return found and found[1]


@pytest.mark.req("SEC-6", "SEC-10")
@pytest.mark.parametrize(
    ("entry", "direct", "proxied"),
    [
        ("*", ["http://a.example", "https://[::1]", "http://10.0.0.1:8080"], []),
        (
            "example.org",
            ["https://example.org", "https://A.EXAMPLE.org:8443"],
            ["https://anexample.org", "https://org"],
        ),
        (".example.org", ["https://example.org", "https://a.example.org"], ["https://anexample.org"]),
        ("*.example.org", ["https://example.org", "https://a.b.example.org"], ["https://anexample.org"]),
        ("example.org:8443", ["https://example.org:8443"], ["https://example.org"]),
        ("example.org:443", ["https://example.org", "https://example.org:443"], ["http://example.org"]),
        ("https://example.org", ["https://example.org"], ["http://example.org"]),
        ("localhost", ["http://localhost:8080"], ["http://127.0.0.1"]),
        ("10.1.2.3", ["http://10.1.2.3"], ["http://10.1.2.4", "http://110.1.2.3"]),
        ("10.0.0.0/8", ["http://10.1.2.3"], ["http://11.0.0.1", "http://ten.example", "http://[::1]"]),
        ("10.0.0.7/8", ["http://10.1.2.3"], ["http://11.0.0.1"]),
        ("::1", ["http://[::1]:8080"], ["http://[::2]"]),
        ("[::1]", ["http://[::1]", "http://[0:0:0:0:0:0:0:1]"], ["http://[::2]", "http://1"]),
        ("[::1]:8080", ["http://[::1]:8080"], ["http://[::1]"]),
        ("fd00::/8", ["http://[fd12::7]"], ["http://[fe80::1]", "http://10.0.0.1", "http://fd00"]),
        ("[fd00::]/8", ["http://[fd12::7]"], ["http://[fe80::1]"]),
        ("münchen.example", ["http://a.münchen.example"], ["http://munchen.example"]),
        (
            ODD,
            ["http://[::1]", "http://[fd12::7]"],
            ["http://a.example", "http://10.0.0.1", "http://x", "http://[::2]"],
        ),
    ],
)
def test_who_is_asked_directly(environment: SetEnvironment, entry: str, direct: list[str], proxied: list[str]) -> None:
    """Hosts and those below them, of a port, addresses and networks; what is not understood exempts nobody."""
    environment(HTTP_PROXY=PROXY, https_proxy=PROXY, NO_PROXY=f"other.example, {entry} ,")
    assert [url for url in direct if proxy_of(url) is not None] == []
    assert [url for url in proxied if proxy_of(url) != PROXY] == []


@pytest.mark.req("SEC-6")
def test_which_proxy_is_taken(environment: SetEnvironment) -> None:
    """That of the scheme, else that of all."""
    assert proxy_of("http://a.example") is None
    environment(HTTPS_PROXY=" tls.example:3128 ", ALL_PROXY="http://all.example", FTP_PROXY="http://ftp.example")
    assert proxy_of("https://a.example") == "tls.example:3128"
    assert proxy_of("http://a.example") == "http://all.example"
    environment(HTTP_PROXY=PROXY)
    assert proxy_of("https://a.example") is None


def client_of(package: ModuleType) -> httpx.AsyncClient:
    if package is of_the_hub:
        return httpx.AsyncClient(transport=of_the_hub.ProxiedTransport())
    return of_the_client.http_client(5)


both = pytest.mark.parametrize("package", [of_the_hub, of_the_client], ids=["hub", "client"])


@pytest.mark.req("SEC-6")
@both
async def test_a_request_goes_by_way_of_the_proxy(environment: SetEnvironment, package: ModuleType) -> None:
    """As a whole URL over HTTP, by CONNECT over HTTPS; and past it to who is exempt."""
    async with IssuerServer() as proxy, IssuerServer() as near:
        proxy.publish("http://a.invalid/x", {"from": "afar"})
        near.publish("/x", {"from": "near"})
        environment(
            ALL_PROXY=proxy.url.removeprefix("http://"), NO_PROXY=f"127.0.0.1:{near.url.rpartition(':')[2]},{ODD}"
        )
        async with client_of(package) as client:
            assert (await client.get("http://a.invalid/x")).json() == {"from": "afar"}
            assert (await client.get(f"{near.url}/x")).json() == {"from": "near"}
            with pytest.raises(httpx.ProxyError, match="404"):
                await client.get("https://a.invalid/x")
        assert proxy.asked == {"http://a.invalid/x": 1, "a.invalid:443": 1}


@pytest.mark.req("SEC-6")
@both
async def test_certificates_are_read_for_tls_alone(
    environment: SetEnvironment, monkeypatch: pytest.MonkeyPatch, package: ModuleType
) -> None:
    """Once. Without TLS nothing is read, and nobody trusted."""
    read = reads(monkeypatch, httpx, "create_ssl_context")
    environment()
    async with (
        IssuerServer() as near,
        client_of(package)
        if package is of_the_hub
        else of_the_client.http_client(5, httpx.create_ssl_context) as client,
    ):
        near.publish("/x", {})
        assert (await client.get(f"{near.url}/x")).status_code == 200
        assert not read
        for _ in range(2):
            with pytest.raises(httpx.ConnectError):  # nobody listens there
                await client.get("https://127.0.0.1:1/x")
    assert len(read) == 1
    assert read[0].get_ca_certs()


@pytest.mark.req("SEC-6")
async def test_the_operator_is_told_of_unreadable_certificates_once(
    environment: SetEnvironment,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """However many requests fail."""
    environment()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    async with client_of(of_the_hub) as client:
        for _ in range(2):
            with pytest.raises(httpx.ConnectError, match=r"^SSL_CERT_FILE must name certificates in PEM: No such file"):
                await client.get("https://127.0.0.1:1/x")
    assert capsys.readouterr().out.count("certificates cannot be read") == 1


@pytest.mark.req("SEC-6")
@both
@pytest.mark.parametrize("trusted", [True, False])
async def test_a_proxy_that_speaks_tls(
    environment: SetEnvironment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: ModuleType, trusted: bool
) -> None:
    """The authorities of the other servers count for the proxy too."""
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 418 Teapot\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        environment(HTTP_PROXY=f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with client_of(package) as client:
            if trusted:
                assert (await client.get("http://a.invalid/x")).status_code == 418
            else:
                with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                    await client.get("http://a.invalid/x")


@pytest.mark.req("SEC-6")
@both
@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_a_socks_proxy_without_its_package(
    environment: SetEnvironment, monkeypatch: pytest.MonkeyPatch, package: ModuleType, scheme: str
) -> None:
    """Only what would go through it is refused, with the package's name, and without the proxy's password."""
    monkeypatch.setitem(sys.modules, "socksio", None)
    async with IssuerServer() as near:
        near.publish("/x", {})
        environment(ALL_PROXY=f"{scheme}://me:s3cr3t@proxy.example:1080", NO_PROXY=f"127.0.0.1,{ODD}")
        async with client_of(package) as client:
            assert (await client.get(f"{near.url}/x")).status_code == 200
            with pytest.raises(httpx.ProxyError) as refused:
                await client.get("https://a.invalid/x")
    assert str(refused.value) == "ALL_PROXY names a SOCKS proxy, and the Python package socksio is not installed"


@pytest.mark.req("SEC-6")
@both
@pytest.mark.parametrize("junk", JUNK)
async def test_a_proxy_that_is_none(environment: SetEnvironment, package: ModuleType, junk: str) -> None:
    """A text that is no address of a proxy refuses what would go through it, by the name of the variable and its length."""
    environment(HTTP_PROXY=junk)
    async with client_of(package) as client:
        line = rf"^HTTP_PROXY must be the URL of a proxy .*, not a text of length {len(junk)}$"
        with pytest.raises(httpx.ProxyError, match=line):
            await client.get("http://a.invalid/x")


@pytest.mark.req("SEC-6")
async def test_the_operator_is_told_once(
    environment: SetEnvironment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However many requests a proxy refuses that cannot be used, one line says why."""
    monkeypatch.setitem(sys.modules, "socksio", None)
    environment(ALL_PROXY="socks5://me:s3cr3t@proxy.example", HTTPS_PROXY="foo bar")
    async with client_of(of_the_hub) as client:
        for url in ("http://a.invalid", "http://b.invalid", "https://a.invalid", "https://b.invalid"):
            with pytest.raises(httpx.ProxyError):
                await client.get(url)
    printed = capsys.readouterr().out
    assert printed.count("proxy cannot be used") == 2
    assert printed.count("ALL_PROXY names a SOCKS proxy") == printed.count("HTTPS_PROXY must be") == 1
    assert "s3cr3t" not in printed


@pytest.mark.req("SEC-6", "SEC-11")
async def test_a_hub_asks_an_issuer_on_loopback_directly(environment: SetEnvironment) -> None:
    """Whatever proxies the environment names."""
    async with IssuerServer() as proxy:
        environment(ALL_PROXY=proxy.url, HTTP_PROXY="foo bar", NO_PROXY=f"example.org,{ODD}")
        async with running_hub() as hub:
            assert (await hub.context()).status_code == 200
        assert not proxy.asked


@pytest.mark.req("SEC-6")
@pytest.mark.parametrize(
    ("variables", "ws", "wss"),
    [
        ({}, None, None),
        ({"HTTP_PROXY": PROXY}, PROXY, None),
        ({"HTTPS_PROXY": "tls.example", "HTTP_PROXY": PROXY}, "http://tls.example", "http://tls.example"),
        ({"WSS_PROXY": PROXY, "ALL_PROXY": "http://all.example"}, "http://all.example", PROXY),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": f"hub.example,{ODD}"}, None, None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "hub.example:443"}, PROXY, None),
    ],
)
def test_which_proxy_a_websocket_takes(
    environment: SetEnvironment, variables: dict[str, str], ws: str | None, wss: str | None
) -> None:
    """As the requests to its hub do, after those that RFC 6455 prefers."""
    environment(**variables)
    assert of_the_client.websocket_proxy("ws://hub.example/ws/x") == ws
    assert of_the_client.websocket_proxy("wss://hub.example/ws/x") == wss
    assert of_the_client.websocket_proxy("wss://hub:x") is None


@pytest.mark.req("SEC-6")
def test_a_websocket_through_socks(environment: SetEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package python-socks; without, one sentence."""
    for variables, proxy in (
        ({"SOCKS_PROXY": "http://h:1080"}, "socks5h://h:1080"),
        ({"ALL_PROXY": "socks5://me:s3cr3t@h"}, "socks5://me:s3cr3t@h"),
    ):
        environment(**variables)
        monkeypatch.setattr(of_the_client, "find_spec", lambda name: name)
        assert of_the_client.websocket_proxy("wss://hub.example") == proxy
        monkeypatch.setattr(of_the_client, "find_spec", lambda name: None)
        with pytest.raises(of_the_client.UnusableProxy) as refused:
            of_the_client.websocket_proxy("wss://hub.example")
        (variable,) = variables
        expected = f"{variable} names a SOCKS proxy, and the Python package python-socks is not installed"
        assert str(refused.value) == expected


@pytest.mark.req("SEC-6")
@pytest.mark.parametrize("junk", [*JUNK, "http://me@h", "http://h/path", "http://me:%ff@h"])
def test_a_websocket_through_junk(environment: SetEnvironment, junk: str) -> None:
    """One sentence, without what came."""
    environment(WSS_PROXY=junk)
    with pytest.raises(
        of_the_client.UnusableProxy,
        match=rf"^WSS_PROXY must be the URL of a proxy .*, not a text of length {len(junk)}$",
    ):
        of_the_client.websocket_proxy("wss://hub.example")
