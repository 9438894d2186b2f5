"""The hub's tables in the database: made by `fhircast-hub store upgrade`, and by `serve` where its user may make them."""

from __future__ import annotations

import secrets
from importlib.resources import files
from typing import Any, NoReturn

import asyncpg

from fhircast_hub.postgresql.database import Database, DatabaseError, Link

#: Version of the tables. A hub works with tables of this version only.
SCHEMA_VERSION = 1
#: The oldest server (PostgreSQL's server_version_num) that the hub works with.
OLDEST_SERVER = 130000

_LOCK = "select pg_advisory_xact_lock(7423, 0)"
_IS_THERE = "select to_regclass('fhircast.hub') is not null"
_VERSION = "select version from fhircast.hub"
_HAS_SCHEMA = "select exists (select from pg_namespace where nspname = 'fhircast')"


async def upgrade(database: Database) -> bool:
    """Make the tables where there are none. Returns whether anything was made. Raises ValueError, for the operator."""
    try:
        connection = await database.connect("upgrade")
    except Exception as error:
        refuse(error)
    try:
        async with connection.transaction():
            await connection.execute(_LOCK)
            return await _upgrade(connection)
    except asyncpg.PostgresError as error:
        refuse(error)
    finally:
        await connection.close()


async def _upgrade(connection: asyncpg.Connection[Any]) -> bool:
    if (found := connection.get_server_version()) < (OLDEST_SERVER // 10000, 0):
        raise ValueError(f"PostgreSQL must be version {OLDEST_SERVER // 10000} or newer, and is {found.major}")
    if await connection.fetchval(_IS_THERE):
        check_version(await connection.fetchval(_VERSION))
        return False
    if await connection.fetchval(_HAS_SCHEMA):
        raise ValueError('the database has a schema "fhircast" of another program; choose another database')
    await connection.execute((files("fhircast_hub.postgresql") / "schema.sql").read_text(encoding="utf-8"))
    key = secrets.token_bytes(32)
    await connection.execute("insert into fhircast.hub (version, key) values ($1, $2)", SCHEMA_VERSION, key)
    return True


def check_version(version: int) -> None:
    """Raise ValueError for tables of another version."""
    if version != SCHEMA_VERSION:
        what = "update this hub" if version > SCHEMA_VERSION else "run: fhircast-hub store upgrade"
        raise ValueError(f"the tables have version {version}, and this hub needs version {SCHEMA_VERSION}; {what}")


async def log_key(link: Link) -> bytes:
    """The key of the keyed hashes in logs, the same on every node. Raises ValueError for tables of another version."""
    try:
        ((version, key),) = await link.fetch("select version, key from fhircast.hub")
    except DatabaseError as error:
        raise ValueError(str(error)) from None
    check_version(version)
    return bytes(key)


def refuse(error: Exception) -> NoReturn:
    """Raise ValueError with one line for the operator, without the password."""
    match error:
        case ValueError():
            raise error
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            reason = "the database refuses this user or password"
        case asyncpg.InvalidCatalogNameError():
            reason = "the database of this name does not exist"
        case asyncpg.InsufficientPrivilegeError():
            reason = "this user may not make the hub's tables; run as their owner: fhircast-hub store upgrade"
        case asyncpg.PostgresError():
            reason = f"the database refuses: {type(error).__name__} ({error.sqlstate})"
        case TimeoutError():
            reason = "the database does not answer"
        case OSError():
            reason = f"the database cannot be reached: {error.strerror or type(error).__name__}"
        case _:
            reason = f"the database cannot be used: {type(error).__name__}"
    raise ValueError(reason) from None
