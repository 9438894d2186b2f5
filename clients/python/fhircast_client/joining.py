"""After joining: is what the application shows what is open at the hub? (FHIRcast 3.0.0, 2.4 and 2.9)"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fhircast_client.engine import Engine
from fhircast_client.errors import HubError
from fhircast_client.events import Event, Kind, make_event
from fhircast_client.inbox import Delivery, Inbox
from fhircast_client.timing import Backoff, now, timestamp_now
from fhircast_client.updates import Updates

_log = logging.getLogger("fhircast_client")
#: Statuses of a hub that has no current context to tell.
_NEVER = frozenset((400, 401, 403, 404, 405, 501))
#: Seconds between two questions: at first, and at most.
_FIRST_DELAY, _MOST_DELAY = 1.0, 30.0


class Joining:
    """Asks the hub what is open where it does not tell by itself, and has the application follow the answer."""

    def __init__(self, engine: Engine, updates: Updates, inbox: Inbox, *, changed: Callable[[], None]) -> None:
        self._engine, self._updates, self._inbox, self._changed = engine, updates, inbox, changed

    async def settle(self, seconds: float) -> None:
        """After `seconds`, ask the hub if it told nothing that settles it."""
        await asyncio.sleep(seconds)
        self._engine.content.joined()
        backoff = Backoff(max(seconds, _FIRST_DELAY), _MOST_DELAY)
        while not self._engine.asking.is_told and not await self._ask():
            self._changed()
            await asyncio.sleep(backoff.next())
        self._changed()

    async def _ask(self) -> bool:
        """Ask. Whether there is nothing more to be asked."""
        asked = self._engine.changes.count
        try:
            event, _, _ = await self._updates.current()
        except HubError as error:
            _log.info("the hub does not tell what is open (%s)", error.status)
            is_final = error.status in _NEVER and error.is_hubs
            self._engine.asking.unanswered(is_final=is_final)
            return is_final or not self._engine.asking.must_ask_again
        is_over = False
        delivery = self._difference(event, lambda: not is_over and self._engine.changes.count == asked)
        if delivery is not None:
            self._inbox.deliver(delivery)
            try:
                await delivery.done
            finally:
                is_over = True  # another connection has an answer of its own
        return self._engine.settled(event, asked=asked, was_handed=delivery is not None)

    def _difference(self, event: Event | None, applies: Callable[[], bool]) -> Delivery | None:
        """What the application has to be handed, for `event` is what made the hub's current context."""
        match self._engine.told(event):
            case (Kind.OPEN, opened):
                return Delivery(opened, applies=applies, told=True, again=True)
            case (Kind.CLOSE, shown):
                return Delivery(self._close(shown), applies=applies, again=True)
        return None

    def _close(self, shown: Event) -> Event:
        """The close that nobody told, of what is shown."""
        name = f"{shown.anchor.partition('/')[0]}-close"
        stamp = timestamp_now(self._engine.changes.newest(now()))
        return make_event(shown.topic, name, shown.context, timestamp=stamp, own=False)
