"""Makes what the setting STORE names: a store, and what the hub asks of it beside sessions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fhircast_hub.service.ports import Clock, SessionStore, Usage
from fhircast_hub.service.session_list import LocalSessions, SessionList
from fhircast_hub.service.usage import LocalUsage
from fhircast_hub.settings.errors import SettingsError
from fhircast_hub.settings.settings import Settings
from fhircast_hub.storage.memory import MemoryStore
from fhircast_hub.storage.sqlite import SqliteStore
from fhircast_hub.telemetry.keyed_hash import KeyedHash
from fhircast_hub.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from fhircast_hub.postgresql.parts import SharedParts


@dataclass(frozen=True)
class Stored:
    """A store, and who uses how much of it."""

    store: SessionStore
    usage: Usage
    #: Lists for the operator's console.
    sessions: SessionList


def make_stored(settings: Settings, shared: SharedParts | None, metrics: Metrics, log_hash: KeyedHash) -> Stored:
    """The store of the settings; of `shared`, where many nodes share the store. `log_hash` learns the store's key."""
    limits = settings.max_subscriptions_per_user, settings.max_topics_per_user, settings.max_bytes_per_user
    if shared:
        store, shared_usage = shared.make_store(*limits, settings.all_bytes, metrics, log_hash.learn_key)
        return Stored(store, shared_usage, shared_usage.session_list(log_hash))
    usage = LocalUsage(*limits, settings.all_bytes, metrics)
    path = settings.store_path
    local = MemoryStore() if path is None else SqliteStore(path, log_hash.learn_key)
    return Stored(local, usage, LocalSessions(local.sessions, usage.owners, log_hash))


def shared_parts(settings: Settings, clock: Clock) -> SharedParts | None:
    """What a store of many nodes is made of. None: the store has one process. Raises SettingsError without its library."""
    if not settings.is_shared:
        return None
    try:
        from fhircast_hub.postgresql.parts import SharedParts
    except ImportError:
        raise SettingsError(
            "FHIRCAST_STORE is PostgreSQL's, and asyncpg is missing: pip install 'fhircast-hub[postgresql]'"
        ) from None
    return SharedParts(settings.store, settings.store_password, clock)
