"""Which events are followed, and what is current (FHIRcast 3.0.0, 2.5): no I/O, no clock."""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum

from fhircast_client.contents import MOST_CONTEXTS
from fhircast_client.events import Event, Kind, named
from fhircast_client.timing import instant

#: Ids that are remembered of each sort.
_REMEMBERED = 512


class Verdict(Enum):
    """What is to be done with an event: hand it to its handler, or only acknowledge it."""

    FOLLOW = "follow"
    REPEAT = "repeat"
    OLD = "old"


class Recent:
    """Ids, the newest of them."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, id_: str) -> None:
        """Remember it."""
        self._ids[id_] = None
        self._ids.move_to_end(id_)
        if len(self._ids) > _REMEMBERED:
            self._ids.popitem(last=False)

    def discard(self, id_: str) -> None:
        """Forget it."""
        self._ids.pop(id_, None)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._ids


class Following:
    """What the application follows: the current context, and those that are open beside it."""

    def __init__(self) -> None:
        self.current: Event | None = None
        self.opens: OrderedDict[str, Event] = OrderedDict()
        self._made: int | None = None  # when the current context was made, by the timestamp of the event that made it
        self._home = ""
        self._told_without_timestamp = False
        self._done = Recent()  # events other than opens that were followed or published
        self._closed = Recent()  # opens whose context was closed
        self._refused = Recent()
        self._handed = Recent()  # opens that were followed, refused or published
        self._last_handed = ""
        self._moved = False  # whether one was since the last connection was made

    @property
    def made(self) -> int | None:
        """The instant of what made the current context; None where anything is newer."""
        return self._made

    def verdict(self, event: Event) -> Verdict:
        """Whether the application is to follow `event`.

        "Subscribers SHALL ignore messages with older timestamps than the message that established the current context" (2.5).
        """
        if self._is_repeat(event):
            return Verdict.REPEAT
        if self._is_left_behind(event):
            return Verdict.OLD
        return Verdict.OLD if event.kind.changes_context and self.is_old(event) else Verdict.FOLLOW

    def joining(self) -> None:
        """A connection was made: the hub tells again what is open."""
        self._moved = False

    def followed(self, event: Event) -> None:
        """The application follows, or published, `event`; one that something newer overtook meanwhile is not current."""
        old = self.is_old(event)
        self._note_handed(event)
        self._refused.discard(event.id)
        match event.kind:
            case Kind.OPEN:
                self._opened(event, old=old)
            case Kind.CLOSE:
                if not (old and self._is_current(event.anchor)):
                    self._close(event)
            case Kind.HOME:
                if not old:
                    self.current, self._made, self._home = None, instant(event.timestamp), event.id
            case _:
                self._done.add(event.id)

    def told(self, event: Event) -> None:
        """The hub answered, when asked, that `event` made the current context; when it was made is not known."""
        self._opened(event, old=False)
        self._made, self._told_without_timestamp = None, True

    def repeated(self, event: Event) -> bool:
        """A repeat came; whether it is what the application shows. Of what was only told when asked, the timestamp is known now."""
        if self._is_told(event):
            self._opened(event, old=False)
        return event.id not in self._closed

    def ignored(self, event: Event) -> None:
        """An old event came, and changes nothing that is shown."""
        if event.kind is Kind.CLOSE and not self._is_current(event.anchor):
            self._close(event)

    def refused(self, event: Event) -> None:
        """The application did not follow."""
        self._refused.add(event.id)
        self._note_handed(event)

    def _is_repeat(self, event: Event) -> bool:
        current = self.current
        if event.kind is Kind.OPEN:
            if event.id in self._closed:
                return True
            shown = current is not None and current.id == event.id
            return shown or self._is_told(event) or self._is_implied(event)
        if event.kind is Kind.HOME:
            return current is None and event.id == self._home
        return event.id in self._done

    def _is_left_behind(self, event: Event) -> bool:
        """Whether it is an open that was followed or refused here, and another came after it.

        Of each type the hub tells the newest open that is not closed, also one that everybody has left for another type: who knows it
        has left it too. Only when something that was missed was followed since is what comes after that newer.
        """
        known = event.kind is Kind.OPEN and event.id in self._handed
        return known and not self._moved and event.id != self._last_handed

    def _note_handed(self, event: Event) -> None:
        if event.kind in (Kind.OPEN, Kind.HOME):
            self._handed.add(event.id)
            self._last_handed, self._moved = event.id, True

    def _is_told(self, event: Event) -> bool:
        current = self.current
        return (
            self._told_without_timestamp
            and current is not None
            and event.kind is Kind.OPEN
            and current.anchor == event.anchor
            and event.version in (None, current.version)
        )

    def _is_implied(self, event: Event) -> bool:
        """Whether an open says no more than the current one: hubs send the opens of the resources in an open too (2.5)."""
        current = self.current
        return (
            current is not None
            and current.timestamp == event.timestamp
            and event.id not in self._refused
            and event.anchor not in ("", current.anchor)
            and event.anchor in [named(item) for item in current.context]
        )

    def is_old(self, event: Event) -> bool:
        """Whether it is older than what made the current context."""
        came = instant(event.timestamp)
        return self._made is not None and came is not None and came < self._made

    def _is_current(self, anchor: str) -> bool:
        return self.current is not None and self.current.anchor == anchor

    def _opened(self, event: Event, *, old: bool) -> None:
        self.opens.pop(event.anchor, None)
        self.opens[event.anchor] = event
        if not old:
            self.current, self._made, self._home = event, instant(event.timestamp), ""
            self._told_without_timestamp = False
        while len(self.opens) > MOST_CONTEXTS:
            del self.opens[next(anchor for anchor in self.opens if not self._is_current(anchor))]

    def _close(self, event: Event) -> None:
        self._done.add(event.id)
        closed = self.opens.pop(event.anchor, None)
        if closed is not None:
            self._closed.add(closed.id)
        if self._is_current(event.anchor):
            # Whatever is opened next is newer than nothing.
            self.current, self._made, self._told_without_timestamp = None, None, False
