"""The hub's tables in the database: made by `fhircast-hub store upgrade`, and by `serve` where its user may make them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from importlib.resources import files
from typing import Any, NoReturn

import asyncpg

from fhircast_hub.postgresql.connect import may_pass
from fhircast_hub.postgresql.database import Database, DatabaseError, Link, refused_start
from fhircast_hub.postgresql.refusals import Login, reason
from fhircast_hub.service.ports import StoreAway

#: Version of the tables. A hub works with tables of this version only.
SCHEMA_VERSION = 1
#: The oldest server (PostgreSQL's server_version_num) that the hub works with.
OLDEST_SERVER = 130000

#: Seconds in which the tables are made, with the wait for another program that makes them.
PATIENCE = 60

_LOCK = "select pg_advisory_xact_lock(7423, 0)"
_HAS_SCHEMA = "select exists (select from pg_namespace where nspname = 'fhircast')"
_MAY_USE = "select has_schema_privilege('fhircast', 'usage')"
_IS_THERE = "select to_regclass('fhircast.hub') is not null"
_VERSION = "select version from fhircast.hub"
_KEY = "select version, key from fhircast.hub"
#: The hub of the node that started last. Tables of other versions may lack this.
_RELEASE = "select release from fhircast.node order by started desc limit 1"
#: What a node needs that neither owns nor makes the tables. `tidy_1` truncates parts of the log.
_GRANTS = """
grant usage on schema fhircast to {role};
grant select, insert, update, delete on all tables in schema fhircast to {role};
grant usage on all sequences in schema fhircast to {role};
grant execute on all functions in schema fhircast to {role};
grant truncate on {slots} to {role};
"""
_SLOTS = ", ".join(f"fhircast.log_{number}" for number in range(8))


async def upgrade(database: Database, role: str | None = None) -> bool:
    """Make the tables where there are none, and let `role` use them. Returns whether they were made.

    Raises ValueError, for the operator.
    """
    connection = await connected(database, "upgrade")
    try:
        async with asyncio.timeout(PATIENCE), connection.transaction():
            await connection.execute("set local lock_timeout = 0")  # the caller has a time of its own
            await connection.execute(_LOCK)
            made = await _upgrade(connection, database.login)
            if role is not None:
                await _grant(connection, role)
            return made
    except Exception as error:
        refuse(error, database.login)
    finally:
        with contextlib.suppress(Exception):
            await connection.close(timeout=1)


async def connected(database: Database, purpose: str) -> asyncpg.Connection[Any]:
    """A new connection. Raises ValueError, for the operator: each command says the same of the same mistake."""
    try:
        return await database.connect(purpose)
    except asyncpg.InsufficientPrivilegeError:
        raise ValueError(database.login.may_not_connect) from None
    except Exception as error:
        refuse(error, database.login)


async def has_tables(connection: asyncpg.Connection[Any]) -> bool:
    """Whether the tables are there, of this hub's version. Changes nothing.

    Raises ValueError, for the operator, where a hub cannot work with the server or with what is in the place of the tables.
    Raises asyncpg.InsufficientPrivilegeError where the user may not read them.
    """
    if (found := connection.get_server_version()) < (OLDEST_SERVER // 10000, 0):
        raise ValueError(f"PostgreSQL must be version {OLDEST_SERVER // 10000} or newer, and is {found.major}")
    if await connection.fetchval(_HAS_SCHEMA):
        if not await connection.fetchval(_MAY_USE):
            raise asyncpg.InsufficientPrivilegeError(_MAY_USE)
        if not await connection.fetchval(_IS_THERE):
            raise ValueError('the database has a schema "fhircast" of another program; choose another database')
        if (version := await _version(connection)) != SCHEMA_VERSION:
            check_version(version, await _release(connection))
        return True
    return False


async def _upgrade(connection: asyncpg.Connection[Any], login: Login) -> bool:
    if await has_tables(connection):
        return False
    try:
        await connection.execute((files("fhircast_hub.postgresql") / "schema.sql").read_text(encoding="utf-8"))
    except asyncpg.InsufficientPrivilegeError:
        raise ValueError(login.may_not_make) from None
    key = secrets.token_bytes(32)
    await connection.execute("insert into fhircast.hub (version, key) values ($1, $2)", SCHEMA_VERSION, key)
    return True


async def _version(connection: asyncpg.Connection[Any]) -> int:
    """The version of the tables. Raises ValueError where the table is another program's."""
    try:
        version = await connection.fetchval(_VERSION)
    except asyncpg.UndefinedColumnError:
        version = None
    if not isinstance(version, int):
        raise ValueError('the database has a table "fhircast.hub" of another program; choose another database')
    return version


async def _release(connection: asyncpg.Connection[Any]) -> str:
    """Version of the hub that used the tables last. "": not known. After an error, the transaction can do nothing more."""
    try:
        release = await connection.fetchval(_RELEASE)
    except asyncpg.PostgresError:
        return ""
    return release if isinstance(release, str) and release.isprintable() else ""


async def _grant(connection: asyncpg.Connection[Any], role: str) -> None:
    name = await connection.fetchval("select quote_ident($1)", role)
    try:
        await connection.execute(_GRANTS.format(role=name, slots=_SLOTS))
    except asyncpg.UndefinedObjectError:
        raise ValueError(f"the role {role!r} does not exist") from None


def check_version(version: int, release: str = "") -> None:
    """Raise ValueError for tables of another version. `release`: the newest hub that used the tables. "": not known."""
    if version == SCHEMA_VERSION:
        return
    found = f"the tables have version {version}{f', used by fhircast-hub {release}' if release else ''}"
    what = "run: fhircast-hub store upgrade"
    if version > SCHEMA_VERSION:
        newer = f"fhircast-hub {release} or newer" if release else "the hub that made them, or a newer one"
        what = f"install {newer}, or restore a backup of the database"
    raise ValueError(f"{found}, and this hub needs version {SCHEMA_VERSION}; {what}")


async def log_key(link: Link) -> bytes:
    """The key of the keyed hashes in logs, the same on every node. Raises ValueError for tables of another version."""
    try:
        ((version, key),) = await link.fetch(_KEY)
    except DatabaseError as error:
        raise refused_start(error) from None
    check_version(version)
    return bytes(key)


async def read_log_key(database: Database) -> bytes:
    """As `log_key`, by a connection of its own. Raises ValueError, for the operator."""
    connection = await connected(database, "topic-hash")
    try:
        version, key = await connection.fetchrow(_KEY, timeout=5)
    except asyncpg.UndefinedTableError:
        raise ValueError("the database has no tables of a hub; run: fhircast-hub store upgrade") from None
    except Exception as error:
        refuse(error, database.login)
    finally:
        connection.terminate()
    check_version(version)
    return bytes(key)


def refuse(error: Exception, login: Login) -> NoReturn:
    """Raise ValueError with one line for the operator, without the password: StoreAway, where a later try may succeed."""
    if may_pass(error):
        raise StoreAway(reason(error, login)) from None
    raise ValueError(reason(error, login)) from None
