"""The session as one client knows it: what to follow, what is current, what is shared, who is out of step. No I/O, no clock.

The engine is told what comes, what is published, and what came of both. clients/following.json says what it must make of them, and
is run in Python and in JavaScript: both engines are the same, file by file.
"""

from __future__ import annotations

from collections.abc import Collection

from fhircast_client.content import Contents
from fhircast_client.context_changes import ContextChanges
from fhircast_client.context_doubt import DOUBT, NO_ECHO, UNCERTAIN, UNREAD, ContextDoubt
from fhircast_client.contexts import Context
from fhircast_client.event_order import Order, Recent
from fhircast_client.events import Event, Kind, kind_of, named
from fhircast_client.following import Following, Verdict
from fhircast_client.handler_races import HandlerRaces
from fhircast_client.resending import Resending
from fhircast_client.status import Sync
from fhircast_client.sync_errors import Reported, read_sync_errors
from fhircast_client.unsent import UnsentEvents
from fhircast_client.update_bundle import NOTHING_OPENED


class Engine:
    """Everything that follows from what comes and what is published, in the order in which the engine is told.

    `name` is this application's; `handled` are the names in lower case of the events that have a handler.
    """

    def __init__(self, name: str = "", handled: Collection[str] = ()) -> None:
        self.following = Following()
        self.content = Contents()
        self.resending = Resending()
        self.unsent = UnsentEvents()
        self.changes = ContextChanges(self._order)
        self.races = HandlerRaces(self.following, self.changes)
        self.sync = Sync(self._order.is_older, self.unsent, self.races)
        self.doubt = ContextDoubt(self.sync, self._order)
        #: The names of the events that the hub sends.
        self.granted: tuple[str, ...] = ()
        self._name, self._handled = name, handled
        self._was_connected = False
        self._own = Recent()
        self._in_flight = Recent()

    @property
    def _order(self) -> Order:
        return self.following.order

    # What is known

    @property
    def current(self) -> Context | None:
        """The newest open that is not closed and was followed or published here."""
        current = self.following.contexts.current
        return self._context(current) if current else None

    @property
    def contexts(self) -> dict[str, Context]:
        """All that are open, by anchor, in the order in which they were opened."""
        return {anchor: self._context(event) for anchor, event in self.following.contexts.opens.items()}

    def is_granted(self, name: str) -> bool:
        """Whether the hub sends events of this name."""
        return name.lower() in (granted.lower() for granted in self.granted)

    def is_own(self, event_id: str) -> bool:
        """Whether this client published the event, or tried to."""
        return event_id in self._own

    # The connection

    def connected(self, granted: tuple[str, ...], *, ordered: bool) -> None:
        """The hub confirmed on a new socket; `ordered`: it declares that it tells all events in one order (CFG-4)."""
        self.granted = granted
        self.following.connected(ordered=ordered, was_cut_short=self.content.is_replaying)
        self.content.replay_begins()
        self.sync.connected()
        may_differ = self._was_connected or self.following.contexts.current is not None
        follows_opens = any(kind_of(name) is Kind.OPEN for name in self._handled)
        self.doubt.connected(may_differ=may_differ, follows_opens=follows_opens)
        self._was_connected = True

    def apart(self, why: str) -> None:
        """The connection is lost, and is being made again."""
        self.sync.disconnected("connecting", why)

    def ended(self, why: str) -> None:
        """The client is stopped, or cannot go on."""
        self.granted, self._was_connected = (), False
        self.races.ended()
        self.unsent.clear()
        self.sync.disconnected("ended", why)

    def unread(self) -> None:
        """A message could not be read: what it said is not known."""
        self.doubt.raise_doubt(UNREAD)

    # The hub is asked what is open

    def differences(self, event: Event | None, version: str | None) -> list[Event]:
        """The hub says that `event` made the current context, None for nothing, at a version.

        Returns what this application must be handed: that open, or, where it is None, the opens whose close it must be handed.
        """
        contexts = self.following.contexts
        if event is None:
            # What is open beside what was current may be open still: of that the hub says nothing (2.9).
            ends = reversed(contexts.opens.values()) if version == NOTHING_OPENED else (contexts.current,)
            return [opened for opened in ends if opened]
        return [event] if not contexts.is_current(event.anchor) and event.name.lower() in self._handled else []

    def context_checked(self, event: Event | None, *, asked: int, was_handed: bool) -> bool:
        """What was to be handed is; `asked` was `changes.count` when the hub was asked. False where it must be asked again."""
        if self.changes.count != asked:
            return False  # what came in the meantime is newer than the answer
        shown = self.following.contexts.current
        agrees = was_handed or event is None or shown is None or shown.anchor in [named(item) for item in event.context]
        self.doubt.resolved(agrees=agrees)
        return True

    # What is published here

    def already_shown(self, event: Event) -> Event | None:
        """The event that this application shows or is being shown, where `event`, which was not sent yet, opens exactly that, and
        everybody is in step: nobody needs to be told."""
        return self.races.already_shown(event) if self.sync.status.in_sync else None

    def sending(self, event: Event) -> None:
        """An own event is about to be posted."""
        self._own.add(event.id)
        self._in_flight.add(event.id)
        self._order.sending(event)
        self.resending.sending(event)
        self.races.own_posted(event)

    def publish_failed(self, event: Event, why: str, *, is_final: bool) -> None:
        """The hub refused it (`is_final`), or nobody knows whether the hub has it; `why` is a part of a sentence.

        Should it come back, it is followed like any other. A change of context is tried again until the others were told.
        """
        self._in_flight.discard(event.id)
        if is_final:
            self.resending.refused(event)
            self.races.own_refused(event)
        self.unsent.failed(event, why, is_final=is_final)

    def accepted(self, event: Event, now: int) -> None:
        """The hub accepted it: the application shows it. `now` is the own clock, as an instant."""
        is_granted, is_certain = self.is_granted(event.name), self._note_accepted(event)
        self.unsent.resolved(event)
        self.unsent.overtaken(event, by_own=True)
        self.following.followed(event, now)
        if event.kind.opens:
            self.sync.followed(self._order.mark(event), event.id)
            if event is self.following.shown:
                self.doubt.accepted(self._order.mark(event))
            self.races.another_opened()
        if event.kind.changes_context and not is_certain:
            self._place_uncertain()
        if event.kind is Kind.CLOSE and not is_granted:
            self.content.closed(event.anchor)
        elif event.kind is Kind.OPEN and not is_granted:
            self.content.forget(event.anchor)

    def echo_missing(self, event: Event) -> None:
        """An own event was accepted, and its echo has not come for long: what else is not told?"""
        if self._order.echo_missing(event):
            self.doubt.raise_doubt(NO_ECHO)

    def accepted_late(self, event: Event) -> None:
        """The hub accepted it when it was tried again: whether the application still shows it, its handler must say."""
        self.races.own_posted(event)
        self.unsent.overtaken(event, by_own=True)
        self.unsent.reached_hub(event)
        if not self._note_accepted(event) and event.kind.changes_context:
            self._place_uncertain()

    # What comes

    def received(self, event: Event) -> None:
        """An event came from the hub; in which order its handler has its turn is another matter."""
        self._order.received(event)
        self.unsent.reached_hub(event)
        if event.kind.opens and not self.doubt.is_answered:
            # An older open than what is shown was open before. Whether what is shown still is open, nobody has said.
            self.doubt.is_answered = self.following.tells_current(event)
        if event.kind.changes_context:
            self.changes.add(event)
        match event.kind:
            case Kind.OPEN if event.anchor:
                self.content.opened(event)
            case Kind.UPDATE if event.anchor:
                self.content.updated(event)
            case Kind.CLOSE:
                self.content.closed(event.anchor)

    def sync_error(self, event: Event) -> Reported:
        """A SyncError came. One about what everybody has left behind since is no news."""
        if event.own:
            return Reported()
        resend, unsubscribed = [], []
        for error in read_sync_errors(event):
            mark = self._order.mark_of(error.event_id) or self._order.mark(event)
            is_ours = error.subscriber == self._name and error.event_id in [one.id for one in self.sync.failures]
            if not is_ours and not self.sync.is_superseded(mark):
                self.sync.other_failed(error.subscriber, error.event_id, mark, error.why, self._order.moment)
            if own_open := self.resending.reported(error.event_id, self.changes.is_newest):
                resend.append(own_open)
            # Of an own event it is known here when it is followed: it is sent again, or something newer is opened.
            if error.event_name and not self.is_granted(error.event_name) and not self.is_own(error.event_id):
                unsubscribed.append(error.event_id)
        return Reported(tuple(resend), tuple(unsubscribed))

    def verdict(self, event: Event) -> Verdict:
        """What is to be done with an event."""
        if event.id in self._in_flight and not event.kind.changes_context:
            return Verdict.REPEAT
        verdict = self.following.verdict(event)
        if verdict is Verdict.REPEAT and self.races.may_show_another(event, self.unsent.retried):
            return Verdict.FOLLOW
        return verdict

    def begin_turn(self, event: Event, now: int, *, retry: bool = False) -> Verdict:
        """An event has its turn; `again`: neither its age nor that it is a repeat counts. What is not followed is taken in."""
        verdict = Verdict.FOLLOW if retry else self.verdict(event)
        if verdict is Verdict.FOLLOW:
            self.races.handler_begins(event)
            self.races.may_show(*self.unsent.retried)
            self.unsent.overtaken(event, by_own=False)
            return verdict
        self.unsent.resolved(event)
        ended = self.following.missed_end(event)
        if verdict is Verdict.REPEAT:
            self._repeat(event, now)
        else:
            self.following.ignored(event)
        if ended or (verdict is Verdict.OLD and self.following.is_old_by_echo(event)):
            self.doubt.raise_doubt(DOUBT)
        return verdict

    def overtaken(self) -> None:
        """The event that has its turn is not to be followed any more."""
        if self.races.handling is not None:
            self.races.handler_ends(self.races.handling, shows=False)

    def followed(self, event: Event, now: int, *, queried: bool = False) -> Event | None:
        """Its handler followed it; `told`: the hub only named it when it was asked, and gave no timestamp.

        Returns what the application must be handed again: the handler may have shown an older context over a newer, or what is closed.
        """
        is_handled = event.name.lower() in self._handled
        newer = None if queried or not is_handled else self.races.newer_than(event)
        self.unsent.resolved(event)
        if queried:
            self.following.adopted(event)
            self.sync.recovered_all()
            self.sync.followed(self._order.mark(event))
        else:
            self.following.followed(event, now)
            if event.kind.opens:
                self.sync.followed(self._order.mark(event))
                self.races.maybe_shown = []
            self.sync.recovered(event.id)
        if is_handled:
            self.races.resolved(event)  # what no handler is called with is shown by nobody
        if event.kind.opens:
            self.races.another_opened()
        return self.races.handler_ends(event, shows=True, newer=newer)

    def refused(self, event: Event, why: str, *, shows: bool = False, is_over: bool = True) -> Event | None:
        """Its handler refused or failed; `why` is a part of a sentence. `shows`: it failed, and may have shown the event; not
        `is_over`: it is at work still. Returns as `followed`."""
        self.unsent.resolved(event)
        self.following.refused(event)
        mark = self._order.mark(event)
        if event.kind.opens:
            self.sync.context_known(mark)
        if event.matters and not (
            event.kind.changes_context and self.following.shown and self.sync.is_superseded(mark)
        ):
            self.sync.failed(event, mark, f"This application did not follow {event.name}: {why}")
        if shows:
            self.races.maybe_shown = [event]
        elif event.own and event.kind.opens:
            self.races.may_show(event)  # since it was posted
        return self.races.handler_ends(event, shows=shows) if is_over else None

    def to_catch_up(self) -> Event | None:
        """The event that was not followed last, if nothing newer came."""
        failed = self.races.to_reshow or next(reversed(self.sync.failures), None)
        if failed is None or failed.name.lower() not in self._handled:
            return None
        if failed is self.races.to_reshow:
            return failed if self.races.may_be_shown(failed) else None
        return None if failed.kind.changes_context and not self.changes.is_newest(failed) else failed

    def _place_uncertain(self) -> None:
        """The place of an own event is not certain."""
        self.following.place_uncertain()
        self.doubt.raise_doubt(UNCERTAIN)

    def _repeat(self, event: Event, now: int) -> None:
        if not self.following.repeated(event, now):
            return
        if event.own:
            self.sync.context_known(self._order.mark(event))
        else:
            self.sync.followed(self._order.mark(event))

    def _note_accepted(self, event: Event) -> bool:
        """The hub has an own event. Returns whether it is certain what the hub told before that, and what after."""
        self._in_flight.discard(event.id)
        is_certain = self._order.accepted(event, comes_back=self.is_granted(event.name))
        if event.kind.changes_context:
            self.changes.add(event)
        return is_certain

    def _context(self, event: Event) -> Context:
        shared = self.content.get(event.anchor)
        version = shared.version if shared else event.version
        content = dict(shared.content) if shared and shared.content is not None else None
        return Context(event.anchor, event, version, content)
