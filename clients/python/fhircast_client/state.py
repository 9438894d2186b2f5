"""The session as one client knows it: no I/O, no clock. What to follow, what is current, what is shared, who is out of step."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from fhircast_client.contents import Contents
from fhircast_client.events import Event, Kind, key_of
from fhircast_client.following import Following, Recent, Verdict
from fhircast_client.outcomes import SyncError
from fhircast_client.sharing import Content
from fhircast_client.status import Sync
from fhircast_client.timing import instant

#: Events whose arrival is remembered, for SyncErrors that name them.
_REMEMBERED = 512


@dataclass(frozen=True, eq=False, slots=True)
class Context:
    """A context that is open. `event` opened it; `version` and `content` (by reference) are what is shared in it now, None where
    that is not known. Resources in it are not to be changed."""

    anchor: str
    event: Event
    version: str | None
    content: Content | None

    def resource(self, key_or_type: str) -> dict[str, Any] | None:
        """A resource that it was opened with, by context key ("patient") or resourceType."""
        return self.event.resource(key_or_type)


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of context: when it was heard of, its timestamp as an instant, and what it is about."""

    order: int
    at: int | None
    kind: Kind
    anchor: str

    def leaves_behind(self, other: _Change) -> bool:
        """Whether what comes later is newer, and the other of no interest any more."""
        return self.order > other.order and self.at is not None and other.at is not None and self.at >= other.at


class SessionState:
    """Everything that follows from the messages, in the order in which they came."""

    def __init__(self) -> None:
        self.following = Following()
        self.contents = Contents()
        self.sync = Sync()
        self.failed: Event | None = None
        self._own = Recent()
        self._on_their_way = Recent()
        self._came: OrderedDict[str, tuple[int, int | None]] = OrderedDict()  # by event id: order and instant
        self._order = 0
        self._changes: OrderedDict[str, _Change] = (
            OrderedDict()
        )  # opens, closes and homes that came or were accepted, by id
        self._last_followed = _Change(0, None, Kind.HOME, "")
        #: Grows with every open, close and home that comes or is accepted.
        self.count = 0

    @property
    def current(self) -> Context | None:
        """The newest open that is not closed and was followed or published here."""
        current = self.following.current
        return self._context(current) if current else None

    @property
    def contexts(self) -> dict[str, Context]:
        """All that are open, by anchor, in the order in which they were opened."""
        return {anchor: self._context(event) for anchor, event in self.following.opens.items()}

    def is_own(self, event_id: str) -> bool:
        """Whether this client published the event, or tried to."""
        return event_id in self._own

    # What is published here

    def sending(self, event: Event) -> None:
        """An own event is about to be posted."""
        self._own.add(event.id)
        self._on_their_way.add(event.id)
        self._note(event)

    def not_sent(self, event: Event) -> None:
        """It was refused, or nobody knows: should it come back, it is followed like any other."""
        self._on_their_way.discard(event.id)

    def sent(self, event: Event) -> None:
        """The hub accepted it: the application shows it."""
        self._on_their_way.discard(event.id)
        self.following.followed(event)
        if event.kind.changes_context:
            self._changed(event)
        if event.kind in (Kind.OPEN, Kind.HOME):
            self._show(event, own_id=event.id)

    def is_newest(self, event: Event) -> bool:
        """Whether no newer open or close came or was accepted since this one."""
        this = self._change(event)
        return not any(
            other.order > this.order
            and ((other.kind is Kind.CLOSE and other.anchor == this.anchor) or _is_newer(other.at, this.at))
            for id_, other in self._changes.items()
            if id_ != event.id
        )

    @property
    def newest(self) -> int | None:
        """The newest timestamp of an open or close, as an instant."""
        return max((change.at for change in self._changes.values() if change.at is not None), default=None)

    # What comes

    def arrived(self, event: Event) -> None:
        """An event came from the hub; in which order its handler has its turn is another matter."""
        self._note(event)
        if event.kind.changes_context:
            self._changed(event)
        match event.kind:
            case Kind.OPEN if event.anchor:
                self.contents.opened(event)
            case Kind.UPDATE if event.anchor:
                self.contents.updated(event)
            case Kind.CLOSE:
                self.contents.closed(event.anchor)

    def sync_error(self, event: Event, error: SyncError) -> None:
        """A SyncError of somebody else came. One about what everybody has left behind since is no news."""
        order, at = self._came.get(error.event_id, (self._order, instant(event.timestamp)))
        if not self._last_followed.leaves_behind(_Change(order, at, Kind.OTHER, "")):
            self.sync.told(error.subscriber, error.event_id, at, error.why)

    def verdict(self, event: Event) -> Verdict:
        """What is to be done with an event whose turn it is."""
        if event.id in self._on_their_way and not event.kind.changes_context:
            return Verdict.REPEAT
        return self.following.verdict(event)

    def followed(self, event: Event, *, told: bool = False) -> None:
        """Its handler followed it; `told`: the hub only named it when it was asked, and gave no timestamp."""
        if told:
            self.following.told(event)
        else:
            self.following.followed(event)
        if told:
            self.failed = None
            self.sync.followed(None)
        elif event.kind in (Kind.OPEN, Kind.HOME):
            self._show(event)
        if self.failed and self.failed.id == event.id:
            self.failed = None
            self.sync.recovered()

    def repeated(self, event: Event) -> None:
        """It was followed before."""
        shown = self.following.repeated(event)
        if not shown or event.kind not in (Kind.OPEN, Kind.HOME):
            return
        if event.own:
            self.sync.unknown("")
        else:
            self._show(event)

    def not_followed(self, event: Event, why: str) -> None:
        """Its handler refused or failed; `why` is a sentence."""
        self.following.refused(event)
        if not (event.kind.changes_context and self._last_followed.leaves_behind(self._change(event))):
            self.failed = event
            self.sync.failed(event.id, instant(event.timestamp), why)

    def to_catch_up(self) -> Event | None:
        """The event that was not followed last, if nothing newer came."""
        failed = self.failed
        return None if failed and failed.kind.changes_context and not self.is_newest(failed) else failed

    def _show(self, event: Event, own_id: str = "") -> None:
        change = self._change(event)
        if self.failed and not _is_newer(instant(self.failed.timestamp), change.at):
            self.failed = None
        if change.order >= self._last_followed.order:
            self._last_followed = change
        self.sync.followed(change.at, own_id)

    def _change(self, event: Event) -> _Change:
        order, at = self._came.get(event.id, (self._order, instant(event.timestamp)))
        return _Change(order, at, event.kind, event.anchor)

    def _note(self, event: Event) -> None:
        self._order += 1
        if event.id not in self._came:
            self._came[event.id] = (self._order, instant(event.timestamp))
            if len(self._came) > _REMEMBERED:
                self._came.popitem(last=False)

    def _changed(self, event: Event) -> None:
        self.count += 1
        if event.id not in self._changes:
            self._changes[event.id] = self._change(event)
            if len(self._changes) > _REMEMBERED:
                self._changes.popitem(last=False)

    def _context(self, event: Event) -> Context:
        shared = self.contents.get(event.anchor)
        version = shared.version if shared else event.version
        content = dict(shared.content) if shared and shared.content is not None else None
        return Context(event.anchor, event, version, content)

    def patient_of(self, anchor: str) -> str:
        """The reference of the patient that a context was opened with, "" where it is not known."""
        event = self.following.opens.get(anchor)
        patient = event.resource(key_of("Patient")) if event else None
        id_ = patient.get("id") if patient else None
        return f"Patient/{id_}" if isinstance(id_, str) else ""


def _is_newer(at: int | None, than: int | None) -> bool:
    return at is not None and than is not None and at > than
