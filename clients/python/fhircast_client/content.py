"""Shared content of each open context, by versions (FHIRcast 3.0.0, 2.10), in the order of the hub's updates."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from fhircast_client.contexts import MOST_CONTEXTS
from fhircast_client.event_order import trim
from fhircast_client.events import Event
from fhircast_client.update_bundle import Entries, changed

#: Updates kept for one context until its content is fetched.
_MOST_WAITING = 64


@dataclass(slots=True)
class Shared:
    """The shared content of one context."""

    #: None where unknown, also the content.
    version: str | None
    content: Entries | None
    #: Id of the open.
    opened_by: str = ""
    #: False where the hub may have a newer version.
    is_certain: bool = True
    #: Whether the hub's answer had no content.
    is_contentless: bool = False
    #: `Contents.moment` at the last event about the context.
    last_seen: int = 0
    #: Updates that wait until the content is fetched.
    waiting: list[Event] = field(default_factory=list)


class Contents:
    """The content of every open context. Content dicts are replaced, never changed."""

    def __init__(self) -> None:
        self._shared: OrderedDict[str, Shared] = OrderedDict()
        #: Whether the hub may still be replaying opens from before the connection.
        self.is_replaying = True
        self._open_before: set[str] = set()
        #: The moment of the close, by anchor.
        self._closed: OrderedDict[str, int] = OrderedDict()
        #: Counts events. An answer of the hub is compared with the moment of the request.
        self.moment = 0

    def get(self, anchor: str) -> Shared | None:
        """Content of a context, None for a context that was not opened while this client was connected."""
        return self._shared.get(anchor)

    def replay_begins(self) -> None:
        """A connection was made: until `replay_ended`, events may tell about earlier opens."""
        self.is_replaying = True
        for shared in self._shared.values():
            shared.is_certain = False
            shared.waiting.clear()

    def replay_ended(self) -> None:
        """The replay is over: events are new from now on."""
        self.is_replaying = False

    def opened(self, event: Event) -> None:
        """An open came, with a version. Known content is kept."""
        self.moment += 1
        type_ = event.anchor.partition("/")[0]
        known = self._shared.get(event.anchor)
        if known is None:
            # The hub replays only the newest open of each type.
            unknown = self.is_replaying or type_ in self._open_before
            if self.is_replaying:
                self._open_before.add(type_)
            self._put(
                event.anchor, Shared(event.version, None if unknown else Entries(), event.id, last_seen=self.moment)
            )
            return
        same = known.opened_by == event.id
        if (same and event.version != known.version) or not (same or known.is_certain):
            known.content = None
        known.version, known.opened_by, known.is_certain = event.version, event.id, True
        known.last_seen = self.moment
        known.waiting.clear()

    def updated(self, event: Event) -> None:
        """An update came: "receiving applications MAY use [priorVersionId] to ensure they apply the updates to the proper version"."""
        self.moment += 1
        known = self._shared.get(event.anchor)
        if known is None:
            known = Shared(event.version, None)
            self._put(event.anchor, known)
        elif event.version is not None and event.version == known.version:
            known.is_certain = True
        elif known.is_contentless:
            known.version = event.version
        elif known.content is not None and event.prior_version == known.version:
            known.content, known.version, known.is_certain = changed(known.content, event), event.version, True
        else:
            known.content, known.version = None, event.version
            known.waiting = [*known.waiting, event][-_MOST_WAITING:]
        known.last_seen = self.moment

    def closed(self, anchor: str) -> None:
        """A close came: "the Hub should dispose of the content"."""
        self.moment += 1
        self._shared.pop(anchor, None)
        self._closed.pop(anchor, None)
        self._closed[anchor] = self.moment
        trim(self._closed, MOST_CONTEXTS)

    def fetched(self, anchor: str, version: str | None, content: Entries | None, *, asked: int) -> None:
        """The answer to a request at the moment `asked`. Later updates are applied where they fit. The answer is
        ignored where a later update was applied already, or a close came: it may be older than the content here."""
        known = self._shared.get(anchor)
        if self._closed.get(anchor, 0) > asked or (known and known.last_seen > asked and known.content is not None):
            return
        if known is None:
            known = Shared(version, content)
            self._put(anchor, known)
        waiting, known.waiting = known.waiting, []
        known.version, known.content, known.is_certain, known.is_contentless = version, content, True, content is None
        for event in waiting:
            if known.content is not None and event.prior_version == known.version and event.version != known.version:
                known.content, known.version = changed(known.content, event), event.version

    def mark_uncertain(self, anchor: str, version: str | None) -> None:
        """The version may be out of date, if it is still this version."""
        if (known := self._shared.get(anchor)) and known.version == version:
            known.is_certain = False

    def forget(self, anchor: str) -> None:
        """The hub gave the context a version that it does not send to this client."""
        if known := self._shared.get(anchor):
            known.is_certain, known.version, known.content = False, None, None

    def _put(self, anchor: str, shared: Shared) -> None:
        self._shared[anchor] = shared
        trim(self._shared, MOST_CONTEXTS)
