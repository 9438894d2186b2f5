"""The session as one client knows it: contexts, shared content, and who is out of step. No I/O, no clock.

The client reports received frames, published events and their results to the engine. clients/following.json lists what
the engine must answer. Python and JavaScript run the same table; both engines are alike, file by file.
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
    """State of the session. Calls must come in the order in which frames arrive and events are published.

    `name` is the subscriber.name of this application. `handled`: lower-case names of the events that have a handler.
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

    # State

    @property
    def current(self) -> Context | None:
        """The newest open that was followed or published here and is not closed."""
        current = self.following.contexts.current
        return self._context(current) if current else None

    @property
    def contexts(self) -> dict[str, Context]:
        """All open contexts by anchor, in the order of their opens."""
        return {anchor: self._context(event) for anchor, event in self.following.contexts.opens.items()}

    def is_granted(self, name: str) -> bool:
        """Whether the hub grants events of this name."""
        return name.lower() in (granted.lower() for granted in self.granted)

    def is_own(self, event_id: str) -> bool:
        """Whether this client published the event, or tried to."""
        return event_id in self._own

    # The connection

    def connected(self, granted: tuple[str, ...], *, ordered: bool) -> None:
        """The hub confirmed the subscription on a new socket. `ordered`: the hub declares one order for all events
        (CFG-4)."""
        self.granted = granted
        self.following.connected(ordered=ordered, was_cut_short=self.content.is_replaying)
        self.content.replay_begins()
        self.sync.connected()
        may_differ = self._was_connected or self.following.contexts.current is not None
        follows_opens = any(kind_of(name) is Kind.OPEN for name in self._handled)
        self.doubt.connected(may_differ=may_differ, follows_opens=follows_opens)
        self._was_connected = True

    def disconnected(self, why: str) -> None:
        """The connection is lost. The client reconnects."""
        self.sync.disconnected("connecting", why)

    def ended(self, why: str) -> None:
        """The client is stopped, or cannot go on."""
        self.granted, self._was_connected = (), False
        self.races.ended()
        self.unsent.clear()
        self.sync.disconnected("ended", why)

    def unreadable(self) -> None:
        """A frame could not be read, so its event is unknown."""
        self.doubt.raise_doubt(UNREAD)

    # Get Current Context

    def differences(self, event: Event | None, version: str | None) -> list[Event]:
        """Compares the answer to "Get Current Context" with the contexts here. `event`: the open of the current
        context, None for none. `version`: its versionId.

        Returns the opens to hand to the application. Where `event` is None, their closes are to be handed instead.
        """
        contexts = self.following.contexts
        if event is None:
            # The answer names only the current context (2.9). Other contexts here may be open still.
            ends = reversed(contexts.opens.values()) if version == NOTHING_OPENED else (contexts.current,)
            return [opened for opened in ends if opened]
        return [event] if not contexts.is_current(event.anchor) and event.name.lower() in self._handled else []

    def context_checked(self, event: Event | None, *, asked: int, was_handed: bool) -> bool:
        """The differences were handed to the application. `asked`: `changes.count` when the hub was asked. Returns
        False where the hub must be asked again."""
        if self.changes.count != asked:
            return False  # an event received meanwhile is newer than the answer
        shown = self.following.contexts.current
        agrees = was_handed or event is None or shown is None or shown.anchor in [named(item) for item in event.context]
        self.doubt.resolved(agrees=agrees)
        return True

    # Publishing

    def already_shown(self, event: Event) -> Event | None:
        """The event that is shown here already, where `event` would open the same and all applications are in sync.
        `event` was not sent yet, and need not be."""
        return self.races.already_shown(event) if self.sync.status.in_sync else None

    def sending(self, event: Event) -> None:
        """The client is about to post an own event."""
        self._own.add(event.id)
        self._in_flight.add(event.id)
        self._order.sending(event)
        self.resending.sending(event)
        self.races.own_posted(event)

    def publish_failed(self, event: Event, why: str, *, is_final: bool) -> None:
        """The hub refused an own event (`is_final`), or did not answer, so the hub may have the event. `why` is a part
        of a sentence.

        An echo of the event is followed like any other event. A change of context is retried until the other
        applications were told.
        """
        self._in_flight.discard(event.id)
        if is_final:
            self.resending.refused(event)
            self.races.own_refused(event)
        self.unsent.failed(event, why, is_final=is_final)

    def accepted(self, event: Event, now: int) -> None:
        """The hub accepted an own event, which the application shows. `now`: the local clock as an instant."""
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
        """The echo of an accepted event did not come in time. Other events may be missing too."""
        if self._order.echo_missing(event):
            self.doubt.raise_doubt(NO_ECHO)

    def accepted_late(self, event: Event) -> None:
        """A retry of an own event was accepted. Its handler decides whether the application still shows the event."""
        self.races.own_posted(event)
        self.unsent.overtaken(event, by_own=True)
        self.unsent.reached_hub(event)
        if not self._note_accepted(event) and event.kind.changes_context:
            self._place_uncertain()

    # Receiving

    def received(self, event: Event) -> None:
        """An event came from the hub. Its handler is called later, in the event's turn."""
        self._order.received(event)
        self.unsent.reached_hub(event)
        if event.kind.opens and not self.doubt.is_answered:
            # An open older than the current one was open before. Whether the current context is still open is unknown.
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
        """A SyncError came. A SyncError about an event that everybody has left is ignored."""
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
            # For an own event, recovery is noticed here: the event is resent, or a newer context opened.
            if error.event_name and not self.is_granted(error.event_name) and not self.is_own(error.event_id):
                unsubscribed.append(error.event_id)
        return Reported(tuple(resend), tuple(unsubscribed))

    def verdict(self, event: Event) -> Verdict:
        """Whether to hand an event to its handler."""
        if event.id in self._in_flight and not event.kind.changes_context:
            return Verdict.REPEAT
        verdict = self.following.verdict(event)
        if verdict is Verdict.REPEAT and self.races.may_show_another(event, self.unsent.retried):
            return Verdict.FOLLOW
        return verdict

    def begin_turn(self, event: Event, now: int, *, retry: bool = False) -> Verdict:
        """An event has its turn. `retry`: skip the checks for age and repeats. Events that are not to be handled are
        taken in here."""
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
        """The event whose handler is about to be called is not to be followed any more."""
        if self.races.handling is not None:
            self.races.handler_ends(self.races.handling, shows=False)

    def followed(self, event: Event, now: int, *, queried: bool = False) -> Event | None:
        """The handler followed the event. `queried`: the event is the answer to "Get Current Context", without a
        timestamp.

        Returns the event to hand to the application again: the handler may have shown an older context over a newer
        one, or a closed one.
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
            self.races.resolved(event)  # without a handler, nothing is shown
        if event.kind.opens:
            self.races.another_opened()
        return self.races.handler_ends(event, shows=True, newer=newer)

    def refused(self, event: Event, why: str, *, shows: bool = False, is_over: bool = True) -> Event | None:
        """The handler refused or failed. `why` is a part of a sentence. `shows`: the handler failed and may have shown
        the event. Not `is_over`: the handler is still at work. Returns the same as `followed`."""
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
            self.races.may_show(event)  # since the event was posted
        return self.races.handler_ends(event, shows=shows) if is_over else None

    def to_catch_up(self) -> Event | None:
        """The last event that was not followed, if no newer change came."""
        failed = self.races.to_reshow or next(reversed(self.sync.failures), None)
        if failed is None or failed.name.lower() not in self._handled:
            return None
        if failed is self.races.to_reshow:
            return failed if self.races.may_be_shown(failed) else None
        return None if failed.kind.changes_context and not self.changes.is_newest(failed) else failed

    def _place_uncertain(self) -> None:
        """The order of an own event among the others is not certain."""
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
        """The hub has an own event. Returns whether its order among received events is certain."""
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
