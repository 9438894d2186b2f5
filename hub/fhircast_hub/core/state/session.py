"""The session: one immutable value with all that the hub knows of a topic. `decide.py` changes it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from fhircast_hub.core.access.principal import Application
from fhircast_hub.core.state.effects import Effect, EventRef


class Subscription(msgspec.Struct, frozen=True):
    """One subscription of a session, by WebSocket or webhook."""

    #: Digest of the endpoint. Of a webhook: a random id.
    subscription_id: str
    #: Principal.subscriber of the token: the user, or the client where there is no user.
    subscriber: str
    #: subscriber.name. "": none was given (SUB-13).
    name: str
    #: Names of the granted events, as the subscriber spells them.
    events: tuple[str, ...]
    #: End of the lease, in epoch seconds.
    expires: float
    #: When the present connection began, or the last one was lost (epoch seconds).
    #: Before the first connection: when the subscription was made.
    connected_or_lost_at: float
    #: Name of the present connection: a socket, or a verified callback. "": there is none.
    connection: str = ""
    #: Whether no socket has connected yet, or the callback is not verified yet (SUB-14, WHK-3).
    never_connected: bool = True
    #: Everything sent before this time (epoch seconds) is known to have arrived (SUB-12).
    #: The tracker of acknowledgements knows a later time while a socket is connected.
    delivered_until: float = 0.0
    #: When the subscription counts as lost unless a socket is back (epoch seconds; SYN-7). 0: no socket is awaited.
    reconnect_deadline: float = 0.0
    #: hub.callback of a webhook. "": the subscription is by WebSocket.
    callback: str = ""
    #: hub.secret of a webhook, sealed. b"": posts are not signed.
    secret: bytes = b""
    #: Whether the subscription's token may be revoked (AUT-14).
    opaque: bool = False
    #: Whether the subscriber ever acknowledged an event (SYN-6).
    acknowledges: bool = False
    #: Timeouts of acknowledgements in a row. Events that time out together count once (SYN-5, SYN-24).
    missed_acks: int = 0
    #: Name of the last event that was not followed. Of a derived open: its source's.
    #: "": there is none, a later event was followed, or a new socket came.
    refused_event: str = ""
    #: Issuer of the subscription's token.
    issuer: str = ""
    #: Client of the subscription's token.
    client: str = ""
    #: Refs of contexts that the last socket may show. At most one for each type of event_names.DERIVED (DER-9).
    shown_opens: tuple[str, ...] = ()
    #: Network address that made the subscription, or renewed it last (AUD-3). "": a webhook.
    address: str = ""
    #: Node that keeps the raw opaque token, since it took the last request (AUT-14). "": the token is not opaque, the hub is
    #: one process, or the node is gone.
    watcher: str = ""
    #: Whether the last socket ended by 1000 or 1001: the subscriber need not come back (SES-9). False while connected.
    left: bool = False

    @property
    def application(self) -> Application:
        """The application that owns the subscription. Other applications of the user do not share it (SUB-19)."""
        return Application(self.issuer, self.subscriber, self.client)

    @property
    def keys(self) -> frozenset[str]:
        """The granted events in lower case."""
        return frozenset(map(str.lower, self.events))


class OpenContext(msgspec.Struct, frozen=True):
    """A context that was opened and not closed."""

    #: The anchor as `type/id`, the type in lower case.
    ref: str
    #: resourceType of the anchor, as spelled.
    type: str
    #: `id` of the event that opened the context.
    id: str
    #: `timestamp` of that event.
    timestamp: str
    #: Session.order at the open.
    order: int
    #: Present context.versionId. Each update changes it.
    version: str
    #: The open's frame, with `version` as context.versionId.
    frame: bytes
    #: Offset of the context array in `frame`, in bytes.
    context_at: int
    #: Length of the context array, in bytes.
    context_size: int
    #: Type -> ref of other contexts that the open names and nobody has closed since. Their opens are derived (DER-7).
    implied: dict[str, str]
    #: Type -> ref of contexts that left `implied` because somebody closed them.
    closed: dict[str, str] = {}

    @property
    def anchor_type(self) -> str:
        """The anchor's type in lower case."""
        return self.type.lower()

    @property
    def key(self) -> str:
        """Name of the event that opens the context, in lower case."""
        return f"{self.type.lower()}-open"

    @property
    def context(self) -> bytes:
        """The context array as it came."""
        return self.frame[self.context_at : self.context_at + self.context_size]

    @property
    def event_ref(self) -> EventRef:
        """The event that `frame` carries."""
        return EventRef(self.id, self.id, f"{self.type}-open", self.ref)


class Shared(msgspec.Struct, frozen=True):
    """A resource that was shared in a context."""

    #: Sorts the resources of the content Bundle. Numbers have gaps.
    number: int
    #: Entry of the content Bundle, as JSON.
    entry: bytes


class Content(msgspec.Struct, frozen=True):
    """Resources that were shared in an open context (FHIRcast 3.0.0, 2.10)."""

    #: Ref -> shared resource.
    resources: dict[str, Shared] = {}
    #: Size of all entries, in bytes.
    size: int = 0
    #: Fingerprints of the last updates, oldest first (EVT-17).
    updates: tuple[bytes, ...] = ()
    #: fullUrl -> ref of its resource (CON-23, CON-24).
    urls: dict[str, str] = {}


class RetainedEvent(msgspec.Struct, frozen=True):
    """A close or update that is retained for subscribers without a socket (SUB-12)."""

    #: When the event was accepted, in epoch seconds.
    accepted_at: float
    #: The event that `frame` carries. Of a derived close, SyncErrors name the event that ended the source (DER-9).
    event_ref: EventRef
    #: resourceType of the anchor, as spelled.
    type: str
    #: The anchor as `type/id`, the type in lower case.
    ref: str
    #: The event as it was broadcast.
    frame: bytes
    #: Name of a derived close, in lower case. "": the event is no derived close.
    event: str = ""

    @property
    def key(self) -> str:
        """The event's name in lower case."""
        return self.event or self.event_ref.name.lower()

    @property
    def closes(self) -> bool:
        """Whether the event is a close."""
        return self.key.endswith("-close")


class Outgoing(msgspec.Struct, frozen=True):
    """A frame that a callback has not answered yet."""

    #: The webhook's subscription.
    subscription_id: str
    #: The event that `frame` carries.
    event_ref: EventRef
    #: Body of the POST.
    frame: bytes


class Queue(msgspec.Struct, frozen=True):
    """The frames that one callback has not answered yet."""

    #: Number of the post -> frame, oldest first.
    posts: dict[int, Outgoing] = {}
    #: Size of all frames, in bytes.
    size: int = 0


class LastOpen(NamedTuple):
    """The last context of one type that a subscriber was sent an open of (DER-3)."""

    #: The context's ref. "": the subscriber counts as sent none.
    ref: str = ""
    #: Anchor type of the event that named the context. "": an open of this type itself, or a derived one.
    named_by: str = ""
    #: Whether the subscriber may show something else. last_opens.py lists the causes.
    in_doubt: bool = False


#: A LastOpen for each type of event_names.DERIVED.
LastOpened = tuple[LastOpen, LastOpen, LastOpen]


class Audience(msgspec.Struct, frozen=True):
    """Connections with the same granted events and the same last opens. An event is decided once for all of them."""

    #: The granted events, in lower case.
    keys: frozenset[str]
    #: The opens that the connections were last sent.
    last_opened: LastOpened
    #: Names of the connections.
    members: tuple[str, ...]


class Session(msgspec.Struct, frozen=True):
    """All that the hub knows of one (realm, hub.topic). Its dicts are never changed, only replaced."""

    #: First half of the session's key.
    realm: str
    #: hub.topic.
    topic: str
    #: User that the session belongs to, or topic_access.NO_OWNER.
    owner: str
    #: Number of accepted opens, closes, Home-opens and updates.
    order: int = 0
    #: The context.versionId that GET answers while no context is current. "0": no open or Home-open came yet.
    #: A current context has its own.
    version: str = "0"
    #: Ref of the current context. "": there is none.
    current: str = ""
    #: Frame of the Home-open, while that is the newest open of all (CTX-6).
    home: bytes = b""
    #: `order` at the last open, Home-open, update, or close of an open context (EVT-31).
    last_change_order: int = 0
    #: Last use, in epoch seconds. With subscriptions: the last change of these, of a heartbeat or of retained events.
    #: Without: the last publication or POST /sessions.
    last_used_at: float = 0.0
    #: Fingerprint of a change of context -> `order` at that change (EVT-17).
    recent: dict[bytes, int] = {}
    #: Ref -> open context, oldest first.
    contexts: dict[str, OpenContext] = {}
    #: Ref of an open context -> resources shared there. Contexts without any are missing.
    contents: dict[str, Content] = {}
    #: Number -> close or update that a returning socket may need, oldest first (SUB-12).
    retained: dict[int, RetainedEvent] = {}
    #: Closes dropped from `retained` for lack of room: `type/id` as spelled -> epoch seconds of acceptance.
    dropped_closes: dict[str, float] = {}
    #: subscription_id -> subscription.
    subscriptions: dict[str, Subscription] = {}
    #: The connected subscriptions, grouped.
    audiences: tuple[Audience, ...] = ()
    #: Names of those connections in `audiences` that are webhooks.
    webhook_connections: frozenset[str] = frozenset()
    #: Ids of subscriptions that have connected, and were sent no event yet (SES-8).
    sent_nothing: frozenset[str] = frozenset()
    #: When POST /sessions began the session, in epoch seconds. 0: a subscriber or publisher began it.
    created_at: float = 0.0
    #: Number of the newest post to a callback.
    last_post_number: int = 0
    #: subscription_id -> posts that its callback has not answered yet.
    outbox: dict[str, Queue] = {}
    #: Node that carries out posts and verifications. "": callbacks have had no work yet, or the hub is one process.
    poster: str = ""
    #: When the next heartbeat is due, in epoch seconds. None: no connection subscribes to heartbeats.
    next_heartbeat: float | None = None
    #: When the session wants a Tick, in epoch seconds. None: never.
    deadline: float | None = None


class Outcome(msgspec.Struct, frozen=True):
    """The result of a command."""

    #: The session from now on. None: the session is forgotten.
    session: Session | None
    #: Work for the world, in order.
    effects: tuple[Effect, ...] = ()
    #: Answer to the command's sender. Only Connected of a socket has one: the subscription.
    reply: object = None
