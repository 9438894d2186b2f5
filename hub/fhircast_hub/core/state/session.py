"""The session: one immutable value that holds all the hub knows of a topic. `decide.py` says how it changes."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from fhircast_hub.core.access.principal import Application
from fhircast_hub.core.state.effects import Effect, EventRef


class Subscription(msgspec.Struct, frozen=True):
    """One subscription of a session. Times are epoch seconds.

    `subscription_id` is the digest of its endpoint; `subscriber` whose it is (Principal.subscriber), as `client` and `issuer` say which
    application's; `events` what was granted, as the subscriber spells it. `connection` is its socket, or "" without one, and
    `connected_or_lost_at` when that came or went; `never_connected` until the first socket came. `delivered_until` is until when all that was sent is known to have
    arrived (SUB-12). `reconnect_deadline` is when it counts as lost unless a socket is back, or 0 (SYN-7). `acknowledges` is whether it
    ever did (SYN-6), `missed_acks` how many times in a row it then did not (SYN-5); `refused_event` is the name of the event that it
    refused last, if it has not followed another since. `shown_opens` are the refs of the opens of event_names.DERIVED that its last socket
    was told, or may have been told before a crash (DER-9). A webhook has a `callback` and perhaps a sealed `secret`; verified,
    its `connection` is a name too. `opaque` is whether its token may be revoked (AUT-14).
    `address` is from where it was made, or renewed last (AUD-3).
    """

    subscription_id: str
    subscriber: str
    name: str
    events: tuple[str, ...]
    expires: float
    connected_or_lost_at: float
    connection: str = ""
    never_connected: bool = True
    delivered_until: float = 0.0
    reconnect_deadline: float = 0.0
    callback: str = ""
    secret: bytes = b""
    opaque: bool = False
    acknowledges: bool = False
    missed_acks: int = 0
    refused_event: str = ""
    issuer: str = ""
    client: str = ""
    shown_opens: tuple[str, ...] = ()
    address: str = ""

    @property
    def application(self) -> Application:
        """Whose it is: other applications of the same user are others (SUB-19)."""
        return Application(self.issuer, self.subscriber, self.client)

    @property
    def keys(self) -> frozenset[str]:
        """The granted events in lower case."""
        return frozenset(map(str.lower, self.events))


class OpenContext(msgspec.Struct, frozen=True):
    """A context that was opened and not closed: its anchor's `type` (as spelled) and `ref` (type in lower case, id).

    `frame` is the open as it was broadcast, with `version` as its context.versionId; the context array stands in it from
    `context_at` for `context_size` bytes. `order` counts the session's accepted events. `implied` are the refs of the
    contexts that opens are derived for, by type, as long as nobody closed those; then they are `closed`.
    """

    ref: str
    type: str
    id: str
    timestamp: str
    order: int
    version: str
    frame: bytes
    context_at: int
    context_size: int
    implied: dict[str, str]
    closed: dict[str, str] = {}

    @property
    def anchor(self) -> str:
        """The type of its anchor, in lower case."""
        return self.ref[: self.ref.index("/")]

    @property
    def key(self) -> str:
        """The event that opens it, in lower case."""
        return self.anchor + "-open"

    @property
    def context(self) -> bytes:
        """The context array as it came."""
        return self.frame[self.context_at : self.context_at + self.context_size]

    @property
    def event_ref(self) -> EventRef:
        """What its frame tells of."""
        return EventRef(self.id, self.id, f"{self.type}-open", self.ref)


class Shared(msgspec.Struct, frozen=True):
    """A resource that was shared: the `entry` of the content Bundle, as JSON, and its place among the others."""

    number: int
    entry: bytes


class Content(msgspec.Struct, frozen=True):
    """What was shared in an open context (2.10): by ref, and its `size` in bytes. `updates` are the fingerprints of the last
    updates, oldest first (EVT-17); `urls` says which resource has which fullUrl (CON-16)."""

    resources: dict[str, Shared] = {}
    size: int = 0
    updates: tuple[bytes, ...] = ()
    urls: dict[str, str] = {}


class RetainedEvent(msgspec.Struct, frozen=True):
    """A close or update that somebody without a socket may still have to be told (SUB-12).

    `accepted_at` is when it was accepted, `type` the resourceType of its anchor, as spelled. A derived close (DER-9) has its own name as
    `event`, in lower case, for its notice has the source's.
    """

    accepted_at: float
    event_ref: EventRef
    type: str
    ref: str
    frame: bytes
    event: str = ""

    @property
    def key(self) -> str:
        """Its event's name in lower case."""
        return self.event or self.event_ref.name.lower()

    @property
    def closes(self) -> bool:
        """Whether it is a close."""
        return self.key.endswith("-close")


class Outgoing(msgspec.Struct, frozen=True):
    """A frame that the callback of the subscription `subscription_id` has not answered yet."""

    subscription_id: str
    event_ref: EventRef
    frame: bytes


class Queue(msgspec.Struct, frozen=True):
    """What one callback has not answered yet, by number, oldest first, and its `size` in bytes."""

    posts: dict[int, Outgoing] = {}
    size: int = 0


class LastOpen(NamedTuple):
    """The last context of a type that somebody was told of: its `ref`, "" for none (DER-3).

    `by` is empty for an open of the type itself, else the type of the event that named the context. `stale` is whether they may
    show something else: they refused the open, a Home-open came since of which they were not told, or the context was closed
    before they were told an event that names it.
    """

    ref: str = ""
    by: str = ""
    stale: bool = False


#: One for each type of event_names.DERIVED.
LastOpened = tuple[LastOpen, LastOpen, LastOpen]


class Audience(msgspec.Struct, frozen=True):
    """Connections that were granted the same events and last told the same opens: an event is decided once for all of them."""

    keys: frozenset[str]
    last_opened: LastOpened
    members: tuple[str, ...]


class Session(msgspec.Struct, frozen=True):
    """All that the hub knows of one (realm, hub.topic). Its dicts are never changed, only replaced.

    `owner` is the user it belongs to (topic_access.NO_OWNER: nobody's); `order` counts accepted events, `last_change_order` is the count
    at the last change of context, and `recent` the count at each remembered fingerprint (EVT-17). `current` is the ref of the
    current context or "", `version` the current version, "0" before any. `contexts` are the open ones, oldest first; `home`
    the Home-open's frame while that is the newest open of all. `contents` is what was shared in them, by ref; a context in which
    nothing was has none. `retained` are the last closes and updates by number, oldest first; `dropped_closes` is when those closes were accepted
    that were too many to hold, by `type/id` as spelled. Audiences are the connected subscriptions, grouped; `webhook_connections` are
    those of them that are webhooks, and `outbox` by sid what their callbacks have not answered, of `last_post_number` until now. `created_at` is when POST /sessions
    began it, or 0; `last_used_at` is when it last
    had or lost a subscriber or, without any, was published to; `next_heartbeat` is when the next heartbeat is due, if anybody wants it;
    `deadline` is when it wants a Tick, if ever.
    """

    realm: str
    topic: str
    owner: str
    order: int = 0
    version: str = "0"
    current: str = ""
    home: bytes = b""
    last_change_order: int = 0
    last_used_at: float = 0.0
    recent: dict[bytes, int] = {}
    contexts: dict[str, OpenContext] = {}
    contents: dict[str, Content] = {}
    retained: dict[int, RetainedEvent] = {}
    dropped_closes: dict[str, float] = {}
    subscriptions: dict[str, Subscription] = {}
    audiences: tuple[Audience, ...] = ()
    webhook_connections: frozenset[str] = frozenset()
    created_at: float = 0.0
    last_post_number: int = 0
    outbox: dict[str, Queue] = {}
    next_heartbeat: float | None = None
    deadline: float | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What a command leads to: the session from now on (None: forgotten), what to do, and what to answer."""

    session: Session | None
    effects: tuple[Effect, ...] = ()
    reply: object = None
