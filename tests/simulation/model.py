"""What docs/behaviour.md says of a session, written down a second time: the simulation's own idea of each topic.

It is made from what was posted and from the order of commits; of the hub's session it takes nothing but the versions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from simulation.posts import DERIVED, Post

#: What a frame says: class, event name or code, ref or id, and more.
Label = tuple[object, ...]


@dataclass(slots=True)
class Context:
    """An open context."""

    ref: str
    id: str
    at: float
    stamp: str
    order: int
    implied: dict[str, str]
    version: str
    content: dict[str, int] = field(default_factory=dict)
    updates: set[bytes] = field(default_factory=set)
    since_open: list[str] = field(default_factory=list)  # its versions since it was opened last

    @property
    def type(self) -> str:
        return self.ref.partition("/")[0]


@dataclass(slots=True)
class Sub:
    """A subscription; `heard` counts the changes that were accepted before its last socket came, `left` before that went."""

    sid: str
    user: str
    name: str
    events: frozenset[str]
    expires: float
    since: float
    fresh: bool = True
    connection: str = ""
    told: dict[str, str] = field(default_factory=dict)
    back_by: float = 0.0
    acknowledges: bool = False
    strikes: int = 0
    heard: int = 0
    left: int = 0


class Change(NamedTuple):
    """A close or update that was accepted, as whoever missed it is told."""

    at: float
    key: str
    ref: str
    label: Label

    @property
    def closes(self) -> bool:
        return self.key.endswith("-close")


class Topic:
    """A session."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.contexts: dict[str, Context] = {}  # oldest first
        self.current = ""
        self.home: Post | None = None
        self.order = 0
        self.changed = 0
        self.accepted: dict[bytes, int] = {}
        self.changes: list[Change] = []
        self.subs: dict[str, Sub] = {}
        self.reopened = False  # the hub is new, and has not taken up this session: nobody has a socket
        self.beat = 0.0  # since when a heartbeat is waited for; 0: nobody wants one

    # Who is told

    def connected(self, key: str = "") -> list[Sub]:
        """The subscriptions with a socket that asked for this event, and may read it."""
        if self.reopened:
            return []
        return [sub for sub in self.subs.values() if sub.connection and (not key or key in sub.events)]

    # Contexts

    def current_at(self) -> float | None:
        """The timestamp of what made the current context, or its absence."""
        if self.home is not None:
            return self.home.at
        return self.contexts[self.current].at if self.current else None

    def open(self, post: Post, version: str) -> Context:
        before = self.contexts.pop(post.ref, None)
        context = Context(post.ref, post.id, post.at, post.stamp, self.order, dict(post.implied), version)
        context.since_open.append(version)
        if before is not None:
            context.content, context.updates = before.content, before.updates
        self.contexts[post.ref] = context
        self.current, self.home, self.changed = post.ref, None, self.order
        return context

    def close(self, ref: str) -> None:
        if self.contexts.pop(ref, None) is not None:
            self.changed = self.order
        if self.current == ref:
            self.current = ""
        type_ = ref.partition("/")[0]
        for context in self.contexts.values():
            if context.implied.get(type_) == ref:
                del context.implied[type_]
        for sub in self.subs.values():
            if sub.told.get(type_) == ref:
                del sub.told[type_]

    def go_home(self, post: Post) -> None:
        self.current, self.home, self.changed = "", post, self.order
        for sub in self.subs.values():
            sub.told.clear()

    def is_open(self, ref: str) -> bool:
        """Whether it is open, or somebody who joins may be told an open of it that another one implies."""
        return ref in self.contexts or any(ref in context.implied.values() for context in self.contexts.values())

    def derived(self, context: Context) -> list[tuple[str, str]]:
        """Type and ref of the opens that a context implies, in order (DER-1)."""
        return [(type_, context.implied[type_]) for type_ in DERIVED if type_ in context.implied]

    # Joining

    def replay(self, events: frozenset[str]) -> tuple[list[Label], dict[str, str]]:
        """What a joiner is told, oldest first, and of what it counts as told then (CTX-1 to CTX-6, DER-5)."""
        found: list[tuple[int, int, Label]] = []
        told: dict[str, str] = {}
        newest = {context.type: context for context in self.contexts.values()}
        for type_ in {*newest, *DERIVED}:
            if f"{type_}-open" not in events:
                continue
            stored = newest.get(type_)
            source = next((c for c in reversed(self.contexts.values()) if type_ in c.implied), None)
            if source and (not stored or (source.order > stored.order and source.implied[type_] != stored.ref)):
                found.append((source.order, DERIVED.index(type_), derived_label(source, type_)))
                told[type_] = source.implied[type_]
            elif stored:
                found.append((stored.order, len(DERIVED), open_label(stored)))
                if type_ in DERIVED:
                    told[type_] = stored.ref
        labels = [label for _, _, label in sorted(found, key=lambda each: each[:2])]
        if self.home is not None:
            told = {}
            if "home-open" in events:
                labels.append(("event", "home-open", self.home.id, ""))
        return labels, told


def open_label(context: Context) -> Label:
    return "event", f"{context.type}-open", context.id, context.version


def derived_label(source: Context, type_: str) -> Label:
    return "derived", f"{type_}-open", source.implied[type_], source.stamp
