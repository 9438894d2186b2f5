"""What can happen to a session. The API, the sockets and the timer make these; `decide.decide` answers them."""

from __future__ import annotations

import msgspec

from fhircast_hub.core.access.principal import Principal
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.core.wire.event import Event


class Subscribe(msgspec.Struct, frozen=True):
    """A new subscription `subscription_id` (the digest of its endpoint), asking for `events` for `lease` seconds (None: the default).

    With a `callback` it is a webhook's, and what is posted there is signed with the sealed `secret`, if there is one.
    `address` is where the request came from.
    """

    principal: Principal
    topic: str
    subscription_id: str
    events: tuple[str, ...]
    lease: int | None = None
    name: str = ""
    callback: str = ""
    secret: bytes = b""
    address: str = ""


class Renew(msgspec.Struct, frozen=True):
    """New events and lease for the live subscription `subscription_id`; a new name too unless it is None."""

    principal: Principal
    topic: str
    subscription_id: str
    events: tuple[str, ...]
    lease: int | None = None
    name: str | None = None
    address: str = ""


class Unsubscribe(msgspec.Struct, frozen=True):
    """The end of the subscription `subscription_id`, or of that with this `callback`, or else of the principal's only one (of that name).

    `reason` is what its socket is told.
    """

    principal: Principal
    topic: str
    subscription_id: str | None = None
    name: str | None = None
    callback: str | None = None
    reason: str = "unsubscribed"


class Publish(msgspec.Struct, frozen=True):
    """An event posted by `principal`."""

    principal: Principal
    event: Event


class Connected(msgspec.Struct, frozen=True):
    """A socket came for the subscription `subscription_id`; it is called `connection` from now on.

    What was sent to the one before until `delivered_until` (epoch seconds, 0: nothing is known) is known to have arrived.
    """

    subscription_id: str
    connection: str
    delivered_until: float = 0.0


class Disconnected(msgspec.Struct, frozen=True):
    """The socket `connection` of `subscription_id` is gone, by this close code (RFC 6455 section 7.4; SERVICE_RESTART: the hub stops).

    What was sent to it until `delivered_until` (epoch seconds) is known to have arrived.
    """

    subscription_id: str
    connection: str
    delivered_until: float
    code: int


class Acknowledged(msgspec.Struct, frozen=True):
    """The subscription `subscription_id` acknowledges, for the first time or again (SYN-5, SYN-6); `followed` if it did follow this time."""

    subscription_id: str
    followed: bool = True


class Rejected(msgspec.Struct, frozen=True):
    """What `connection` of the subscription `subscription_id` was told was not followed: the HTTP `status` is not 2xx (SYN-1).

    `reason` is the subscriber's own, on one line, "" where it gave none.
    """

    subscription_id: str
    connection: str
    event_ref: EventRef
    status: int
    reason: str = ""


class MissedAck(msgspec.Struct, frozen=True):
    """`connection` of the subscription `subscription_id` did not acknowledge what it was told."""

    subscription_id: str
    connection: str
    event_ref: EventRef


class AcksTimedOut(msgspec.Struct, frozen=True):
    """These were not acknowledged in time (SYN-4)."""

    missed: tuple[MissedAck, ...]


class VerificationFailed(msgspec.Struct, frozen=True):
    """The callback of the subscription `subscription_id` did not say that it wants it (WHK-3)."""

    subscription_id: str


class PostFinished(msgspec.Struct, frozen=True):
    """What became of the post `number`: the HTTP status, or 0 where no answer came in time (WHK-6)."""

    number: int
    status: int


class Revoked(msgspec.Struct, frozen=True):
    """The token of the subscription `subscription_id` was revoked (AUT-14)."""

    subscription_id: str


class Undeliverable(msgspec.Struct, frozen=True):
    """Nothing can be posted for the subscription `subscription_id` any more, for this `reason`."""

    subscription_id: str
    reason: str


class BeginSession(msgspec.Struct, frozen=True):
    """A system client begins a session for the user `owner` (SES-1)."""

    realm: str
    topic: str
    owner: str


class EndSession(msgspec.Struct, frozen=True):
    """The session ends, its subscriptions for this `reason` (SES-4)."""

    reason: str


class Evict(msgspec.Struct, frozen=True):
    """The user is over a limit elsewhere: forget the subscription `subscription_id` if it has no socket (SUB-22)."""

    subscription_id: str


class MakeRoom(msgspec.Struct, frozen=True):
    """A user wants more than one may have: forget this session, if nobody follows it and it was not used for SESSION_TTL.

    `at_once` is however lately it was used (LIM-2).
    """

    at_once: bool = False


class Tick(msgspec.Struct, frozen=True):
    """A deadline may have passed."""


class Restarted(msgspec.Struct, frozen=True):
    """The hub's process is new: every socket it had is gone."""


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
)
