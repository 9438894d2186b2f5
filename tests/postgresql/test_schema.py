"""The tables: made once, whoever makes them, and used by a role that may not change them."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.session import Session
from fhircast_hub.postgresql import schema
from fhircast_hub.postgresql.database import Database, Link
from fhircast_hub.postgresql.parts import SharedParts
from fhircast_hub.postgresql.schema import SCHEMA_VERSION, upgrade
from fhircast_hub.telemetry.metrics import Metrics
from tests.postgresql.server import PostgresServer

KEY = SessionKey("realm", "topic")
FUNCTIONS = {
    "slot",
    "check_node",
    "commit",
    "follow",
    "newest",
    "beat",
    "mark",
    "leave",
    "sessions_of",
    "forget_node",
    "tidy",
}


def name_of(database: str) -> str:
    return urlsplit(database).path[1:]


async def refused(database: str) -> str:
    """The line for the operator."""
    with pytest.raises(ValueError, match=r"^(the|this|PostgreSQL) ") as caught:
        await upgrade(Database(database))
    assert str(caught.value).isprintable()
    return str(caught.value)


async def test_the_tables_are_made_once(database: str, postgres_server: PostgresServer) -> None:
    """Also where two nodes start at the same time; the second one changes nothing."""
    made = await asyncio.gather(*(upgrade(Database(database)) for _ in range(4)))
    assert sorted(made) == [False, False, False, True]
    assert await upgrade(Database(database)) is False
    hub = "select count(*), min(version), min(length(key)) from fhircast.hub"
    assert postgres_server.psql(hub, name_of(database)) == f"1|{SCHEMA_VERSION}|32"


async def test_functions_have_the_version_in_their_names(database: str, postgres_server: PostgresServer) -> None:
    """So that adjacent versions of the hub run side by side."""
    await upgrade(Database(database))
    query = "select proname from pg_proc where pronamespace = 'fhircast'::regnamespace"
    found = set(postgres_server.psql(query, name_of(database)).splitlines())
    assert {f"{name}_1" for name in FUNCTIONS} <= found
    assert all(name.rpartition("_")[2].isdigit() for name in found)


async def test_the_upgrade_says_what_was_done(database: str) -> None:
    parts = SharedParts(database, None, time.time)
    assert await parts.upgrade() == "made the tables, version 1"
    assert await parts.upgrade() == "the tables have version 1 already"
    assert await parts.upgrade("hub") == "the tables have version 1 already; hub may use them"
    with pytest.raises(ValueError, match=r"^the role 'no\"body' does not exist$"):
        await parts.upgrade('no"body')


@pytest.mark.parametrize(
    ("statements", "line"),
    [
        ("create schema fhircast", 'the database has a schema "fhircast" of another program; choose another database'),
        (
            "create schema fhircast; create table fhircast.hub (id int)",
            'the database has a table "fhircast.hub" of another program; choose another database',
        ),
        (
            "create schema fhircast; create table fhircast.hub (version text); insert into fhircast.hub values ('x')",
            'the database has a table "fhircast.hub" of another program; choose another database',
        ),
        (
            "create schema fhircast; create table fhircast.hub (version int); insert into fhircast.hub values (99)",
            "the tables have version 99, and this hub needs version 1; install the hub that made them, or a newer one, or restore a backup of the database",
        ),
    ],
)
async def test_tables_of_others_stay_as_they_are(
    database: str, postgres_server: PostgresServer, statements: str, line: str
) -> None:
    postgres_server.psql(statements, name_of(database))
    assert await refused(database) == line
    query = "select count(*) from pg_class where relnamespace = 'fhircast'::regnamespace"
    assert postgres_server.psql(query, name_of(database)) == str(statements.count("create table"))


@pytest.mark.req("OPS-31")
@pytest.mark.parametrize(
    ("version", "said"),
    [
        (2, "install fhircast-hub 9.1.0 or newer, or restore a backup of the database"),
        (0, "run: fhircast-hub store upgrade"),
    ],
)
async def test_tables_of_another_version_name_the_hub_that_used_them(
    database: str, postgres_server: PostgresServer, version: int, said: str
) -> None:
    """That of the node that started last. The line names both versions and what to do."""
    await upgrade(Database(database))
    for number, release in enumerate(["9.0.0", "9.1.0"]):
        row = f"'n{number}', '{release}', now() + interval '{number} s'"
        postgres_server.psql(f"insert into fhircast.node (name, release, started) values ({row})", name_of(database))
    postgres_server.psql(f"update fhircast.hub set version = {version}", name_of(database))
    line = f"the tables have version {version}, used by fhircast-hub 9.1.0, and this hub needs version 1; {said}"
    assert await refused(database) == line


@pytest.mark.req("OPS-30")
async def test_the_key_of_hashes_is_read_with_the_rights_of_a_hub(
    database: str, postgres_server: PostgresServer
) -> None:
    """The key is the one that every node learns. Where there is none, the line says what to do."""
    with pytest.raises(ValueError, match=r"^the database has no tables of a hub; run: fhircast-hub store upgrade$"):
        await SharedParts(database, None, time.time).log_key()
    poor = Poor(postgres_server, database)
    try:
        await upgrade(Database(database))
        with pytest.raises(ValueError, match=r"^this user may not use the hub's tables; run as their owner"):
            await SharedParts(poor.url, None, time.time).log_key()
        await upgrade(Database(database), poor.name)
        key = await SharedParts(poor.url, None, time.time).log_key()
        link = Link(Database(database), "test")
        assert key == await schema.log_key(link)
        link.close()
        postgres_server.psql("update fhircast.hub set version = 2", name_of(database))
        with pytest.raises(ValueError, match=r"^the tables have version 2, and this hub needs version 1; install "):
            await SharedParts(database, None, time.time).log_key()
    finally:
        poor.drop()


async def test_an_old_server_is_refused(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is made."""
    monkeypatch.setattr(schema, "OLDEST_SERVER", 990000)
    assert (await refused(database)).startswith("PostgreSQL must be version 99 or newer, and is ")
    monkeypatch.undo()
    assert await upgrade(Database(database)) is True


async def test_another_upgrade_that_never_ends_is_not_waited_for(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "PATIENCE", 0.2)
    other = await Database(database).connect("test")
    async with other.transaction():
        await other.execute("select pg_advisory_xact_lock(7423, 0)")
        line = await refused(database)
    other.terminate()
    assert line == "the database does not answer, or another program makes its tables for too long"


class Poor:
    """A role that may connect, and may do nothing more until something is granted."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.name = f"poor {name_of(database)}"  # a name that must be quoted
        self.server, self.database = server, name_of(database)
        server.psql(f"create role \"{self.name}\" login password '{server.password}'")
        self.url = server.url(self.database, user=self.name)

    def drop(self) -> None:
        self.server.psql(f'drop owned by "{self.name}"', self.database)
        self.server.psql(f'drop role "{self.name}"')


@pytest.mark.req("OPS-34", "OPS-35")
async def test_a_role_without_rights_is_told_what_to_do(database: str, postgres_server: PostgresServer) -> None:
    poor = Poor(postgres_server, database)
    try:
        allow = f'grant create on database "{poor.database}" to "{poor.name}";'
        run = f"fhircast-hub store upgrade --grant '{poor.name}'"
        line = f"this user may not make the hub's tables; run as a user that may: {run}; or allow it: {allow}"
        assert await refused(poor.url) == line
        await upgrade(Database(database))
        assert await refused(poor.url) == f"this user may not use the hub's tables; run as their owner: {run}"
        postgres_server.psql(f'revoke connect on database "{poor.database}" from public')
        line = "this user may not connect to the database; as its administrator run: "
        assert (await refused(poor.url)) == f'{line}grant connect on database "{poor.database}" to "{poor.name}";'
    finally:
        poor.drop()


OLD_ROWS = """
insert into fhircast.log (slot, position, written, realm, topic, previous, origin, nodes)
select slot, 1000 + slot, clock_timestamp(), '', '', 0, '', '{}' from generate_series(0, 7) as slot
"""


async def test_a_role_that_was_granted_the_rights_serves_and_changes_no_table(
    database: str, postgres_server: PostgresServer
) -> None:
    """Sessions are written, read and deleted, and old parts of the log are emptied."""
    poor = Poor(postgres_server, database)
    try:
        await upgrade(Database(database), poor.name)
        store, usage = SharedParts(poor.url, None, time.time).make_store(10, 10, 1 << 20, 1 << 30, Metrics(), print)
        await store.open(lambda effects: None)
        try:
            session = Session(realm="realm", topic="topic", owner="user")
            await store.commit_and_deliver(KEY, 0, None, session, ())
            session, revision = (replace(session, owner="other"), (await store.load(KEY))[1])
            await store.commit_and_deliver(KEY, revision, (await store.load(KEY))[0], session, ())
            await store.membership.beat()
            assert await usage.may_begin_session("realm", "other")
            assert (await store.overdue(()), await store.orphans(())) == ([], [])
            await store.commit_and_deliver(KEY, (await store.load(KEY))[1], session, None, ())
            postgres_server.psql(OLD_ROWS, poor.database)
            link = Link(Database(poor.url), "test")
            await link.fetch("select fhircast.tidy_1()")
            assert postgres_server.psql("select count(*) from fhircast.log where position > 999", poor.database) == "5"
            changes = "has_schema_privilege('fhircast', 'create'), has_table_privilege('fhircast.hub', 'truncate')"
            assert [tuple(row) for row in await link.fetch(f"select {changes}")] == [(False, False)]
            link.close()
        finally:
            await store.close()  # a store that stays open has a thread that goes on
    finally:
        poor.drop()
