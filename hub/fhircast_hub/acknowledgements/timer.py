"""AckTimer: submits refusals and late acknowledgements to the service. tracker.py finds them; this module wakes the tracker in time."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from fhircast_hub.acknowledgements.tracker import AckTracker
from fhircast_hub.budgets.leaky_bucket import LeakyBuckets
from fhircast_hub.budgets.table import REFUSALS
from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.state.commands import Rejected
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.state.session import Subscription
from fhircast_hub.service.ports import Clock
from fhircast_hub.service.request_id import REQUEST_ID
from fhircast_hub.service.service import POLL_SECONDS, Service
from fhircast_hub.telemetry.metrics import Metrics

#: Seconds between two checks for missed acknowledgements, at least.
MIN_WAIT = 0.1


class AckTimer:
    """Times the acknowledgements of this node's connections."""

    def __init__(self, service: Service, tracker: AckTracker, clock: Clock, metrics: Metrics) -> None:
        self._service = service
        self._tracker = tracker
        self._clock = clock
        self._metrics = metrics
        self._timer: asyncio.TimerHandle | None = None
        #: Limits the SyncErrors that refusals cause in a session.
        self._refusals = LeakyBuckets(REFUSALS.most, REFUSALS.most / 4)

    async def connected(self, subscription_id: str, connection: str) -> tuple[SessionKey, Subscription]:
        """Connect a socket. Returns its session and subscription. Raises NotFound where there is no such subscription."""
        key, subscription = await self._service.connected(
            subscription_id, connection, self._tracker.delivered_until(subscription_id)
        )
        self._tracker.connected(key, subscription, connection, self._clock())
        return key, subscription

    def disconnected(self, connection: str) -> float:
        """Forget a connection. Returns its `delivered_until` (epoch seconds), 0 if unknown."""
        return self._tracker.disconnected(connection)

    def alive(self, connection: str, at: float) -> None:
        """A connection answered a ping that was sent at `at` (epoch seconds)."""
        self._tracker.alive(connection, at)

    def sent(self, event_ref: EventRef, to: Sequence[str], later: Collection[str] = ()) -> None:
        """Time a frame that was handed to the connections `to`. See AckTracker.sent for `later`."""
        self._tracker.sent(event_ref, to, self._clock(), later)
        if self._timer is None:
            self._set_timer()

    def heard(self, connection: str, message: bytes) -> None:
        """Take the text of a connection's frame. Texts that acknowledge nothing are counted and ignored (SYN-15)."""
        answer = self._tracker.acknowledged(connection, message, self._clock())
        if answer is None:
            self._metrics.frames_ignored.inc()
            return
        self._metrics.acknowledgements.inc()
        key, commands = answer
        for command in commands:
            if isinstance(command, Rejected):
                self._metrics.refusals.inc()
                if self._refusals.take(key, self._clock()):
                    continue  # all others receive each refusal: many that refuse everything would flood them
            self._service.submit_soon(key, command)

    def acknowledged_at(self, subscription_id: str) -> float | None:
        """When the subscription's present connection acknowledged last (epoch seconds). None: never, or not on this node."""
        return self._tracker.acknowledged_at(subscription_id)

    def check(self) -> None:
        """Submit the missed acknowledgements."""
        for key, command in self._tracker.timed_out(self._clock()):
            self._metrics.unanswered.inc(len(command.missed))
            self._service.submit_soon(key, command)

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer:
            self._timer.cancel()

    def _set_timer(self) -> None:
        """Set the timer for the oldest waiting frame. Newer frames are due later."""
        self._timer = None
        if (at := self._tracker.deadline()) is not None:
            # The clock may have been set: wait neither too briefly nor too long.
            wait = min(max(at - self._clock(), MIN_WAIT), POLL_SECONDS)
            self._timer = asyncio.get_running_loop().call_later(wait, self._on_timer)

    def _on_timer(self) -> None:
        REQUEST_ID.set(None)  # the timer runs in the context of the request that set it
        self.check()
        self._set_timer()
