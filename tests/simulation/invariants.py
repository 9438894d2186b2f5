"""The invariants after every decision. Each is a function, with the behaviours of docs/behaviour.md that it checks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from fhircast_hub.acknowledgements.tracker import Policy
from fhircast_hub.core import limits
from fhircast_hub.core.state.commands import AcksTimedOut, Connected, Publish, Rejected, Tick
from fhircast_hub.core.state.effects import Close, Effect, Send
from fhircast_hub.core.state.session import Session
from tests.simulation.clients import anchor
from tests.simulation.model import Label, Messages, Topic
from tests.simulation.oracle import Expectation
from tests.simulation.oracle_frames import LOST
from tests.simulation.shown import last_opens_do_not_depend_on_join_time
from tests.simulation.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.hub import Submission
    from tests.simulation.world import World

_decode = msgspec.json.Decoder().decode
#: A UUID of version 5: the id of a derived open or close.
_DERIVED_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


class Step(NamedTuple):
    """A decision: the hub's session and effects, and the expectations of the oracle."""

    world: World
    submission: Submission
    before: Session | None
    after: Session | None
    effects: tuple[Effect, ...]
    topic: Topic | None
    expectation: Expectation
    said: Messages

    def expected(self, *classes: str) -> Counter[tuple[str, Label]]:
        return Counter(told for told in self.expectation.messages if told[1][0] in classes)

    def actual(self, *classes: str) -> Counter[tuple[str, Label]]:
        return Counter(told for told in self.said if told[1][0] in classes)


def said(effects: tuple[Effect, ...]) -> Messages:
    """The messages of these effects, by connection."""
    told: Messages = []
    for effect in effects:
        if isinstance(effect, Close):
            told.append((effect.connection, ("close", effect.code)))
        elif isinstance(effect, Send):  # there are no webhooks here
            label = read(effect.frame)
            told += [(connection, label) for connection in effect.to]
    return told


def read(frame: bytes) -> Label:
    """The label of a frame, as in the model."""
    message = _decode(frame)
    if "hub.mode" in message:
        events = frozenset(message["hub.events"].lower().split(","))
        return ("confirmation", events) if message["hub.mode"] == "subscribe" else ("denied",)
    event = message["event"]
    key = event["hub.event"].lower()
    version = event.get("context.versionId", "")
    if key == "syncerror" and "issue" in event["context"][0]["resource"]:
        return _read_error(event["context"][0]["resource"]["issue"][0])
    if key == "heartbeat":
        return ("heartbeat",)
    if key.endswith("-open") and key != "home-open" and not version:
        return "derived", key, anchor(key, event["context"]), message["timestamp"]
    if key.endswith("-close") and _DERIVED_ID.fullmatch(message["id"]):
        return "derived", key, anchor(key, event["context"]), message["timestamp"]
    if "context.priorVersionId" in event:
        return "event", key, message["id"], version, event["context.priorVersionId"]
    return "event", key, message["id"], version


def _read_error(issue: dict[str, Any]) -> Label:
    if (issue["severity"], issue["code"]) != ("warning", "processing"):
        return "syncerror", "not as the profile says"
    event, name, subscriber = (coding["code"] for coding in issue["details"]["coding"][:3])
    return "syncerror", LOST if name == "syncerror" else event, name, subscriber


def _same(step: Step, invariant: str, *classes: str) -> None:
    expected, actual = step.expected(*classes), step.actual(*classes)
    if expected != actual:
        missing, more = list((expected - actual).elements()), list((actual - expected).elements())
        raise Violation(invariant, f"not said: {missing}; said, and should not be: {more}")


def events_reach_subscribers(step: Step) -> None:
    """EVT-1, EVT-12, EVT-17, DER-4: an accepted event is sent once to each subscription that was granted it, and to no other."""
    if not isinstance(step.submission.command, Connected):
        _same(step, "events_reach_subscribers", "event")


def opens_are_derived(step: Step) -> None:
    """DER-7, DER-3: derived opens are sent to subscriptions whose last open is another."""
    if not isinstance(step.submission.command, Connected):
        _same(step, "opens_are_derived", "derived")


def sync_errors_reach_subscribers(step: Step) -> None:
    """SYN-1 to SYN-4, SYN-7, EVT-20: a failure to follow is told by one SyncError to each other subscriber of SyncError."""
    _same(step, "sync_errors_reach_subscribers", "syncerror")


def ends_are_announced(step: Step) -> None:
    """LEA-4, UNS-6, SYN-5, SUB-11: a denial and close code 1000; 1008 for a replaced socket; no other socket is closed."""
    _same(step, "ends_are_announced", "denied", "close")


def confirmation_comes_first(step: Step) -> None:
    """SUB-3, SUB-20: the confirmation is the first message to a new socket, and after a renewal."""
    _same(step, "confirmation_comes_first", "confirmation")
    if isinstance(step.submission.command, Connected):
        mine = [label for connection, label in step.said if connection == step.submission.command.connection]
        if mine and mine[0][0] != "confirmation":
            raise Violation("confirmation_comes_first", f"first came {mine[0]}")


def joiners_are_replayed_open_contexts(step: Step) -> None:
    """CTX-1 to CTX-6, DER-5: a joiner is last sent the newest open of each type, and no closed context."""
    command = step.submission.command
    if not isinstance(command, Connected):
        return
    expected = [label for connection, label in step.expectation.messages if connection == command.connection][1:]
    actual = [label for connection, label in step.said if connection == command.connection][1:]
    if actual[len(actual) - len(expected) :] != expected:
        raise Violation("joiners_are_replayed_open_contexts", f"expected {expected}, told {actual}")


def missed_events_are_sent(step: Step) -> None:
    """SUB-12: a returning subscription is sent the closes and updates that it missed, in order and once."""
    command = step.submission.command
    if not isinstance(command, Connected):
        return
    replayed = len([label for connection, label in step.expectation.messages if connection == command.connection])
    mine = [label for connection, label in step.said if connection == command.connection]
    missed = mine[1 : len(mine) - replayed + 1]
    allowed = {change.label: place for place, change in enumerate(step.expectation.allowed)}
    refs = {change.label: change.ref for change in step.expectation.allowed}
    places = [allowed[label] for label in missed if label in allowed]
    made = [label for label in missed if label not in allowed]
    if places != sorted(set(places)):
        raise Violation("missed_events_are_sent", f"not in order, or twice: {missed}")
    if lacking := [label for label in step.expectation.required if label not in missed]:
        raise Violation("missed_events_are_sent", f"not told: {lacking}; told: {missed}")
    if any(not str(label[1]).endswith("-close") for label in made):
        raise Violation("missed_events_are_sent", f"never happened: {made}")
    closed = {refs[label] for label in missed if label in refs}
    if unsaid := [ref for ref in step.expectation.required_closes if ref not in closed]:
        types = Counter(f"{ref.partition('/')[0]}-close" for ref in set(unsaid))
        if types - Counter(str(label[1]) for label in made):
            raise Violation("missed_events_are_sent", f"no close for {unsaid}; told: {missed}")


def messages_are_sent_in_order(step: Step) -> None:
    """EVT-13, DER-7: messages are sent to each connection in the expected order, derived opens before the open."""
    if isinstance(step.submission.command, Connected):
        return
    expected: dict[str, list[Label]] = {}
    actual: dict[str, list[Label]] = {}
    for connection, label in step.expectation.messages:
        expected.setdefault(connection, []).append(label)
    for connection, label in step.said:
        if label[0] != "heartbeat":
            actual.setdefault(connection, []).append(label)
    if expected != actual:
        raise Violation("messages_are_sent_in_order", f"expected {expected}, said {actual}")


def heartbeats_arrive_in_time(step: Step) -> None:
    """SYN-13: each subscriber of heartbeat is sent one every HEARTBEAT_SECONDS, and no other."""
    beats = [connection for connection, label in step.said if label[0] == "heartbeat"]
    topic = step.topic
    if topic is None:
        return
    wanted = [sub.connection for sub in topic.connected("heartbeat")]
    if beats and sorted(beats) != sorted(wanted):
        raise Violation("heartbeats_arrive_in_time", f"to {beats}, wanted by {wanted}")
    period = step.world.script.rules.heartbeat_seconds
    if beats and topic.beat and step.submission.at < topic.beat + period - 0.001:
        raise Violation("heartbeats_arrive_in_time", "before its time")
    if not wanted:
        topic.beat = 0.0
    elif beats or not topic.beat:
        topic.beat = step.submission.at
    elif step.submission.at > topic.beat + period + 2:
        raise Violation("heartbeats_arrive_in_time", f"none for {step.submission.at - topic.beat:.1f} seconds")


def contexts_match_opens_and_closes(step: Step) -> None:
    """GET-2 to GET-7, EVT-16, EVT-17: contexts that were opened and not closed are open; the one opened last is current."""
    after, topic = step.after, step.topic
    if after is None or topic is None:
        if topic is not None and (topic.subs or topic.contexts):
            raise Violation("contexts_match_opens_and_closes", "a session in use was forgotten (LIM-1)")
        return
    if list(after.contexts) != list(topic.contexts) or after.current != topic.current:
        found = f"{list(after.contexts)}, current {after.current!r}"
        raise Violation(
            "contexts_match_opens_and_closes", f"{found}; should be {list(topic.contexts)}, {topic.current!r}"
        )
    if bool(after.home) != (topic.home is not None):
        raise Violation("contexts_match_opens_and_closes", f"at home: {bool(after.home)}")


def content_matches_updates(step: Step) -> None:
    """CON-1, CON-2, CON-6, CON-19, CON-9, CON-10: the content is the result of the updates, until the close."""
    after, topic = step.after, step.topic
    if after is None or topic is None or (step.before is not None and step.before.contents is after.contents):
        return
    found = {
        ref: {other: _decode(shared.entry)["resource"]["value"] for other, shared in content.resources.items()}
        for ref, content in after.contents.items()
    }
    expected = {ref: context.content for ref, context in topic.contexts.items() if context.content}
    if {ref: content for ref, content in found.items() if content} != expected:
        raise Violation("content_matches_updates", f"{found}; should be {expected}")


def versions_are_new(step: Step) -> None:
    """CON-1, CON-2, CON-8, GET-6: every open and every update makes a new version; no other event does."""
    after, topic = step.after, step.topic
    if after is None or topic is None:
        return
    before = step.before.contexts if step.before else {}
    for ref, context in after.contexts.items():
        was = before.get(ref)
        if was is not None and was.version == context.version:
            continue
        post = step.submission.post
        if context.version in step.world.versions or post is None or post.ref != ref:
            raise Violation("versions_are_new", f"{ref} has {context.version}, which was given before or has no cause")
        step.world.versions.add(context.version)
    for ref, known in topic.contexts.items():
        if ref in after.contexts and after.contexts[ref].version != known.version:
            raise Violation("versions_are_new", f"{ref} has {after.contexts[ref].version}, not {known.version}")


def one_update_per_version(step: Step) -> None:
    """CON-8: of the updates of one version, one is accepted."""
    post = step.submission.post
    if post is None or post.kind != "update" or not isinstance(step.submission.command, Publish):
        return
    if (
        step.after is not None
        and step.before is not None
        and step.after.last_change_order != step.before.last_change_order
    ):
        taken = step.world.taken
        if (post.ref, post.version) in taken or not post.version:
            raise Violation("one_update_per_version", f"a second one on {post.version} of {post.ref}")
        taken.add((post.ref, post.version))


def subscriptions_match_requests(step: Step) -> None:
    """SUB-20, SUB-14, SUB-22, SUB-23, LEA-1, LEA-4, SYN-5: the subscriptions, with their events, sockets, names and leases."""
    after, topic = step.after, step.topic
    if after is None or topic is None or (step.before is not None and step.before.subscriptions is after.subscriptions):
        return
    found = {
        s.subscription_id: (s.connection, s.keys, s.name, round(s.expires, 3), s.missed_acks)
        for s in after.subscriptions.values()
    }
    expected = {
        s.subscription_id: (s.connection, s.events, s.name, round(s.expires, 3), s.missed_acks)
        for s in topic.subs.values()
    }
    if found != expected:
        raise Violation("subscriptions_match_requests", f"{found}; should be {expected}")


def memory_is_bounded(step: Step) -> None:
    """LIM-1, SUB-12, SUB-22, EVT-17: each part of a session has a bound."""
    after, rules = step.after, step.world.script.rules
    if after is None:
        return
    members = [member for audience in after.audiences for member in audience.members]
    sizes = {
        "contexts": (len(after.contexts), limits.MAX_CONTEXTS),
        "content": (sum(content.size for content in after.contents.values()), limits.MAX_CONTENT_BYTES),
        "contents": (len(after.contents), len(after.contexts)),
        "recent": (len(after.recent), limits.REMEMBERED_CHANGES),
        "updates": (max((len(c.updates) for c in after.contents.values()), default=0), limits.REMEMBERED_UPDATES),
        "held": (len(after.retained), rules.retained_messages),
        "held bytes": (sum(len(held.frame) for held in after.retained.values()), rules.retained_bytes),
        "lost": (len(after.dropped_closes), limits.REMEMBERED_CLOSES),
        "subscriptions": (len(after.subscriptions), rules.max_subscriptions),
        "sockets": (len(members), sum(1 for sub in after.subscriptions.values() if sub.connection)),
    }
    for what, (size, bound) in sizes.items():
        if size > bound:
            raise Violation("memory_is_bounded", f"{what}: {size} of {bound}")
    if len(set(members)) != len(members):
        raise Violation("memory_is_bounded", f"a socket in two audiences: {members}")


def deadlines_are_in_the_future(step: Step) -> None:
    """LEA-4: after a Tick the deadline is in the future; a session with subscriptions has one."""
    after = step.after
    if after is None:
        return
    new = (
        step.topic is not None and step.topic.reopened
    )  # the time of the next heartbeat is not stored: Restarted sets it
    if (
        isinstance(step.submission.command, Tick)
        and not new
        and after.deadline is not None
        and after.deadline <= step.submission.at
    ):
        raise Violation(
            "deadlines_are_in_the_future", f"due {step.submission.at - after.deadline:.3f} seconds ago, after a Tick"
        )
    if after.subscriptions and after.deadline is None:
        raise Violation("deadlines_are_in_the_future", "nothing is waited for")


def sync_errors_are_justified(step: Step) -> None:
    """SYN-1, SYN-4, SYN-6, SYN-10, SYN-11: a reported subscriber refused, or missed an acknowledgement that was expected."""
    command, sockets = step.submission.command, step.world.sockets
    if isinstance(command, Rejected):
        socket = sockets[command.connection]
        told = [told for told in socket.ledger if told.event_ref.id == command.event_ref.id]
        if not any(each.refused is not None for each in told) or not _is_reportable(command.event_ref.name):
            raise Violation(
                "sync_errors_are_justified", f"{command.connection} did not refuse {command.event_ref.name}"
            )
        for each in told:
            each.reported = True
        _once(step, (command.connection, command.event_ref.id), len(told))
    if isinstance(command, AcksTimedOut):
        for missed_ack in command.missed:
            _check_silence(step, missed_ack.connection, missed_ack.event_ref.id, missed_ack.event_ref.name)


def _check_silence(step: Step, connection: str, id_: str, name: str) -> None:
    script = step.world.script
    socket, now = step.world.sockets[connection], step.submission.at
    latest = now - script.rules.ack_timeout
    told = [
        told
        for told in socket.ledger
        if told.event_ref.id == id_ and told.at <= latest and (told.answered is None or told.answered > now - 1)
    ]
    if not told or not _is_reportable(name) or script.policy is Policy.OFF:
        raise Violation("sync_errors_are_justified", f"{connection} was not silent about {name}, {id_}")
    since = socket.first_answer if script.policy is Policy.LENIENT and not socket.acknowledged_before else 0.0
    if since is None or all(each.at < since for each in told):
        raise Violation(
            "sync_errors_are_justified", f"{connection} never acknowledges and is reported silent about {name}"
        )
    socket.missed_acks.append(now)
    _once(step, (connection, "silence", id_), sum(each.event_ref.id == id_ for each in socket.ledger))


def _once(step: Step, cause: tuple[str, ...], bound: int) -> None:
    step.world.causes[cause] += 1
    if step.world.causes[cause] > bound:
        raise Violation("sync_errors_are_justified", f"reported {step.world.causes[cause]} times: {cause}")


def _is_reportable(name: str) -> bool:
    key = name.lower()
    return not key.endswith(("-update", "-select")) and key not in ("syncerror", "heartbeat")


#: In the order of checking: the most telling first.
AFTER_EACH_DECISION: tuple[Callable[[Step], None], ...] = (
    sync_errors_are_justified,
    confirmation_comes_first,
    joiners_are_replayed_open_contexts,
    missed_events_are_sent,
    opens_are_derived,
    last_opens_do_not_depend_on_join_time,
    events_reach_subscribers,
    sync_errors_reach_subscribers,
    ends_are_announced,
    messages_are_sent_in_order,
    heartbeats_arrive_in_time,
    contexts_match_opens_and_closes,
    content_matches_updates,
    one_update_per_version,
    versions_are_new,
    subscriptions_match_requests,
    memory_is_bounded,
    deadlines_are_in_the_future,
)
