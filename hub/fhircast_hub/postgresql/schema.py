"""The hub's tables in the database: made by `fhircast-hub store upgrade`, and by `serve` where its user may make them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from importlib.resources import files
from typing import Any, NoReturn

import asyncpg

from fhircast_hub.postgresql.connect import NoHost, why
from fhircast_hub.postgresql.database import Database, DatabaseError, Link

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
    try:
        connection = await database.connect("upgrade")
    except asyncpg.InsufficientPrivilegeError:
        raise ValueError("this user may not connect to the database") from None
    except Exception as error:
        refuse(error)
    try:
        async with asyncio.timeout(PATIENCE), connection.transaction():
            await connection.execute("set local lock_timeout = 0")  # the caller has a time of its own
            await connection.execute(_LOCK)
            made = await _upgrade(connection)
            if role is not None:
                await _grant(connection, role)
            return made
    except Exception as error:
        refuse(error)
    finally:
        with contextlib.suppress(Exception):
            await connection.close(timeout=1)


async def _upgrade(connection: asyncpg.Connection[Any]) -> bool:
    if (found := connection.get_server_version()) < (OLDEST_SERVER // 10000, 0):
        raise ValueError(f"PostgreSQL must be version {OLDEST_SERVER // 10000} or newer, and is {found.major}")
    if await connection.fetchval(_HAS_SCHEMA):
        if not await connection.fetchval(_MAY_USE):
            raise asyncpg.InsufficientPrivilegeError(_MAY_USE)
        if not await connection.fetchval(_IS_THERE):
            raise ValueError('the database has a schema "fhircast" of another program; choose another database')
        check_version(await _version(connection))
        return False
    try:
        await connection.execute((files("fhircast_hub.postgresql") / "schema.sql").read_text(encoding="utf-8"))
    except asyncpg.InsufficientPrivilegeError:
        raise ValueError(
            "this user may not make the hub's tables; run as a user that may: fhircast-hub store upgrade --grant USER"
        ) from None
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


async def _grant(connection: asyncpg.Connection[Any], role: str) -> None:
    name = await connection.fetchval("select quote_ident($1)", role)
    try:
        await connection.execute(_GRANTS.format(role=name, slots=_SLOTS))
    except asyncpg.UndefinedObjectError:
        raise ValueError(f"the role {role!r} does not exist") from None


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
        case NoHost():
            hosts = ", ".join(f"{host} {why(each)}" for host, each in error.failures)
            reason = f"the database cannot be reached: {hosts}"
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            reason = "the database refuses this user or password"
        case asyncpg.InvalidCatalogNameError():
            reason = "the database of this name does not exist"
        case asyncpg.InsufficientPrivilegeError():
            reason = (
                "this user may not use the hub's tables; run as their owner: fhircast-hub store upgrade --grant USER"
            )
        case asyncpg.PostgresError():
            reason = f"the database refuses: {type(error).__name__} ({error.sqlstate})"
        case TimeoutError():
            reason = "the database does not answer, or another program makes its tables for too long"
        case _:
            reason = f"the database {why(error)}"
    raise ValueError(reason) from None
