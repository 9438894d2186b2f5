"""The clients. Each has a behaviour, and a picture of the open contexts, which is made from received frames alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec

from fhircast_hub.core.errors import HubError, Unavailable
from fhircast_hub.core.state.commands import Publish, Renew, Subscribe, Unsubscribe
from fhircast_hub.core.wire.event_names import parse_events
from tests.simulation.hub import Node
from tests.simulation.network import Clock, Link
from tests.simulation.posts import FULL_URLS, Post, Token
from tests.simulation.script import Behaviour
from tests.simulation.shown import Last, closes, opens

_decode = msgspec.json.Decoder().decode
_KEYS = {"study": "imagingstudy", "report": "diagnosticreport"}
_SHARED = {url: ref for ref, url in FULL_URLS.items()}


class KnownContext(NamedTuple):
    """A context that a received frame opened. Version and content are None if the client cannot know them."""

    version: str | None
    content: dict[str, int] | None


class Picture:
    """The contexts that a client shows as open. `current` is the current one; "" for none, None if the client cannot know."""

    def __init__(self) -> None:
        self.contexts: dict[str, KnownContext] = {}
        self.last: dict[str, Last] = {}
        self.current: str | None = None
        self.asked: frozenset[str] = frozenset()
        self.renewed = False  # no new open was received since a renewal
        self.has_renewed = False  # ever

    def confirmed(self, events: frozenset[str], *, renewed: bool) -> None:
        """A confirmation was received. Contexts of other events cannot be kept up to date any more."""
        self.renewed = renewed
        self.has_renewed |= renewed or (bool(self.asked) and events != self.asked)
        self.asked = events
        for ref in list(self.contexts):
            type_ = ref.partition("/")[0]
            if f"{type_}-close" not in events:
                del self.contexts[ref]
            elif f"{type_}-update" not in events:
                self.contexts[ref] = KnownContext(None, None)

    def received(self, key: str, ref: str, event: dict[str, Any], *, again: bool) -> None:
        """An event was received. `again`: it is part of a replay, so its context may have been open before."""
        type_, _, kind = key.partition("-")
        if key == "home-open":
            self.last.clear()
        elif kind == "open":
            opens(self.last, type_, ref, named(event["context"]))
        elif kind == "close":
            closes(self.last, type_, ref)
        if not again and (key == "home-open" or (kind == "open" and "context.versionId" in event)):
            self.renewed = False
        if key == "home-open":
            self.current = ""
        elif kind == "open" and "context.versionId" not in event and again:
            self.contexts.pop(ref, None)  # a derived open: the context itself may be open or not
        elif kind == "open" and "context.versionId" in event:
            self._opened(ref, event["context.versionId"], again=again)
        elif kind == "close":
            self.contexts.pop(ref, None)
            if self.current == ref:
                self.current = ""
        elif kind == "update":
            self._updated(ref, event)

    def _opened(self, ref: str, version: str, *, again: bool) -> None:
        type_ = ref.partition("/")[0]
        self.current = ref
        if f"{type_}-close" not in self.asked:
            return
        if f"{type_}-update" not in self.asked:
            self.contexts[ref] = KnownContext(None, None)
            return
        before = self.contexts.get(ref)
        content = before.content if before else None
        if again and before is not None and before.version != version:
            content = None  # changed meanwhile: GET tells the content
        self.contexts[ref] = KnownContext(version, content)

    def take_answer(self, ref: str, version: str, content: dict[str, int]) -> None:
        """GET was answered with this version and content."""
        known = self.contexts.get(ref)
        if known is not None and known.content is None and known.version == version:
            self.contexts[ref] = KnownContext(version, content)

    def _updated(self, ref: str, event: dict[str, Any]) -> None:
        known = self.contexts.get(ref)
        if known is None or known.version is None or known.version == event["context.versionId"]:
            return
        content = known.content
        if known.version != event["context.priorVersionId"]:
            content = None
        elif content is not None:
            content = applied(content, event["context"])
        self.contexts[ref] = KnownContext(event["context.versionId"], content)


def applied(content: dict[str, int], context: list[dict[str, Any]]) -> dict[str, int]:
    """The content after the update with this context."""
    content = dict(content)
    for item in context:
        for entry in item["resource"].get("entry", ()) if item["key"] == "updates" else ():
            type_, _, id_ = entry["fullUrl"].partition("/")
            ref = _SHARED.get(entry["fullUrl"]) or f"{type_.lower()}/{id_}"
            if entry["request"]["method"] == "PUT":
                content[ref] = entry["resource"]["value"]
            else:
                content.pop(ref, None)
    return content


def named(context: list[dict[str, Any]]) -> dict[str, str]:
    """The refs of the resources in a context array, by type. Of several resources of a type: the first."""
    found: dict[str, str] = {}
    for item in context:
        if "resource" in item and "id" in item["resource"]:
            type_ = item["resource"]["resourceType"].lower()
            found.setdefault(type_, f"{type_}/{item['resource']['id']}")
    return found


def anchor(key: str, context: list[dict[str, Any]]) -> str:
    """The ref of an event's anchor, "" if it has none."""
    type_ = key.partition("-")[0]
    for item in context:
        if _KEYS.get(item["key"], item["key"]) == type_:
            if "resource" in item:
                return f"{type_}/{item['resource']['id']}"
            return f"{type_}/{item['reference']['reference'].rpartition('/')[2]}"
    return ""


class FrameObserver(Protocol):
    """Checks the frames that reach clients."""

    def heard(self, client: Client, link: Link, number: int, frame: dict[str, Any]) -> None:
        """A frame of the commit `number` was received."""
        ...

    def get(self, client: Client) -> tuple[str, str, dict[str, int]] | None:
        """The current context, its version and its content, as GET tells the client."""
        ...


class Client:
    """One application."""

    def __init__(
        self, number: int, seed: int, behaviour: Behaviour, clock: Clock, nodes: list[Node], observer: FrameObserver
    ) -> None:
        self.number = number
        self.behaviour = behaviour
        self.clock = clock
        self.subscription_id = ""
        self.link: Link | None = None
        self.links: list[Link] = []  # of this subscription
        self.picture = Picture()
        self.joining = self.crashed = False
        self.posts: list[Post] = []
        self.versions: dict[str, list[str]] = {}
        self.is_prompt = False  # True at the end of a run: acknowledges at once, and reconnects
        self.subscribed = 0
        self.asked = {event.lower() for event in behaviour.events}
        self._nodes = nodes
        self._observer = observer
        self.rng = random.Random(f"{seed} client {number}")

    @property
    def token(self) -> Token:
        return self.behaviour.token

    def node(self) -> Node:
        """The node that the load balancer chooses."""
        return self._nodes[self.rng.randrange(len(self._nodes))]

    # Actions

    def join(self) -> None:
        """Subscribe, and connect."""
        if self.joining or self.link is not None:
            return
        self.joining, self.crashed, self.subscription_id = True, False, ""
        self.subscribed += 1
        subscription_id = f"c{self.number}-{self.subscribed}"
        behaviour = self.behaviour
        command = Subscribe(
            self.token.principal(),
            behaviour.topic,
            subscription_id,
            parse_events(behaviour.events),
            behaviour.lease,
            behaviour.name,
        )
        self._request(
            lambda node: node.submit(behaviour.topic, command, lambda reply: self._subscribed(subscription_id, reply))
        )

    def connect(self) -> None:
        """Open a socket to the endpoint, also a second one."""
        if not self.subscription_id or self.crashed:
            return
        link = self.link = Link(self.clock, self.rng, self)
        self.links.append(link)
        subscription_id = self.subscription_id
        self._request(
            lambda node: node.connect(self.behaviour.topic, subscription_id, link) if not link.broken else None
        )

    def leave(self, code: int) -> None:
        """Close the socket with a close frame."""
        if self.link is not None:
            self.link.up("close", code)
            self.link.client = _NOBODY
            self.link = None
            self._come_back()

    def crash(self, hub_learns: float | None) -> None:
        """The process ends, and forgets everything."""
        self.crashed, self.joining = True, False
        self.subscription_id = ""
        if self.link is not None:
            self.link.cut(hub_learns, None)
            self.link = None
        self._come_back()

    def renew(self, events: tuple[str, ...], lease: int | None) -> None:
        if self.subscription_id:
            self.asked.update(map(str.lower, events))
            command = Renew(
                self.token.principal(), self.behaviour.topic, self.subscription_id, parse_events(events), lease
            )
            self._request(lambda node: node.submit(self.behaviour.topic, command))

    def unsubscribe(self, *, by_name: bool) -> None:
        subscription_id = None if by_name else self.subscription_id
        if self.subscription_id:
            name = self.behaviour.name if by_name else None
            command = Unsubscribe(self.token.principal(), self.behaviour.topic, subscription_id, name)
            self._request(lambda node: node.submit(self.behaviour.topic, command))

    def publish(self, post: Post) -> None:
        self.posts.append(post)
        command = Publish(self.token.principal(), post.event)
        self._request(lambda node: node.publish(post, command, lambda _: None))

    def _request(self, ask: Callable[[Node], Any]) -> None:
        """Send a request over HTTP. Each request has its own connection, so requests overtake each other."""
        latency = self.rng.choice((0.001, 0.004, 0.02, 0.2))
        node = self.node()
        self.clock.after(latency * (0.5 + self.rng.random()), lambda: ask(node))

    def _subscribed(self, subscription_id: str, reply: object) -> None:
        if subscription_id != f"c{self.number}-{self.subscribed}":
            return  # crashed and subscribed again since
        self.joining = False
        if self.crashed or isinstance(reply, HubError):
            if isinstance(reply, Unavailable):
                self._come_back()
            return
        self.subscription_id = subscription_id
        self.picture = Picture()
        self.links = []
        self.clock.after(self.rng.choice((0.01, 0.05, 1.0)), self._connect, subscription_id)

    def _connect(self, subscription_id: str) -> None:
        if self.subscription_id == subscription_id and self.link is None:
            self.connect()

    # Reactions

    def arrived(self, link: Link, what: str, payload: Any) -> None:
        if what == "frame":
            number, text = payload
            frame = _decode(text)
            link.came += 1
            self._observer.heard(self, link, number, frame)
            if link is not self.link and (self.link is None or self.link.confirmed >= 0):
                return  # another socket has taken over
            self.show(link, number, frame)
            if "event" in frame:
                self._answer(link, frame)
        elif what == "ping":
            link.up("pong", payload)
        elif what == "close":
            link.up("close", payload)
            if link is self.link:
                self.link = None
                if payload == 1000:  # the subscription is over
                    self.subscription_id = ""
                self._come_back()
        elif what == "refused" and link is self.link:
            self.link = None
            if payload:
                self.subscription_id = ""
            self._come_back()

    def ended(self, link: Link) -> None:
        if link is self.link:
            self.link = None
            self._come_back()

    def show(self, link: Link, number: int, frame: dict[str, Any]) -> None:
        """Update the picture from a frame."""
        if frame.get("hub.mode") == "subscribe":
            events = frozenset(frame["hub.events"].lower().split(","))
            self.picture.confirmed(events, renewed=link.confirmed >= 0)
            link.confirmed = number
        elif "event" in frame:
            event = frame["event"]
            key = event["hub.event"].lower()
            ref = anchor(key, event["context"])
            if "context.versionId" in event:
                self.versions.setdefault(ref, []).append(event["context.versionId"])
            self.picture.received(key, ref, event, again=number == link.confirmed)
            known = self.picture.contexts.get(ref)
            if known is not None and known.version and known.content is None and (found := self._observer.get(self)):
                self.picture.take_answer(*found)

    def _answer(self, link: Link, frame: dict[str, Any]) -> None:
        rng, how = self.rng, "prompt" if self.is_prompt else self.behaviour.answers
        if how == "fickle":
            how = "prompt" if rng.random() < 0.5 else "silent"
        if how == "silent":
            return
        wait = rng.random() * 14 if how == "slow" else 0.0
        status: object = rng.choice((200, "200", "202 Accepted"))
        if how == "refusing" and rng.random() < 0.4:
            status = rng.choice((409, "409 Conflict", 500, "403"))
        text = msgspec.json.encode({"id": frame["id"], "status": status})
        if wait:
            self.clock.after(wait, link.up, "text", text)
        else:
            link.up("text", text)

    def _come_back(self) -> None:
        how = self.behaviour.returns
        if how == "same" and self.subscription_id and not self.crashed:
            self.clock.after(self.rng.choice((0.05, 1.0, 2.0, 8.0)), self._connect, self.subscription_id)
        elif how != "never" or self.is_prompt:
            self.clock.after(self.rng.choice((0.1, 2.0, 10.0)), self._subscribe_again)

    def _subscribe_again(self) -> None:
        if self.link is None:
            self.subscription_id = ""
            self.join()


class _Nobody:
    """The end of a link whose client is gone."""

    def arrived(self, link: Link, what: str, payload: Any) -> None: ...

    def ended(self, link: Link) -> None: ...


_NOBODY = _Nobody()
