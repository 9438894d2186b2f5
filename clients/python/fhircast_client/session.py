"""What the client does with what comes: the state, the handlers, and what is published, put together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fhircast_client.channel import Channel
from fhircast_client.errors import HubError
from fhircast_client.events import Event, Kind, WireMessage, kind_of, parse_event
from fhircast_client.frames import Confirmation, heartbeat_period
from fhircast_client.handling import Delivery, Handlers
from fhircast_client.hub import Hub
from fhircast_client.joining import Joining
from fhircast_client.outcomes import read_sync_error
from fhircast_client.publishing import Publisher
from fhircast_client.state import SessionState
from fhircast_client.status import Status
from fhircast_client.timing import Timings
from fhircast_client.unseen import Unseen

_log = logging.getLogger("fhircast_client")
#: Seconds between two heartbeats of a hub that does not say.
_HEARTBEAT_SECONDS = 30.0
_OK = 200


class Session:
    """One session as this application takes part in it. It listens to a Connection.

    `spawn` runs what takes longer, while the client runs; `changed` is called with every new status, `wire` with every message.
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
        self.state = SessionState()
        self.granted: tuple[str, ...] = ()
        self.joined = asyncio.Event()
        self._spawn, self._report, self._wire = spawn, changed, wire
        self._status = self.state.sync.status
        self.publisher = Publisher(
            hub, self.state, topic, timings, name=name, granted=self.is_granted, changed=self.changed
        )
        self.handlers = Handlers(
            self.state,
            timings,
            free=self.publisher.free,
            tell=self._tell,
            changed=self.changed,
            shared=self._shared,
        )
        self._patience = timings.request
        self._joining = Joining(self.state, self.publisher, self.handlers, settle=timings.settle, changed=self.changed)
        self._unseen = Unseen(timings.unseen, spawn=spawn, quiet=self._quiet)
        self._settling: asyncio.Task[None] | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._unknown: set[str] = set()

    @property
    def wanted(self) -> list[str]:
        """The events to subscribe to: those with a handler, the closes of the opens among them, and SyncError."""
        names = self.handlers.names
        closes = [name[: -len("open")] + "close" for name in names if kind_of(name) is Kind.OPEN]
        return list({name.lower(): name for name in (*closes, "SyncError", *names)}.values())

    def is_granted(self, name: str) -> bool:
        """Whether the hub sends events of this name."""
        return name.lower() in (granted.lower() for granted in self.granted)

    def changed(self) -> None:
        """Report the status if it is another one."""
        status = self.state.sync.status
        if status != self._status:
            self._status = status
            self._report(status)

    # Listener of the connection

    def confirmed(self, channel: Channel, confirmation: Confirmation, *, first: bool) -> None:
        """The hub confirmed."""
        self._wire(WireMessage("in", "confirmation", _confirmation_body(confirmation)))
        self.granted = confirmation.events
        if not first:
            return
        self.state.contents.joining()
        self.state.following.joining()
        self.state.sync.connected()
        follows = any(kind_of(name) is Kind.OPEN for name in self.handlers.names)
        again = self.joined.is_set() or self.state.following.current is not None
        self._joining.begin(again=again, follows_opens=follows)
        self._settling = self._spawn(self._joining.settle())
        self.joined.set()
        self.changed()

    def heard(self, channel: Channel, message: Any) -> float | None:
        """A message came; for a heartbeat the seconds until the next."""
        try:
            event = parse_event(message)
        except ValueError:
            return None
        if event.kind is not Kind.HEARTBEAT:
            self._wire(WireMessage("in", "event", event.body))
        if event.kind in (Kind.HEARTBEAT, Kind.SYNC_ERROR):
            self._acknowledge(channel, event, _OK)
        if event.kind is Kind.HEARTBEAT:
            if self.handlers.handles(event.name):
                self.handlers.deliver(Delivery(event))
            return heartbeat_period(event) or _HEARTBEAT_SECONDS
        self._event(channel, parse_event(message, own=self.state.is_own(event.id)))
        self.changed()
        return None

    def apart(self, why: str) -> None:
        """The connection is lost."""
        self._stop_settling()
        self.state.sync.apart("connecting", why)
        self.changed()

    def denied(self, message: dict[str, Any]) -> None:
        """The hub ended the subscription."""
        self._wire(WireMessage("in", "denial", message))

    def ended(self, why: str) -> None:
        """The client is stopped, or cannot go on."""
        self.granted = ()
        self.joined.clear()
        self._stop_settling()
        self._unseen.stop()
        self.handlers.clear()
        self.state.sync.apart("ended", why)
        self.changed()

    def _event(self, channel: Channel, event: Event) -> None:
        self._joining.heard(event)
        self.state.arrived(event)
        self.publisher.came(event)
        if event.kind is Kind.SYNC_ERROR:
            if not event.own:
                self._sync_error(event)
            if self.handlers.handles(event.name):
                self.handlers.deliver(Delivery(event))
            return
        if event.kind in (Kind.OPEN, Kind.UPDATE):
            self._fetch_unknown(event.anchor)
        self.handlers.deliver(Delivery(event, lambda status, reason: self._acknowledge(channel, event, status, reason)))

    def _sync_error(self, event: Event) -> None:
        error = read_sync_error(event)
        self.state.sync_error(event, error)
        if open_ := self.publisher.to_resend(error.event_id):
            self._spawn(self.publisher.resend(open_))
        # Of an own event it is known here when it is followed: it is sent again, or something newer is opened.
        if error.event_name and not self.is_granted(error.event_name) and not self.state.is_own(error.event_id):
            self._unseen.named(error.event_id)

    def _quiet(self, event_id: str) -> None:
        self.state.sync.quiet(event_id)
        self.changed()

    def _acknowledge(self, channel: Channel, event: Event, status: int, reason: str | None = None) -> None:
        body: dict[str, Any] = {"id": event.id, "status": status}
        if reason:
            body["reason"] = reason
        if event.kind is not Kind.HEARTBEAT:
            self._wire(WireMessage("out", "acknowledgement", body, status))
        channel.send(body)

    def _tell(self, event: Event, reason: str) -> None:
        self._spawn(self.publisher.refuse(event, reason))

    def _stop_settling(self) -> None:
        if self._settling is not None:
            self._settling.cancel()

    def _fetch_unknown(self, anchor: str) -> None:
        """Ask for what is shared in a context, where it matters and is not known."""
        shared = self.state.contents.get(anchor)
        if shared is None or shared.content is not None or shared.contentless:
            return
        if self.handlers.handles(f"{anchor.partition('/')[0]}-update"):
            self._unknown.add(anchor)
            if self._fetching is None or self._fetching.done():
                self._fetching = self._spawn(self._fetch())

    async def _shared(self, anchor: str) -> None:
        """A handler that is told of an update finds it in the content, where the hub tells that in time."""
        known = self.state.contents.get(anchor)
        if known and known.content is None and self._fetching is not None:
            await asyncio.wait((self._fetching,), timeout=self._patience)

    async def _fetch(self) -> None:
        while self._unknown:
            self._unknown.clear()
            try:
                await self.publisher.current()
            except HubError as error:
                _log.info("what is shared could not be fetched (%s)", error.status)
                self._unknown.clear()
            shared = {anchor: self.state.contents.get(anchor) for anchor in self._unknown}
            self._unknown = {anchor for anchor, known in shared.items() if known and known.content is None}


def _confirmation_body(confirmation: Confirmation) -> dict[str, Any]:
    return {
        "hub.mode": "subscribe",
        "hub.events": list(confirmation.events),
        "hub.lease_seconds": confirmation.lease_seconds,
    }
