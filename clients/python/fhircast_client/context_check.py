"""After a connection is made: does the application show the hub's current context? (FHIRcast 3.0.0, 2.4 and 2.9)"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fhircast_client.engine import Engine
from fhircast_client.errors import HubError
from fhircast_client.events import Event, make_event
from fhircast_client.inbox import Delivery, Inbox
from fhircast_client.timestamps import now, timestamp_now
from fhircast_client.timings import Backoff
from fhircast_client.updates import Updates

_log = logging.getLogger("fhircast_client")
#: Statuses of a hub that does not tell its current context.
_NEVER = frozenset((400, 401, 403, 404, 405, 501))
#: Seconds between two requests: the first delay, and the longest.
_FIRST_DELAY, _MOST_DELAY = 1.0, 30.0


class ContextCheck:
    """Asks the hub for its current context where no event tells it, and hands differences to the application."""

    def __init__(self, engine: Engine, updates: Updates, inbox: Inbox, *, changed: Callable[[], None]) -> None:
        self._engine, self._updates, self._inbox, self._changed = engine, updates, inbox, changed

    async def settle(self, seconds: float) -> None:
        """After `seconds`, ask the hub if no event told the current context."""
        await asyncio.sleep(seconds)
        self._engine.content.replay_ended()
        backoff = Backoff(max(seconds, _FIRST_DELAY), _MOST_DELAY)
        while not self._engine.doubt.is_answered and not await self._ask():
            self._changed()
            await asyncio.sleep(backoff.next())
        self._changed()

    async def _ask(self) -> bool:
        """Ask once. Returns whether the client is done asking."""
        await self._inbox.idle()  # the running handler would show its event over the answer
        if self._engine.doubt.is_answered:
            return True
        asked = self._engine.changes.count
        try:
            event, version, _ = await self._updates.current()
        except HubError as error:
            _log.info("the hub does not tell what is open (%s)", error.status)
            is_final = error.status in _NEVER and error.is_hubs
            self._engine.doubt.unanswered(is_final=is_final)
            return is_final or not self._engine.doubt.must_ask_again
        is_over = False
        applies = lambda: not is_over and self._engine.changes.count == asked  # noqa: E731  # it is short
        differences = self._engine.differences(event, version)
        deliveries = [self._delivery(opened, applies, is_open=event is not None) for opened in differences]
        for delivery in deliveries:
            self._inbox.deliver(delivery)
        try:
            await asyncio.gather(*(delivery.done for delivery in deliveries))
        finally:
            is_over = True  # the next connection asks again
        return self._engine.context_checked(event, asked=asked, was_handed=bool(deliveries))

    def _delivery(self, opened: Event, applies: Callable[[], bool], *, is_open: bool) -> Delivery:
        """Hands the hub's open to the application, or the close of a context that the hub does not have open."""
        return Delivery(opened if is_open else self._close(opened), applies=applies, queried=is_open, retry=True)

    def _close(self, shown: Event) -> Event:
        """The missing close of a context that is open here."""
        name = f"{shown.anchor.partition('/')[0]}-close"
        stamp = timestamp_now(self._engine.changes.newest(now()))
        return make_event(shown.topic, name, shown.context, timestamp=stamp, own=False)
