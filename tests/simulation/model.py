"""The simulation's own model of a session: docs/behaviour.md, implemented a second time.

The model is made from the posts and the order of commits. From the hub's session it takes the versions only.
last_opens.py of the core explains the terms last open, derived open and in doubt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from tests.simulation.posts import DERIVED, Post

#: A frame in short: class, event name or code, ref or id, and more.
Label = tuple[object, ...]
Messages = list[tuple[str, Label]]


@dataclass(slots=True)
class Context:
    """An open context."""

    ref: str
    id: str
    at: float
    stamp: str
    order: int
    implied: dict[str, str]  # contexts that it names, by type, without those closed since
    version: str
    names: dict[str, str] = field(default_factory=dict)  # contexts that it names, and itself, by type
    content: dict[str, int] = field(default_factory=dict)
    updates: set[bytes] = field(default_factory=set)
    since_open: list[str] = field(default_factory=list)  # versions since the last open

    @property
    def type(self) -> str:
        return self.ref.partition("/")[0]

    @property
    def closed(self) -> set[str]:
        """The contexts that it names and that were closed since."""
        return {ref for type_, ref in self.names.items() if type_ != self.type and type_ not in self.implied}


@dataclass(slots=True)
class Sub:
    """A subscription. `heard` and `left` count the changes that were accepted before its last socket came, or went."""

    subscription_id: str
    app: tuple[str, str]  # the user, and the client
    name: str
    events: frozenset[str]
    expires: float
    since: float
    never_connected: bool = True
    connection: str = ""
    last_opens: dict[str, tuple[str, str]] = field(
        default_factory=dict
    )  # last opens: type -> ref, and the type of the event that named the context
    in_doubt: set[str] = field(default_factory=set)  # types whose last open is in doubt
    reconnect_deadline: float = 0.0
    acknowledges: bool = False
    missed_acks: int = 0
    heard: int = 0
    left: int = 0
    is_dead: bool = False  # the node of its socket died, and NodeLost has not come yet
    refused: bool = False  # whether it refused an open since its socket came
    delivered_until: float = 0.0  # all frames sent before this time have arrived
    shown: set[str] = field(default_factory=set)  # refs of the opens that its last socket was sent

    def leave(self) -> None:
        """The socket goes, if there is one."""
        if self.connection:
            self.shown = {ref for ref, by in self.last_opens.values() if not by}
            self.last_opens = {}

    def last(self, type_: str) -> str:
        """The ref of the last open of this type, "" for none."""
        return self.last_opens[type_][0] if type_ in self.last_opens else ""

    def sent_open(self, by: str, refs: dict[str, str]) -> None:
        """An open of the type `by` was sent, which names `refs`. The previous open of the type names nothing any more."""
        for type_ in [t for t, last in self.last_opens.items() if last[1] == by and t not in refs]:
            self.forget_last_open(type_)
        for type_, ref in refs.items():
            own = self.last_opens.get(type_) == (ref, "")  # an open of its own is kept, and its doubt
            if type_ == by or self.last(type_) != ref or (type_ in self.in_doubt and not own):
                self.last_opens[type_] = ref, "" if type_ == by else by
                self.in_doubt.discard(type_)

    def put_in_doubt(self, refs: set[str]) -> None:
        """Put these contexts in doubt."""
        self.in_doubt |= {type_ for type_, (ref, _) in self.last_opens.items() if ref in refs}

    def forget_last_open(self, type_: str) -> None:
        self.last_opens.pop(type_, None)
        self.in_doubt.discard(type_)


class Change(NamedTuple):
    """A close or update that was accepted, or a derived close: an event that a subscription may miss."""

    at: float
    key: str
    ref: str
    label: Label
    derived: bool = False

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
        self.reopened = (
            False  # the hub's process is new and has not restarted this session: no subscription has a socket
        )
        self.beat = 0.0  # time since which a heartbeat is awaited; 0: no subscription wants one

    # Subscriptions

    def connected(self, key: str = "") -> list[Sub]:
        """The subscriptions with a socket that were granted this event."""
        if self.reopened:
            return []
        return [sub for sub in self.subs.values() if sub.connection and (not key or key in sub.events)]

    # Contexts

    def current_at(self) -> float | None:
        """The timestamp of the open that made the current context, or of the Home-open."""
        if self.home is not None:
            return self.home.at
        return self.contexts[self.current].at if self.current else None

    def open(self, post: Post, version: str) -> Context:
        before = self.contexts.pop(post.ref, None)
        context = Context(post.ref, post.id, post.at, post.stamp, self.order, dict(post.implied), version)
        context.names = {**post.implied, context.type: post.ref}
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
            if sub.last(type_) == ref:
                sub.forget_last_open(type_)

    def go_home(self, post: Post) -> None:
        self.current, self.home, self.changed = "", post, self.order
        for sub in self.subs.values():
            if "home-open" in sub.events:
                sub.last_opens.clear()
            sub.in_doubt = set(sub.last_opens)

    def is_open(self, ref: str) -> bool:
        """Whether the context is open, or an open context names it."""
        return ref in self.contexts or self.is_implied(ref)

    def is_implied(self, ref: str) -> bool:
        """Whether an open context names this one."""
        return any(ref in context.implied.values() for context in self.contexts.values())

    def has_newer(self, gone: Context) -> bool:
        """Whether a context of the same type was opened after this one."""
        return any(other.type == gone.type and other.order > gone.order for other in self.contexts.values())

    # Joining

    def deliver(
        self, sub: Sub, context: Context, *, again: bool = False, derives: bool = True, later: bool = False
    ) -> list[Opened]:
        """The opens that a subscription is sent for a context: the open itself, or derived opens (DER-3, DER-7).

        If they are sent `later` or `again`, contexts that were closed since are in doubt.
        """
        named = {t: context.names[t] for t in DERIVED if t in context.names and f"{t}-open" in sub.events}
        closed = context.closed if later or again else set()
        if f"{context.type}-open" in sub.events:
            sub.sent_open(context.type, named)
            sub.put_in_doubt(closed)
            return [Opened(context.order, len(DERIVED), open_label(context))]
        opened = []
        for type_ in DERIVED if derives else ():
            ref = context.implied.get(type_)
            if ref is None or f"{type_}-open" not in sub.events:
                continue
            if again or sub.last(type_) != ref or type_ in sub.in_doubt:
                sub.sent_open(type_, {t: named[t] for t in named if DERIVED.index(t) <= DERIVED.index(type_)})
                sub.put_in_doubt(closed)
                opened.append(Opened(context.order, DERIVED.index(type_), derived_label(context, type_)))
        return opened

    def send_again(self, sub: Sub, opens: set[Opened]) -> None:
        """Send these opens again, and the opens that must follow, so that the last opens are those of a joiner."""
        before, in_doubt = dict(sub.last_opens), set(sub.in_doubt)
        joiner, _, told_by = self.joiner(sub.events)
        while True:
            for opened in sorted(opens):
                self._send_again(sub, opened)
            known = [type_ for type_ in joiner.last_opens if sub.last(type_) != joiner.last(type_)]
            more = {told_by[type_] for type_ in known} - opens
            if not more:
                return
            opens |= more
            sub.last_opens, sub.in_doubt = dict(before), set(in_doubt)

    def _send_again(self, sub: Sub, opened: Opened) -> None:
        context = next(context for context in self.contexts.values() if context.order == opened.order)
        by = context.type if opened.place == len(DERIVED) else DERIVED[opened.place]
        named = context.names
        parts = DERIVED if opened.place == len(DERIVED) else DERIVED[: opened.place + 1]
        sub.sent_open(by, {t: named[t] for t in parts if t in named and f"{t}-open" in sub.events})
        sub.put_in_doubt(context.closed)

    def forget_named(self, type_: str) -> None:
        """A context of this type was closed. Subscriptions without a last open of the type forget the contexts that it named."""
        for sub in self.subs.values():
            if type_ in DERIVED and not sub.last(type_):
                for other in [t for t, last in sub.last_opens.items() if last[1] == type_]:
                    sub.forget_last_open(other)

    def joiner(self, events: frozenset[str]) -> tuple[Sub, dict[object, Opened], dict[str, Opened]]:
        """A joiner, as if it had been there all the time. Also the last open of each event, and of each type the open that told it."""
        sub = Sub("", ("", ""), "", events, 0, 0)
        opens: dict[object, Opened] = {}
        told_by: dict[str, Opened] = {}
        newest = {context.type: context for context in self.contexts.values()}
        for context in self.contexts.values():
            if f"{context.type}-open" in events and newest[context.type] is not context:
                continue
            before = sub.last_opens | dict.fromkeys(sub.in_doubt)
            for opened in self.deliver(sub, context, later=True):
                opens[opened.label[1]] = opened
                own = str(opened.label[1]).removesuffix("-open")
                mine = DERIVED if opened.place == len(DERIVED) else DERIVED[: opened.place + 1]
                told = [t for t in mine if t in sub.last_opens and (t == own or sub.last_opens[t] != before.get(t))]
                told_by |= {t: opened for t in told if t in context.names}
                before = sub.last_opens | dict.fromkeys(sub.in_doubt)
        return sub, opens, told_by

    def replay(self, events: frozenset[str]) -> tuple[list[Label], dict[str, tuple[str, str]], set[str]]:
        """The replay to a joiner, oldest first; its last opens; and the types in doubt (CTX-1 to CTX-7, DER-5)."""
        sub, opens, _ = self.joiner(events)
        labels = [opened.label for opened in sorted(opens.values())]
        if self.home is not None and "home-open" in events:
            return [*labels, ("event", "home-open", self.home.id, "")], {}, set()
        return labels, sub.last_opens, set(sub.last_opens) if self.home else sub.in_doubt


class Opened(NamedTuple):
    """An open that is sent, and its place in the order."""

    order: int
    place: int
    label: Label


def open_label(context: Context) -> Label:
    return "event", f"{context.type}-open", context.id, context.version


def derived_label(source: Context, type_: str) -> Label:
    return "derived", f"{type_}-open", source.implied[type_], source.stamp
