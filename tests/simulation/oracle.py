"""The oracle: the expected status and messages of each command. The oracle follows docs/behaviour.md, not the core's code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fhircast_hub.core.limits import Rules
from fhircast_hub.core.state.commands import (
    Acknowledged,
    AcksTimedOut,
    Command,
    Connected,
    Disconnected,
    Evict,
    NodeLost,
    Publish,
    Rejected,
    Renew,
    Restarted,
    Subscribe,
    Tick,
    Unsubscribe,
)
from tests.simulation.model import Change, Context, Label, Messages, Sub, Topic
from tests.simulation.oracle_closing import end_derived_opens
from tests.simulation.oracle_frames import confirmation_label, event_frames, lost_frames, sync_error_frames
from tests.simulation.oracle_losses import disconnected, node_lost, on_node, restarted
from tests.simulation.oracle_missed_events import add_still_shown, missed, possibly_missed_closes
from tests.simulation.posts import DERIVED, Post, Token

NORMAL, TAKEN_OVER = 1000, 1008


class Expectation(NamedTuple):
    """The expected messages of a command, in order. For a new socket, also the missed events before its replay."""

    messages: Messages
    allowed: Iterable[Change] = ()  # missed events that may be sent
    required: Iterable[Label] = ()  # missed events that must be sent
    required_closes: Iterable[str] = ()  # refs of which a close must be sent, perhaps a new one of the hub's


class Oracle:
    """The models of all topics, and the rules."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.topics: dict[str, Topic] = {}

    def topic(self, name: str) -> Topic | None:
        return self.topics.get(name)

    # Statuses

    def status(self, name: str, command: Command, token: Token | None, post: Post | None, now: float) -> int:
        """The HTTP status of a command."""
        topic = self.topics.get(name)
        if isinstance(command, Connected):
            sub = topic.subs.get(command.subscription_id) if topic else None
            return 101 if sub and self._ends(sub) > now else 404
        if token is None:
            return 200
        if isinstance(command, (Subscribe, Renew)) and token.expires <= now:
            return 401
        if isinstance(command, (Renew, Unsubscribe)):
            status = self._endpoint(topic, command, token, now)
            if status != 202:
                return status
        if isinstance(command, Publish) and post is not None and post.at > now + self.rules.max_clock_ahead:
            return 400
        if topic is not None and topic.owner != token.user:
            return 403
        if isinstance(command, (Subscribe, Renew)) and not any(token.reads(event.lower()) for event in command.events):
            return 403
        if isinstance(command, Subscribe) and topic is not None:
            others = [sub for sub in topic.subs.values() if sub not in self._replaced(topic, command, token)]
            kept = sum(bool(sub.connection) or sub.app != token.app for sub in others)
            return 429 if kept >= self.rules.max_subscriptions else 202
        if isinstance(command, Publish):
            assert post is not None
            return self._posted(topic, post, token)
        return 202

    def _endpoint(self, topic: Topic | None, command: Renew | Unsubscribe, token: Token, now: float) -> int:
        """The status of a command for a subscription: whether there is such a one (SUB-21, UNS-2 to UNS-7)."""
        subs = [s for s in topic.subs.values() if s.app[0] == token.user and self._ends(s) > now] if topic else []
        mine = [sub for sub in subs if sub.app == token.app]
        if command.subscription_id is not None:
            # Each application of the user may end an endpoint. Only the application that made it may renew it.
            return (
                202
                if any(
                    s.subscription_id == command.subscription_id for s in (mine if isinstance(command, Renew) else subs)
                )
                else 404
            )
        return 202 if sum(command.name in (None, sub.name) for sub in mine) == 1 else 400

    def _posted(self, topic: Topic | None, post: Post, token: Token) -> int:
        if not token.writes(post.key):
            return 403
        if post.kind not in ("update", "select"):
            return 202
        context = topic.contexts.get(post.ref) if topic else None
        if topic is None or context is None:
            return 409
        if post.kind == "select":
            return 202 if topic.current == post.ref else 409
        if post.body in context.updates:
            return 202
        if post.version != context.version:
            return 409
        for ref, value in post.changes:
            if value is None and ref not in context.content:
                return 400
        return 202

    # Messages

    def apply(
        self, name: str, command: Command, token: Token | None, post: Post | None, now: float, version: str
    ) -> Expectation:
        """Apply an accepted command to the model. `version` is the version that the hub gave to the context of the post."""
        topic = self.topics.get(name)
        if topic is None:
            if token is None:
                return Expectation([])
            topic = self.topics[name] = Topic(token.user)
        match command:
            case Publish() if post is not None:
                return Expectation(self._publish(topic, post, now, version))
            case Subscribe() if token is not None:
                return Expectation(self._subscribe(topic, command, token, now))
            case Renew() if token is not None:
                return Expectation(self._renew(topic, command, token, now))
            case Unsubscribe() if token is not None:
                return Expectation(self._end(topic, self._meant(topic, command, token, now)))
            case Connected():
                return self._connected(topic, command, now)
            case Disconnected():
                disconnected(self.rules, topic, command, now)
            case Acknowledged():
                if (sub := topic.subs.get(command.subscription_id)) is not None:
                    sub.acknowledges, sub.missed_acks = True, 0
            case Rejected():
                return Expectation(self._refused(topic, command))
            case AcksTimedOut():
                return Expectation(self._unanswered(topic, command))
            case Evict():
                return Expectation(self._evict(topic, command))
            case Tick():
                return Expectation(self._tick(topic, now))
            case Restarted():
                restarted(topic, now)
            case NodeLost():
                node_lost(self.rules, topic, command, now)
            case _:
                pass
        return Expectation([])

    # Events

    def _publish(self, topic: Topic, post: Post, now: float, version: str) -> Messages:
        if post.kind in ("select", "other"):
            return event_frames(topic, post)
        if post.kind == "update":
            context = topic.contexts[post.ref]
            return [] if post.body in context.updates else self._update(topic, context, post, now, version)
        seen = topic.accepted.get(post.body)
        if seen is not None:
            if seen < topic.changed:
                return []
            return (
                self._open_messages(topic, topic.contexts[post.ref], again=True)
                if post.kind == "open"
                else event_frames(topic, post)
            )
        topic.order += 1
        topic.accepted[post.body] = topic.order
        before = topic.current_at()
        if post.kind == "close":
            messages = event_frames(topic, post)
            closed = topic.contexts.get(post.ref)
            topic.close(post.ref)
            topic.changes.append(Change(now, post.key, post.ref, ("event", post.key, post.id, "")))
            messages += end_derived_opens(self.rules, topic, closed, closed.implied, post, now) if closed else []
            topic.forget_named(post.key.removesuffix("-close"))
            return messages
        if post.kind == "open":
            previous = topic.contexts.get(post.ref)
            context = topic.open(post, version)
            changed = [t for t, ref in previous.implied.items() if context.implied.get(t) != ref] if previous else []
            messages = end_derived_opens(self.rules, topic, previous, changed, post, now) if previous else []
            messages += self._open_messages(topic, context, again=False)
        else:
            messages = event_frames(topic, post)
            topic.go_home(post)
        if before is not None and post.at < before:
            messages += sync_error_frames(topic, "", post.id, post.name, "unnamed")
        return messages

    def _update(self, topic: Topic, context: Context, post: Post, now: float, version: str) -> Messages:
        topic.order += 1
        topic.changed = topic.order
        context.updates.add(post.body)
        context.since_open.append(version)
        content = dict(context.content)
        for ref, value in post.changes:
            if value is None:
                del content[ref]
            else:
                content[ref] = value
        context.content = content
        label: Label = ("event", post.key, post.id, version, context.version)
        context.version = version
        topic.changes.append(Change(now, post.key, post.ref, label))
        return [(sub.connection, label) for sub in topic.connected(post.key)]

    def _open_messages(self, topic: Topic, context: Context, *, again: bool) -> Messages:
        """The messages of an open: derived opens (DER-7, DER-3), then the open itself."""
        messages: Messages = []
        for sub in topic.connected():
            opened = topic.deliver(sub, context, again=again, derives=self.rules.derive_opens)
            messages += [(sub.connection, each.label) for each in opened]
        return messages

    # Subscriptions

    def _ends(self, sub: Sub) -> float:
        return min(sub.expires, sub.since + self.rules.connect_timeout) if sub.never_connected else sub.expires

    def _lease(self, command: Subscribe | Renew, token: Token, now: float) -> float:
        return min(now + min(command.lease or self.rules.default_lease, self.rules.max_lease), token.expires)

    def _replaced(self, topic: Topic, command: Subscribe, token: Token) -> list[Sub]:
        """The subscriptions that a new subscription replaces (SUB-23)."""
        if not command.name:
            return []
        mine = command.name, token.app
        return [sub for sub in topic.subs.values() if (sub.name, sub.app) == mine and not sub.connection]

    def _subscribe(self, topic: Topic, command: Subscribe, token: Token, now: float) -> Messages:
        messages: Messages = []
        for replaced in self._replaced(topic, command, token):
            del topic.subs[replaced.subscription_id]
        while len(topic.subs) >= self.rules.max_subscriptions:
            absent = [sub for sub in topic.subs.values() if not sub.connection and sub.app == token.app]
            evicted = min(absent, key=lambda sub: sub.since)
            del topic.subs[evicted.subscription_id]
            if evicted.reconnect_deadline:
                messages += lost_frames(topic, evicted)
        granted = frozenset(event.lower() for event in command.events if token.reads(event.lower()))
        expires = self._lease(command, token, now)
        topic.subs[command.subscription_id] = Sub(
            command.subscription_id, token.app, command.name, granted, expires, now
        )
        return messages

    def _renew(self, topic: Topic, command: Renew, token: Token, now: float) -> Messages:
        sub = topic.subs[command.subscription_id]
        before = sub.events
        sub.events = frozenset(event.lower() for event in command.events if token.reads(event.lower()))
        sub.expires = self._lease(command, token, now)
        sub.name = sub.name if command.name is None else command.name
        if not sub.connection:
            return []
        added = sub.events - before
        everything, last_opens, doubts = topic.replay(sub.events)
        labels = [label for label in everything if label[1] in added]
        if labels and labels[-1:] != everything[-1:]:
            labels += everything[-1:]
        in_doubt = doubts | {t for t in last_opens if f"{t}-open" not in added and sub.last(t) != last_opens[t][0]}
        home = topic.home is not None and "home-open" in sub.events
        kept = {
            t for t in DERIVED if t in sub.last_opens and not sub.last_opens[t][1] and t not in last_opens and not home
        }
        same = {t for t in last_opens if sub.last(t) == last_opens[t][0]}
        sub.in_doubt = (in_doubt - same) | (sub.in_doubt & same) | kept
        sub.last_opens = last_opens | {t: sub.last_opens[t] for t in same | kept}
        return [(sub.connection, label) for label in (confirmation_label(sub), *labels)]

    def _meant(self, topic: Topic, command: Unsubscribe, token: Token, now: float) -> Sub:
        if command.subscription_id is not None:
            return topic.subs[command.subscription_id]
        return next(
            sub
            for sub in topic.subs.values()
            if sub.app == token.app and command.name in (None, sub.name) and self._ends(sub) > now
        )

    def _end(self, topic: Topic, sub: Sub) -> Messages:
        del topic.subs[sub.subscription_id]
        return [(sub.connection, ("denied",)), (sub.connection, ("close", NORMAL))] if sub.connection else []

    def _connected(self, topic: Topic, command: Connected, now: float) -> Expectation:
        sub = topic.subs[command.subscription_id]
        messages: Messages = [(sub.connection, ("close", TAKEN_OVER))] if sub.connection else []
        allowed, required, required_closes = (
            missed(self.rules, topic, sub, now) if not sub.never_connected else ([], [], [])
        )
        sub.delivered_until = now if sub.never_connected else max(sub.delivered_until, command.delivered_until)
        is_new, missed_closes = sub.never_connected, possibly_missed_closes(topic, sub, now)
        sub.leave()
        sub.connection, sub.never_connected, sub.reconnect_deadline, sub.since = command.connection, False, 0.0, now
        sub.heard, sub.is_dead = len(topic.changes), False
        labels, last_opens, sub.in_doubt = topic.replay(sub.events)
        sub.last_opens = last_opens
        if not is_new:
            add_still_shown(topic, sub, missed_closes)
        sub.refused = False
        messages += [(sub.connection, label) for label in (confirmation_label(sub), *labels)]
        return Expectation(messages, allowed, required, required_closes)

    def reopen(self) -> None:
        """The hub's process was restarted."""
        for topic in self.topics.values():
            topic.reopened, topic.beat = True, 0.0
            # Rows of subscriptions are read by the time of their connection or loss (storage/row_reader.py).
            topic.subs = dict(sorted(topic.subs.items(), key=lambda item: (item[1].since, item[0])))

    def node_died(self, node: str) -> None:
        """A node's process was killed. Its subscriptions hear of no later change."""
        for topic in self.topics.values():
            for sub in on_node(topic, node):
                sub.left, sub.is_dead = len(topic.changes), True

    def _evict(self, topic: Topic, command: Evict) -> Messages:
        sub = topic.subs.get(command.subscription_id)
        if sub is None or sub.connection:
            return []
        del topic.subs[sub.subscription_id]
        return lost_frames(topic, sub) if sub.reconnect_deadline else []

    # Acknowledgements

    def _refused(self, topic: Topic, command: Rejected) -> Messages:
        sub = topic.subs.get(command.subscription_id)
        if sub is None:
            return []
        event_ref = command.event_ref
        if sub.connection == command.connection and event_ref.ref:
            sub.refused = True
            opened = topic.contexts.get(event_ref.ref)
            for ref in (event_ref.ref, *(opened.implied.values() if opened else ())):
                if sub.last(ref.partition("/")[0]) == ref:
                    sub.in_doubt.add(ref.partition("/")[0])
        return sync_error_frames(topic, sub.connection, event_ref.event, event_ref.name, sub.name)

    def _unanswered(self, topic: Topic, command: AcksTimedOut) -> Messages:
        messages: Messages = []
        for missed_ack in command.missed:
            sub = topic.subs.get(missed_ack.subscription_id)
            if sub is None or sub.connection != missed_ack.connection:
                continue
            sub.missed_acks += 1
            messages += sync_error_frames(
                topic, sub.connection, missed_ack.event_ref.event, missed_ack.event_ref.name, sub.name
            )
            if sub.missed_acks >= self.rules.ack_strikes:
                messages += self._end(topic, sub)
        return messages

    def _tick(self, topic: Topic, now: float) -> Messages:
        messages: Messages = []
        for sub in list(topic.subs.values()):
            if sub.expires <= now:
                messages += self._end(topic, sub)
            elif self._ends(sub) <= now:
                del topic.subs[sub.subscription_id]
        for sub in topic.subs.values():
            if sub.reconnect_deadline and sub.reconnect_deadline <= now:
                sub.reconnect_deadline = 0.0
                messages += lost_frames(topic, sub)
        return messages
