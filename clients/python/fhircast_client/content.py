"""Content by versions (FHIRcast 3.0.0, 2.10): what is shared in each open context, in the order in which the hub sent it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from fhircast_client.contexts import MOST_CONTEXTS
from fhircast_client.events import Event
from fhircast_client.update_bundle import Entries, changed

#: Updates that wait for the content of one context to be fetched.
_MOST_WAITING = 64


@dataclass(slots=True)
class Shared:
    """What is known of one context: its version and content, None where unknown.

    `sure` is False where the hub may have gone on without this client having been told. `heard`: what `Contents.moment` was when
    something last came about it.
    """

    version: str | None
    content: Entries | None
    opened_by: str = ""
    sure: bool = True
    contentless: bool = False
    heard: int = 0
    waiting: list[Event] = field(default_factory=list)


class Contents:
    """The content of every open context. Content dicts are replaced, never changed."""

    def __init__(self) -> None:
        self._shared: OrderedDict[str, Shared] = OrderedDict()
        #: Whether what comes may tell of what was opened before.
        self.is_replaying = True
        self._open_before: set[str] = set()
        self._closed: OrderedDict[str, int] = OrderedDict()  # the moment of the close, by anchor
        #: Grows with all that comes: what the hub is asked for at one moment it may answer after another.
        self.moment = 0

    def get(self, anchor: str) -> Shared | None:
        """What is known of a context; None for one that was not opened while this client listened."""
        return self._shared.get(anchor)

    def replay_begins(self) -> None:
        """A connection was made: what comes until `joined` may tell of what was opened before."""
        self.is_replaying = True
        for shared in self._shared.values():
            shared.sure = False
            shared.waiting.clear()

    def replay_ended(self) -> None:
        """What comes from now on happens now."""
        self.is_replaying = False

    def opened(self, event: Event) -> None:
        """An open came: it brings a version, and the content is kept where it is known."""
        self.moment += 1
        type_ = event.anchor.partition("/")[0]
        known = self._shared.get(event.anchor)
        if known is None:
            # Of the contexts of one type that were open before, only the newest is told to those who join.
            unknown = self.is_replaying or type_ in self._open_before
            if self.is_replaying:
                self._open_before.add(type_)
            self._put(event.anchor, Shared(event.version, None if unknown else Entries(), event.id, heard=self.moment))
            return
        same = known.opened_by == event.id
        if (same and event.version != known.version) or not (same or known.sure):
            known.content = None
        known.version, known.opened_by, known.sure = event.version, event.id, True
        known.heard = self.moment
        known.waiting.clear()

    def updated(self, event: Event) -> None:
        """An update came: "receiving applications MAY use [priorVersionId] to ensure they apply the updates to the proper version"."""
        self.moment += 1
        known = self._shared.get(event.anchor)
        if known is None:
            known = Shared(event.version, None)
            self._put(event.anchor, known)
        elif event.version is not None and event.version == known.version:
            known.sure = True
        elif known.contentless:
            known.version = event.version
        elif known.content is not None and event.prior_version == known.version:
            known.content, known.version, known.sure = changed(known.content, event), event.version, True
        else:
            known.content, known.version = None, event.version
            known.waiting = [*known.waiting, event][-_MOST_WAITING:]
        known.heard = self.moment

    def closed(self, anchor: str) -> None:
        """A close came: "the Hub should dispose of the content"."""
        self.moment += 1
        self._shared.pop(anchor, None)
        self._closed.pop(anchor, None)
        self._closed[anchor] = self.moment
        if len(self._closed) > MOST_CONTEXTS:
            self._closed.popitem(last=False)

    def fetched(self, anchor: str, version: str | None, content: Entries | None, *, asked: int) -> None:
        """The hub was asked at the moment `asked`: what came since is applied where it fits; where it was applied already, or was a
        close, the answer may be older than what is known."""
        known = self._shared.get(anchor)
        if self._closed.get(anchor, 0) > asked or (known and known.heard > asked and known.content is not None):
            return
        if known is None:
            known = Shared(version, content)
            self._put(anchor, known)
        waiting, known.waiting = known.waiting, []
        known.version, known.content, known.sure, known.contentless = version, content, True, content is None
        for event in waiting:
            if known.content is not None and event.prior_version == known.version and event.version != known.version:
                known.content, known.version = changed(known.content, event), event.version

    def mark_uncertain(self, anchor: str, version: str | None) -> None:
        """The version may be another one by now, if it is still this one."""
        if (known := self._shared.get(anchor)) and known.version == version:
            known.sure = False

    def forget(self, anchor: str) -> None:
        """The hub gave the context a version that it does not tell this client."""
        if known := self._shared.get(anchor):
            known.sure, known.version, known.content = False, None, None

    def _put(self, anchor: str, shared: Shared) -> None:
        self._shared[anchor] = shared
        while len(self._shared) > MOST_CONTEXTS:
            self._shared.popitem(last=False)
