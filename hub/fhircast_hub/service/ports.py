"""Ports: the Protocols of what the service needs from the world. `app.py` names the classes that implement them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from fhircast_hub.core.access.principal import Application, Principal, SessionKey
from fhircast_hub.core.state.commands import Command
from fhircast_hub.core.state.effects import Effect
from fhircast_hub.core.state.session import Outcome, Session

#: The present time, in epoch seconds.
Clock = Callable[[], float]

#: Takes the effects of every committed change, in the order of the commits.
Deliver = Callable[[Sequence[Effect]], None]

#: Takes a session before and after each change of what the store's `load` returns. None: there is no session.
Changed = Callable[[SessionKey, Session | None, Session | None], None]

#: Takes each committed change: session, command, the session before (None: there was none) and the outcome.
Observe = Callable[[SessionKey, Command, Session | None, Outcome], None]


def ignore_changes(key: SessionKey, before: Session | None, after: Session | None) -> None:
    """A `Changed` that does nothing."""


class Log(Protocol):
    """Takes log events with fields, as structlog's loggers do."""

    def info(self, event: str, **fields: Any) -> Any: ...

    def error(self, event: str, **fields: Any) -> Any: ...


class Stale(Exception):
    """Another change was committed since `load`: load and decide again."""


class StoreAway(ValueError):
    """The store cannot be opened now, and may be later. The message is one line for the operator."""


class OverLimit(Exception):
    """The owner of the session would hold more than the commit's Limits allow."""


class Limits(NamedTuple):
    """What the owner of a session may hold in all sessions, after a commit."""

    #: Bytes.
    bytes: int
    #: Sessions.
    sessions: int
    #: Subscriptions of the user who gets another one.
    subscriptions: int


class SessionStore(Protocol):
    """Stores sessions. Commit and delivery are one step, so that subscribers see the order of the commits (EVT-13)."""

    @property
    def node(self) -> str:
        """The name of this process among those that share the store. "": there are no others."""
        ...

    async def open(self, deliver: Deliver, changed: Changed = ignore_changes) -> None:
        """Open the store. `deliver` receives the effects of every commit from now on. Raises OSError or ValueError."""
        ...

    def sessions(self) -> Iterable[Session]:
        """The stored sessions that lost their connections with the last process."""
        ...

    async def load(self, key: SessionKey) -> tuple[Session | None, int]:
        """The session and its revision. (None, 0): there is no session. Raises Unavailable where the session cannot be read.

        Another process may have committed a newer revision. Then `confirm` and `commit_and_deliver` raise Stale.
        """
        ...

    async def confirm(self, key: SessionKey, revision: int) -> None:
        """Return if `revision` is the newest one. Raises Stale, or Unavailable where that cannot be known."""
        ...

    async def commit_and_deliver(
        self,
        key: SessionKey,
        revision: int,
        before: Session | None,
        after: Session | None,
        effects: Sequence[Effect],
        limits: Limits | None = None,
    ) -> None:
        """Replace the session `before`, as loaded with `revision`, by `after` (None: forget the session), and deliver `effects`.

        Returns when the change survives the death of the process, and the effects were delivered. Raises Stale where `revision` is
        not the newest. Raises OverLimit for a change that exceeds `limits`. Raises Unavailable where the change cannot be written;
        the session is `before` again then. In a shared store the outcome may be unknown: a later `load` finds out.
        """
        ...

    async def close(self) -> None:
        """Write pending commits, and close the store."""
        ...


class SharedStore(SessionStore, Protocol):
    """A store that many nodes share."""

    async def overdue(self, skip: Collection[SessionKey]) -> list[SessionKey]:
        """Some sessions, but for those of `skip`, whose deadline has passed without a Tick. Raises Unavailable."""
        ...

    async def orphans(self, skip: Collection[SessionKey]) -> list[tuple[SessionKey, str, float]]:
        """Some sessions that have something of a dead node, with its name and last sign of life (epoch seconds).

        Those of `skip` are left out. Raises Unavailable.
        """
        ...


class Usage(Protocol):
    """What each user has in all sessions together, and the limits of that."""

    #: Whether limits in bytes and sessions are asked for before a commit. False: the store checks them, and raises OverLimit.
    checks_first: bool
    #: Bytes that all sessions may have.
    max_bytes: int

    @property
    def subscriptions(self) -> int:
        """Number of subscriptions, as far as this process knows."""
        ...

    @property
    def topics(self) -> int:
        """Number of sessions, as far as this process knows."""
        ...

    @property
    def bytes(self) -> int:
        """Bytes that all sessions have, as far as this process knows."""
        ...

    def update(self, key: SessionKey, before: Session | None, after: Session | None) -> None:
        """Count a session's change from `before` to `after`. None: there is no session."""
        ...

    def limits(self, after: Session | None, *, closes: bool) -> Limits | None:
        """What the owner of `after` may hold. `closes` is whether a close makes the change. None: `checks_first` is true."""
        ...

    def find(self, subscription_id: str) -> SessionKey | None:
        """The session of a subscription. None: this process knows no such subscription."""
        ...

    async def session_of(self, subscription_id: str) -> SessionKey | None:
        """The session of a subscription. None: there is no such subscription."""
        ...

    async def may_begin_session(self, realm: str, owner: str) -> bool:
        """Whether the user may own one more session (LIM-1)."""
        ...

    async def longest_idle(self, realm: str, owner: str) -> SessionKey | None:
        """The user's session without subscriptions that is unused for longest."""
        ...

    async def last_begun_topic(self, realm: str, owner: str) -> str | None:
        """The topic of the user's session that a system client began last (SES-2). None: there is none."""
        ...

    def has_room(self, key: SessionKey, before: Session | None, after: Session | None) -> bool:
        """Whether the change from `before` to `after` surely exceeds no limit. Answers from what this process knows.

        False: unknown, so the methods below have to be asked. Always False where the change begins or ends a session.
        """
        ...

    async def is_within_limits(
        self, key: SessionKey, before: Session | None, after: Session | None, *, closes: bool = False
    ) -> bool:
        """Whether the change from `before` to `after` exceeds no limit in bytes. A change that does not grow is always within.

        `closes` is whether a close makes the change.
        """
        ...

    async def sessions_to_forget(
        self,
        key: SessionKey,
        before: Session | None,
        after: Session | None,
        *,
        closes: bool = False,
        now: float = 0.0,
    ) -> list[SessionKey]:
        """Other sessions to forget so that the change from `before` to `after` is within the limits in bytes (LIM-2).

        They have no subscriptions, and are unused for longest. `closes` is whether a close makes the change. `now` is in epoch
        seconds. Raises TooLarge for the user's limit, Unavailable for the hub's.
        """
        ...

    async def subscription_to_evict(self, realm: str, application: Application) -> tuple[SessionKey, str] | None:
        """The session and id of the subscription that must go before `application` gets another one. None: the user has room.

        Of the application's own subscriptions without a connection, the longest absent goes first. Raises TooMany where all of
        them are connected (SUB-22).
        """
        ...

    async def has_verified_callback(self, realm: str, application: Application, place: str) -> bool:
        """Whether the application has a verified callback at this place (wire.callback_url.origin_of; WHK-13)."""
        ...


class TokenVerifier(Protocol):
    """Verifies the token of the Authorization header."""

    async def verify(self, token: str) -> Principal:
        """The bearer of `token`. Raises Unauthenticated, or Unavailable while its issuer does not answer (AUT-16)."""
        ...

    def recall(self, token: str) -> Principal | None:
        """The bearer of a token that was verified before and is still valid. Asks nobody. None: only `verify` can tell."""
        ...
