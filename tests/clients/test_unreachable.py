"""CLT-28: a hub that cannot be reached is explained, whether it is asked over HTTP or a WebSocket."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Request, Response

from fhircast_client import FHIRcastClient, HubError, TokenError
from fhircast_client.hub import refusal
from fhircast_client.socket import connect
from fhircast_client.testing import Answer, FakeHub
from fhircast_client.unreachable import why_unreachable
from tests.certificates import make_certificate
from tests.clients.fakes import FAST, http_through, until
from tests.clients.test_client_readme import example
from tests.ports import free_port
from tests.proxy_environment import say_of_proxies

Ask = Callable[[str], Awaitable[str]]


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever proxies the environment of the tests names, this machine is asked directly."""
    say_of_proxies(monkeypatch)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)


async def over_http(origin: str) -> str:
    """What the client says of `https://…`."""
    client = FHIRcastClient(f"{origin}/api/hub", "t")
    try:
        await client.fetch()
    except HubError as error:
        return error.message
    finally:
        await client.stop()
    return ""


async def over_a_socket(origin: str) -> str:
    """The same of the WebSocket there."""
    endpoint = f"{origin.replace('http', 'ws', 1)}/secret"
    try:
        socket = await connect(endpoint)
    except Exception as error:
        return f"the hub cannot be reached: {why_unreachable(error, endpoint)}"
    await socket.close()
    return ""


EITHER = pytest.mark.parametrize("ask", [over_http, over_a_socket])


async def _nothing(socket: ServerConnection) -> None:
    await socket.wait_closed()


def _answer(_: ServerConnection, request: Request) -> Response | None:
    """Requests get 404; handshakes are let through."""
    return None if "Upgrade" in request.headers else Response(404, "Not Found", Headers({"Content-Length": "0"}))


@asynccontextmanager
async def https(folder: Path, name: str = "127.0.0.1", *, expired: bool = False) -> AsyncIterator[tuple[str, Path]]:
    """A server with a certificate for `name` that vouches for itself: its origin, and the certificate's file."""
    certificate, key = make_certificate(folder, name, expired=expired)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    quiet = logging.getLogger("tests.quiet")
    quiet.setLevel(logging.CRITICAL)
    async with serve(_nothing, "127.0.0.1", 0, ssl=context, process_request=_answer, logger=quiet) as server:
        yield f"https://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}", certificate


@pytest.mark.req("CLT-28")
@EITHER
async def test_an_unknown_ca(ask: Ask, tmp_path: Path) -> None:
    async with https(tmp_path) as (origin, _):
        said = await ask(origin)
    assert said.startswith("the hub cannot be reached: the certificate of 127.0.0.1 is not trusted (self-signed")
    assert said.endswith("a hospital's own CA is trusted where SSL_CERT_FILE names its file")


@pytest.mark.req("CLT-28")
@EITHER
@pytest.mark.parametrize(
    ("name", "expired", "reason"), [("other.example", False, "is not valid for"), ("127.0.0.1", True, "has expired")]
)
async def test_a_certificate_that_is_not_valid(
    ask: Ask, name: str, expired: bool, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with https(tmp_path, name, expired=expired) as (origin, certificate):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        said = await ask(origin)
    assert said.startswith("the hub cannot be reached: the certificate of 127.0.0.1 is not valid (")
    assert reason in said


@pytest.mark.req("CLT-28")
@EITHER
async def test_a_hospitals_ca_by_the_environment(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with https(tmp_path) as (origin, certificate):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        said = await ask(origin)
    assert said in ("Not Found", "")


@pytest.mark.req("CLT-28")
async def test_a_hospitals_ca_as_an_option(tmp_path: Path) -> None:
    async with https(tmp_path) as (origin, certificate):
        tls = ssl.create_default_context(cafile=certificate)
        client = FHIRcastClient(f"{origin}/api/hub", "t", tls=tls)
        with pytest.raises(HubError) as error:
            await client.fetch()
        assert error.value.status == 404
        await client.stop()
        await (await connect(f"{origin.replace('http', 'ws', 1)}/e", tls)).close()


@pytest.mark.req("CLT-28")
async def test_the_readmes_example_of_a_hospitals_ca(tmp_path: Path) -> None:
    async with https(tmp_path) as (origin, certificate):
        code = example("A hospital's own CA").replace("https://hub.example.org", origin)
        space: dict[str, Any] = {"topic": "t", "get_token": "token"}
        exec(code.replace("/etc/ssl/hospital-ca.pem", str(certificate)), space)
        with pytest.raises(HubError) as error:
            await space["client"].fetch()
        await space["client"].stop()
    assert error.value.status == 404


@pytest.mark.req("CLT-28")
@EITHER
async def test_a_port_without_tls(ask: Ask) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        said = await ask(f"https://127.0.0.1:{port}")
    assert said == f"the hub cannot be reached: 127.0.0.1:{port} does not speak TLS"


@pytest.mark.req("CLT-28")
async def test_a_port_with_tls_is_asked_in_plain_http(tmp_path: Path) -> None:
    async with https(tmp_path) as (origin, _):
        said = await over_http(origin.replace("https", "http"))
        address = origin.removeprefix("https://")
    assert said == f"the hub cannot be reached: {address} gave no answer in HTTP; perhaps the hub speaks https"
    error = httpx.ReadError("hung up")
    assert why_unreachable(error, "https://hub.example/api/hub") == "ReadError"


@pytest.mark.req("CLT-28")
@EITHER
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_port_at_which_nothing_listens(ask: Ask, host: str) -> None:
    port = free_port()
    assert await ask(f"http://{host}:{port}") == f"the hub cannot be reached: nothing listens at {host}:{port}"


@pytest.mark.req("CLT-28")
@EITHER
async def test_a_name_without_an_address(ask: Ask) -> None:
    said = await ask("http://no-such-host.invalid")
    assert said == "the hub cannot be reached: no address is known for the name no-such-host.invalid"


@pytest.mark.req("CLT-28")
@EITHER
async def test_a_proxy_at_which_nothing_listens(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    say_of_proxies(monkeypatch, ALL_PROXY=f"http://127.0.0.1:{free_port()}")
    said = await ask("http://hub.example")
    assert said == "the hub cannot be reached: nothing listens at the proxy in ALL_PROXY"


@pytest.mark.req("CLT-28")
@EITHER
async def test_a_proxy_whose_certificate_is_not_trusted(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with https(tmp_path) as (origin, _):
        say_of_proxies(monkeypatch, HTTPS_PROXY=origin)
        said = await ask("https://hub.example")
    assert said.startswith("the hub cannot be reached: the certificate of the proxy in HTTPS_PROXY is not trusted (")


@pytest.mark.req("CLT-28")
async def test_a_proxy_is_trusted_as_the_hub_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy answers CONNECT with 404: it was reached."""
    async with https(tmp_path) as (origin, certificate):
        say_of_proxies(monkeypatch, HTTPS_PROXY=origin)
        tls = ssl.create_default_context(cafile=certificate)
        client = FHIRcastClient("https://hub.example/api/hub", "t", tls=tls)
        with pytest.raises(HubError) as error:
            await client.fetch()
        await client.stop()
        with pytest.raises(Exception, match=r"CONNECT|proxy") as closed:
            await connect("wss://hub.example/e", tls)
    assert "certificate" not in error.value.message + str(closed.value)


@pytest.mark.req("CLT-28")
async def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        say_of_proxies(monkeypatch, HTTPS_PROXY=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        said = await over_http("https://hub.example")
    assert said == "the hub cannot be reached: the proxy in HTTPS_PROXY answered 407 to CONNECT"


@pytest.mark.req("CLT-28")
async def test_what_the_application_was_handling_is_not_the_reason() -> None:
    port = free_port()
    try:
        raise socket.gaierror("of the application's own")
    except socket.gaierror:
        said = await over_http(f"http://127.0.0.1:{port}")
    assert said == f"the hub cannot be reached: nothing listens at 127.0.0.1:{port}"


@pytest.mark.req("CLT-28", "CLT-60")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ExceptionGroup("all", [OSError(errno.ECONNREFUSED, "refused")]), "nothing listens at hub.example:443"),
        (OSError(errno.EHOSTUNREACH, "no route"), "there is no way to hub.example from this machine"),
        (TimeoutError(), "no answer came in time"),
        (
            ssl.SSLCertVerificationError("without a code"),
            "the certificate of hub.example is not valid (no reason given)",
        ),
        (ssl.SSLError(1, "odd"), "TLS with hub.example failed (SSLError)"),
        (ssl.SSLWantReadError(2, "the ordinary course"), "SSLWantReadError"),
        (ValueError("wss://hub.example/secret"), "ValueError"),
    ],
)
def test_odd_errors_are_said_without_the_endpoint(error: Exception, said: str) -> None:
    assert why_unreachable(error, "wss://hub.example/secret") == said
    assert why_unreachable(error, "wss://\ud83d/secret") == type(error).__name__


@pytest.mark.req("CLT-28", "CLT-60")
async def test_every_try_says_why_and_no_endpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with https(tmp_path) as (origin, _):

        async def connect_there(endpoint: str) -> Any:
            return await connect(f"{origin.replace('http', 'ws', 1)}/secret")

        async with FakeHub() as hub:
            client = hub.client("viewer", connect=connect_there, timings=FAST)
            running = asyncio.create_task(client.run())
            await until(lambda: caplog.text.count("is not trusted") > 1)
            assert "is not trusted" in client.status.why
            await client.stop()
            with pytest.raises(HubError, match="stopped before"):
                await running
    assert "secret" not in caplog.text


_WORDS = 'the token is not for the audience "hub-7"'
_CHALLENGE = {"WWW-Authenticate": 'Bearer error="invalid_token", error_description="it expired at noon"'}
_PAGE = "<p>Åse Nordmann, log in</p>"
_HTML = {"Content-Type": "text/html"}


@pytest.mark.req("CLT-11", "CLT-28", "CLT-61")
@pytest.mark.parametrize(
    ("body", "headers", "words"),
    [
        (json.dumps({"message": _WORDS}), {"Content-Type": "application/json"}, _WORDS),
        ('the token is not for\nthe audience "hub-7"\n', {"Content-Type": "text/plain"}, _WORDS),
        (json.dumps({"message": _WORDS}), _CHALLENGE, _WORDS),
        ("", _CHALLENGE, "it expired at noon"),
        (_PAGE, _HTML | _CHALLENGE, "it expired at noon"),
        (_PAGE, _HTML | {"WWW-Authenticate": "Bearer"}, "Unauthorized"),
        (_PAGE, _HTML, "Unauthorized"),
    ],
)
async def test_a_401_is_explained_in_the_hubs_own_words(body: str, headers: dict[str, str], words: str) -> None:
    async def refused(usual: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return await usual.send(request)
        return httpx.Response(401, text=body, headers=headers)

    async with FakeHub() as hub, http_through(hub, "viewer", refused) as http:
        client = hub.client("viewer", http=http, timings=FAST)
        with pytest.raises(TokenError) as error:
            await client.start()
        said = f"the hub answered 401: {words}"
        assert (str(error.value), client.status.connection, client.status.why) == (said, "ended", said)
        with pytest.raises(TokenError) as error:
            await client.publish("org.example.zoom", [])
        assert str(error.value) == said


@pytest.mark.req("CLT-11", "CLT-28")
@pytest.mark.parametrize(
    ("headers", "body", "wait", "words"),
    [
        ({"Content-Type": "text/plain; charset=utf-8", "Retry-After": "7"}, "too many\nÅ", 7, "too many Å"),
        ({"Content-Type": "text/html", "Retry-After": "7"}, "<h1>Away</h1>", 7, ""),
        ({"Content-Type": "text/plain", "Retry-After": "Å"}, "", None, ""),
        ({}, "?", None, ""),
    ],
)
async def test_a_handshake_that_is_refused_says_why_and_for_how_long(
    headers: dict[str, str], body: str, wait: float | None, words: str
) -> None:
    """As a server says it, and websockets raises it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        length = len(body.encode())
        writer.write(f"HTTP/1.1 429 Too Many Requests\r\n{head}Content-Length: {length}\r\n\r\n{body}".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        with pytest.raises(InvalidStatus) as raised:
            await connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/secret")
    error = refusal(raised.value)
    assert error is not None
    assert (error.status, error.retry_after, error.message) == (429, wait, words)


@pytest.mark.req("CLT-28", "CLT-61")
async def test_the_hubs_own_words_are_shown_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    whys: list[str] = []
    async with FakeHub() as hub:
        client = hub.client("viewer", timings=FAST)
        client.on("Patient-open", lambda event: None)
        client.on_status(lambda status: whys.append(status.why))
        async with client:
            hub.answer_next("subscribe", Answer(503, "Åse Nordmann has too many"))
            hub.deny(reason=f"the  session\nended {'x' * 400}")
            await until(lambda: len(whys) > 2 and client.status.in_sync, lambda: whys)
    assert any(why == f"the hub ended the subscription: the session ended {'x' * 282}" for why in whys), whys
    assert "the hub answered 503: Åse Nordmann has too many" in whys
    assert "the hub ended the subscription; the client reconnects" in caplog.text
    assert "the hub answered 503; the client reconnects" in caplog.text
    assert "Åse" not in caplog.text


@pytest.mark.req("CLT-28", "CLT-62")
@pytest.mark.parametrize(
    "url",
    ["", "hub.example.org/api/hub", "localhost:8080/api/hub", "wss://hub.example.org", "https:///api", "/api/hub"],
)
def test_a_hub_url_that_is_none_is_an_error_at_once(url: Any) -> None:
    with pytest.raises(ValueError, match=r"^hub\.url must be a URL such as https://") as error:
        FHIRcastClient(url, "t")
    assert repr(url) in str(error.value)


@pytest.mark.req("CLT-28", "CLT-62")
def test_a_hub_url_with_a_password_is_not_shown() -> None:
    for url in (
        "https://me:s3cret@hub.example.org/",
        "https://me:s3cret@h:99999/",
        "me:s3cret@h/api",
        " ws://me:s3cret@h",
    ):
        with pytest.raises(ValueError, match=r"must not contain a user or password|not a text with @") as error:
            FHIRcastClient(url, "t")
        assert "s3cret" not in str(error.value)


@pytest.mark.req("CLT-28", "CLT-62")
@pytest.mark.parametrize("topic", [None, "", 7])
def test_a_topic_that_is_none_is_an_error_at_once(topic: Any) -> None:
    with pytest.raises(ValueError, match=r"^hub\.topic must be a text that is not empty, not "):
        FHIRcastClient("https://hub.example.org/api/hub", topic)
