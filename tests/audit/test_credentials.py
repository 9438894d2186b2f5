"""AUD-6, AUD-7: how the hub shows a FHIR server who it is: by a token or a certificate, each in files."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from fhircast_hub.audit import sink as writing
from tests.audit.audit_world import FhirStub
from tests.certificates import make_certificate
from tests.counted import counted
from tests.proxy_environment import pass_on, say_of_proxies
from tests.running import RunningHub, running_hub, until

TOKEN = "hunter2.first-token_~+/=="
LATER = "hunter2.second"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses in thousandths. The environment says nothing of proxies and authorities."""
    monkeypatch.setattr(writing, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(writing, "LONGEST_WAIT", 0.08)
    say_of_proxies(monkeypatch)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


async def brought(hub: RunningHub) -> None:
    """Have the hub make an entry, and wait until the server has taken it."""
    await hub.context()
    await until(lambda: not hub.hub.audit._waiting)


# --- a token ---


@pytest.mark.req("AUD-6")
async def test_the_token_of_the_file_is_sent(tmp_path: Path) -> None:
    """The line without its end, as a bearer token."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    stub = FhirStub()
    stub.wanted = f"Bearer {TOKEN}"
    async with stub.running() as base, running_hub(audit=base, audit_token_file=str(file)) as hub:
        await brought(hub)
        assert set(stub.tokens) == {f"Bearer {TOKEN}"}
        assert counted(hub.hub.metrics.audit_lost) == 0


@pytest.mark.req("AUD-6", "SEC-1")
async def test_a_new_token_counts_from_the_next_batch(tmp_path: Path) -> None:
    """The file is replaced as Kubernetes does, by a link. What the server refused meanwhile is brought again, and no log has a token."""
    for name, token in (("old", TOKEN), ("new", LATER)):
        (tmp_path / name).write_text(token)
    file = tmp_path / "token"
    file.symlink_to("old")
    stub = FhirStub()
    stub.wanted = f"Bearer {TOKEN}"
    with capture_logs() as logs:
        async with stub.running() as base, running_hub(audit=base, audit_token_file=str(file)) as hub:
            await brought(hub)
            stub.wanted = f"Bearer {LATER}"
            await hub.context()
            await until(lambda: any(line["event"] == "audit sink fails" for line in logs))
            (tmp_path / "next").symlink_to("new")
            (tmp_path / "next").replace(file)
            await until(lambda: not hub.hub.audit._waiting)
            assert stub.tokens[-1] == f"Bearer {LATER}"
            assert counted(hub.hub.metrics.audit_lost) == 0
    assert {line["reason"] for line in logs if line["event"] == "audit sink fails"} == {"answered 401"}
    assert "hunter2" not in str(logs)


@pytest.mark.req("AUD-6")
@pytest.mark.parametrize("content", [None, "", "hunter2 hunter2"])
async def test_a_token_file_that_becomes_unusable_is_tried_again(tmp_path: Path, content: str | None) -> None:
    """The log has the path and the reason. Nothing is sent meanwhile, and nothing lost."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    stub = FhirStub()
    with capture_logs() as logs:
        async with stub.running() as base, running_hub(audit=base, audit_token_file=str(file)) as hub:
            file.unlink() if content is None else file.write_text(content)
            await hub.context()
            await until(lambda: any(line["event"] == "audit sink fails" for line in logs))
            assert not stub.requests
            file.write_text(LATER)
            await until(lambda: not hub.hub.audit._waiting)
            assert set(stub.tokens) == {f"Bearer {LATER}"}
    (reason,) = {line["reason"] for line in logs if line["event"] == "audit sink fails"}
    assert reason.startswith(f"FHIRCAST_AUDIT_TOKEN_FILE names '{file}', which ")
    assert "hunter2" not in str(logs)


@pytest.mark.req("AUD-6")
async def test_no_redirect_gets_the_token(tmp_path: Path) -> None:
    """Another server would learn it."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    there, here = FhirStub(), FhirStub()
    here.status = 307
    async with there.running() as other, here.running() as base:
        here.location = other
        async with running_hub(audit=base, audit_token_file=str(file)) as hub:
            await hub.context()
            await until(lambda: len(here.requests) >= 2)
            here.status = 200
            await until(lambda: not hub.hub.audit._waiting)
    assert not there.requests


# --- a certificate ---


class Hospital:
    """A FHIR server with TLS that demands the hub's certificate, and the files of both."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stub = FhirStub()
        certificate, key = make_certificate(folder / "server")
        self.of_hub = make_certificate(folder / "hub")
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate, key)
        self.tls.load_verify_locations(self.of_hub[0])
        self.tls.verify_mode = ssl.CERT_REQUIRED
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    @property
    def files(self) -> dict[str, Any]:
        return {"audit_cert_file": str(self.of_hub[0]), "audit_key_file": str(self.of_hub[1])}

    @asynccontextmanager
    async def audited(self, **settings: Any) -> AsyncIterator[RunningHub]:
        """A hub that brings its trail here."""
        async with self.stub.running(self.tls) as base, running_hub(audit=base, **settings) as hub:
            yield hub


@pytest.fixture
def hospital(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    return Hospital(tmp_path, monkeypatch)


@pytest.mark.req("AUD-7")
async def test_a_server_that_demands_a_certificate_gets_it(hospital: Hospital, tmp_path: Path) -> None:
    """And the token as well, where there is one."""
    (tmp_path / "token").write_text(TOKEN)
    async with hospital.audited(**hospital.files, audit_token_file=str(tmp_path / "token")) as hub:
        await brought(hub)
        assert hospital.stub.tokens[0] == f"Bearer {TOKEN}"


@pytest.mark.req("AUD-7")
async def test_without_a_certificate_such_a_server_takes_nothing(hospital: Hospital) -> None:
    with capture_logs() as logs:
        async with hospital.audited() as hub:
            await hub.context()
            await until(lambda: any(line["event"] == "audit sink fails" for line in logs))
            assert not hospital.stub.requests


@pytest.mark.req("AUD-7", "SEC-6")
async def test_a_certificate_through_a_proxy(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy passes the bytes of TLS on, and is shown no certificate. The trail's server is no loopback for the hub here."""
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().partition("\r")[0])
        there, back = await asyncio.open_connection("127.0.0.1", int(asked[-1].split()[1].rpartition(":")[2]))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    monkeypatch.setattr("fhircast_hub.app.LOOPBACK", ())
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as proxy:
        say_of_proxies(monkeypatch, HTTPS_PROXY=f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        async with hospital.audited(**hospital.files) as hub:
            await brought(hub)
    assert asked[0].startswith("CONNECT 127.0.0.1:")


@pytest.mark.req("AUD-7")
async def test_issuers_are_not_shown_the_certificate(hospital: Hospital) -> None:
    """The client of issuers and callbacks has no certificate."""
    async with hospital.audited(**hospital.files) as hub:
        base = hub.hub._settings.audit or ""
        with pytest.raises(httpx.TransportError):
            await hub.hub._client.post(base, content=b'{"entry": []}')
        assert not hospital.stub.requests
        assert (await hub.hub._audit_client.post(base, content=b'{"entry": []}')).status_code == 200
