"""The hub connects to callbacks only by allowed schemes, ports and networks."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fhircast_hub.settings.outbound_proxies import UnusableCertificates
from fhircast_hub.webhook import resolver
from fhircast_hub.webhook.address_guard import ForbiddenAddress, Guard, GuardedBackend
from fhircast_hub.webhook.client import NO_ANSWER
from tests.certificates import make_certificate
from tests.running import event, running_hub, until
from tests.webhook.address_world import Names, client
from tests.webhook.callback_server import LOOPBACK, CallbackServer, ask, hub_and_callbacks, subscribe

# --- schemes, redirects, proxies ---


@pytest.mark.req("WHK-10", "SEC-5")
@pytest.mark.parametrize(("insecure", "status"), [(False, 400), (True, 202)])
async def test_http_to_a_public_address_is_refused(
    insecure: bool, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless ALLOW_INSECURE; which opens no private network."""
    async with running_hub(allow_insecure=insecure) as hub:
        Names(monkeypatch, **{"app.example": [["8.8.8.8"], []], "inside.example": [["10.0.0.1"]]})
        answer = await ask(hub, "http://app.example/")
        assert answer.status_code == status
        assert insecure or "http" in answer.text
        assert (await ask(hub, "http://inside.example/")).status_code == 400
        assert (await ask(hub, "https://inside.example/")).status_code == 400


@pytest.mark.req("WHK-10", "SEC-5", "WHK-21")
async def test_a_public_address_at_another_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 that names the port; also where the name cannot be resolved now, for no network is allowed."""
    async with running_hub() as hub:
        addresses: dict[str, list[list[str]]] = {"app.example": [["8.8.8.8"]], "later.example": [[]]}
        Names(monkeypatch, **addresses)
        for name in ("app.example", "later.example", "8.8.8.8"):
            for port in (22, 80, 444, 8080, 9200):
                refused = await ask(hub, f"https://{name}:{port}/")
                assert refused.status_code == 400, (name, port)
                assert f"its port must be 443 or 8443, not {port}, outside FHIRCAST_WEBHOOK" in refused.text


@pytest.mark.req("WHK-10", "SEC-5", "WHK-21")
@pytest.mark.parametrize("networks", [(), ("192.0.2.0/24",)], ids=["none allowed", "another allowed"])
@pytest.mark.parametrize("insecure", [False, True])
async def test_public_addresses_are_asked_at_the_ports_of_their_scheme(
    insecure: bool, networks: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """443 and 8443 by https; 80 and 8080 by http, with ALLOW_INSECURE alone."""
    Names(monkeypatch, **{"app.example": [["8.8.8.8"]]})
    guarding = Guard([ipaddress.ip_network(network) for network in networks], allow_insecure=insecure)
    open_: dict[bool, list[int]] = {True: [], False: []}
    for secure, ports in open_.items():
        for port in (1, 22, 80, 443, 444, 8080, 8443, 65535):
            with contextlib.suppress(ForbiddenAddress):
                assert await guarding.addresses("app.example", port, secure=secure) == ["8.8.8.8"]
                ports.append(port)
    assert open_ == {True: [443, 8443], False: [80, 8080] if insecure else []}


@pytest.mark.req("WHK-10", "SEC-5")
async def test_other_ports_are_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should one get that far; a network that is allowed is so at any port, though others are not."""
    async with CallbackServer() as server, client(["127.0.0.1"]) as posting:
        Names(monkeypatch, **{"app.example": [["8.8.8.8"]]})
        with pytest.raises(ForbiddenAddress, match="not 25"):
            await posting.request("POST", "https://app.example:25/", 2.0)
        assert (await posting.request("POST", server.url(), 2.0)).status == 200


# --- networks that are forbidden ---


@pytest.mark.req("SEC-5")
async def test_a_forbidden_network_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should one get that far: the name had another address before."""
    async with client(forbidden=["8.8.0.0/16"]) as posting:
        Names(monkeypatch, **{"app.example": [["8.8.8.8"]]})
        with pytest.raises(ForbiddenAddress, match="FORBIDDEN_NETWORKS"):
            await posting.request("POST", "https://app.example/", 2.0)


@pytest.mark.req("SEC-5", "WHK-10", "SEC-8")
@pytest.mark.parametrize(
    ("allowed", "forbidden", "status"),
    [
        (["127.0.0.0/8"], ["127.0.0.1/32"], 0),
        (["127.0.0.1/32"], ["127.0.0.0/8"], 200),
        (["127.0.0.0/8"], ["127.0.0.0/8"], 0),
        (["127.0.0.0/8"], ["::ffff:127.0.0.1/128"], 0),
        (["::ffff:127.0.0.1/128"], ["127.0.0.0/8"], 200),
        (["127.0.0.0/8"], ["128.0.0.0/8", "::/0"], 200),
    ],
)
async def test_of_two_networks_the_narrower_counts(allowed: list[str], forbidden: list[str], status: int) -> None:
    """Of two that are the same, the forbidden one."""
    async with CallbackServer() as server, client(allowed, forbidden=forbidden) as posting:
        try:
            answer = (await posting.request("POST", server.url(), 2.0)).status
        except ForbiddenAddress:
            answer = 0
        assert (answer, server._connections) == (status, bool(status))


@pytest.mark.req("WHK-7", "WHK-8")
async def test_connections_that_are_kept_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses of the last callbacks are kept. A user with ever new callbacks leaves the hub its files."""
    monkeypatch.setattr("fhircast_hub.webhook.client.KEPT_CALLBACKS", 2)
    async with CallbackServer() as server, client(LOOPBACK) as posting:
        for path in ("/1", "/2", "/3", "/4", "/5", "/5"):
            assert (await posting.request("POST", server.url(path), 5.0)).status == 200
        assert [callback for _, callback in posting._pools] == [server.url(path) for path in ("/4", "/5")]
        assert server._connections == 5


@pytest.mark.req("SEC-5")
async def test_http_to_a_public_address_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should one get that far."""
    async with client() as posting:
        Names(monkeypatch, **{"app.example": [["8.8.8.8"]]})
        with pytest.raises(ForbiddenAddress):
            await posting.request("POST", "http://app.example/", 2.0)


@pytest.mark.req("SEC-5")
async def test_no_file_is_a_callback() -> None:
    """Not that httpcore would ask."""
    backend = GuardedBackend(Guard([], allow_insecure=False), secure=False)
    with pytest.raises(ForbiddenAddress):
        await backend.connect_unix_socket("/run/some.sock")


@pytest.mark.req("SEC-5", "WHK-3", "SEC-11")
async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect to wherever it likes."""
    async with CallbackServer() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with hub_and_callbacks() as (hub, server):
            await subscribe(hub, server)
            await hub.publish(event("Patient-open"))
            await server.posted(1)
        assert proxy._connections == 0


# --- TLS ---


@contextlib.asynccontextmanager
async def tls_server(certificate: Path, key: Path) -> AsyncIterator[tuple[int, list[str | None], list[bytes]]]:
    """A server with TLS that answers 200: its port, the names it was asked for, and the heads of the requests."""
    asked: list[str | None] = []
    heads: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = lambda _, name, __: asked.append(name)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], asked, heads


@pytest.mark.req("SEC-5")
@pytest.mark.parametrize(
    ("certified", "trusted", "status"),
    [("app.example", True, 200), ("other.example", True, 0), ("app.example", False, 0)],
    ids=["its own", "another's", "nobody's"],
)
async def test_tls_and_host_keep_the_name_of_the_url(
    certified: str, trusted: bool, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server at the address is asked for the name, and must prove the name. Otherwise nothing is posted."""
    certificate, key = make_certificate(tmp_path, certified)
    async with tls_server(certificate, key) as (port, asked, heads), client(LOOPBACK) as posting:
        Names(monkeypatch, **{"app.example": [["127.0.0.1"]]})
        if trusted:  # as the certificates of a hospital's own authority are
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        answer = await posting.request("POST", f"https://APP.example:{port}/callback", 5.0, b"{}")
        assert answer.status == status
        assert asked == ["app.example"]
        assert [f"Host: app.example:{port}\r\n".encode() in head for head in heads] == [True] * bool(status)


@pytest.mark.req("SEC-5")
async def test_without_readable_certificates_a_post_fails() -> None:
    """The certificates are those of the hub's other requests, which can be unreadable."""

    asked = []

    def unreadable() -> ssl.SSLContext:
        asked.append(1)
        raise UnusableCertificates("SSL_CERT_FILE must name certificates in PEM: No such file or directory")

    async with client(LOOPBACK, certificates=unreadable) as posting:
        assert await posting.request("POST", "https://127.0.0.1:1/callback", 5.0, b"{}") == NO_ANSWER
        assert len(asked) == 1


@pytest.mark.req("SEC-5", "SEC-6")
async def test_callbacks_are_trusted_as_the_hubs_other_servers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log says that the certificates of all cannot be read."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    printed = ""

    def is_told() -> bool:
        nonlocal printed
        printed += capsys.readouterr().out
        return "certificates cannot be read" in printed

    async with hub_and_callbacks() as (hub, _):
        assert (await ask(hub, "https://127.0.0.1:1/callback")).status_code == 202
        await until(is_told)


@pytest.mark.req("SEC-5")
async def test_an_ipv6_address_is_in_brackets_in_the_host_header() -> None:
    """RFC 3986 section 3.2.2; else servers answer 400."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "::1", 0) as server, client(["::1/128"]) as posting:
        port = server.sockets[0].getsockname()[1]
        assert (await posting.request("GET", f"http://[::1]:{port}/", 5.0)).status == 200
    assert f"Host: [::1]:{port}\r\n".encode() in heads[0]


@pytest.mark.req("WHK-14")
@pytest.mark.parametrize(
    ("spellings", "name"),
    [
        (["8.8.8.8", "8.8.2056", "0x08080808", "010.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808"], "8.8.8.8"),
        (["2001:4860::1", "2001:4860:0:0::0001"], "2001:4860::1"),
        (["app.example", "APP.Example", "app.example."], "app.example"),
        (["a" * 70 + ".example"], "a" * 70 + ".example"),
    ],
)
def test_a_host_has_one_name_however_it_is_spelled(spellings: list[str], name: str) -> None:
    """Else one host could be asked many questions at once."""
    assert {resolver.one_name(spelling) for spelling in spellings} == {name}
