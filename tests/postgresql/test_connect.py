"""Connecting: hosts that hang, stand by, or are away are passed over; a dead connection is noticed."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import uvloop

from fhircast_hub.postgresql.connect import Connector, NoHost, keep_alive, may_pass
from fhircast_hub.postgresql.database import Busy, Database, DatabaseError, Fenced, Link, Lost, refused_start
from fhircast_hub.postgresql.refusals import why
from fhircast_hub.postgresql.schema import upgrade
from fhircast_hub.service.ports import StoreAway
from fhircast_hub.settings.database_url import parse
from tests.postgresql.programs import server_folder
from tests.postgresql.server import PostgresServer


class Silent:
    """A host that takes connections, and says nothing on them."""

    def __init__(self) -> None:
        self.port, self.connections = 0, 0

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.read()
        writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with await asyncio.start_server(self._take, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield


@pytest.fixture
async def silent() -> AsyncIterator[Silent]:
    host = Silent()
    async with host.running():
        yield host


@pytest.fixture(scope="module")
def standby(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """A server that answers, and takes no changes."""
    with server_folder() as folder, postgres_server.standby(folder / "standby") as server:
        yield server


def with_hosts(database: str, *ports: int, parameters: str = "connect_timeout=1") -> str:
    """The URL with hosts at these ports before its own."""
    who, _, rest = database.partition("@")
    return f"{who}@{','.join(f'127.0.0.1:{port}' for port in ports)},{rest}?{parameters}"


async def port_of(connector: Connector) -> int:
    """The port of the server that a new connection is to."""
    connection = await connector.connect("test")
    try:
        return int(await connection.fetchval("select inet_server_port()"))
    finally:
        await connection.close()


async def test_a_first_host_that_hangs_is_passed_over(
    database: str, silent: Silent, postgres_server: PostgresServer
) -> None:
    """In its own time; then the host that answered is asked first."""
    connector = Connector(parse(with_hosts(database, silent.port)), None)
    began = time.monotonic()
    assert await port_of(connector) == postgres_server.port
    assert 1 <= time.monotonic() - began < 4
    assert await port_of(connector) == postgres_server.port
    assert silent.connections == 1


async def test_a_first_host_that_is_closed_is_passed_over(database: str, postgres_server: PostgresServer) -> None:
    assert await port_of(Connector(parse(with_hosts(database, 1)), None)) == postgres_server.port


async def test_a_standby_is_passed_over(standby: PostgresServer, postgres_server: PostgresServer) -> None:
    url = postgres_server.url()
    assert await port_of(Connector(parse(with_hosts(url, standby.port)), None)) == postgres_server.port
    primary = with_hosts(url, standby.port, parameters="target_session_attrs=primary")
    assert await port_of(Connector(parse(primary), None)) == postgres_server.port


async def test_a_standby_alone_is_one_line(standby: PostgresServer) -> None:
    with pytest.raises(ValueError, match=r"^the database cannot be used: ") as caught:
        await upgrade(Database(standby.url()))
    line = f"the database cannot be used: 127.0.0.1:{standby.port} takes no changes (a standby, or read-only)"
    assert str(caught.value) == f"{line}; name the primary in FHIRCAST_STORE"


async def test_hosts_that_all_fail_are_named_with_their_reasons(silent: Silent) -> None:
    hosts = f"127.0.0.1:{silent.port},127.0.0.1:1,[::1]:1,nobody.invalid"
    with pytest.raises(ValueError, match=r"^the database cannot be reached: ") as caught:
        await upgrade(Database(f"postgresql://hub:hunter2@{hosts}/db?connect_timeout=1"))
    told = str(caught.value).partition(": ")[2].split(", ")
    assert told[:3] == [
        f"127.0.0.1:{silent.port} does not answer",
        "127.0.0.1:1 Connection refused",
        "[::1]:1 Connection refused",
    ]
    assert told[3].startswith("nobody.invalid:5432 ")


async def test_a_wrong_password_is_told_to_the_first_host_alone(database: str, silent: Silent) -> None:
    """Every host would refuse, and might lock the user out."""
    who, _, rest = database.partition("@")
    url = f"{who}x@{rest.replace('/', f',127.0.0.1:{silent.port}/', 1)}?connect_timeout=1"
    with pytest.raises(asyncpg.InvalidPasswordError):
        await Connector(parse(url), None).connect("test")
    assert silent.connections == 0


async def test_the_password_of_a_file_counts(database: str) -> None:
    """The URL then has none."""
    url = parse(database)
    connection = await Connector(url._replace(password=None), url.password).connect("test")
    connection.terminate()


async def test_an_address_of_ipv6_is_taken(database: str, postgres_server: PostgresServer) -> None:
    """The server of the tests listens on IPv4 alone: a forwarder is before it."""

    ended = asyncio.Event()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()
        await writer.wait_closed()

    async def forward(from_hub: asyncio.StreamReader, to_hub: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", postgres_server.port)
        await asyncio.gather(pump(from_hub, to_server), pump(from_server, to_hub))
        ended.set()

    async with await asyncio.start_server(forward, "::1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = database.replace(f"127.0.0.1:{postgres_server.port}", f"[::1]:{port}")
        assert await port_of(Connector(parse(url), None)) == postgres_server.port
        await ended.wait()


LIBPQ = "keepalives_idle=11&keepalives_interval=12&keepalives_count=4&tcp_user_timeout=9000"
OPTIONS = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)


async def options_of(url: str) -> tuple[int, ...]:
    connection = await Connector(parse(url), None).connect("test")
    kept = connection._transport.get_extra_info("socket")
    found = (
        bool(kept.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)),
        *(kept.getsockopt(socket.IPPROTO_TCP, option) for option in OPTIONS),
    )
    await connection.close()
    await asyncio.sleep(0)  # uvloop closes the transport in its next turn
    return found


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_the_kernel_notices_a_dead_host(database: str, run: Any) -> None:
    """On the event loop of `store upgrade` and on that of `serve`, as libpq's parameters say."""
    assert run(options_of(database)) == (True, 5, 1, 3, 5000)
    assert run(options_of(f"{database}?{LIBPQ}")) == (True, 11, 12, 4, 9000)
    assert run(options_of(f"{database}?keepalives=0"))[0] is False


def test_a_kernel_without_an_option_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    with socket.socket() as plain:
        keep_alive(plain, {})
        assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslkey", "passfile"])
async def test_a_file_of_the_url_that_cannot_be_read_is_named(database: str, name: str) -> None:
    line = f"^the file of {name} cannot be read: No such file or directory$"
    with pytest.raises(ValueError, match=line):
        await upgrade(Database(f"{database}?{name}=/none"))


async def test_a_file_of_passwords_is_its_owners_alone(database: str, tmp_path: Path) -> None:
    url, file = parse(database), tmp_path / "passwords"
    file.write_text(f"*:*:*:*:{url.password}\n", encoding="ascii")
    alone = Connector(url._replace(password=None, parameters={"passfile": str(file)}), None)
    os.chmod(file, 0o644)
    with pytest.raises(ValueError, match=r"^the file of passfile must be its owner's alone \(chmod 600\)$"):
        await alone.connect("test")
    os.chmod(file, 0o600)
    (await alone.connect("test")).terminate()


async def test_a_certificate_needs_an_authority(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a server that has no TLS is left where the URL wants TLS."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)
    with pytest.raises(ValueError, match=r"^the URL needs sslrootcert: "):
        await upgrade(Database(f"{database}?sslmode=verify-full"))
    with pytest.raises(NoHost) as caught:
        await Connector(parse(f"{database}?sslmode=require"), None).connect("test")
    assert [why(error) for _, error in caught.value.failures] == ["takes no connection with TLS"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "does not answer"),
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "Connection refused"),
        (
            OSError("Multiple exceptions: [Errno 111] a, [Errno 101] b"),
            "refuses the connection at each of its addresses",
        ),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (ssl.SSLError(1, "bad record"), "cannot be spoken to by TLS (bad record)"),
        (asyncpg.TooManyConnectionsError("hunter2"), "refuses (TooManyConnectionsError, 53300)"),
        (asyncpg.InterfaceError("hunter2"), "InterfaceError"),
    ],
)
def test_reasons_are_words_without_what_the_error_holds(error: Exception, words: str) -> None:
    assert why(error) == words


@pytest.mark.req("OPS-42")
@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (asyncpg.CannotConnectNowError("starting up"), True),
        (asyncpg.TooManyConnectionsError("full"), True),
        (asyncpg.TargetServerAttributeNotMatched("a standby"), True),
        (asyncpg.ReadOnlySQLTransactionError("failover"), True),
        (TimeoutError(), True),
        (ConnectionRefusedError(), True),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), True),
        (ssl.SSLEOFError(), True),
        (ssl.SSLCertVerificationError(), False),
        (ConnectionError("rejected SSL upgrade"), False),
        (asyncpg.InvalidPasswordError("wrong"), False),
        (asyncpg.InvalidCatalogNameError("none"), False),
        (asyncpg.InsufficientPrivilegeError("no"), False),
        (ValueError("a wrong version"), False),
        (NoHost([("a:1", ssl.SSLCertVerificationError()), ("b:1", TimeoutError())]), True),
        (NoHost([("a:1", ssl.SSLCertVerificationError())]), False),
    ],
    ids=repr,
)
def test_what_may_pass_by_itself(error: Exception, passes: bool) -> None:
    assert may_pass(error) is passes


@pytest.mark.req("OPS-42")
@pytest.mark.parametrize(
    ("error", "kind"), [(Lost(), StoreAway), (Fenced(), StoreAway), (Busy(), StoreAway), (DatabaseError(), ValueError)]
)
def test_only_a_refusal_of_the_database_stays(error: DatabaseError, kind: type[ValueError]) -> None:
    assert type(refused_start(error)) is kind


async def test_a_connection_that_the_server_ended_is_made_anew(database: str) -> None:
    """Before the next statement, whose outcome would else be unknown."""
    link, other = Link(Database(database), "test"), Link(Database(database), "other")
    ((first,),) = await link.fetch("select pg_backend_pid()")
    await other.fetch("select pg_terminate_backend($1, 5000)", first)
    while link.pid is not None:  # noqa: ASYNC110  # the end of the connection is read in one of the next turns
        await asyncio.sleep(0)
    ((second,),) = await link.fetch("select pg_backend_pid()")
    assert second != first
    link.close()
    other.close()


async def test_a_server_that_became_read_only_is_left(database: str) -> None:
    """Nothing was changed, and the next statement gets a new connection."""
    link = Link(Database(database), "test")
    ((first,),) = await link.fetch("select pg_backend_pid()")
    await link.fetch("set default_transaction_read_only = on")
    with pytest.raises(DatabaseError) as caught:
        await link.fetch("create table kept ()")
    assert not isinstance(caught.value, Lost)
    assert await link.fetch("create table kept ()") == []
    assert link.pid != first
    link.close()
