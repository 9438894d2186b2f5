"""Ports: the Protocols of what the service needs from the world. `app.py` names the classes that implement them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from fhircast_hub.core.access.principal import Principal, SessionKey
from fhircast_hub.core.state.effects import Effect
from fhircast_hub.core.state.session import Session

#: The present time, in epoch seconds.
Clock = Callable[[], float]

#: Takes the effects of every committed change, in the order of the commits.
Deliver = Callable[[Sequence[Effect]], None]


class Log(Protocol):
    """Takes log events with fields, as structlog's loggers do."""

    def info(self, event: str, **fields: Any) -> Any: ...

    def error(self, event: str, **fields: Any) -> Any: ...


class Stale(Exception):
    """Another change was committed since `load`: load and decide again."""


class SessionStore(Protocol):
    """Stores sessions. Commit and delivery are one step, so that subscribers see the order of the commits (EVT-13)."""

    async def open(self, deliver: Deliver) -> None:
        """Open the store. `deliver` receives the effects of every commit from now on. Raises OSError or ValueError."""
        ...

    def sessions(self) -> Iterable[Session]:
        """All stored sessions."""
        ...

    async def load(self, key: SessionKey) -> tuple[Session | None, int]:
        """The session and its revision. (None, 0): there is no session."""
        ...

    async def commit_and_deliver(
        self, key: SessionKey, revision: int, before: Session | None, after: Session | None, effects: Sequence[Effect]
    ) -> None:
        """Replace the session `before`, as loaded with `revision`, by `after` (None: forget the session), and deliver `effects`.

        Returns when the change survives the death of the process, and the effects were delivered. Raises Stale where `revision` is
        not the newest. Raises Unavailable where the change cannot be written; the session is `before` again then.
        """
        ...

    async def close(self) -> None:
        """Write pending commits, and close the store."""
        ...


class TokenVerifier(Protocol):
    """Verifies the token of the Authorization header."""

    async def verify(self, token: str) -> Principal:
        """The bearer of `token`. Raises Unauthenticated, or Unavailable while its issuer does not answer (AUT-16)."""
        ...
