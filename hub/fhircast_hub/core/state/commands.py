"""Commands: what can happen to a session. `decide.decide` answers them. HTTP, sockets, webhooks and timers make them."""

from __future__ import annotations

import msgspec

from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.wire.event import Event


class Subscribe(msgspec.Struct, frozen=True):
    """A request for a new subscription."""

    #: Bearer of the request's token.
    principal: Principal
    #: hub.topic.
    topic: str
    #: Digest of the new endpoint. Of a webhook: a random id.
    subscription_id: str
    #: hub.events, as spelled.
    events: tuple[str, ...]
    #: hub.lease_seconds. None: the default lease.
    lease: int | None = None
    #: subscriber.name. "": none.
    name: str = ""
    #: hub.callback of a webhook. "": a WebSocket is asked for.
    callback: str = ""
    #: hub.secret, sealed. b"": none.
    secret: bytes = b""
    #: Network address that the request came from (AUD-3).
    address: str = ""


class Renew(msgspec.Struct, frozen=True):
    """A request for new events and a new lease of a live subscription (SUB-20)."""

    #: Bearer of the request's token.
    principal: Principal
    #: hub.topic.
    topic: str
    #: Digest of the endpoint in the request.
    subscription_id: str
    #: hub.events, as spelled.
    events: tuple[str, ...]
    #: hub.lease_seconds. None: the default lease.
    lease: int | None = None
    #: The new subscriber.name. None: the old name stays.
    name: str | None = None
    #: Network address that the request came from (AUD-3).
    address: str = ""


class Unsubscribe(msgspec.Struct, frozen=True):
    """End of one or more subscriptions.

    Ends all of `callback`, else that of `subscription_id`, else the application's only match for `name` (UNS-7).
    """

    #: Bearer of the request's token.
    principal: Principal
    #: hub.topic.
    topic: str
    #: Digest of the endpoint in the request. None: no endpoint was named.
    subscription_id: str | None = None
    #: subscriber.name to search for. None: any name.
    name: str | None = None
    #: hub.callback. None: the subscription is no webhook.
    callback: str | None = None
    #: hub.reason of the denial that the socket receives. A callback is sent none.
    reason: str = "unsubscribed"


class Publish(msgspec.Struct, frozen=True):
    """An event that was posted."""

    #: Bearer of the request's token.
    principal: Principal
    #: The posted event.
    event: Event


class Connected(msgspec.Struct, frozen=True):
    """A socket opened the endpoint of a subscription, or a callback was verified."""

    #: Subscription of the endpoint.
    subscription_id: str
    #: Name of the new connection.
    connection: str
    #: Everything sent to the earlier connection before this time (epoch seconds) is known to have arrived.
    #: 0: unknown, so the subscription's own time counts.
    delivered_until: float = 0.0


class Disconnected(msgspec.Struct, frozen=True):
    """A socket is gone."""

    #: Subscription of the socket.
    subscription_id: str
    #: Name of the lost connection.
    connection: str
    #: Everything sent to the socket before this time (epoch seconds) is known to have arrived. 0: unknown.
    delivered_until: float
    #: Close code (RFC 6455 section 7.4). SERVICE_RESTART: the hub stops.
    code: int


class Acknowledged(msgspec.Struct, frozen=True):
    """A subscriber acknowledged for the first time, or after missed acknowledgements or a refusal (SYN-5, SYN-6).

    Of a callback: any 2xx answer.
    """

    #: Subscription of the acknowledgement.
    subscription_id: str
    #: Whether the subscriber followed the event.
    #: False: the event was refused, or is an update, select, heartbeat or SyncError.
    followed: bool = True


class Rejected(msgspec.Struct, frozen=True):
    """A subscriber answered an event with a status other than 2xx (SYN-1)."""

    #: Subscription of the answer.
    subscription_id: str
    #: Name of the connection that answered.
    connection: str
    #: The event that was not followed.
    event_ref: EventRef
    #: The answer's HTTP status.
    status: int
    #: The subscriber's own reason, on one line. "": none was given.
    reason: str = ""


class MissedAck(msgspec.Struct, frozen=True):
    """An event that one connection did not acknowledge in time."""

    #: Subscription of the connection.
    subscription_id: str
    #: Name of the connection.
    connection: str
    #: The event without an acknowledgement.
    event_ref: EventRef


class AcksTimedOut(msgspec.Struct, frozen=True):
    """Connections of one session did not acknowledge in time (SYN-4)."""

    #: The last missed event of each connection.
    missed: tuple[MissedAck, ...]


class VerificationFailed(msgspec.Struct, frozen=True):
    """A callback did not confirm its subscription (WHK-3)."""

    #: Subscription of the callback.
    subscription_id: str


class PostFinished(msgspec.Struct, frozen=True):
    """A callback answered a post, or did not answer in time (WHK-6)."""

    #: Number of the post.
    number: int
    #: HTTP status of the last attempt that was answered. 0: no attempt was answered, or the hub failed.
    status: int


class Revoked(msgspec.Struct, frozen=True):
    """The token of a subscription was revoked (AUT-14)."""

    #: Subscription of the token.
    subscription_id: str


class Undeliverable(msgspec.Struct, frozen=True):
    """A callback's hub.secret was lost, so nothing can be posted any more."""

    #: Subscription of the callback.
    subscription_id: str
    #: Why, for people to read.
    reason: str


class BeginSession(msgspec.Struct, frozen=True):
    """A system client begins a session for a user (SES-1)."""

    #: The user's realm.
    realm: str
    #: hub.topic of the new session.
    topic: str
    #: The user whose session it is, as Principal.user spells it.
    owner: str


class EndSession(msgspec.Struct, frozen=True):
    """The session ends (SES-4)."""

    #: hub.reason of the denials that its subscribers receive.
    reason: str


class Evict(msgspec.Struct, frozen=True):
    """A subscription without a socket is forgotten: its application needs room for another one (SUB-22)."""

    #: The subscription to forget.
    subscription_id: str


class MakeRoom(msgspec.Struct, frozen=True):
    """A session without subscriptions makes room for another session (LIM-5, LIM-6)."""

    #: False: only a session that was unused for SESSION_TTL is forgotten. True: any session without subscriptions.
    at_once: bool = False


class Tick(msgspec.Struct, frozen=True):
    """A deadline may have passed."""


class Restarted(msgspec.Struct, frozen=True):
    """The hub's process is new: all earlier sockets are gone."""


class NodeLost(msgspec.Struct, frozen=True):
    """One of the hub's nodes is gone, with its sockets and the raw tokens that it kept (NOD)."""

    #: Name of the node.
    node: str
    #: The node's last sign of life, in epoch seconds. 0: unknown.
    seen_at: float = 0.0


class ResumePosts(msgspec.Struct, frozen=True):
    """The node that decides has lost track of its posts and verifications of the session: it begins them anew (NOD-10)."""


Command = (
    Subscribe
    | Renew
    | Unsubscribe
    | Publish
    | Connected
    | Disconnected
    | Acknowledged
    | Rejected
    | AcksTimedOut
    | VerificationFailed
    | PostFinished
    | Undeliverable
    | Revoked
    | BeginSession
    | EndSession
    | Evict
    | MakeRoom
    | Tick
    | Restarted
    | NodeLost
    | ResumePosts
)
