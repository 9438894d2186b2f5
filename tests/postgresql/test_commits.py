"""What a group of commits costs the database."""

from __future__ import annotations

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.session import Session
from fhircast_hub.postgresql import commits
from fhircast_hub.postgresql.cache import Entry
from fhircast_hub.postgresql.commits import Commit
from fhircast_hub.postgresql.database import Database
from fhircast_hub.postgresql.schema import upgrade
from fhircast_hub.service.ports import Limits

OTHERS, GROUP = 2000, 8
#: Rows that indexes found in this transaction, of the tables with sessions and their owners.
READ = "select sum(idx_tup_fetch)::int from pg_stat_xact_user_tables where relname in ('session', 'owner')"


def group_of(revisions: list[int]) -> list[Commit]:
    """A commit for each of so many sessions of one user, which are at these revisions."""
    limits, found = Limits(10**9, 10**6, 10**6), []
    for number, revision in enumerate(revisions):
        key = SessionKey("realm", f"topic-{number}")
        session = Session(realm=key.realm, topic=key.topic, owner="user", order=revision)
        entry = Entry(session if revision else None, revision, 0, 0.0)
        after = Session(realm=key.realm, topic=key.topic, owner="user", order=revision + 1)
        found.append(Commit(key, entry, after, [], limits, "node"))
    return found


async def test_a_group_reads_no_sessions_but_its_own(database: str) -> None:
    """Also where the user has many sessions, of which the server has no statistics yet."""
    await upgrade(Database(database))
    connection = await Database(database).connect("test")
    try:
        await connection.execute(
            "alter table fhircast.session set (autovacuum_enabled = off);"
            "insert into fhircast.node (name, release) values ('node', '1');"
            "insert into fhircast.session (realm, topic, revision, owner)"
            f" select 'realm', 'other-' || number, 1, 'user' from generate_series(1, {OTHERS}) number"
        )
        revisions = [0] * GROUP
        for _ in range(8):  # a server that plans by the first statements plans otherwise after some
            async with connection.transaction():
                before = await connection.fetchval(READ)
                rows = await connection.fetch(commits._COMMIT, *commits._arguments(group_of(revisions)))
                assert len(rows) == GROUP
                assert await connection.fetchval(READ) - before < OTHERS
            for place, revision, _ in rows:
                revisions[place - 1] = revision
    finally:
        await connection.close()
