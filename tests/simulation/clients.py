"""The clients: each has a temper, and a picture of the context that it makes of nothing but the frames that reach it."""

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
from tests.simulation.script import Temper
from tests.simulation.shown import Last, closes, opens

_decode = msgspec.json.Decoder().decode
_KEYS = {"study": "imagingstudy", "report": "diagnosticreport"}
_SHARED = {url: ref for ref, url in FULL_URLS.items()}


class Seen(NamedTuple):
    """What a client knows of an open context that its frames opened: the version, and what was shared, if it saw that begin."""

    version: str | None
    content: dict[str, int] | None


class Picture:
    """What a client shows: the contexts that were opened and not closed, and the current one ("" for none, None: it cannot know)."""

    def __init__(self) -> None:
        self.contexts: dict[str, Seen] = {}
        self.last: dict[str, Last] = {}
        self.current: str | None = None
        self.asked: frozenset[str] = frozenset()
        self.renewed = False  # and nothing new has come since
        self.has_renewed = False  # ever: it was told of less before

    def confirmed(self, events: frozenset[str], *, renewed: bool) -> None:
        """From now on these events come: of what else was shown, nothing can be kept up to date."""
        self.renewed = renewed
        self.has_renewed |= renewed or (bool(self.asked) and events != self.asked)
        self.asked = events
        for ref in list(self.contexts):
            type_ = ref.partition("/")[0]
            if f"{type_}-close" not in events:
                del self.contexts[ref]
            elif f"{type_}-update" not in events:
                self.contexts[ref] = Seen(None, None)

    def told(self, key: str, ref: str, event: dict[str, Any], *, again: bool) -> None:
        """An event came; `again` during a replay, where what is open may have been open before."""
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
            self.contexts.pop(ref, None)  # another one implies it; whether it is open for itself, nothing says
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
            self.contexts[ref] = Seen(None, None)
            return
        before = self.contexts.get(ref)
        content = before.content if before else None
        if again and before is not None and before.version != version:
            content = None  # something was shared meanwhile, or it is another one: GET says what
        self.contexts[ref] = Seen(version, content)

    def got(self, ref: str, version: str, content: dict[str, int]) -> None:
        """GET answered with this."""
        seen = self.contexts.get(ref)
        if seen is not None and seen.content is None and seen.version == version:
            self.contexts[ref] = Seen(version, content)

    def _updated(self, ref: str, event: dict[str, Any]) -> None:
        seen = self.contexts.get(ref)
        if seen is None or seen.version is None or seen.version == event["context.versionId"]:
            return
        content = seen.content
        if seen.version != event["context.priorVersionId"]:
            content = None
        elif content is not None:
            content = applied(content, event["context"])
        self.contexts[ref] = Seen(event["context.versionId"], content)


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
    """The refs of its resources, by type, the first of each."""
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


class Hears(Protocol):
    """Who looks at what reaches clients."""

    def heard(self, client: Client, link: Link, number: int, frame: dict[str, Any]) -> None:
        """A frame of the commit `number` came."""
        ...

    def get(self, client: Client) -> tuple[str, str, dict[str, int]] | None:
        """The current context, its version, and what is shared in it, if the client may see that."""
        ...


class Client:
    """One application."""

    def __init__(self, number: int, seed: int, temper: Temper, clock: Clock, nodes: list[Node], hears: Hears) -> None:
        self.number = number
        self.temper = temper
        self.clock = clock
        self.subscription_id = ""
        self.link: Link | None = None
        self.links: list[Link] = []  # of this subscription
        self.picture = Picture()
        self.joining = self.crashed = False
        self.posts: list[Post] = []
        self.versions: dict[str, list[str]] = {}
        self.well = False  # from then on it is as prompt as can be
        self.subscribed = 0
        self.asked = {event.lower() for event in temper.events}
        self._nodes = nodes
        self._hears = hears
        self.rng = random.Random(f"{seed} client {number}")

    @property
    def token(self) -> Token:
        return self.temper.token

    def node(self) -> Node:
        """Whichever the load balancer chooses."""
        return self._nodes[self.rng.randrange(len(self._nodes))]

    # What it does

    def join(self) -> None:
        """Subscribe, and connect."""
        if self.joining or self.link is not None:
            return
        self.joining, self.crashed, self.subscription_id = True, False, ""
        self.subscribed += 1
        subscription_id = f"c{self.number}-{self.subscribed}"
        temper = self.temper
        command = Subscribe(
            self.token.principal(),
            temper.topic,
            subscription_id,
            parse_events(temper.events),
            temper.lease,
            temper.name,
        )
        self._request(
            lambda node: node.submit(temper.topic, command, lambda reply: self._subscribed(subscription_id, reply))
        )

    def connect(self) -> None:
        """Open a socket to the endpoint; a second one, if there is one already."""
        if not self.subscription_id or self.crashed:
            return
        link = self.link = Link(self.clock, self.rng, self)
        self.links.append(link)
        subscription_id = self.subscription_id
        self._request(lambda node: node.connect(self.temper.topic, subscription_id, link) if not link.broken else None)

    def leave(self, code: int) -> None:
        """Close the socket as one should."""
        if self.link is not None:
            self.link.up("close", code)
            self.link.client = _NOBODY
            self.link = None
            self._come_back()

    def crash(self, hub_learns: float | None) -> None:
        """It is gone, and forgets everything."""
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
                self.token.principal(), self.temper.topic, self.subscription_id, parse_events(events), lease
            )
            self._request(lambda node: node.submit(self.temper.topic, command))

    def unsubscribe(self, *, by_name: bool) -> None:
        subscription_id = None if by_name else self.subscription_id
        if self.subscription_id:
            name = self.temper.name if by_name else None
            command = Unsubscribe(self.token.principal(), self.temper.topic, subscription_id, name)
            self._request(lambda node: node.submit(self.temper.topic, command))

    def publish(self, post: Post) -> None:
        self.posts.append(post)
        command = Publish(self.token.principal(), post.event)
        self._request(lambda node: node.publish(post, command, lambda _: None))

    def _request(self, ask: Callable[[Node], Any]) -> None:
        """HTTP: every request has a connection of its own, so they overtake each other."""
        latency = self.rng.choice((0.001, 0.004, 0.02, 0.2))
        node = self.node()
        self.clock.after(latency * (0.5 + self.rng.random()), lambda: ask(node))

    def _subscribed(self, subscription_id: str, reply: object) -> None:
        if subscription_id != f"c{self.number}-{self.subscribed}":
            return  # it crashed since, and asked again
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

    # What happens to it

    def arrived(self, link: Link, what: str, payload: Any) -> None:
        if what == "frame":
            number, text = payload
            frame = _decode(text)
            link.came += 1
            self._hears.heard(self, link, number, frame)
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
        """Take a frame into the picture."""
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
            self.picture.told(key, ref, event, again=number == link.confirmed)
            seen = self.picture.contexts.get(ref)
            if seen is not None and seen.version and seen.content is None and (found := self._hears.get(self)):
                self.picture.got(*found)

    def _answer(self, link: Link, frame: dict[str, Any]) -> None:
        rng, how = self.rng, "prompt" if self.well else self.temper.answers
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
        how = self.temper.returns
        if how == "same" and self.subscription_id and not self.crashed:
            self.clock.after(self.rng.choice((0.05, 1.0, 2.0, 8.0)), self._connect, self.subscription_id)
        elif how != "never" or self.well:
            self.clock.after(self.rng.choice((0.1, 2.0, 10.0)), self._anew)

    def _anew(self) -> None:
        if self.link is None:
            self.subscription_id = ""
            self.join()


class _Nobody:
    """Who is gone hears nothing."""

    def arrived(self, link: Link, what: str, payload: Any) -> None: ...

    def ended(self, link: Link) -> None: ...


_NOBODY = _Nobody()
