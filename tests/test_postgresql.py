"""tests/postgresql.py: the database server that tests use starts, survives what they do to it, and ends with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.postgresql import PostgresServer
from tests.postgresql_programs import PostgresError


def test_a_database_is_empty_and_the_tests_own(postgres_server: PostgresServer, database: str) -> None:
    name = database.rpartition("/")[2]
    assert database == postgres_server.url(name)
    tables = "select count(*) from pg_tables where schemaname = 'public'"
    assert postgres_server.psql(tables, name) == "0"
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


def test_committed_rows_outlive_a_crash_and_a_restart(postgres_folder: Path) -> None:
    with PostgresServer.make(postgres_folder, fsync=True, max_connections=7) as server:
        url = server.url()
        server.psql("create table kept (id int); insert into kept values (1)")
        server.crash()
        assert not server.is_running
        with pytest.raises(PostgresError, match="Connection refused"):
            server.psql("select 1")
        server.start()
        assert server.psql("select id from kept") == "1"
        server.restart()
        assert server.psql("select id from kept; show max_connections; show fsync") == "1\n7\non"
        assert server.url() == url
    assert not server.is_running
