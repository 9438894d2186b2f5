"""What must hold after every decision. Each invariant is a function, named for what it says, with the section it comes from."""

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
from tests.simulation.model import Label, Told, Topic
from tests.simulation.oracle import Heard
from tests.simulation.oracle_frames import LOST
from tests.simulation.shown import it_does_not_matter_when_one_joined
from tests.simulation.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.hub import Asked
    from tests.simulation.world import World

_decode = msgspec.json.Decoder().decode
#: A UUID made of a name (version 5), as the hub gives to what it derives.
_DERIVED_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


class Step(NamedTuple):
    """A decision that was made: what the hub did, and what the oracle says."""

    world: World
    asked: Asked
    before: Session | None
    after: Session | None
    effects: tuple[Effect, ...]
    topic: Topic | None
    heard: Heard
    said: Told

    def expected(self, *classes: str) -> Counter[tuple[str, Label]]:
        return Counter(told for told in self.heard.told if told[1][0] in classes)

    def actual(self, *classes: str) -> Counter[tuple[str, Label]]:
        return Counter(told for told in self.said if told[1][0] in classes)


def said(effects: tuple[Effect, ...]) -> Told:
    """Who is told what by these effects."""
    told: Told = []
    for effect in effects:
        if isinstance(effect, Close):
            told.append((effect.connection, ("close", effect.code)))
        elif isinstance(effect, Send):  # there are no webhooks here
            label = read(effect.frame)
            told += [(connection, label) for connection in effect.to]
    return told


def read(frame: bytes) -> Label:
    """A frame as a label, as the model makes them."""
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


def events_reach_who_asked(step: Step) -> None:
    """EVT-1, EVT-12, EVT-17, DER-4: an accepted event goes to all who asked for it and may read it, once, and to nobody else."""
    if not isinstance(step.asked.command, Connected):
        _same(step, "events_reach_who_asked", "event")


def opens_are_derived(step: Step) -> None:
    """DER-7, DER-3: an open implies others, for those who were last told something else."""
    if not isinstance(step.asked.command, Connected):
        _same(step, "opens_are_derived", "derived")


def who_cannot_follow_is_reported(step: Step) -> None:
    """SYN-1 to SYN-4, SYN-7, EVT-20: one SyncError to everybody else who asked for them, and none without a cause."""
    _same(step, "who_cannot_follow_is_reported", "syncerror")


def the_end_is_told(step: Step) -> None:
    """LEA-4, UNS-6, SYN-5, SUB-11: a denial, then 1000; whose place was taken, 1008; and nobody else is closed."""
    _same(step, "the_end_is_told", "denied", "close")


def confirmation_comes_first(step: Step) -> None:
    """SUB-3, SUB-20: a socket that came, or a renewal, is confirmed before anything else is said to it."""
    _same(step, "confirmation_comes_first", "confirmation")
    if isinstance(step.asked.command, Connected):
        mine = [label for connection, label in step.said if connection == step.asked.command.connection]
        if mine and mine[0][0] != "confirmation":
            raise Violation("confirmation_comes_first", f"first came {mine[0]}")


def joiners_are_told_what_is_open(step: Step) -> None:
    """CTX-1 to CTX-6, DER-5: last of all a joiner is told the newest open of each type, and nothing that is closed."""
    command = step.asked.command
    if not isinstance(command, Connected):
        return
    expected = [label for connection, label in step.heard.told if connection == command.connection][1:]
    actual = [label for connection, label in step.said if connection == command.connection][1:]
    if actual[len(actual) - len(expected) :] != expected:
        raise Violation("joiners_are_told_what_is_open", f"expected {expected}, told {actual}")


def what_was_missed_is_told(step: Step) -> None:
    """SUB-12: who is back is told the closes and updates that it missed, in order, and nothing twice."""
    command = step.asked.command
    if not isinstance(command, Connected):
        return
    replayed = len([label for connection, label in step.heard.told if connection == command.connection])
    mine = [label for connection, label in step.said if connection == command.connection]
    missed = mine[1 : len(mine) - replayed + 1]
    may = {change.label: place for place, change in enumerate(step.heard.may)}
    refs = {change.label: change.ref for change in step.heard.may}
    places = [may[label] for label in missed if label in may]
    made = [label for label in missed if label not in may]
    if places != sorted(set(places)):
        raise Violation("what_was_missed_is_told", f"not in order, or twice: {missed}")
    if lacking := [label for label in step.heard.must if label not in missed]:
        raise Violation("what_was_missed_is_told", f"not told: {lacking}; told: {missed}")
    if any(not str(label[1]).endswith("-close") for label in made):
        raise Violation("what_was_missed_is_told", f"never happened: {made}")
    closed = {refs[label] for label in missed if label in refs}
    if unsaid := [ref for ref in step.heard.must_close if ref not in closed]:
        types = Counter(f"{ref.partition('/')[0]}-close" for ref in set(unsaid))
        if types - Counter(str(label[1]) for label in made):
            raise Violation("what_was_missed_is_told", f"no close for {unsaid}; told: {missed}")


def one_order(step: Step) -> None:
    """EVT-13, DER-7: what a command leads to is said to each in one order, the derived opens before the open."""
    if isinstance(step.asked.command, Connected):
        return
    expected: dict[str, list[Label]] = {}
    actual: dict[str, list[Label]] = {}
    for connection, label in step.heard.told:
        expected.setdefault(connection, []).append(label)
    for connection, label in step.said:
        if label[0] != "heartbeat":
            actual.setdefault(connection, []).append(label)
    if expected != actual:
        raise Violation("one_order", f"expected {expected}, said {actual}")


def heartbeats_beat(step: Step) -> None:
    """SYN-13: whoever asked for heartbeats gets one every HEARTBEAT_SECONDS; nobody else."""
    beats = [connection for connection, label in step.said if label[0] == "heartbeat"]
    topic = step.topic
    if topic is None:
        return
    wanted = [sub.connection for sub in topic.connected("heartbeat")]
    if beats and sorted(beats) != sorted(wanted):
        raise Violation("heartbeats_beat", f"to {beats}, wanted by {wanted}")
    period = step.world.script.rules.heartbeat_seconds
    if beats and topic.beat and step.asked.at < topic.beat + period - 0.001:
        raise Violation("heartbeats_beat", "before its time")
    if not wanted:
        topic.beat = 0.0
    elif beats or not topic.beat:
        topic.beat = step.asked.at
    elif step.asked.at > topic.beat + period + 2:
        raise Violation("heartbeats_beat", f"none for {step.asked.at - topic.beat:.1f} seconds")


def contexts_are_what_was_opened(step: Step) -> None:
    """GET-2 to GET-7, EVT-16, EVT-17: open is what was opened and not closed, current what was opened last."""
    after, topic = step.after, step.topic
    if after is None or topic is None:
        if topic is not None and (topic.subs or topic.contexts):
            raise Violation("contexts_are_what_was_opened", "a session in use was forgotten (LIM-1)")
        return
    if list(after.contexts) != list(topic.contexts) or after.current != topic.current:
        found = f"{list(after.contexts)}, current {after.current!r}"
        raise Violation("contexts_are_what_was_opened", f"{found}; should be {list(topic.contexts)}, {topic.current!r}")
    if bool(after.home) != (topic.home is not None):
        raise Violation("contexts_are_what_was_opened", f"at home: {bool(after.home)}")


def content_is_what_was_shared(step: Step) -> None:
    """CON-1, CON-2, CON-6, CON-19, CON-9, CON-10: what updates made of it one after the other, until the close."""
    after, topic = step.after, step.topic
    if after is None or topic is None or (step.before is not None and step.before.contents is after.contents):
        return
    found = {
        ref: {other: _decode(shared.entry)["resource"]["value"] for other, shared in content.resources.items()}
        for ref, content in after.contents.items()
    }
    expected = {ref: context.content for ref, context in topic.contexts.items() if context.content}
    if {ref: content for ref, content in found.items() if content} != expected:
        raise Violation("content_is_what_was_shared", f"{found}; should be {expected}")


def versions_are_new(step: Step) -> None:
    """CON-1, CON-2, CON-8, GET-6: every open and every update makes a version that never was; nothing else makes one."""
    after, topic = step.after, step.topic
    if after is None or topic is None:
        return
    before = step.before.contexts if step.before else {}
    for ref, context in after.contexts.items():
        was = before.get(ref)
        if was is not None and was.version == context.version:
            continue
        post = step.asked.post
        if context.version in step.world.versions or post is None or post.ref != ref:
            raise Violation("versions_are_new", f"{ref} has {context.version}, which was given before or has no cause")
        step.world.versions.add(context.version)
    for ref, known in topic.contexts.items():
        if ref in after.contexts and after.contexts[ref].version != known.version:
            raise Violation("versions_are_new", f"{ref} has {after.contexts[ref].version}, not {known.version}")


def one_update_per_version(step: Step) -> None:
    """CON-8: of the updates that name one version, one is taken."""
    post = step.asked.post
    if post is None or post.kind != "update" or not isinstance(step.asked.command, Publish):
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


def subscriptions_are_who_asked(step: Step) -> None:
    """SUB-20, SUB-14, SUB-22, SUB-23, LEA-1, LEA-4, SYN-5: who is subscribed to what, by which socket, and who is gone."""
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
        raise Violation("subscriptions_are_who_asked", f"{found}; should be {expected}")


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


def the_timer_rests(step: Step) -> None:
    """LEA-4: after a Tick nothing is due any more, and whoever has a lease is waited for."""
    after = step.after
    if after is None:
        return
    new = step.topic is not None and step.topic.reopened  # a heartbeat's time is not written down: Restarted sees to it
    if (
        isinstance(step.asked.command, Tick)
        and not new
        and after.deadline is not None
        and after.deadline <= step.asked.at
    ):
        raise Violation("the_timer_rests", f"due {step.asked.at - after.deadline:.3f} seconds ago, after a Tick")
    if after.subscriptions and after.deadline is None:
        raise Violation("the_timer_rests", "nothing is waited for")


def reports_are_true(step: Step) -> None:
    """SYN-1, SYN-4, SYN-6, SYN-10, SYN-11: who is reported did refuse, or did not answer in time and is one who is missed."""
    command, sockets = step.asked.command, step.world.sockets
    if isinstance(command, Rejected):
        socket = sockets[command.connection]
        told = [told for told in socket.ledger if told.event_ref.id == command.event_ref.id]
        if not any(each.refused is not None for each in told) or not _matters(command.event_ref.name):
            raise Violation("reports_are_true", f"{command.connection} did not refuse {command.event_ref.name}")
        for each in told:
            each.reported = True
        _once(step, (command.connection, command.event_ref.id), len(told))
    if isinstance(command, AcksTimedOut):
        for missed_ack in command.missed:
            _check_silence(step, missed_ack.connection, missed_ack.event_ref.id, missed_ack.event_ref.name)


def _check_silence(step: Step, connection: str, id_: str, name: str) -> None:
    script = step.world.script
    socket, now = step.world.sockets[connection], step.asked.at
    latest = now - script.rules.ack_timeout
    told = [
        told
        for told in socket.ledger
        if told.event_ref.id == id_ and told.at <= latest and (told.answered is None or told.answered > now - 1)
    ]
    if not told or not _matters(name) or script.policy is Policy.OFF:
        raise Violation("reports_are_true", f"{connection} was not silent about {name}, {id_}")
    since = socket.first_answer if script.policy is Policy.LENIENT and not socket.acknowledged_before else 0.0
    if since is None or all(each.at < since for each in told):
        raise Violation("reports_are_true", f"{connection} never acknowledges and is reported silent about {name}")
    socket.missed_acks.append(now)
    _once(step, (connection, "silence", id_), sum(each.event_ref.id == id_ for each in socket.ledger))


def _once(step: Step, cause: tuple[str, ...], bound: int) -> None:
    step.world.causes[cause] += 1
    if step.world.causes[cause] > bound:
        raise Violation("reports_are_true", f"reported {step.world.causes[cause]} times: {cause}")


def _matters(name: str) -> bool:
    key = name.lower()
    return not key.endswith(("-update", "-select")) and key not in ("syncerror", "heartbeat")


#: In the order in which they are checked: the more telling first.
AFTER_EACH_DECISION: tuple[Callable[[Step], None], ...] = (
    reports_are_true,
    confirmation_comes_first,
    joiners_are_told_what_is_open,
    what_was_missed_is_told,
    opens_are_derived,
    it_does_not_matter_when_one_joined,
    events_reach_who_asked,
    who_cannot_follow_is_reported,
    the_end_is_told,
    one_order,
    heartbeats_beat,
    contexts_are_what_was_opened,
    content_is_what_was_shared,
    one_update_per_version,
    versions_are_new,
    subscriptions_are_who_asked,
    memory_is_bounded,
    the_timer_rests,
)
