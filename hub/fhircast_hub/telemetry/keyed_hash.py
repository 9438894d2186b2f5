"""Keyed hashes: topics in logs (SEC-1). Who has the key, finds the lines of a topic by `fhircast-hub topic-hash` (OPS-30)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b


class KeyedHash:
    """`log_hash(text)` is 12 hexadecimal digits. They identify a text, and do not reveal the text without the key.

    With `secret`, the setting SECRET_KEY, the key is derived from the secret. Otherwise the key is the store's (`learn_key`).
    A store in memory has none, so the key is random. The key is in no log.
    """

    def __init__(self, secret: str | None = None) -> None:
        self._is_derived = secret is not None
        self._digest = _digest(secrets.token_bytes(32) if secret is None else _derived_key(secret))

    def learn_key(self, key: bytes) -> None:
        """From now on use the store's key, of at most 64 bytes, unless the key is derived from SECRET_KEY."""
        if not self._is_derived:
            self._digest = _digest(key)

    def __call__(self, text: str) -> str:
        return self._digest(text)


def user_hash(log_hash: Callable[[str], str], realm: str, subscriber: str) -> str:
    """The hash of a user or client of a realm. Users of two realms have different hashes, and no topic has a user's.

    `subscriber`: Principal.subscriber.
    """
    kind, _, name = subscriber.partition(":")
    return log_hash(f"{realm}\0{kind}\0{name}")


def _digest(key: bytes) -> Callable[[str], str]:
    @lru_cache(1024)
    def digest(text: str) -> str:
        return blake2b(text.encode(errors="surrogatepass"), digest_size=6, key=key).hexdigest()

    return digest


def _derived_key(secret: str) -> bytes:
    # Another purpose than webhook/sealing.py has. So neither key tells anything of the other.
    return blake2b(secret.encode(), digest_size=32, person=b"hashes in logs").digest()
