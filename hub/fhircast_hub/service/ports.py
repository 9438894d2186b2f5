"""What the service needs from the world, as Protocols of a few methods each; `app.py` names the classes that answer to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from fhircast_hub.core.access.principal import Principal, SessionKey
from fhircast_hub.core.state.effects import Effect
from fhircast_hub.core.state.session import Session

#: Seconds since the epoch.
Clock = Callable[[], float]

#: Called with the effects of every committed change, in the order of the commits.
Deliver = Callable[[Sequence[Effect]], None]


class Log(Protocol):
    """Takes events as literals and fields; structlog's loggers do."""

    def info(self, event: str, **fields: Any) -> Any: ...

    def error(self, event: str, **fields: Any) -> Any: ...


class Stale(Exception):
    """A commit was based on a revision that is not the newest any more: load and decide again."""


class SessionStore(Protocol):
    """Where sessions live. A commit and the delivery of its effects are one step, so that each topic has one order."""

    async def open(self, deliver: Deliver) -> None:
        """Get ready; from now on `deliver` is called with every commit's effects. Raises OSError or ValueError if it cannot."""
        ...

    def sessions(self) -> Iterable[Session]:
        """The sessions that were there when the store was opened."""
        ...

    async def load(self, key: SessionKey) -> tuple[Session | None, int]:
        """The session and its revision; (None, 0) where there is none."""
        ...

    async def commit_and_deliver(
        self, key: SessionKey, revision: int, before: Session | None, after: Session | None, effects: Sequence[Effect]
    ) -> None:
        """Make `after` the session (None forgets it) if `revision` is still the newest, else raise Stale.

        `before` is what was loaded: only what differs need be written. Returns when the change will survive the process and
        its effects were delivered. Raises Unavailable when it cannot be written; the session is `before` then.
        """
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


class TokenVerifier(Protocol):
    """Turns the Authorization header's token into a Principal."""

    async def verify(self, token: str) -> Principal:
        """The bearer of `token`. Raises Unauthenticated, or Unavailable while its issuer cannot be asked (AUT-16)."""
        ...
