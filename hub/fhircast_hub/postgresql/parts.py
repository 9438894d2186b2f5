"""The parts of a shared store, put together. asyncpg is needed here, and only here and below."""

from __future__ import annotations

from collections.abc import Callable

from fhircast_hub.postgresql.database import Database
from fhircast_hub.postgresql.look import Look, look
from fhircast_hub.postgresql.membership import DatabaseClock
from fhircast_hub.postgresql.schema import SCHEMA_VERSION, read_log_key, upgrade
from fhircast_hub.postgresql.store import PostgresStore
from fhircast_hub.postgresql.usage import SharedUsage
from fhircast_hub.telemetry.metrics import Metrics


class SharedParts:
    """A store of many nodes, with its clock and its usage. `url` and `password` are those of the database."""

    def __init__(self, url: str, password: str | None, clock: Callable[[], float]) -> None:
        self._database = Database(url, password)
        self.clock = DatabaseClock(clock)
        self.store: PostgresStore

    async def upgrade(self, role: str | None = None) -> str:
        """Make or upgrade the tables, and let `role` use them: what was done. Raises ValueError, for the operator."""
        made = await upgrade(self._database, role)
        done = (
            f"made the tables, version {SCHEMA_VERSION}"
            if made
            else f"the tables have version {SCHEMA_VERSION} already"
        )
        return f"{done}; {role} may use them" if role else done

    async def log_key(self) -> bytes:
        """The key of the keyed hashes in logs. Changes nothing. Raises ValueError, for the operator."""
        return await read_log_key(self._database)

    async def look(self) -> Look:
        """Tables, rights and promise of the database. Changes nothing. Raises ValueError, for the operator."""
        return await look(self._database)

    def make_store(
        self,
        max_subscriptions: int,
        max_topics: int,
        max_user_bytes: int,
        max_bytes: int,
        metrics: Metrics,
        learn_key: Callable[[bytes], None],
    ) -> tuple[PostgresStore, SharedUsage]:
        """The store, and what users hold in it. `learn_key` is given the key of the keyed hashes in logs."""
        usage = SharedUsage(max_subscriptions, max_topics, max_user_bytes, max_bytes, metrics)
        self.store = PostgresStore(self._database, self.clock, usage, metrics, learn_key)
        return self.store, usage

    def sure_for(self) -> float:
        """Seconds for which no other node can have marked this one dead."""
        return self.store.membership.sure_for()
