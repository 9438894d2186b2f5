"""Who follows and who does not: tracker, acknowledgements and silence on this node, made commands of the service."""

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
from fhircast_hub.service.service import POLL_SECONDS, REQUEST_ID, Service
from fhircast_hub.telemetry.metrics import Metrics

#: Seconds between two looks at who is silent, at least.
MIN_WAIT = 0.1


class AckTimer:
    """Times what was sent, and hears what is answered."""

    def __init__(self, service: Service, tracker: AckTracker, clock: Clock, metrics: Metrics) -> None:
        self._service = service
        self._tracker = tracker
        self._clock = clock
        self._metrics = metrics
        self._timer: asyncio.TimerHandle | None = None
        self._refusals = LeakyBuckets(REFUSALS.most, REFUSALS.most / 4)

    async def connected(self, subscription_id: str, connection: str) -> tuple[SessionKey, Subscription]:
        """A socket came for the endpoint whose digest is `subscription_id`; its session and subscription. Raises NotFound when there is none."""
        key, subscription = await self._service.connected(
            subscription_id, connection, self._tracker.delivered_until(subscription_id)
        )
        self._tracker.connected(key, subscription, connection, self._clock())
        return key, subscription

    def disconnected(self, connection: str) -> float:
        """A connection went; until when all that was sent to it has arrived."""
        return self._tracker.disconnected(connection)

    def alive(self, connection: str, at: float) -> None:
        """A connection answered what it was asked `at` a time."""
        self._tracker.alive(connection, at)

    def sent(self, event_ref: EventRef, to: Sequence[str], later: Collection[str] = ()) -> None:
        """A frame was handed to these connections, but to those of `later` it was not yet."""
        self._tracker.sent(event_ref, to, self._clock(), later)
        if self._timer is None:
            self._arm()

    def heard(self, connection: str, message: bytes) -> None:
        """A connection sent this text. What is no acknowledgement is counted, and forgotten (SYN-15)."""
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
                    continue  # each is told to all others: a crowd that refuses everything would be told of without end
            self._service.submit_soon(key, command)

    def acknowledged_at(self, subscription_id: str) -> float | None:
        """When a subscription that is connected here acknowledged last (epoch seconds); None if it never did."""
        return self._tracker.acknowledged_at(subscription_id)

    def check(self) -> None:
        """Report who did not answer in time."""
        for key, command in self._tracker.unanswered(self._clock()):
            self._metrics.unanswered.inc(len(command.missed))
            self._service.submit_soon(key, command)

    def stop(self) -> None:
        """Report nothing any more."""
        if self._timer:
            self._timer.cancel()

    def _arm(self) -> None:
        """Set the timer to what was sent first: whatever is sent later is due later."""
        self._timer = None
        if (at := self._tracker.deadline()) is not None:
            # Neither in haste nor too late: the clock may have been set.
            wait = min(max(at - self._clock(), MIN_WAIT), POLL_SECONDS)
            self._timer = asyncio.get_running_loop().call_later(wait, self._fire)

    def _fire(self) -> None:
        REQUEST_ID.set(None)  # whichever request set the timer, this is not its doing
        self.check()
        self._arm()
