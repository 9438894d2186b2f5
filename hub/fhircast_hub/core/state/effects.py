"""Effects: work for the world after a commit, in the order of Outcome.effects."""

from __future__ import annotations

import msgspec

from fhircast_hub.core.access.principal import SessionKey


class EventRef(msgspec.Struct, frozen=True):
    """The event that a frame carries, as acknowledgements and SyncErrors need it."""

    #: `id` of the frame, which acknowledgements name.
    id: str
    #: `id` of the event that a SyncError names. Of a derived open or close: its source's.
    event: str
    #: Name of the event that a SyncError names. Of a derived open or close: its source's.
    name: str
    #: Ref that the frame opens. "": the frame is no open of OpenContext or DerivedOpen.
    ref: str = ""
    #: Whether refusals and missed acknowledgements are reported (SYN-10, SYN-11).
    reportable: bool = True


#: A frame to send, and the event that it carries.
Message = tuple[bytes, EventRef]


class Send(msgspec.Struct, frozen=True):
    """Write one frame to connections. A node ignores the connections of other nodes."""

    #: Names of the connections.
    to: tuple[str, ...]
    #: JSON text of the message, in UTF-8.
    frame: bytes
    #: The event that the frame carries. None: nobody acknowledges the frame.
    event_ref: EventRef | None = None


class Close(msgspec.Struct, frozen=True):
    """Close a connection after everything that was sent to it before."""

    #: Name of the connection.
    connection: str
    #: Close code (RFC 6455 section 7.4).
    code: int
    #: Close reason.
    reason: str


class Verify(msgspec.Struct, frozen=True):
    """Ask a callback whether it wants its subscription (WHK-3)."""

    #: Session of the subscription.
    key: SessionKey
    #: The subscription.
    subscription_id: str
    #: URL to ask.
    callback: str
    #: The granted events, as spelled.
    events: tuple[str, ...]
    #: Remaining lease, in seconds.
    lease: int
    #: Principal.subscriber of the subscription.
    subscriber: str = ""


class Post(msgspec.Struct, frozen=True):
    """Post a frame to a callback after all earlier posts, and submit PostFinished with `number`."""

    #: Session of the subscription.
    key: SessionKey
    #: Number of the post in the session.
    number: int
    #: The subscription.
    subscription_id: str
    #: URL to post to.
    callback: str
    #: hub.secret, sealed. b"": the post is not signed.
    secret: bytes
    #: Body of the post.
    frame: bytes
    #: Principal.subscriber of the subscription.
    subscriber: str = ""


class EndWebhook(msgspec.Struct, frozen=True):
    """A webhook's subscription is over: cancel its verification and posts, and send the denial."""

    #: Session of the subscription.
    key: SessionKey
    #: The subscription.
    subscription_id: str
    #: Numbers of the posts to cancel.
    numbers: frozenset[int] = frozenset()
    #: The callback. Its listed posts are cancelled, and the denial goes there.
    callback: str = ""
    #: The granted events, as spelled.
    events: tuple[str, ...] = ()
    #: hub.reason of the denial. "": no denial is sent.
    reason: str = ""
    #: Principal.subscriber of the subscription.
    subscriber: str = ""


#: Effects on sockets.
SocketEffect = Send | Close
#: Effects on webhooks.
WebhookEffect = Verify | Post | EndWebhook
Effect = SocketEffect | WebhookEffect
