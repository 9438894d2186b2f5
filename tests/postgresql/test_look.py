"""OPS-34: what `check-config` sees of a database. Nothing is made or changed."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from fhircast_hub.postgresql import schema
from fhircast_hub.postgresql.database import Database
from fhircast_hub.postgresql.look import Look
from fhircast_hub.postgresql.parts import SharedParts
from tests.postgresql.server import PostgresServer
from tests.postgresql.test_schema import Poor, name_of, refused

pytestmark = pytest.mark.req("OPS-34")

ROWS = "select count(*) from pg_class where relnamespace = to_regnamespace('fhircast')"


@pytest.fixture
def poor(database: str, postgres_server: PostgresServer) -> Iterator[Poor]:
    made = Poor(postgres_server, database)
    yield made
    made.drop()


async def seen(url: str) -> tuple[str, bool]:
    """The tables, and whether `serve` can work with them."""
    found: Look = await SharedParts(url, None, time.time).look()
    assert found.promise.startswith("accepted events survive ")
    return found.tables, found.is_usable


async def test_an_empty_database_stays_empty(database: str, postgres_server: PostgresServer) -> None:
    assert await seen(database) == ("are not there; serve will make them, version 1", True)
    assert postgres_server.psql(ROWS, name_of(database)) == "0"
    await schema.upgrade(Database(database))
    assert await seen(database) == ("are there, version 1", True)


async def test_a_role_that_may_make_no_tables_is_refused_as_by_serve(poor: Poor) -> None:
    """With the next step. With the right to make tables all is well."""
    assert await seen(poor.url) == (Database(poor.url).login.may_not_make, False)
    assert await refused(poor.url) == Database(poor.url).login.may_not_make
    poor.server.psql(f'grant create on database "{poor.database}" to "{poor.name}"')
    assert (await seen(poor.url))[1]


#: A right of those that `store upgrade --grant` gives.
RIGHTS = [
    "usage on schema fhircast",
    "select on fhircast.hub",
    "insert on fhircast.part",
    "update on fhircast.session",
    "delete on fhircast.log",
    "truncate on fhircast.log_3",
    "usage on sequence fhircast.position",
]


@pytest.mark.parametrize("right", RIGHTS)
async def test_a_role_needs_each_right_that_is_granted(database: str, poor: Poor, right: str) -> None:
    await schema.upgrade(Database(database))
    assert await seen(poor.url) == (Database(poor.url).login.may_not_use, False)
    await schema.upgrade(Database(database), poor.name)
    assert await seen(poor.url) == ("are there, version 1", True)
    poor.server.psql(f'revoke {right} from "{poor.name}"', poor.database)
    assert await seen(poor.url) == (Database(poor.url).login.may_not_use, False)


async def test_a_role_needs_the_functions(database: str, poor: Poor) -> None:
    """Everybody may run a function, unless that was taken back."""
    await schema.upgrade(Database(database), poor.name)
    poor.server.psql(f'revoke execute on all functions in schema fhircast from public, "{poor.name}"', poor.database)
    assert await seen(poor.url) == (Database(poor.url).login.may_not_use, False)


@pytest.mark.parametrize(
    "statements",
    [
        "create schema fhircast",
        "create schema fhircast; create table fhircast.hub (id int)",
        "create schema fhircast; create table fhircast.hub (version int); insert into fhircast.hub values (99)",
    ],
)
async def test_tables_of_others_and_of_other_versions_are_refused_as_by_serve(
    database: str, postgres_server: PostgresServer, statements: str
) -> None:
    postgres_server.psql(statements, name_of(database))
    line, is_usable = await seen(database)
    assert (line, is_usable) == (await refused(database), False)
