"""Limits: constants of the hub, and Rules, the settings of a deployment."""

from __future__ import annotations

import msgspec

#: Characters in a hub.topic (SUB-5): enough for a URL or a signed token, and short enough for a key.
MAX_TOPIC = 1024
#: Characters in a subscriber.name (SUB-13). People read the name in a SyncError.
MAX_NAME = 256
#: Characters in the id of an event (EVT-5) or of an anchor. FHIR's own ids have up to 64.
MAX_ID = 256
#: Names in hub.events. The catalogue has 21.
MAX_EVENTS = 256
#: Characters in a hub.callback (WHK-10).
MAX_CALLBACK = 2048
#: Bytes in a hub.secret: "hub.secret ... SHALL be less than 200 bytes" (STU2).
MAX_SECRET = 199
#: Bytes of identifiers that are compared between an update and the open of its context (CON-29).
MAX_IDENTITY = 64 << 10
#: Nesting of a JSON body (EVT-6). FHIR's deepest resources stay under twenty.
MAX_DEPTH = 64
#: Members of an object that the hub reads (EVT-6). FHIR's largest resources have some sixty.
#: As many again may have a leading `_`.
MAX_MEMBERS = 128
#: Objects and arrays of a body (EVT-6).
MAX_NODES = 50_000
#: A longer body may have one object or array for each of so many bytes (EVT-6). FHIR has thirty and more bytes for each.
NODE_BYTES = 20
#: Bytes of a subscription form.
MAX_FORM = 64 << 10
#: Parameters of a subscription form. The specification knows eight.
MAX_PARAMETERS = 64
#: Items of a context, such as a report, its patient and its studies.
MAX_ITEMS = 256
#: Open contexts of a session (LIM-1).
MAX_CONTEXTS = 64
#: Bytes of a session's open contexts together (LIM-1).
MAX_CONTEXT_BYTES = 8 << 20
#: Bytes that are shared in a session's contexts together (LIM-1).
MAX_CONTENT_BYTES = 8 << 20
#: Updates of a context whose repetition is recognized (EVT-17).
REMEMBERED_UPDATES = 256
#: Changes of context whose repetition a session recognizes (EVT-17). A sender repeats its newest change every ten seconds.
REMEMBERED_CHANGES = 64
#: Seconds between the acceptance of an event and the handover of its last frame to a socket, at most.
HANDOVER_SECONDS = 1.0
#: Seconds that delivered closes and updates may stay in the session, so that one Tick drops many of them (OPS-7).
FORGETTING_SECONDS = 5.0
#: Closes whose context is remembered although the event was dropped (SUB-35). The hub makes a new close from the context.
REMEMBERED_CLOSES = 1024
#: Seconds that every subscription has to come back after a restart of the hub (SUB-41).
RESTART_GRACE = 30
#: Seconds until a subscription with an opaque token ends after a restart of the hub, unless renewed (AUT-34).
OPAQUE_TOKEN_GRACE = 60


class Rules(msgspec.Struct, frozen=True):
    """The settings that decisions depend on (docs/settings.md)."""

    #: Lease without hub.lease_seconds, in seconds (LEA-1).
    default_lease: int = 7200
    #: Longest lease, in seconds (LEA-1).
    max_lease: int = 86400
    #: Seconds that a new subscription has until its first socket (SUB-14).
    connect_timeout: int = 60
    #: Subscriptions of one topic (SUB-22).
    max_subscriptions: int = 64
    #: Seconds without use until a session without subscribers and open contexts is forgotten (LIM-5).
    session_ttl: int = 86400
    #: Whether opens are derived (DER-8).
    derive_opens: bool = True
    #: Whether derived opens are taken back (DER-9).
    derive_closes: bool = True
    #: Whether a UserLogout ends its session (SES-5).
    logout_ends_session: bool = False
    #: Seconds that an event's timestamp may be ahead of the hub's clock (EVT-19).
    max_clock_ahead: int = 60
    #: Entries of one update (CON-15).
    max_entries: int = 500
    #: Missed acknowledgements in a row that end a subscription (SYN-5).
    ack_strikes: int = 3
    #: Seconds until an acknowledgement is missed (SYN-4).
    ack_timeout: int = 10
    #: Seconds that a lost subscription has to come back before the loss is reported (SYN-7).
    reconnect_grace: int = 3
    #: Seconds between two heartbeats (SYN-13).
    heartbeat_seconds: int = 30
    #: Bytes retained for subscribers without a socket, or queued for one callback (SUB-12).
    retained_bytes: int = 1 << 20
    #: Events retained for subscribers without a socket, or queued for one callback (SUB-12).
    retained_messages: int = 256
    #: Seconds until a dead socket is noticed: two ping intervals and a margin.
    dead_socket_seconds: int = 45
