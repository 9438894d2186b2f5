"""OPS-23: the store and the audit trail, as `check-config --online` tells of them. Nothing is made or changed."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from fhircast_hub.online.finding import Finding
from fhircast_hub.postgresql.look import Look
from tests.auth.issuer_server import Answer, IssuerServer
from tests.certificates import make_certificate
from tests.online.online_world import about, findings
from tests.postgresql.nodes_world import nodes
from tests.running import running_hub


async def of_store(store: str, **settings: Any) -> Finding:
    return about(await findings(STORE=store, **settings), "FHIRCAST_STORE")


def files(folder: Path) -> dict[str, bytes]:
    """Names and contents of all that is in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- the store ---


@pytest.mark.req("OPS-23")
async def test_a_store_that_is_to_be_made_is_not_made(tmp_path: Path) -> None:
    finding = await of_store(f"sqlite:///{tmp_path}/hub.db")
    assert str(finding) == f"ok      FHIRCAST_STORE sqlite:///{tmp_path}/hub.db: the file can be made"
    assert files(tmp_path) == {}
    assert (await of_store("memory:")).said == "sessions are forgotten when the hub ends"


@pytest.mark.req("OPS-23")
async def test_the_store_of_a_running_hub_is_left_alone(tmp_path: Path) -> None:
    """The file opens while a hub has it, and the hub goes on."""
    store = f"sqlite:///{tmp_path}/hub.db"
    async with running_hub(store=store) as hub:
        await hub.subscribe()
        before = files(tmp_path).keys()
        finding = await of_store(store)
        assert finding.is_ok
        assert finding.said.startswith("the file opens")
        assert files(tmp_path).keys() == before
        await hub.subscribe()
    finding = await of_store(store)
    assert finding.said == "the file opens, of version 3"


#: What is in the file, and what the line says.
FILES = [
    (b"", "the file opens, and is new"),
    (b"somebody's letter" * 20, "the file is no SQLite database"),
    (b"SQLite format 3\0" + b"\0" * 44 + b"\0\0\0\x63" + b"\0" * 36, "the file has version 99, and this hub reads "),
]


@pytest.mark.req("OPS-23")
@pytest.mark.parametrize(("content", "said"), FILES, ids=[said for _, said in FILES])
async def test_what_is_in_the_place_of_the_store(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "hub.db").write_bytes(content)
    finding = await of_store(f"sqlite:///{tmp_path}/hub.db")
    assert finding.said.startswith(said)
    assert finding.is_ok is (content == b"")
    assert files(tmp_path) == {"hub.db": content}


@pytest.mark.req("OPS-23")
async def test_a_file_system_that_takes_no_files() -> None:
    """Rights alone do not tell: root has all of them at /proc."""
    finding = await of_store("sqlite:////proc/hub.db")
    assert not finding.is_ok
    assert finding.said.startswith("no file can be made in '/proc': ")


@pytest.mark.req("OPS-23", "OPS-16", "OPS-34")
async def test_a_database_tells_its_tables_and_its_promise(database: str) -> None:
    """Beside a running node. A promise with a risk is a warning. No line has the password."""
    async with nodes(database, 1) as (node,):
        parts = node.hub._shared
        assert parts is not None
        found = await findings(STORE=database, look=parts.look)
    tables, promise = about(found, " tables"), about(found, " promise")
    shown = f"FHIRCAST_STORE postgresql://***@{database.partition('@')[2]}"
    assert str(tables) == f"ok      {shown} tables: are there, version 1"
    assert str(promise).startswith(f"warning {shown} promise: accepted events survive any node; a power cut may")


@pytest.mark.req("OPS-23", "OPS-34")
@pytest.mark.parametrize("usable", [True, False])
async def test_tables_that_serve_would_refuse_fail_the_check(usable: bool) -> None:
    """The promise is told all the same."""

    async def look() -> Look:
        return Look("as they are", usable, "accepted events survive all", True)

    found = await findings(STORE="postgresql://hub@127.0.0.1/hub", look=look)
    assert [str(each).split()[0] for each in found if "STORE" in each.what] == ["ok" if usable else "FAILED", "ok"]


@pytest.mark.req("OPS-23")
async def test_a_database_that_cannot_be_asked_is_one_line() -> None:
    async def look() -> Look:
        raise ValueError("the database refuses this user or password")

    finding = about(await findings(STORE="postgresql://hub@127.0.0.1/hub", look=look), "FHIRCAST_STORE")
    assert (finding.is_ok, finding.said) == (False, "the database refuses this user or password")


# --- the audit trail ---


@pytest.mark.req("OPS-23")
async def test_a_trail_in_a_file(tmp_path: Path) -> None:
    """A file is appended to, or can be made. Neither is done."""
    audit = (tmp_path / "trail.jsonl").as_uri()
    assert about(await findings(AUDIT=audit), "FHIRCAST_AUDIT").said == "the file can be made"
    assert files(tmp_path) == {}
    (tmp_path / "trail.jsonl").write_text("{}\n")
    finding = about(await findings(AUDIT=audit), "FHIRCAST_AUDIT")
    assert (finding.is_ok, finding.said) == (True, "the file can be appended to")
    assert files(tmp_path) == {"trail.jsonl": b"{}\n"}
    (tmp_path / "folder").mkdir()
    finding = about(await findings(AUDIT=(tmp_path / "folder").as_uri()), "FHIRCAST_AUDIT")
    assert (finding.is_ok, finding.said) == (False, "the file cannot be appended to: Is a directory")
    assert about(await findings(AUDIT="-"), "FHIRCAST_AUDIT").is_ok
    assert not [each for each in await findings() if "AUDIT" in each.what]


def statement(*codes: str) -> bytes:
    """A CapabilityStatement with these interactions of the whole system."""
    rest = [{"mode": "server", "interaction": [{"code": code} for code in codes]}]
    document = {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": rest}
    return json.dumps(document).encode()


#: What /metadata answers, and parts of the line.
SERVERS: list[tuple[Answer, bool, str]] = [
    (Answer(200, statement("batch")), True, "answers as FHIR '4.0.1', and declares batches"),
    (Answer(200, statement()), True, "does not declare batches, which the hub sends"),
    (Answer(200, b'{"resourceType": "CapabilityStatement", "x": "%s"}' % (b"x" * (5 << 20))), True, "a long document"),
    (Answer(200, b'{"resourceType": "Patient"}'), False, "answers no CapabilityStatement … base URL of a FHIR server"),
    (Answer(200, b"<html>"), False, "answers no CapabilityStatement"),
    (Answer(401), False, "/metadata answers 401 … does not take the hub's credentials"),
    (Answer(403), False, "/metadata answers 403 … does not take the hub's credentials"),
    (Answer(302, headers=("Location: /",)), False, "/metadata answers 302 … follows no redirect"),
    (Answer(404), False, "/metadata answers 404 … base URL"),
]


@pytest.mark.req("OPS-23")
@pytest.mark.parametrize(("answer", "is_ok", "words"), SERVERS, ids=[words for *_, words in SERVERS])
async def test_a_fhir_server_is_asked_what_it_can(answer: Answer, is_ok: bool, words: str) -> None:
    """One GET of /metadata. Nothing is posted."""
    async with IssuerServer() as server:
        server.answers["/fhir/metadata"] = answer
        finding = about(await findings(AUDIT=f"{server.url}/fhir/"), "FHIRCAST_AUDIT")
    assert finding.is_ok is is_ok
    assert all(part in str(finding) for part in words.split(" … "))
    assert [head.partition("\r")[0] for head in server.heads] == ["GET /fhir/metadata HTTP/1.1"]


@pytest.mark.req("OPS-23", "AUD-6")
async def test_the_token_is_shown_to_the_server_and_to_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2\n")
    async with IssuerServer() as server:
        server.answers["/fhir/metadata"] = Answer(401)
        found = await findings(AUDIT=f"{server.url}/fhir", AUDIT_TOKEN_FILE=str(tmp_path / "token"))
    assert "\r\nAuthorization: Bearer hunter2\r\n" in server.heads[0]
    assert "hunter2" not in str(found)


@pytest.mark.req("OPS-23", "AUD-7")
async def test_the_certificate_is_shown_to_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that demands one is reached with it, and not without."""
    certificate, key = make_certificate(tmp_path / "server")
    own, own_key = map(str, make_certificate(tmp_path / "hub"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    tls.load_verify_locations(own)
    tls.verify_mode = ssl.CERT_REQUIRED
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with IssuerServer(tls) as server:
        server.answers["/fhir/metadata"] = Answer(200, statement("batch"))
        audit = f"{server.url}/fhir"
        with_it = await findings(AUDIT=audit, AUDIT_CERT_FILE=own, AUDIT_KEY_FILE=own_key)
        assert about(with_it, "FHIRCAST_AUDIT ").is_ok
        assert not about(await findings(AUDIT=audit), "FHIRCAST_AUDIT ").is_ok
