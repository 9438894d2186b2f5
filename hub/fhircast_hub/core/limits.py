"""What a deployment chooses (Rules), and the bounds that nobody needs to choose."""

from __future__ import annotations

import msgspec

#: Characters in a hub.topic (SUB-5); long enough for a URL or a signed token, short enough for a key.
MAX_TOPIC = 1024
#: Characters in a subscriber.name (SUB-13): it is read by people, in a SyncError.
MAX_NAME = 256
#: Characters in the id of an event (EVT-5) or of what a context is about; FHIR's own ids have up to 64.
MAX_ID = 256
#: Names in hub.events: the catalogue has fifteen, and a subscription is held in memory.
MAX_EVENTS = 256
#: Characters of a callback (WHK-10), and bytes of a secret: "hub.secret ... SHALL be less than 200 bytes" (STU2).
MAX_CALLBACK, MAX_SECRET = 2048, 199
#: Bytes of identifiers in an update of what its context was opened with (CON-17).
MAX_IDENTITY = 64 << 10
#: Nesting of a JSON body (EVT-6): FHIR's deepest resources stay under twenty.
MAX_DEPTH = 64
#: Members of an object that the hub looks into (EVT-6); FHIR's largest resources have some sixty, and one more for each with `_` before it.
MAX_MEMBERS = 128
#: Objects and arrays of a body (EVT-6), and the bytes of a longer one that allow another: FHIR takes thirty and more for each.
MAX_NODES, NODE_BYTES = 50_000, 20
#: Bytes and parameters of a subscription form; the specification knows eight parameters.
MAX_FORM, MAX_PARAMETERS = 64 << 10, 64
#: Items of a context: a report, its patient, its studies.
MAX_ITEMS = 256
#: Open contexts of a session (LIM-1), and the bytes of their opens together.
MAX_CONTEXTS, MAX_CONTEXT_BYTES = 64, 8 << 20
#: Bytes that are shared in a session's contexts together, and the updates of each whose repetition it recognizes (LIM-1).
MAX_CONTENT_BYTES, REMEMBERED_UPDATES = 8 << 20, 256
#: Changes of context whose repetition a session recognizes (EVT-17). A sender repeats its newest one, every ten seconds.
REMEMBERED_CHANGES = 64
#: Seconds between the acceptance of an event and the last of its frames that is handed to a socket.
HANDOVER_SECONDS = 1.0
#: Seconds that what nobody can have missed may stay, so that all of this time goes at once (OPS-7).
FORGETTING_SECONDS = 5.0
#: Closes beyond those held of which at least the context is remembered, so that a close can be made (SUB-12).
REMEMBERED_CLOSES = 1024
#: Seconds every subscription has to come back after the hub was restarted (SUB-23).
RESTART_GRACE = 30

#: Seconds a subscription by a token that may have been revoked has to be renewed after the hub was restarted (AUT-14).
UNVOUCHED_SECONDS = 60


class Rules(msgspec.Struct, frozen=True):
    """The settings that the core's decisions depend on; times in seconds, sizes in bytes."""

    default_lease: int = 7200
    max_lease: int = 86400
    connect_timeout: int = 60
    max_subscriptions: int = 64
    session_ttl: int = 86400
    derive_opens: bool = True
    derive_closes: bool = True
    logout_ends_session: bool = False
    #: how far an event's timestamp may be ahead of the hub's clock (EVT-19)
    max_clock_ahead: int = 60
    #: entries of one update (CON-15)
    max_entries: int = 500
    #: how many silences in a row end a subscription (SYN-5), and how long each is
    ack_strikes: int = 3
    ack_timeout: int = 10
    #: how long a lost subscription has to come back before that is reported (SYN-7)
    reconnect_grace: int = 3
    heartbeat_seconds: int = 30
    #: what a lost subscription may find waiting when it is back (SUB-12)
    retained_bytes: int = 1 << 20
    retained_messages: int = 256
    #: how long a socket may have been dead before that is noticed: two pings, and some
    dead_socket_seconds: int = 45
