"""Mutants: the core with a single mistake, made at run time. Each mutant names the invariants of which one must be broken."""

from __future__ import annotations

import contextlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, NamedTuple

from fhircast_hub.acknowledgements import tracker
from fhircast_hub.core.rules import (
    closing,
    conflicts,
    connections,
    content,
    contexts,
    derived_opens,
    heartbeat,
    last_opens,
    missed_events,
    publishing,
    subscriptions,
    sync_errors,
)
from tests.simulation import hub


class Mutant(NamedTuple):
    """A mistake: in `function`, `text` is replaced by `by`. One of the invariants `caught_by` must be broken."""

    mistake: str
    function: Callable[..., Any]
    text: str
    by: str
    caught_by: tuple[str, ...]


MUTANTS = (
    Mutant(
        "a joiner is sent the replay before the confirmation",
        connections.connected,
        "(*takeover_effects, confirmed, *send_all(subscription, [*missed, *opens]))",
        "(*takeover_effects, *send_all(subscription, [*missed, *opens]), confirmed)",
        ("confirmation_comes_first",),
    ),
    Mutant(
        "a joiner is sent no replay",
        connections.connected,
        "[*missed, *opens]",
        "missed",
        ("joiners_are_replayed_open_contexts",),
    ),
    Mutant(
        "a joiner is in no audience",
        connections.connected,
        "join_audience(with_subscription(session, subscription), subscription, last_opened)",
        "with_subscription(session, subscription)",
        ("events_reach_subscribers", "opens_are_derived", "sync_errors_reach_subscribers"),
    ),
    Mutant(
        "an update's version is not checked",
        conflicts.check_version,
        "context.version in event.versions",
        "event.versions",
        ("statuses_match_behaviours",),
    ),
    Mutant(
        "content remains after the close",
        closing.close_context,
        "if close.ref in session.contents",
        "if False and session.contents",
        ("content_matches_updates", "memory_is_bounded", "get_matches_the_current_context"),
    ),
    Mutant(
        "a repeated update is applied and sent again",
        content.apply_update,
        "return None",
        "event = replace(event, versions=(context.version,))",
        ("events_reach_subscribers", "messages_are_sent_in_order"),
    ),
    Mutant(
        "a DELETE that should be refused is accepted",
        content._check_delete,
        "raise BadRequest",
        "return None; raise BadRequest",
        ("statuses_match_behaviours", "only_refusals_are_raised"),
    ),
    Mutant(
        "a DELETE keeps the resource",
        content._Draft.apply,
        "del self._resources[ref]",
        "self._resources[ref] = self._resources[ref]",
        ("content_matches_updates",),
    ),
    Mutant(
        "a fullUrl does not identify a shared resource",
        content._resource_ref,
        'urls.get(change.full_url, "") if change.full_url else',
        "",
        ("statuses_match_behaviours",),
    ),
    Mutant(
        "a shared copy of a resource of the open cannot be deleted",
        content._check_delete,
        "if shared is not None:",
        "if shared is not None and not came_with_open:",
        ("statuses_match_behaviours",),
    ),
    Mutant(
        "a missed acknowledgement is not counted",
        sync_errors._count_missed_ack,
        "subscription.missed_acks + 1",
        "subscription.missed_acks",
        ("subscriptions_match_requests", "ends_are_announced"),
    ),
    Mutant(
        "an acknowledgement does not reset the count of missed ones",
        connections.acknowledged,
        "missed_acks=0",
        "missed_acks=subscription.missed_acks",
        ("subscriptions_match_requests", "ends_are_announced"),
    ),
    Mutant(
        "the refusing subscriber is sent the SyncError",
        sync_errors._report,
        "if other != to_blame",
        "if other",
        ("sync_errors_reach_subscribers",),
    ),
    Mutant(
        "a refused update is reported",
        publishing._event_ref,
        "event.kind not in (Kind.UPDATE, Kind.SELECT)",
        "event.kind",
        ("sync_errors_are_justified",),
    ),
    Mutant(
        "a lost connection has no grace period",
        connections.disconnected,
        "env.now + (RESTART_GRACE if command.code == SERVICE_RESTART else env.rules.reconnect_grace)",
        "0.0",
        ("sync_errors_reach_subscribers", "nothing_is_overdue"),
    ),
    Mutant(
        "a connection closed with 1000 or 1001 counts as lost",
        connections.disconnected,
        "command.code in (NORMAL, GOING_AWAY)",
        "command.code in ()",
        ("sync_errors_reach_subscribers", "subscriptions_match_requests"),
    ),
    Mutant(
        "a derived open is sent to connections that were not granted it",
        publishing._send_open,
        "if open_.key not in audience.keys or",
        "if",
        ("opens_are_derived", "only_granted_events_arrive"),
    ),
    Mutant(
        "a derived open is sent again without a doubt",
        publishing._send_open,
        "if is_repeat or last.ref != open_.ref or last.in_doubt",
        "if True",
        ("opens_are_derived",),
    ),
    Mutant(
        "a derived open is sent to subscribers of the event itself",
        publishing._send_open,
        " or key in audience.keys",
        "",
        ("opens_are_derived",),
    ),
    Mutant(
        "a derived open does not end with its source",
        closing.close_context,
        "if context is not None",
        "if False",
        ("opens_are_derived", "events_reach_subscribers"),
    ),
    Mutant(
        "a derived close is not retained",
        closing.end_derived_opens,
        "tuple(effects), retained",
        "tuple(effects), []",
        ("missed_events_are_sent", "no_closed_context_is_shown"),
    ),
    Mutant(
        "last opens are kept at a Home-open",
        last_opens.after_home_open,
        'NOTHING_OPENED if "home-open" in keys else',
        "",
        ("opens_are_derived", "events_reach_subscribers"),
    ),
    Mutant(
        "derived opens are sent in the reverse order",
        derived_opens.derive_opens,
        "for type_ in DERIVED",
        "for type_ in reversed(DERIVED)",
        ("messages_are_sent_in_order", "opens_are_derived"),
    ),
    Mutant(
        "closed contexts are replayed",
        contexts.remove_context,
        "left.pop(ref, None)",
        "left",
        ("contexts_match_opens_and_closes", "joiners_are_replayed_open_contexts"),
    ),
    Mutant(
        "a closed context is still implied by others",
        contexts.remove_context,
        "if implied_type != type_",
        "if implied_type",
        ("joiners_are_replayed_open_contexts", "missed_events_are_sent", "opens_are_derived"),
    ),
    Mutant(
        "a lost subscription of the same name is not replaced",
        subscriptions._is_replaced,
        "if older.connection",
        "if older",
        ("subscriptions_match_requests", "memory_is_bounded"),
    ),
    Mutant(
        "closes and updates are not retained",
        missed_events.retain,
        "return replace(session, retained=retained, dropped_closes=_with_dropped(dropped_closes, oldest_first))",
        "return session",
        ("missed_events_are_sent",),
    ),
    Mutant(
        "closes in flight to a broken socket are not sent again",
        missed_events._missed_events,
        "received if event.closes else delivered_until",
        "lost_at if event.closes else delivered_until",
        ("no_closed_context_is_shown",),
    ),
    Mutant(
        "a repeat of an old open is broadcast",
        publishing.publish,
        "if accepted_order >= session.last_change_order",
        "if event.ref in session.contexts",
        ("events_reach_subscribers", "opens_are_derived"),
    ),
    Mutant(
        "an open with an older timestamp is not reported",
        publishing._report_late_open,
        "if seconds > 0",
        "if seconds < 0",
        ("sync_errors_reach_subscribers",),
    ),
    Mutant(
        "Home-open leaves the context current",
        publishing._home_open,
        'current=""',
        "current=session.current",
        ("contexts_match_opens_and_closes",),
    ),
    Mutant(
        "a lost connection stays in its audience",
        connections._without_connection,
        "audiences.without_connection(session.audiences, lost.connection)",
        "session.audiences",
        ("events_reach_subscribers", "memory_is_bounded", "sync_errors_reach_subscribers"),
    ),
    Mutant(
        "a replaced socket stays open",
        connections._take_over,
        "effects = (Close(",
        "effects = () and (Close(",
        ("ends_are_announced",),
    ),
    Mutant(
        "a renewal replays nothing for added events",
        subscriptions._send_added,
        "*send_all(renewed, frames)",
        "",
        ("events_reach_subscribers", "opens_are_derived"),
    ),
    Mutant(
        "the end of a lease is not announced",
        subscriptions.end,
        "if subscription.connection",
        'if reason != "the lease has ended"',
        ("ends_are_announced",),
    ),
    Mutant(
        "missing acknowledgements are never reported under the lenient policy",
        tracker.AckTracker._missed,
        "peer.awaited_since <= sent.at",
        "self._policy is Policy.STRICT",
        ("silence_is_reported",),
    ),
    Mutant(
        "acknowledgements are expected of all subscribers under the lenient policy",
        tracker.AckTracker.connected,
        "if subscription.acknowledges or self._policy is Policy.STRICT",
        "if True",
        ("sync_errors_are_justified",),
    ),
    Mutant(
        "a received acknowledgement counts as missing",
        tracker.AckTracker.acknowledged,
        "sent.answered.add(connection)",
        "pass",
        ("sync_errors_are_justified",),
    ),
    Mutant(
        "a refusal counts as an acknowledgement",
        tracker.AckTracker.acknowledged,
        "read.status // 100 == _SUCCESS",
        "True",
        ("refusals_are_reported",),
    ),
    Mutant(
        "heartbeats are sent to all connections",
        heartbeat.beat,
        "audiences.subscribers_of(session.audiences, _NAME)",
        "tuple(member for audience in session.audiences for member in audience.members)",
        ("heartbeats_arrive_in_time", "only_granted_events_arrive"),
    ),
    Mutant(
        "the sockets of a dead node stay connected",
        connections._lose_sockets,
        "== command.node",
        '== ""',
        ("subscriptions_match_requests",),
    ),
    Mutant(
        "the sockets of other nodes are lost too",
        connections._lose_sockets,
        "each.connection and node_of(each.connection) == command.node",
        "each.connection",
        ("subscriptions_match_requests",),
    ),
    Mutant(
        "nobody waits for the subscribers of a dead node",
        connections._lose_sockets,
        "env.now + env.rules.reconnect_grace",
        "0.0",
        ("sync_errors_reach_subscribers", "nothing_is_overdue"),
    ),
    Mutant(
        "what was sent to a dead node counts as delivered",
        connections._lose_sockets,
        "_lose(session, subscription, subscription.delivered_until",
        "_lose(session, subscription, env.now",
        ("missed_events_are_sent",),
    ),
    Mutant(
        "commits arrive at a node out of order",
        hub.Node.tell,
        "max(self._next, ",
        "max(0.0, ",
        ("frames_arrive_in_commit_order", "frames_arrive_between_confirmation_and_denial"),
    ),
)


@contextlib.contextmanager
def mutated(mutant: Mutant) -> Iterator[None]:
    """The function makes the mistake inside this context, wherever it was imported."""
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
