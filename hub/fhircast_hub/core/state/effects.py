"""What the world is to do after a decision was committed, in this order."""

from __future__ import annotations

import msgspec

from fhircast_hub.core.access.principal import SessionKey


class EventRef(msgspec.Struct, frozen=True):
    """What a frame tells of. `id` is the frame's own, which an acknowledgement names.

    `event` and `name` are id and name of the event that a SyncError about it names (of a derived open: its source's); `ref` is
    what it opens, if anything; `reportable` is whether it is reported who refuses it or stays silent (SYN-10, SYN-11).
    """

    id: str
    event: str
    name: str
    ref: str = ""
    reportable: bool = True


#: A frame to be sent, and what it tells of.
Message = tuple[bytes, EventRef]


class Send(msgspec.Struct, frozen=True):
    """Write one frame (the JSON text of a message, UTF-8) to each of these connections; those of other nodes are theirs.

    `event_ref` is what it tells of; None for what nobody acknowledges.
    """

    to: tuple[str, ...]
    frame: bytes
    event_ref: EventRef | None = None


class Close(msgspec.Struct, frozen=True):
    """Close a connection with this code (RFC 6455 section 7.4), after all that was sent to it before."""

    connection: str
    code: int
    reason: str


class Verify(msgspec.Struct, frozen=True):
    """Ask the callback of the subscription `subscription_id` whether it wants these events for `lease` seconds.

    `user` is whose subscription it is (Principal.subscriber), here and below.
    """

    key: SessionKey
    subscription_id: str
    callback: str
    events: tuple[str, ...]
    lease: int
    user: str = ""


class Post(msgspec.Struct, frozen=True):
    """Deliver a frame to a callback, after all that was to be posted to it before; and say what became of `number`.

    `secret` is sealed, empty without one.
    """

    key: SessionKey
    number: int
    subscription_id: str
    callback: str
    secret: bytes
    frame: bytes
    user: str = ""


class EndWebhook(msgspec.Struct, frozen=True):
    """The subscription `subscription_id` is over: ask its callback no more, post none of these numbers any more, and tell the callback so
    unless `reason` is empty."""

    key: SessionKey
    subscription_id: str
    numbers: frozenset[int] = frozenset()
    callback: str = ""
    events: tuple[str, ...] = ()
    reason: str = ""
    user: str = ""


#: What sockets do, and what callbacks are done to.
SocketEffect = Send | Close
WebhookEffect = Verify | Post | EndWebhook
Effect = SocketEffect | WebhookEffect
