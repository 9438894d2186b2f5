"""The engine with one mistake each: clients/following.json must notice. JavaScript's is the same, and runs the same table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fhircast_client import content, contexts, event_order, resending, status
from fhircast_client.context_changes import ContextChanges
from fhircast_client.context_doubt import ContextDoubt
from fhircast_client.engine import Engine
from fhircast_client.following import Following
from fhircast_client.handler_races import HandlerRaces
from fhircast_client.unsent import UnsentEvents
from tests.clients.test_engine import differs, table
from tests.simulation.mutants import Mutant, mutated

_NOBODY: tuple[str, ...] = ()
#: Each is the mistake, the function, and what its text becomes.
_MUTANTS: list[tuple[str, Callable[..., Any], str, str]] = [
    ("a late repeat brings back what was closed", Following._is_repeat, "self.was_closed(event) or ", ""),
    ("an equal open calls the handler again", Following._says_the_same, " or says_the_same(current, event)", ""),
    ("what was only told is shown twice", Following._says_the_same, " or self._is_adopted_open(current, event)", ""),
    ("two Home-opens are two", Following._is_repeat, "return self.home is not None", "return False"),
    ("implied opens take the place of an open", Following._is_implied, "current.timestamp == event.timestamp", "False"),
    ("what was refused is implied", Following._is_implied, "and event.id not in self._refused", ""),
    (
        "what was left is gone back to",
        Following._is_left_behind,
        "known and not self._handed_one",
        "False and not self._handed_one",
    ),
    ("an older open is followed", Following._is_old, "event.at < self._current_at", "False"),
    (
        "an open of the same time is old",
        Following._is_old,
        "event.at < self._current_at",
        "event.at <= self._current_at",
    ),
    ("the order of the hub does not count", Following._is_old, "if self.order.is_kept:", "if False:"),
    ("a close of something else is old", Following._is_before, "event.kind is Kind.CLOSE and", "False and"),
    ("what was closed meanwhile is shown", Following._closed_since, "close if event.kind", "None if event.kind"),
    ("what was left for Home meanwhile is shown", Following._left_since, "(home, home)", "(None, None)"),
    ("what was opened before what was closed is shown", Following._left_since, "self._closed_mark or ", ""),
    (
        "what was left while its handler was at work is current",
        Following.is_overtaken,
        " or self._left_since(event)",
        "",
    ),
    ("what was closed while its handler was at work is open", Following.followed, "if close is not None:", "if False:"),
    (
        "a clock of the future keeps everybody out",
        Following._set_current_mark,
        "min(event.at, now + MINUTE)",
        "event.at",
    ),
    ("no clock of the future is believed", Following._set_current_mark, "now + MINUTE", "now"),
    (
        "the high-water mark survives a cut",
        Following.connected,
        "self._current_mark = self._current_at = self._closed_mark = None",
        "pass",
    ),
    (
        "an older close closes what is current",
        Following.followed,
        "is_old and self.contexts.is_current(event.anchor)",
        "False",
    ),
    (
        "what is closed stays open",
        Following.ignored,
        "self._close(event.anchor, self.order.mark(event))",
        "pass",
    ),
    (
        "a close older than its open closes it",
        Following.ignored,
        "if not self.order.is_older(self.order.mark(event), self.order.mark(opened)):",
        "if True:",
    ),
    ("what overtook is not what is shown", contexts.Contexts.opened, "if not is_old:", "if True:"),
    (
        "what is old takes the last place",
        contexts.Contexts.opened,
        "self.opens.move_to_end(self.current.anchor)",
        "pass",
    ),
    ("an echo is not waited for", event_order.Order.accepted, "_LAST if mark.is_awaited else 0", "0"),
    ("an echo has no place", event_order.Order.received, "if is_first and self.is_kept:", "if False:"),
    (
        "an echo is waited for on another connection",
        event_order.Order.connected,
        "min(mark.place, self.moment)",
        "mark.place",
    ),
    (
        "what is sent before a cut is certain",
        event_order.Order.accepted,
        "is_certain, mark = event.id not in self._sent_before,",
        "is_certain, mark = True,",
    ),
    (
        "what is shown does not overtake what is unsent",
        Engine.begin_turn,
        "self.unsent.overtaken(event, by_own=False)",
        "pass",
    ),
    ("an own open leaves what is unsent", Engine.accepted, "self.unsent.overtaken(event, by_own=True)", "pass"),
    ("an own close of something else overtakes", UnsentEvents.overtaken, "event.anchor == one.anchor", "True"),
    ("two opens are told at once", UnsentEvents.must_wait, "one.is_tried and one.event.kind.opens", "False"),
    ("a handler that ends late says what is open", ContextDoubt.unanswered, ", self._asked_at)", ")"),
    ("what an echo is awaited for is green", Engine.begin_turn, "self.following.is_old_by_echo(event)", "False"),
    ("a logout is overtaken", UnsentEvents.overtaken, "by_own or one.kind.changes_context", "True"),
    ("what failed is not tried again", UnsentEvents.failed, "not is_final)", "False)"),
    ("what was refused is tried again", UnsentEvents.failed, "not is_final)\n", "True)\n"),
    (
        "what was told late is in step before it is shown",
        Engine.accepted_late,
        "self.unsent.reached_hub(event)",
        "self.unsent.resolved(event)",
    ),
    ("updates are tried again", UnsentEvents.failed, "event.announces and", ""),
    ("what comes back is sent again", Engine.received, "self.unsent.reached_hub(event)", "pass"),
    ("what is current is opened again", HandlerRaces.already_shown, "says_the_same(one, event)", "False"),
    ("who is out of step opens nothing", Engine.already_shown, "if self.sync.status.in_sync else None", ""),
    ("what is overtaken is not opened again", HandlerRaces.already_shown, " and self._changes.is_newest(one)", ""),
    (
        "an own open is not handed again",
        HandlerRaces.handler_ends,
        "newer_event if self._reshows",
        "None if self._reshows",
    ),
    ("what has no handler is shown", Engine.followed, "if is_handled:", "if True:"),
    (
        "what was left is handed again",
        HandlerRaces.may_be_shown,
        "(is_shown or self._changes.is_newest(event))",
        "True",
    ),
    ("what is not accepted is handed again", HandlerRaces.may_be_shown, "self._changes.has(event) and", ""),
    (
        "what others opened equally is not handed again",
        HandlerRaces.may_be_shown,
        "says_the_same(shown, event)",
        "False",
    ),
    ("what is not to be shown again is", HandlerRaces.may_be_shown, "event is self.to_reshow and", ""),
    ("what an own open was overtaken by is known", Following.place_uncertain, "self._knew_opens = True", "pass"),
    ("an own close is not handed", HandlerRaces.own_posted, "event.kind is Kind.CLOSE and", "False and"),
    (
        "an own close of something else is handed",
        HandlerRaces.own_posted,
        "event.anchor == self.handling.anchor",
        "True",
    ),
    ("an own close takes the place of an own open", HandlerRaces.own_posted, " and self._own_event is None", ""),
    ("what overtook a handler is not handed", HandlerRaces.handler_ends, "self._own_event or newer", "self._own_event"),
    ("a study of the patient overtook its handler", HandlerRaces.newer_than, "and not belongs(shown, event)", ""),
    (
        "what the hub told when it was asked is overtaken",
        Engine.followed,
        "queried or not is_handled",
        "not is_handled",
    ),
    (
        "a close ends the doubt",
        Engine.followed,
        "if event.kind.opens:\n        self.races.another_opened()",
        "self.races.another_opened()",
    ),
    ("what is closed is shown again", HandlerRaces.may_show_another, " and not self._following.was_closed(event)", ""),
    ("what is overtaken left the screen", Engine.begin_turn, "self.races.may_show(*self.unsent.retried)", "pass"),
    ("what is refused was never shown", Engine.refused, "elif event.own and event.kind.opens:", "elif False:"),
    ("what was left is in doubt for ever", HandlerRaces.another_opened, "self.resolved(self.to_reshow)", "pass"),
    ("a handler that failed has shown nothing", Engine.refused, "shows=shows", "shows=False"),
    ("a handler that was given up has ended", Engine.refused, "if is_over else None", ""),
    (
        "a study of the patient is handed again",
        HandlerRaces.own_posted,
        "None if belongs(event, self.handling) else event",
        "event",
    ),
    ("what a handler showed before it failed is forgotten", Engine.refused, "self.races.maybe_shown = [event]", "pass"),
    (
        "what the application may not show is a repeat",
        Engine.verdict,
        "self.races.may_show_another(event, self.unsent.retried)",
        "False",
    ),
    ("a repeat is followed while something is unsent", HandlerRaces.may_show_another, "is_new and", ""),
    ("the handler of an update shows a context", HandlerRaces.handler_ends, " or not event.kind.opens", ""),
    ("a handler that refused has shown something", HandlerRaces.handler_ends, " or not shows", ""),
    ("what the hub refused is shown again", HandlerRaces.own_refused, "self._own_event = None", "pass"),
    ("what the hub refused is in doubt for ever", HandlerRaces.own_refused, "self.resolved(event)", "pass"),
    ("what is handed again is handed without end", HandlerRaces.handler_ends, "self._reshows <= _MOST_RESHOWS", "True"),
    ("an update makes more of what is handed again", HandlerRaces.handler_begins, "event.kind.opens and", ""),
    ("what others open counts as what is handed again", HandlerRaces.handler_begins, "self._reshows = 0", "pass"),
    ("a stopped client has a handler at work", Engine.ended, "self.races.ended()", "pass"),
    ("after a cut all is well", ContextDoubt.connected, "if may_differ and follows_opens:", "if False:"),
    (
        "who follows no opens is out of step",
        ContextDoubt.connected,
        ", not follows_opens\n",
        ", False\n",
    ),
    (
        "a hub that does not tell leaves the client in step",
        ContextDoubt.unanswered,
        "_UNTOLD if self._may_differ else",
        "",
    ),
    (
        "a hub that does not tell leaves who joins out of step",
        ContextDoubt.unanswered,
        "if self._may_differ",
        "if True",
    ),
    ("what was left says what is open", Engine.received, "self.following.tells_current(event)", "True"),
    ("another context is not noticed", ContextDoubt.resolved, '"" if agrees else _OTHER', '""'),
    (
        "an answer counts that something overtook",
        Engine.context_checked,
        "if self.changes.count != asked:",
        "if False:",
    ),
    (
        "nothing is closed that is closed at the hub",
        Engine.differences,
        "return [opened for opened in ends if opened]",
        "return []",
    ),
    ("a new session leaves open what was", Engine.differences, "version == NOTHING_OPENED", "False"),
    ("what is not current is closed", Engine.differences, "version == NOTHING_OPENED", "True"),
    ("a message that cannot be read is passed over", Engine.unreadable, "self.doubt.raise_doubt(UNREAD)", "pass"),
    ("a SyncError about what was left is news", Engine.sync_error, "not self.sync.is_superseded(mark)", "True"),
    ("an own SyncError is news", Engine.sync_error, "if not is_ours and", "if"),
    (
        "the end of what is not subscribed to is not awaited",
        Engine.sync_error,
        "unsubscribed.append(error.event_id)",
        "pass",
    ),
    ("a refused update makes out of step", Engine.refused, "event.matters and", ""),
    (
        "what was overtaken is a failure",
        Engine.refused,
        "and self.following.shown and self.sync.is_superseded(mark)",
        "and False",
    ),
    ("an own echo proves something", Engine._repeat, "if event.own:", "if False:"),
    (
        "what was caught up with stays failed",
        Engine.followed,
        "self.sync.recovered(event.id)",
        "pass",
    ),
    (
        "what something newer came after is caught up with",
        Engine.to_catch_up,
        "not self.changes.is_newest(failed)",
        "False",
    ),
    ("an old close does not end what is sent again", ContextChanges._is_since, "closes or", ""),
    ("an own open without its echo keeps its content", Engine.accepted, "self.content.forget(event.anchor)", "pass"),
    (
        "an own open is resent though it is not the last",
        resending.Resending.reported,
        "self._last.id != event_id",
        "False",
    ),
    (
        "an own open is resent though something newer came",
        resending.Resending.reported,
        "or not is_newest(self._last)",
        "",
    ),
    ("what was refused is resent", resending.Resending.refused, "self._last = self._previous", "pass"),
    ("an own open proves something", status.Sync.followed, "(own_id and failure.event_id == own_id)", "False"),
    ("what came before a SyncError proves something", status.Sync.followed, "or mark.last_seen < failure.since", ""),
    ("any open undoes a refusal", status.Sync.followed, "self._is_older(mark, one[1])", "False"),
    ("any open restores sync", status.Sync.followed, "self._is_older(mark, failure.mark)\n", "False\n"),
    (
        "an update that does not fit is applied",
        content.Contents.updated,
        "event.prior_version == known.version",
        "True",
    ),
    (
        "updates that wait are forgotten",
        content.Contents.updated,
        "known.waiting = [*known.waiting, event][-_MOST_WAITING:]",
        "pass",
    ),
    (
        "what was open before is known",
        content.Contents.opened,
        "self.is_replaying or type_ in self._open_before",
        "False",
    ),
    (
        "content of another version is kept",
        content.Contents.opened,
        "(same and event.version != known.version)",
        "False",
    ),
    ("a close keeps the content", content.Contents.closed, "self._shared.pop(anchor, None)", "pass"),
]


@pytest.mark.parametrize(
    "mutant",
    [Mutant(*mistake, _NOBODY) for mistake in _MUTANTS],
    ids=lambda one: one.mistake,
)
def test_a_mistake_is_noticed(mutant: Mutant) -> None:
    with mutated(mutant):
        assert any(differs(sequence) for sequence in table()), f"nobody noticed: {mutant.mistake}"
