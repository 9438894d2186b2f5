"""Mutants: the core with one mistake each, made while it runs. Each names the invariants of which one must notice."""

from __future__ import annotations

import contextlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, NamedTuple

from fhircast_hub.acknowledgements import tracker
from fhircast_hub.core.rules import (
    audiences,
    closing,
    connections,
    content,
    contexts,
    derived_opens,
    heartbeat,
    missed_events,
    publishing,
    subscriptions,
    sync_errors,
)
from tests.simulation import hub


class Mutant(NamedTuple):
    """A mistake: in `function`, `text` is replaced by `by`. One of `caught_by` must notice."""

    mistake: str
    function: Callable[..., Any]
    text: str
    by: str
    caught_by: tuple[str, ...]


MUTANTS = (
    Mutant(
        "a joiner is told what is open before the confirmation",
        connections.connected,
        "(*closing, confirmed, *send_all(back, missed), *send_all(back, opens))",
        "(*closing, *send_all(back, missed), *send_all(back, opens), confirmed)",
        ("confirmation_comes_first",),
    ),
    Mutant(
        "a joiner is not told what is open",
        connections.connected,
        "*send_all(back, missed), *send_all(back, opens)",
        "*send_all(back, missed)",
        ("joiners_are_told_what_is_open",),
    ),
    Mutant(
        "a joiner is in no audience",
        connections.connected,
        "join_audience(with_subscription(session, back), back, known)",
        "with_subscription(session, back)",
        ("events_reach_who_asked", "opens_are_derived", "who_cannot_follow_is_reported"),
    ),
    Mutant(
        "an update's version is not checked",
        content._check_version,
        "context.version in event.versions",
        "event.versions",
        ("answers_are_as_promised",),
    ),
    Mutant(
        "content outlives the close",
        closing.closed,
        "if close.ref in session.contents",
        "if False and session.contents",
        ("content_is_what_was_shared", "memory_is_bounded", "get_says_what_is_open"),
    ),
    Mutant(
        "a repeated update is applied and sent again",
        content.updated,
        "return None",
        "event = replace(event, versions=(context.version,))",
        ("events_reach_who_asked", "one_order"),
    ),
    Mutant(
        "an update that fails in the middle is applied as far as it went",
        content._check_delete,
        "raise BadRequest",
        "return None; raise BadRequest",
        ("answers_are_as_promised", "only_refusals_are_raised"),
    ),
    Mutant(
        "a DELETE keeps the resource",
        content._applied,
        "del resources[ref]",
        "resources[ref] = resources[ref]",
        ("content_is_what_was_shared",),
    ),
    Mutant(
        "a fullUrl names nothing",
        content._ref,
        'urls.get(change.full_url, "") if change.full_url else',
        "",
        ("answers_are_as_promised",),
    ),
    Mutant(
        "a copy of what the context was opened with cannot be deleted",
        content._check_delete,
        "if shared is not None:",
        "if shared is not None and not is_opened_with:",
        ("answers_are_as_promised",),
    ),
    Mutant(
        "a strike is forgotten",
        sync_errors._count_missed_ack,
        "subscription.missed_acks + 1",
        "subscription.missed_acks",
        ("subscriptions_are_who_asked", "the_end_is_told"),
    ),
    Mutant(
        "an acknowledgement does not end the strikes",
        connections.acknowledged,
        "missed_acks=0",
        "missed_acks=subscription.missed_acks",
        ("subscriptions_are_who_asked", "the_end_is_told"),
    ),
    Mutant(
        "the refuser is told of its own refusal",
        sync_errors._report,
        "if other != to_blame",
        "if other",
        ("who_cannot_follow_is_reported",),
    ),
    Mutant(
        "a refused update is reported",
        publishing._notice,
        "event.kind not in (Kind.UPDATE, Kind.SELECT)",
        "event.kind",
        ("reports_are_true",),
    ),
    Mutant(
        "a lost connection is not waited for",
        connections.disconnected,
        "env.now + (RESTART_GRACE if command.code == SERVICE_RESTART else env.rules.reconnect_grace)",
        "0.0",
        ("who_cannot_follow_is_reported", "nothing_is_overdue"),
    ),
    Mutant(
        "whoever says goodbye counts as lost",
        connections.disconnected,
        "command.code in (NORMAL, GOING_AWAY)",
        "command.code in ()",
        ("who_cannot_follow_is_reported", "subscriptions_are_who_asked"),
    ),
    Mutant(
        "a derived open goes to who did not ask for it, or may not read it",
        publishing._send_open,
        "if open_.key not in audience.keys or",
        "if",
        ("opens_are_derived", "nobody_hears_what_is_not_theirs"),
    ),
    Mutant(
        "a derived open is sent however often it was",
        publishing._send_open,
        "if again or last.ref != open_.ref or last.stale",
        "if True",
        ("opens_are_derived",),
    ),
    Mutant(
        "a derived open goes to who is sent the event itself",
        publishing._send_open,
        " or context.key in audience.keys",
        "",
        ("opens_are_derived",),
    ),
    Mutant(
        "a derived open is never taken back",
        closing.closed,
        "if gone is not None",
        "if False",
        ("opens_are_derived", "events_reach_who_asked"),
    ),
    Mutant(
        "a derived open stays with who was away when it was taken back",
        closing.take_back,
        "retain(session, held, rules)",
        "session",
        ("what_was_missed_is_told", "nothing_closed_is_shown"),
    ),
    Mutant(
        "what was told is remembered through Home-open",
        audiences.before_home,
        'NOTHING if "home-open" in keys else',
        "",
        ("opens_are_derived", "events_reach_who_asked"),
    ),
    Mutant(
        "a derived open leaves out what it carries with it",
        derived_opens.derive,
        "for type_ in DERIVED",
        "for type_ in reversed(DERIVED)",
        ("one_order", "opens_are_derived"),
    ),
    Mutant(
        "joiners are told contexts that were closed",
        contexts.without,
        "if other.ref != ref",
        "if other.ref",
        ("contexts_are_what_was_opened", "joiners_are_told_what_is_open"),
    ),
    Mutant(
        "what a closed context implied is told still",
        contexts.without,
        "if k != type_",
        "if k",
        ("joiners_are_told_what_is_open", "what_was_missed_is_told", "opens_are_derived"),
    ),
    Mutant(
        "ghosts stay",
        subscriptions._is_replaced,
        "if older.connection",
        "if older",
        ("subscriptions_are_who_asked", "memory_is_bounded"),
    ),
    Mutant(
        "missed closes and updates are not held",
        missed_events.retain,
        "return replace(session, retained=held, dropped_closes=lost)",
        "return session",
        ("what_was_missed_is_told",),
    ),
    Mutant(
        "closes that were on their way to a socket that broke are not told again",
        missed_events.missed_by,
        "since if other.closes else arrived",
        "left if other.closes else arrived",
        ("nothing_closed_is_shown",),
    ),
    Mutant(
        "an old open is broadcast again",
        publishing.publish,
        "if seen >= session.last_change_order",
        "if event.ref in session.contexts",
        ("events_reach_who_asked", "opens_are_derived"),
    ),
    Mutant(
        "an open that came too late is told to nobody",
        publishing._overtaken,
        "if seconds > 0",
        "if seconds < 0",
        ("who_cannot_follow_is_reported",),
    ),
    Mutant(
        "Home-open leaves the context current",
        publishing._home,
        'current=""',
        "current=session.current",
        ("contexts_are_what_was_opened",),
    ),
    Mutant(
        "who leaves stays in the audience",
        connections._without_connection,
        "audiences.leave(session.audiences, lost.connection)",
        "session.audiences",
        ("events_reach_who_asked", "memory_is_bounded", "who_cannot_follow_is_reported"),
    ),
    Mutant(
        "the socket whose place was taken stays open",
        connections._take_over,
        "effects = (Close(",
        "effects = () and (Close(",
        ("the_end_is_told",),
    ),
    Mutant(
        "a renewal tells nothing of the names that it adds",
        subscriptions._send_added,
        "*send_all(renewed, frames)",
        "",
        ("events_reach_who_asked", "opens_are_derived"),
    ),
    Mutant(
        "a lease that is over is not denied",
        subscriptions.end,
        "if subscription.connection",
        'if reason != "the lease has ended"',
        ("the_end_is_told",),
    ),
    Mutant(
        "nobody is missed under the lenient policy",
        tracker.AckTracker._is_missed,
        "peer.awaited_since <= sent.at",
        "self._policy is Policy.STRICT",
        ("silence_is_reported",),
    ),
    Mutant(
        "everybody is missed under the lenient policy",
        tracker.AckTracker.connected,
        "if subscription.acknowledges or self._policy is Policy.STRICT",
        "if True",
        ("reports_are_true",),
    ),
    Mutant(
        "an answer is taken for silence",
        tracker.AckTracker.acknowledged,
        "sent.answered.add(connection)",
        "pass",
        ("reports_are_true",),
    ),
    Mutant(
        "a refusal is taken for an answer",
        tracker.AckTracker.acknowledged,
        "read.status // 100 == _SUCCESS",
        "True",
        ("refusals_are_reported",),
    ),
    Mutant(
        "heartbeats come to everybody",
        heartbeat.beat,
        "audiences.subscribed(session.audiences, _NAME)",
        "tuple(member for audience in session.audiences for member in audience.members)",
        ("heartbeats_beat", "nobody_hears_what_is_not_theirs"),
    ),
    Mutant(
        "commits overtake each other on their way to a node",
        hub.Node.tell,
        "max(self._next, ",
        "max(0.0, ",
        ("frames_come_in_the_one_order", "frames_come_between_confirmation_and_end"),
    ),
)


@contextlib.contextmanager
def mutated(mutant: Mutant) -> Iterator[None]:
    """While this lasts, the function makes its mistake, whoever imported it by whatever name."""
    function = mutant.function
    source = textwrap.dedent(inspect.getsource(function))
    assert mutant.text in source, f"{mutant.mistake}: the text is not there any more: {mutant.text}"
    scope: dict[str, Any] = {}
    code = compile(
        f"from __future__ import annotations\n{source.replace(mutant.text, mutant.by)}", mutant.mistake, "exec"
    )
    exec(code, function.__globals__, scope)
    original: CodeType = function.__code__
    function.__code__ = scope[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = original
