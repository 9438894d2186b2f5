"""One session: connects the engine, the handlers and the publisher."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fhircast_client.context_check import ContextCheck
from fhircast_client.engine import Engine
from fhircast_client.event_loops import PerLoop
from fhircast_client.event_signal import EventSignal
from fhircast_client.events import Event, Kind, WireMessage, kind_of, parse_event
from fhircast_client.frames import Confirmation, heartbeat_period
from fhircast_client.hub import Hub
from fhircast_client.inbox import Delivery, Handling, Inbox
from fhircast_client.publisher import Publisher
from fhircast_client.socket import Channel
from fhircast_client.status import Status
from fhircast_client.sync_error_expiry import SyncErrorExpiry
from fhircast_client.timings import Timings
from fhircast_client.updates import Updates

_log = logging.getLogger("fhircast_client")
#: Seconds between two heartbeats, where the hub does not tell them.
_HEARTBEAT_SECONDS = 30.0
_OK, _FAILED = 200, 500


class Session:
    """The session of one client. Implements the listener of its Connection.

    `spawn` runs background tasks while the client runs. `changed` is called with every new status, `wire` with every
    message.
    """

    def __init__(
        self,
        hub: Hub,
        topic: str,
        timings: Timings,
        *,
        name: str,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None] | None],
        changed: Callable[[Status], None],
        wire: Callable[[WireMessage], None],
    ) -> None:
        handlings: dict[str, Handling] = {}
        self.engine = Engine(name, handlings.keys())
        self.joined = PerLoop(asyncio.Event)
        self._spawn, self._report, self._wire = spawn, changed, wire
        self._status = self.engine.sync.status
        self._event_signal = EventSignal()
        common = hub, self.engine, topic, timings, self._event_signal
        self.publisher = Publisher(*common, name=name, changed=self.changed, spawn=spawn, hand=self._hand)
        self.updates = Updates(*common, post=self.publisher.post, spawn=spawn)
        self.inbox = Inbox(
            self.engine,
            handlings,
            timings,
            free=self.publisher.free,
            tell=self._tell,
            changed=self.changed,
            known=self.updates.known,
        )
        self._timings, self._topic = timings, topic
        self._joining = ContextCheck(self.engine, self.updates, self.inbox, changed=self.changed)
        self._sync_error_expiry = SyncErrorExpiry(timings.sync_error_expiry, spawn=spawn, quiet=self._quiet)
        self._settling: asyncio.Task[None] | None = None

    @property
    def wanted(self) -> list[str]:
        """The event names to subscribe to: those with a handler, the closes that belong to opens, and SyncError."""
        names = self.inbox.names
        closes = [name[: -len("open")] + "close" for name in names if kind_of(name) is Kind.OPEN]
        return list({name.lower(): name for name in (*closes, "SyncError", *names)}.values())

    def changed(self) -> None:
        """Report the status if it changed."""
        if self.engine.doubt.must_ask:
            self.engine.doubt.must_ask = False
            self._settle(0.0)
        status = self.engine.sync.status
        if status != self._status:
            self._status = status
            self._report(status)

    # Listener of the connection

    def confirmed(self, confirmation: Confirmation, *, first: bool, ordered: bool) -> None:
        """The hub confirmed."""
        self._wire(WireMessage("in", "confirmation", _confirmation_body(confirmation)))
        if not first:
            self.engine.granted = confirmation.events
            return
        self.engine.connected(confirmation.events, ordered=ordered)
        self._settle(self._timings.settle)
        self.publisher.tell_untold()
        self.joined.here.set()
        self.changed()

    def received(self, channel: Channel, message: Any) -> float | None:
        """A message came. Returns the seconds until the next heartbeat for a heartbeat."""
        try:
            event = parse_event(message)
        except ValueError:
            if isinstance(message, dict) and "event" in message:
                self.unreadable(channel, message["id"] if isinstance(message.get("id"), str) else "")
            return None
        if event.topic and event.topic != self._topic:
            return None  # events of another session must not be followed
        if event.kind is not Kind.HEARTBEAT:
            self._wire(WireMessage("in", "event", event.body))
        if event.kind in (Kind.OPEN, Kind.CLOSE) and not event.anchor:
            self.unreadable(channel, event.id)
            return None
        if event.kind in (Kind.HEARTBEAT, Kind.SYNC_ERROR):
            self._acknowledge(channel, event, _OK)
        if event.kind is Kind.HEARTBEAT:
            if self.inbox.handles(event.name):
                self.inbox.deliver(Delivery(event))
            return heartbeat_period(event) or _HEARTBEAT_SECONDS
        self._event(channel, parse_event(message, own=self.engine.is_own(event.id)))
        self.changed()
        return None

    def unreadable(self, channel: Channel, event_id: str) -> None:
        """A frame could not be read."""
        if event_id:
            body = {"id": event_id, "status": _FAILED}
            self._wire(WireMessage("out", "acknowledgement", body, _FAILED))
            channel.send(body)
        self.engine.unreadable()
        self.changed()

    def disconnected(self, why: str) -> None:
        """The connection is lost."""
        self._stop_settling()
        self.engine.disconnected(why)
        self.changed()

    def denied(self, message: dict[str, Any]) -> None:
        """The hub ended the subscription."""
        self._wire(WireMessage("in", "denial", message))

    def ended(self, why: str) -> None:
        """The client is stopped, or cannot go on."""
        self.joined.here.clear()
        self._stop_settling()
        self._sync_error_expiry.stop()
        self.inbox.clear()
        self.engine.ended(why)
        self.changed()

    def _event(self, channel: Channel, event: Event) -> None:
        self.engine.received(event)
        if event.kind is Kind.SYNC_ERROR:
            self._sync_error(event)
        self.updates.received(event)
        self._event_signal.notify()
        if event.kind is Kind.SYNC_ERROR:
            if self.inbox.handles(event.name):
                self.inbox.deliver(Delivery(event))
            return
        if event.kind in (Kind.OPEN, Kind.UPDATE):
            self._fetch_unknown(event.anchor)
        self.inbox.deliver(Delivery(event, lambda status, reason: self._acknowledge(channel, event, status, reason)))

    def _sync_error(self, event: Event) -> None:
        reported = self.engine.sync_error(event)
        for own_open in reported.resend if self._timings.resend else ():
            self._spawn(self.publisher.resend(own_open))
        for event_id in reported.unsubscribed:
            self._sync_error_expiry.named(event_id)

    def _quiet(self, event_id: str) -> None:
        self.engine.sync.assume_recovered(event_id)
        self.changed()

    def _hand(self, event: Event) -> None:
        self.inbox.deliver(Delivery(event))

    def _acknowledge(self, channel: Channel, event: Event, status: int, reason: str | None = None) -> None:
        body: dict[str, Any] = {"id": event.id, "status": status}
        if reason:
            body["reason"] = reason
        if event.kind is not Kind.HEARTBEAT:
            self._wire(WireMessage("out", "acknowledgement", body, status))
        channel.send(body)

    def _tell(self, event: Event, reason: str) -> None:
        self._spawn(self.publisher.refuse(event, reason))

    def _settle(self, seconds: float) -> None:
        self._stop_settling()
        self._settling = self._spawn(self._joining.settle(seconds))

    def _stop_settling(self) -> None:
        if self._settling is not None:
            self._settling.cancel()

    def _fetch_unknown(self, anchor: str) -> None:
        """Fetch unknown content where a handler of updates needs it."""
        if self.inbox.handles(f"{anchor.partition('/')[0]}-update"):
            self.updates.fetch_unknown(anchor)


def _confirmation_body(confirmation: Confirmation) -> dict[str, Any]:
    return {
        "hub.mode": "subscribe",
        "hub.events": list(confirmation.events),
        "hub.lease_seconds": confirmation.lease_seconds,
    }
