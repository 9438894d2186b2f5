"""A small world around the core, for its tests: one session, a clock that stands still, counted ids, and the frames of each socket."""

from __future__ import annotations

import json
import math
import uuid
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from fhircast_hub.acknowledgements.tracker import AckTracker, Policy
from fhircast_hub.core.access.principal import Principal, SessionKey
from fhircast_hub.core.access.scopes import Scopes
from fhircast_hub.core.decide import decide
from fhircast_hub.core.env import Env
from fhircast_hub.core.limits import Rules
from fhircast_hub.core.rules.contexts import current_context
from fhircast_hub.core.rules.nodes import socket_name
from fhircast_hub.core.state.commands import (
    Command,
    Connected,
    Disconnected,
    Publish,
    Renew,
    Restarted,
    Subscribe,
    Tick,
    Unsubscribe,
)
from fhircast_hub.core.state.effects import Close, Effect, EndWebhook, Post, Verify, WebhookEffect
from fhircast_hub.core.state.session import Outcome, Session, Subscription
from fhircast_hub.core.wire.close_codes import NORMAL
from fhircast_hub.core.wire.event import parse_event
from fhircast_hub.core.wire.event_names import parse_events

TOPIC = "a-topic"
#: 2023-04-01T12:00:00Z
NOON = 1680350400.0
SPEC = Path(__file__).resolve().parents[1] / "spec"
KEY = SessionKey("a-realm", TOPIC)

#: The events that a viewer subscribes to.
OPENS = "Patient-open,Encounter-open,ImagingStudy-open,DiagnosticReport-open"
CLOSES = "Patient-close,Encounter-close,ImagingStudy-close,DiagnosticReport-close"


def token(
    user: str | None = "ann",
    *,
    read: Iterable[str] = ("*",),
    write: Iterable[str] = ("*",),
    client: str = "an-app",
    expires: float = math.inf,
    topics: Iterable[str] | None = None,
    system: bool = False,
) -> Principal:
    """The bearer of a valid token. By default it may do anything."""
    scopes = Scopes.parse([f"fhircast/{e}.read" for e in read] + [f"fhircast/{e}.write" for e in write])
    claimed = None if topics is None else frozenset(topics)
    return Principal("a-realm", user, client, scopes, expires, claimed, system)


def resource(type_: str, id_: str, **members: object) -> dict[str, Any]:
    """A resource with the required members, and the members that a test adds."""
    return {"resourceType": type_, "id": id_, **members}


def item(key: str, type_: str, id_: str, **members: object) -> dict[str, Any]:
    """An item of a context array."""
    return {"key": key, "resource": resource(type_, id_, **members)}


def patient(id_: str) -> dict[str, Any]:
    return item("patient", "Patient", id_)


def encounter(id_: str) -> dict[str, Any]:
    return item("encounter", "Encounter", id_)


def study(id_: str) -> dict[str, Any]:
    return item("study", "ImagingStudy", id_)


def report(id_: str) -> dict[str, Any]:
    return item("report", "DiagnosticReport", id_)


def outcome() -> dict[str, Any]:
    """The item that a SyncError needs."""
    return item("operationoutcome", "OperationOutcome", "an-outcome")


def message(name: str, *items: object, id_: str = "an-id", at: str = "2023-04-01T12:00:00Z") -> dict[str, Any]:
    """An event as a client posts it."""
    return {"timestamp": at, "id": id_, "event": {"hub.topic": TOPIC, "hub.event": name, "context": list(items)}}


def body(message: object) -> bytes:
    return json.dumps(message).encode()


def spec(name: str) -> bytes:
    """A message of the specification, byte for byte."""
    return (SPEC / f"{name}.json").read_bytes()


def label(frame: bytes) -> str:
    """A short form of a frame: `subscribe`, `denied`, `Home-open`, or `Patient-open p1`."""
    read = json.loads(frame)
    if "hub.mode" in read:
        return str(read["hub.mode"])
    event = read["event"]
    ids = [each["resource"]["id"] for each in event["context"] if "id" in each.get("resource", {})]
    return " ".join((event["hub.event"], *ids[:1]))


def frozen(session: Session | None) -> bytes:
    """The session's value as bytes. A test compares it with a later one, because a decision must change nothing in place."""
    return msgspec.msgpack.encode(session, enc_hook=sorted)


class CountedIds:
    """Ids that differ, and are the same in each run. `given` is their number."""

    def __init__(self) -> None:
        self.given = 0

    def uuid(self) -> str:
        self.given += 1
        return str(uuid.UUID(int=self.given))


class World:
    """One session, its node's AckTracker, and all that was sent. A subscription has a short name, which is its id.

    `rules` are members of Rules.
    """

    def __init__(self, policy: Policy = Policy.LENIENT, /, **rules: Any) -> None:
        self.rules = Rules(**rules)
        self.session: Session | None = None
        self._policy = policy
        self.tracker = AckTracker(policy, self.rules.ack_timeout)
        self.now = NOON
        #: Name of the node that decides. "": the hub is one process.
        self.node = ""
        self.ids = CountedIds()
        #: All frames, by connection.
        self.frames: defaultdict[str, list[bytes]] = defaultdict(list)
        #: The close codes, by connection.
        self.closed: dict[str, int] = {}
        #: The effects on webhooks.
        self.webhook_effects: list[WebhookEffect] = []
        #: The last connection of each subscription.
        self._sockets: dict[str, str] = {}
        #: The number of frames that the test has read, by connection.
        self._read: defaultdict[str, int] = defaultdict(int)
        self._events = self._connections = 0

    # Commands

    def do(self, command: Command, node: str | None = None) -> Outcome:
        """Decide on a command as `node` (None: `self.node`), and perform its effects. A refusal is raised, and changes nothing."""
        outcome = decide(
            self.session, command, Env(self.now, self.ids, self.rules, self.node if node is None else node)
        )
        self.session = outcome.session
        if isinstance(command, Connected) and outcome.reply is not None:
            assert isinstance(outcome.reply, Subscription)
            self.tracker.connected(KEY, outcome.reply, command.connection, self.now)
        elif isinstance(command, Disconnected):
            self.tracker.disconnected(command.connection)
        for effect in outcome.effects:
            self._perform(effect)
        return outcome

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Verify | Post | EndWebhook):
            self.webhook_effects.append(effect)
            return
        if isinstance(effect, Close):
            assert effect.connection not in self.closed, "closed twice"
            self.closed[effect.connection] = effect.code
            self.tracker.disconnected(effect.connection)
            return
        assert effect.to, "a frame without a receiver"
        for connection in effect.to:
            assert connection not in self.closed, "a frame after the close"
            self.frames[connection].append(effect.frame)
        if effect.event_ref is not None:
            self.tracker.sent(effect.event_ref, effect.to, self.now)

    def subscribe(
        self, subscription_id: str, events: str, by: Principal | None = None, node: str | None = None, **more: Any
    ) -> None:
        asked = parse_events(events.split(","))
        self.do(Subscribe(by or token(), TOPIC, subscription_id, asked, **more), node)

    def renew(
        self, subscription_id: str, events: str, by: Principal | None = None, node: str | None = None, **more: Any
    ) -> None:
        self.do(Renew(by or token(), TOPIC, subscription_id, parse_events(events.split(",")), **more), node)

    def unsubscribe(self, subscription_id: str | None, by: Principal | None = None, **more: Any) -> Outcome:
        return self.do(Unsubscribe(by or token(), TOPIC, subscription_id, **more))

    def connect(self, subscription_id: str, node: str | None = None) -> str:
        """Connect a new socket to `node` (None: `self.node`). Returns its name."""
        node = self.node if node is None else node
        self._connections += 1
        connection = socket_name(node, self._connections) if node else f"{subscription_id}/{self._connections}"
        self.do(Connected(subscription_id, connection, self.tracker.delivered_until(subscription_id)), node)
        self._sockets[subscription_id] = connection
        return connection

    def disconnect(self, subscription_id: str, delivered_until: float | None = None, code: int = NORMAL) -> None:
        """Lose the socket. Everything sent before `delivered_until` (epoch seconds) is known to have arrived. None: now."""
        self.do(
            Disconnected(
                subscription_id,
                self._sockets[subscription_id],
                self.now if delivered_until is None else delivered_until,
                code,
            )
        )

    def join(
        self, subscription_id: str, events: str = f"{OPENS},{CLOSES}", by: Principal | None = None, **more: Any
    ) -> str:
        """Subscribe, connect, and read the first frames. Both are at one node. Returns the socket's name."""
        self.subscribe(subscription_id, events, by, **more)
        connection = self.connect(subscription_id, more.get("node"))
        self.news(subscription_id)
        return connection

    def restart(self) -> None:
        """Restart the hub: the node has forgotten everything, and a stored session has no audiences."""
        self.tracker = AckTracker(self._policy, self.rules.ack_timeout)
        if self.session is not None:
            # Rows of the store have no connections, no poster, and no time of a heartbeat (storage/rows.py).
            self.session = replace(
                self.session, audiences=(), webhook_connections=frozenset(), poster="", next_heartbeat=None
            )
        self.do(Restarted())

    def post(self, posted: object, by: Principal | None = None) -> Outcome:
        """Publish a message, given as JSON text or as an object."""
        text = posted if isinstance(posted, bytes) else body(posted)
        return self.do(Publish(by or token(), parse_event(text)))

    def publish(self, name: str, *items: object, by: Principal | None = None) -> dict[str, Any]:
        """Publish an event with a new id. Returns the message."""
        self._events += 1
        posted = message(name, *items, id_=f"event-{self._events}")
        self.post(posted, by)
        return posted

    def say(self, subscription_id: str, message: object) -> bool:
        """Send a message from the client, given as bytes or as an object. Returns whether it acknowledges an event."""
        text = message if isinstance(message, bytes) else body(message)
        answer = self.tracker.acknowledged(self._sockets[subscription_id], text, self.now)
        for command in answer[1] if answer else ():
            self.do(command)
        return answer is not None

    def answer(self, subscription_id: str, status: object = 200) -> None:
        """Acknowledge the last frame of the socket."""
        last = json.loads(self.frames[self._sockets[subscription_id]][-1])
        assert self.say(subscription_id, {"id": last["id"], "status": status})

    def wait(self, seconds: float) -> None:
        """Let time pass. The timers fire at the deadlines of the session and of the AckTracker."""
        end = self.now + seconds
        while (due := min(self.deadline() or math.inf, self.tracker.deadline() or math.inf)) <= end:
            self.now = max(self.now, due)
            if (deadline := self.deadline()) is not None and deadline <= self.now:
                self.do(Tick())
                assert self.deadline() != deadline, "the timer would never rest"
            for _, command in self.tracker.timed_out(self.now):
                self.do(command)
        self.now = end

    def deadline(self) -> float | None:
        """The session's deadline, in epoch seconds. None: it has none."""
        return self.session.deadline if self.session else None

    # Results

    def heard(self, subscription_id: str) -> list[bytes]:
        """The frames on the socket that were not read before."""
        connection = self._sockets[subscription_id]
        new = self.frames[connection][self._read[connection] :]
        self._read[connection] += len(new)
        return new

    def read(self, subscription_id: str) -> list[dict[str, Any]]:
        """As `heard`, with each frame decoded."""
        return [json.loads(frame) for frame in self.heard(subscription_id)]

    def news(self, subscription_id: str) -> list[str]:
        """As `heard`, with the short form of each frame."""
        return [label(frame) for frame in self.heard(subscription_id)]

    def get(self, by: Principal | None = None) -> dict[str, Any]:
        """The answer to GET hub.url/{topic}, without the shared content."""
        answer: dict[str, Any] = json.loads(current_context(self.session, by or token(), TOPIC, self.rules))
        answer["context"] = [each for each in answer["context"] if each["key"] != "content"]
        return answer

    def content(self, by: Principal | None = None) -> dict[str, Any]:
        """The Bundle of shared content in the same answer. Its item must be the last, and the only one with the key content."""
        answer = json.loads(current_context(self.session, by or token(), TOPIC, self.rules))
        assert [each["key"] for each in answer["context"]].index("content") == len(answer["context"]) - 1
        bundle: dict[str, Any] = answer["context"][-1]["resource"]
        return bundle

    def current(self) -> str:
        """A short form of the current context: `Patient p1`. "": none is open."""
        answer = self.get()
        return " ".join((answer["context.type"], *(each["resource"]["id"] for each in answer["context"][:1]))).strip()
