"""`fhircast-hub topic-hash`: the keyed hashes of a hub's logs, made beside the hub (OPS-30)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from fhircast_hub.settings.errors import PREFIX, SettingsError
from fhircast_hub.settings.serving import check_secret_key
from fhircast_hub.settings.settings import Settings
from fhircast_hub.storage.meta import read_key
from fhircast_hub.telemetry.keyed_hash import KeyedHash

if TYPE_CHECKING:
    from fhircast_hub.postgresql.parts import SharedParts

#: The argument that stands for the lines of stdin.
STDIN = "-"


def keyed_hash(settings: Settings, shared_parts: Callable[[], SharedParts | None]) -> KeyedHash:
    """The hash of a hub with these settings. `shared_parts` makes the parts of a PostgreSQL store.

    SECRET_KEY comes first, as in the hub. Otherwise the key is read from the store, which is not changed.
    Raises SettingsError where each run of the hub has a key of its own, and ValueError where the store has no key to read.
    """
    if mistakes := [mistake.line for mistake in check_secret_key(settings)]:
        raise SettingsError(*mistakes)  # `serve` has a key, and this command would make another hash
    hashed = KeyedHash(settings.plain_secret_key)
    if settings.plain_secret_key is not None:
        return hashed
    if not (settings.store_path or settings.is_shared):
        raise SettingsError(
            f"{PREFIX}SECRET_KEY is required: {PREFIX}STORE is memory:, and without a key each run has hashes of its own"
            + settings.hint("secret_key", "secret_key_file")
        )
    try:
        path = settings.store_path
        hashed.learn_key(read_key(path) if path else asyncio.run(_key_of(shared_parts())))
    except ValueError as error:
        raise ValueError(f"{PREFIX}STORE: {error}{settings.hint('store')}") from None
    return hashed


async def _key_of(shared: SharedParts | None) -> bytes:
    assert shared is not None  # the store is shared
    return await shared.log_key()


def lines_of(topic: str, stdin: Iterable[str], hashed: KeyedHash) -> Iterator[str]:
    """What the command prints: the hash of `topic`, or hash and topic of each line of `stdin` where `topic` is "-"."""
    if topic != STDIN:
        yield hashed(topic)
        return
    for line in stdin:
        text = line.rstrip("\r\n")
        yield f"{hashed(text)} {text}"
