"""tests/postgresql/server.py: the database server that tests use starts, survives what they do to it, and ends with them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.postgresql.programs import PostgresError, is_alive, server_folder, wait
from tests.postgresql.server import PostgresServer


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresServer]:
    """A server of this module's own, which its tests stop and kill."""
    with server_folder() as folder, PostgresServer.make(folder, fsync=True, max_connections=17) as server:
        yield server


@pytest.fixture
def server(cluster: PostgresServer) -> PostgresServer:
    """The server runs, waits for no standby, and its table is empty."""
    cluster.start()
    cluster.make_synchronous("")
    cluster.psql("drop table if exists kept; create table kept (id int)")
    return cluster


def test_a_database_is_empty_and_the_tests_own(postgres_server: PostgresServer, database: str) -> None:
    name = database.rpartition("/")[2]
    assert database == postgres_server.url(name)
    tables = "select count(*) from pg_tables where schemaname = 'public'"
    assert postgres_server.psql(tables, name) == "0"
    assert postgres_server.psql("drop table if exists never", name) == "", "a notice is no row"
    facts = "select getdatabaseencoding(), datcollate, current_user from pg_database where datname = current_database()"
    assert postgres_server.psql(facts, name) == "UTF8|C|hub"


def test_a_database_is_dropped_with_its_connections(postgres_server: PostgresServer) -> None:
    postgres_server.create_database('odd "name"')
    postgres_server.psql("create table kept (id int); insert into kept values (1), (2)", 'odd "name"')
    postgres_server.create_database("copy", template='odd "name"')
    assert postgres_server.psql("select id from kept order by id", "copy") == "1\n2"
    for name in ('odd "name"', "copy"):
        postgres_server.drop_database(name)
    with pytest.raises(PostgresError, match='database "copy" does not exist'):
        postgres_server.psql("select 1", "copy")


@pytest.mark.parametrize("who", [{"password": "wrong"}, {"user": "nobody"}])
def test_a_wrong_password_or_user_is_refused(postgres_server: PostgresServer, who: dict[str, str]) -> None:
    with pytest.raises(PostgresError, match="password authentication failed"):
        postgres_server.psql("select 1", **who)


def test_a_failed_statement_ends_the_script(postgres_server: PostgresServer, database: str) -> None:
    name = database.rpartition("/")[2]
    with pytest.raises(PostgresError, match="division by zero"):
        postgres_server.psql("create table a (); select 1/0; create table b ();", name)
    assert postgres_server.psql("select tablename from pg_tables where schemaname = 'public'", name) == "a"


def test_committed_rows_outlive_a_crash_and_a_restart(server: PostgresServer) -> None:
    url = server.url()
    insert(server)
    server.crash()
    assert not server.is_running
    with pytest.raises(PostgresError, match="Connection refused"):
        server.psql("select 1")
    server.start()
    assert row_count(server) == "1"
    server.restart()
    assert server.psql("select count(*) from kept; show max_connections; show fsync") == "1\n17\non"
    assert server.url() == url
    server.stop()
    assert not server.is_running


def test_a_server_that_does_not_start_says_why(server: PostgresServer) -> None:
    server.stop()
    with socket.create_server(("127.0.0.1", server.port)), pytest.raises(PostgresError, match="Address already in use"):
        server.start()
    assert not server.is_running


def row_count(server: PostgresServer) -> str:
    """How many rows the table has on this server; a standby may not have the table yet."""
    exists = "select count(*) from pg_tables where tablename = 'kept'"
    return server.psql("select count(*) from kept") if server.psql(exists) == "1" else "no table"


def insert(server: PostgresServer) -> None:
    server.psql("insert into kept values (1)")


def test_a_synchronous_standby_has_all_that_was_committed(server: PostgresServer, postgres_folder: Path) -> None:
    """While the standby is down, commits wait."""
    with ThreadPoolExecutor() as threads, server.standby(postgres_folder, "second") as standby:
        server.make_synchronous("second")
        insert(server)
        standby.stop()
        waiting = threads.submit(insert, server)
        waits = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"
        wait(lambda: server.psql(waits) == "1", lambda: "no commit waits")
        assert not waiting.done()
        standby.start()
        waiting.result()
        server.crash()
        wait(lambda: row_count(standby) == "2", lambda: "the standby lost a row")


def test_a_promoted_standby_accepts_writes_and_waits_for_nobody(server: PostgresServer, postgres_folder: Path) -> None:
    insert(server)
    # With this setting, and without a standby of the name, each commit would wait for ever.
    server.psql("alter system set synchronous_standby_names = 'nobody'")
    with server.standby(postgres_folder) as standby:
        assert standby.port != server.port
        wait(lambda: row_count(standby) == "1", lambda: "the standby does not follow")
        with pytest.raises(PostgresError, match="read-only transaction"):
            insert(standby)
        server.crash()
        standby.promote()
        insert(standby)
        assert row_count(standby) == "2"
        assert standby.psql("show synchronous_standby_names") == ""


RUN_OF_TESTS = """
import signal, sys
from pathlib import Path
from tests.postgresql.programs import ServerProcess
folder = Path(sys.argv[1])
print(ServerProcess(folder / "data", folder, folder / "log").pid, flush=True)
signal.pause()
"""


def test_the_server_ends_with_a_killed_run_and_leaves_no_data(server: PostgresServer, postgres_folder: Path) -> None:
    folder = postgres_folder / "server"
    server.standby(folder)
    command = (sys.executable, "-c", RUN_OF_TESTS, str(folder))
    environment = os.environ | {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        assert is_alive(pid)
        run.kill()
    wait(lambda: not is_alive(pid), lambda: "the server outlives its run")
    wait(lambda: not folder.exists(), lambda: "the server's data stay")
