"""SEC-4 with a shared store: with sslmode=verify-full, the database must show a certificate of its name."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from fhircast_hub.postgresql.connect import Connector
from fhircast_hub.postgresql.database import Database
from fhircast_hub.postgresql.schema import upgrade
from fhircast_hub.settings.database_url import parse
from tests.certificates import make_certificate
from tests.postgresql.programs import give, server_folder
from tests.postgresql.server import PostgresServer


class Secured:
    """A database with a certificate for 127.0.0.1."""

    def __init__(self, server: PostgresServer, authority: Path) -> None:
        self.server, self.authority = server, authority

    def url(self, host: str = "127.0.0.1", authority: Path | None = None) -> str:
        """The URL that wants a certificate of this host, by this authority."""
        url = self.server.url().replace("127.0.0.1", host)
        return f"{url}?sslmode=verify-full&sslrootcert={authority or self.authority}"


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    with server_folder() as folder:
        certificate, key = make_certificate(folder)
        key.chmod(0o600)
        give(certificate)
        give(key)
        files = {"ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
        with PostgresServer.make(folder, fsync=False, ssl=True, **files) as server:
            yield Secured(server, certificate)


async def facts(url: str) -> tuple[bool, int]:
    """Whether the connection is encrypted, and after how many milliseconds the kernel gives it up."""
    connection = await Connector(parse(url), None).connect("test")
    is_encrypted = await connection.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
    plain = connection._transport.get_extra_info("socket")
    found = bool(is_encrypted), plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    await connection.close()
    await asyncio.sleep(0)
    return found


@pytest.mark.req("SEC-4")
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_certificate_of_the_hosts_name_is_enough(secured: Secured, run: Any) -> None:
    assert run(facts(secured.url())) == (True, 5000)


@pytest.mark.req("SEC-4", "SEC-3", "OPS-35")
async def test_another_name_and_another_authority_are_refused(secured: Secured, tmp_path: Path) -> None:
    """In one line each, with the setting to check. The database was reached."""
    stranger, _ = make_certificate(tmp_path)
    begin = "^the database cannot be used: HOST:[0-9]+ shows a certificate that is not trusted "
    untrusted = r"\(self-signed certificate\); check sslrootcert in FHIRCAST_STORE$"
    misnamed = (
        r"\(Hostname mismatch, .*'localhost'\); check the host in FHIRCAST_STORE, which the certificate must name$"
    )
    for host, authority, end in (("localhost", None, misnamed), ("127.0.0.1", stranger, untrusted)):
        with pytest.raises(ValueError, match=begin.replace("HOST", host) + end) as caught:
            await upgrade(Database(secured.url(host, authority)))
        assert str(caught.value).isprintable()
        assert secured.server.password not in str(caught.value)


@pytest.mark.req("SEC-3", "OPS-35")
async def test_a_file_that_is_no_certificate_is_one_line(secured: Secured, tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("Dear database", encoding="ascii")
    with pytest.raises(ValueError, match=r"^the database cannot be reached: .*; check sslrootcert, sslcert ") as caught:
        await upgrade(Database(secured.url(authority=tmp_path / "letter")))
    assert str(caught.value).isprintable()
