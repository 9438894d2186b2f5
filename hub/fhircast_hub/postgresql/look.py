"""What `check-config` sees of a database: the tables, the rights of the hub's role, and the promise. Changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import asyncpg

from fhircast_hub.postgresql.database import PATIENCE, Database
from fhircast_hub.postgresql.promise import read_promise
from fhircast_hub.postgresql.refusals import Login, reason
from fhircast_hub.postgresql.schema import SCHEMA_VERSION, connected, has_tables, refuse

_MAY_MAKE = "select has_database_privilege(current_database(), 'create')"
#: Whether the role has what `store upgrade --grant` gives.
_MAY_USE_ALL = """
select (
    select bool_and(case when relkind = 'S' then has_sequence_privilege(oid, 'usage') else
        has_table_privilege(oid, 'select') and has_table_privilege(oid, 'insert')
        and has_table_privilege(oid, 'update') and has_table_privilege(oid, 'delete')
        and (relname !~ '^log_[0-7]$' or has_table_privilege(oid, 'truncate')) end)
    from pg_class where relnamespace = 'fhircast'::regnamespace and relkind in ('r', 'p', 'S')
) and (
    select bool_and(has_function_privilege(oid, 'execute'))
    from pg_proc where pronamespace = 'fhircast'::regnamespace
)
"""


class Look(NamedTuple):
    """What was seen."""

    #: Which tables are there, or will be made; or why `serve` refuses.
    tables: str
    #: Whether `serve` can work with the tables.
    is_usable: bool
    #: Which failures accepted events survive.
    promise: str
    #: Whether no single failure loses an event.
    is_whole: bool


async def look(database: Database) -> Look:
    """Look by a connection of its own. Raises ValueError, for the operator, where the database does not answer."""
    connection = await connected(database, "check")
    try:
        async with asyncio.timeout(PATIENCE):
            promise = await read_promise(connection)
            return Look(*await _tables(connection, database.login), str(promise), promise.is_whole)
    except Exception as error:
        refuse(error, database.login)
    finally:
        connection.terminate()


async def _tables(connection: asyncpg.Connection[Any], login: Login) -> tuple[str, bool]:
    """The first two members of Look."""
    try:
        async with connection.transaction(readonly=True):
            return await _usable(connection, login), True
    except (ValueError, asyncpg.PostgresError) as error:
        return reason(error, login), False


async def _usable(connection: asyncpg.Connection[Any], login: Login) -> str:
    """The tables that `serve` can work with. Raises ValueError or InsufficientPrivilegeError where there are none."""
    if await has_tables(connection):
        if not await connection.fetchval(_MAY_USE_ALL):
            raise asyncpg.InsufficientPrivilegeError(_MAY_USE_ALL)
        return f"are there, version {SCHEMA_VERSION}"
    if not await connection.fetchval(_MAY_MAKE):
        raise ValueError(login.may_not_make)
    return f"are not there; serve will make them, version {SCHEMA_VERSION}"
