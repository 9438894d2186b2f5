"""Values that are kept for a while under a secret: codes, tokens, browsers, launches."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Generic, TypeVar

T = TypeVar("T")

#: Entries of one store. Beyond that, the oldest is dropped, so that requests cannot fill the memory.
MOST = 10_000


def new_secret() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


class Expiring(Generic[T]):
    """A bounded table whose entries expire. Its keys are kept as digests, so the time of a look-up reveals nothing."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[T, float]] = OrderedDict()

    def add(self, value: T, seconds: float) -> str:
        """Keep a value for so many seconds. Returns its secret."""
        secret = new_secret()
        self.put(secret, value, seconds)
        return secret

    def put(self, secret: str, value: T, seconds: float) -> None:
        """Keep a value under the caller's secret."""
        self._entries[_digest(secret)] = (value, self._clock() + seconds)
        if len(self._entries) > MOST:
            self._entries.popitem(last=False)

    def get(self, secret: str) -> T | None:
        """The value, if it has not expired."""
        value, expires = self._entries.get(_digest(secret), (None, 0.0))
        if self._clock() < expires:
            return value
        self._entries.pop(_digest(secret), None)
        return None

    def take(self, secret: str) -> T | None:
        """The value, which is removed."""
        value = self.get(secret)
        self._entries.pop(_digest(secret), None)
        return value


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
