"""Publishing events, one open or close at a time, and sending them again (FHIRcast 3.0.0, 2.6)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from fhircast_client.engine import Engine
from fhircast_client.errors import HubError
from fhircast_client.event_loops import PerLoop
from fhircast_client.event_signal import EventSignal
from fhircast_client.events import Event, make_event, parse_event
from fhircast_client.following import says_the_same
from fhircast_client.hub import Hub
from fhircast_client.sync_errors import make_sync_error
from fhircast_client.timestamps import now, timestamp_now
from fhircast_client.timings import Backoff, Timings

_log = logging.getLogger("fhircast_client")
#: Attempts to post a SyncError.
_MOST_POSTS = 3
#: Seconds beyond `resend` after which a resent open counts as followed, unless a SyncError names it.
_QUIET = 2.0
#: Two pings: an echo comes much sooner.
_ECHO_SECONDS = 30.0


class Publisher:
    """Posts events and reports the hub's answer to the engine. `changed` is called when the status may have changed.

    `free`: a lock, held while an own open or close is being posted. Received events wait for it. `spawn` runs
    background tasks. `hand` puts an own event into the queue of the handlers.
    """

    def __init__(
        self,
        hub: Hub,
        engine: Engine,
        topic: str,
        timings: Timings,
        event_signal: EventSignal,
        *,
        name: str,
        changed: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        hand: Callable[[Event], None],
    ) -> None:
        self._hub, self._engine, self._topic, self._timings, self._name = hub, engine, topic, timings, name
        self._event_signal, self._changed, self._spawn, self._hand = event_signal, changed, spawn, hand
        self.free = PerLoop(asyncio.Lock)
        #: Ids of own events that are being retried.
        self._telling: set[str] = set()
        #: Names of events whose handlers publish the event that they were called with.
        self._said: set[str] = set()

    async def open(self, name: str, context: Iterable[Mapping[str, Any]]) -> Event:
        """Post an open. Returns the event once the hub has accepted it. A context that all applications show is not
        posted again."""
        made = make_event(self._topic, name, context)
        async with self.free.here:
            event = self._stamped(made)
            if known := self._engine.already_shown(event):
                self._notice(event)
                return known
            unsent = self._engine.unsent.newest
            if unsent and unsent.id in self._telling and says_the_same(unsent, event):
                return await self.post(unsent)
            return await self.post(
                event
                # an event that is not being retried gets a new timestamp: other applications may have opened a
                # context since
            )

    async def publish(
        self,
        name: str,
        context: Iterable[Mapping[str, Any]],
        *,
        id: str | None = None,
        timestamp: str | None = None,
    ) -> Event:
        """Post an event. Returns the event once the hub has accepted it."""
        event = make_event(self._topic, name, context, id=id, timestamp=timestamp)
        if not event.kind.changes_context:
            return await self.post(event)
        async with self.free.here:
            return await self.post(event if timestamp else self._stamped(event))

    async def refuse(self, about: Event, reason: str) -> None:
        """Post a SyncError about an event that was answered with 202 and is not followed."""
        event = make_sync_error(self._topic, about, self._name, reason)
        backoff = Backoff(self._timings.backoff_first, self._timings.backoff_most)
        for _ in range(_MOST_POSTS):
            try:
                await self.post(event)
            except HubError as error:
                if error.is_refusal:
                    break
                await asyncio.sleep(max(backoff.next(), error.retry_after or 0.0))
            else:
                return
        _log.warning("no SyncError could be sent about an event that is not followed")

    async def resend(self, event: Event) -> None:
        """Post an own open again at regular intervals, until no SyncError names it any more or a newer change came
        (2.6)."""
        resending, interval = self._engine.resending, self._timings.resend or 0.0
        try:
            await asyncio.sleep(interval)
            while (is_sent := await self._sent_again(event)) is not False:
                if is_sent and not await self._event_signal.until(lambda: resending.is_due(event), interval + _QUIET):
                    self._engine.sync.assume_recovered(event.id)
                    self._changed()
                    return
                await asyncio.sleep(interval)
        finally:
            resending.ended(event)

    async def _sent_again(self, event: Event) -> bool | None:
        """Post once more. Returns True if the hub accepted, False to stop (a newer change came, or the hub refused),
        None to try again."""
        async with self.free.here:
            if not self._engine.changes.is_newest(event):
                return False
            self._engine.resending.sent(event)
            try:
                await self._hub.publish(event.body)
            except HubError as error:
                return False if error.is_refusal else None
        return True

    async def _tell(self, event: Event, delay: float) -> None:
        """Retry an own event that the hub may not have, with backoff, until the hub accepts it or a newer event
        overtakes it."""
        try:
            await self._tell_until_told(event, delay)
        finally:
            self._telling.discard(event.id)

    async def _tell_until_told(self, event: Event, delay: float) -> None:
        backoff = Backoff(self._timings.backoff_first, self._timings.backoff_most)
        while True:
            await asyncio.sleep(max(backoff.next(), delay))
            async with self.free.here:
                if not self._engine.unsent.is_retried(event):
                    return
                if self._engine.unsent.must_wait(event):
                    continue
                try:
                    await self._hub.publish(event.body)
                except HubError as error:
                    delay = error.retry_after or 0.0
                    self._engine.publish_failed(event, str(error), is_final=error.is_refusal)
                    self._changed()
                    continue
                self._engine.accepted_late(event)
            self._hand(event)
            self._changed()
            return

    def _stamped(self, event: Event) -> Event:
        """An own event with a timestamp that is newer than all received events."""
        return parse_event({**event.body, "timestamp": timestamp_now(self._engine.changes.newest(now()))}, own=True)

    def _notice(self, event: Event) -> None:
        if self._engine.races.is_echoed_by_handler(event) and event.name.lower() not in self._said:
            self._said.add(event.name.lower())
            _log.warning("the handler of %s publishes the event that it was called with", event.name)

    async def post(self, event: Event) -> Event:
        """Post an event. Returns the event once the hub has accepted it. Raises HubError."""
        self._notice(event)
        self._engine.sending(event)
        try:
            await self._hub.publish(event.body)
        except HubError as error:
            self._not_sent(event, str(error), is_final=error.is_refusal, delay=error.retry_after or 0.0)
            raise
        except asyncio.CancelledError:
            self._not_sent(event, "the call was cancelled", is_final=False)
            raise
        except Exception as error:
            self._not_sent(event, f"it failed ({type(error).__name__})", is_final=True)
            raise
        self._engine.accepted(event, now())
        if event.kind.changes_context and self._engine.is_granted(event.name):
            self._spawn(self._await_echo(event))
        self._changed()
        return event

    def _not_sent(self, event: Event, why: str, *, is_final: bool, delay: float = 0.0) -> None:
        self._engine.publish_failed(event, why, is_final=is_final)
        if self._engine.unsent.is_retried(event):
            self._begin_telling(event, delay)
        self._changed()

    def tell_untold(self) -> None:
        """The client runs again: retry the events that were not sent before."""
        for event in self._engine.unsent.retried:
            self._begin_telling(event, 0.0)

    def _begin_telling(self, event: Event, delay: float) -> None:
        if event.id not in self._telling and self._spawn(self._tell(event, delay)) is not None:
            self._telling.add(event.id)

    async def _await_echo(self, event: Event) -> None:
        await asyncio.sleep(_ECHO_SECONDS)
        self._engine.echo_missing(event)
        self._changed()
