"""After joining: is what the application shows what is open at the hub? (FHIRcast 3.0.0, 2.4 and 2.9)"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fhircast_client.errors import HubError
from fhircast_client.events import Event, Kind, make_event, named
from fhircast_client.handling import Delivery, Handlers
from fhircast_client.publishing import Publisher
from fhircast_client.state import SessionState
from fhircast_client.timing import Backoff, timestamp_now

_log = logging.getLogger("fhircast_client")
#: Statuses of a hub that has no current context to tell.
_NEVER = frozenset((400, 401, 403, 404, 405, 501))
#: Seconds between two questions, at most.
_MOST_DELAY = 30.0
_ASKING = "the connection is back, and what is open at the hub is being found out"
_UNTOLD = "the connection was lost for a while, and the hub does not tell what is open: the next open will show it"
_OTHER = "another context is open at the hub, which this application does not follow"


class Joining:
    """Compares what is shown with what the hub tells, and asks it where it tells nothing."""

    def __init__(
        self,
        state: SessionState,
        publisher: Publisher,
        handlers: Handlers,
        *,
        settle: float,
        changed: Callable[[], None],
    ) -> None:
        self._state, self._publisher, self._handlers = state, publisher, handlers
        self._settle, self._changed = settle, changed
        self._told = False  # something that settles it came since the connection was made
        self._before = False

    def begin(self, *, again: bool, follows_opens: bool) -> None:
        """The hub confirmed; `again`: not for the first time. Only who follows opens can be shown the wrong one."""
        self._told, self._before = not follows_opens, again
        if again and follows_opens:
            self._state.sync.unknown(_ASKING)

    def heard(self, event: Event) -> None:
        """An event came."""
        current = self._state.following.current
        if event.kind in (Kind.OPEN, Kind.HOME):
            # An older open than what is shown was open before; whether what is shown still is, it does not say.
            self._told |= current is None or current.id == event.id or not self._state.following.is_old(event)
        elif event.kind is Kind.CLOSE and current is not None and event.anchor == current.anchor:
            self._told = True

    async def settle(self) -> None:
        """After a while, ask the hub if it told nothing that settles it."""
        await asyncio.sleep(self._settle)
        self._state.contents.joined()
        backoff = Backoff(self._settle, _MOST_DELAY)
        while not self._told:
            why = await self._answer()
            if why is not None:
                self._state.sync.unknown(why)
                break
            await asyncio.sleep(backoff.next())
        else:
            self._state.sync.unknown("")
        self._changed()

    async def _answer(self) -> str | None:
        """Ask. What is still unknown then, as a sentence, "" for nothing; None where it helps to ask again."""
        count = self._state.count
        try:
            event, _, _ = await self._publisher.current()
        except HubError as error:
            _log.info("the hub does not tell what is open (%s)", error.status)
            if not self._before:
                return ""
            self._state.sync.unknown(_UNTOLD)
            self._changed()
            return _UNTOLD if error.status in _NEVER else None
        shown = self._state.following.current
        if delivery := self._difference(event, shown, lambda: self._state.count == count):
            self._handlers.deliver(delivery)
            await delivery.done
        if self._state.count != count:
            return None  # what came in the meantime is newer than the answer
        return _OTHER if delivery is None and event is not None and not _agrees(event, shown) else ""

    def _difference(self, event: Event | None, shown: Event | None, applies: Callable[[], bool]) -> Delivery | None:
        """What the application has to be told, for `event` is what made the hub's current context."""
        if event is None:
            return Delivery(self._close(shown), applies=applies, again=True) if shown else None
        if (shown is None or shown.anchor != event.anchor) and self._handlers.handles(event.name):
            return Delivery(event, applies=applies, told=True, again=True)
        return None

    def _close(self, shown: Event) -> Event:
        """The close that nobody told, of what is shown."""
        name = f"{shown.anchor.partition('/')[0]}-close"
        stamp = timestamp_now(self._state.newest)
        return make_event(shown.topic, name, shown.context, timestamp=stamp, own=False)


def _agrees(event: Event, shown: Event | None) -> bool:
    """Whether what is shown is part of the hub's current context."""
    return shown is None or shown.anchor in [named(item) for item in event.context]
