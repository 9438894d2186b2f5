"""Budgets: the most that a socket, a connection, an address or a user may cost (LIM-3).

All users share one event loop. Without budgets one holder of a valid token could stop the hub for all others.
SECURITY.md shows these numbers as a table. The code reads the same numbers.

The budgets are written by hand. Rate limiters of libraries count requests, but one request may cost as much as a thousand
others. So budgets count the cost: CPU time, bytes, steps of the event loop. A charge is arithmetic, without a lock or a
task. tests/hardening/attacks measures how late another user's events come during each attack.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Budget(NamedTuple):
    """One budget: a row of SECURITY.md's table."""

    #: Whose budget: "a user"
    holder: str
    #: The counted thing. A text that begins with "bytes" is shown in KiB or MiB.
    counted: str
    #: The limit.
    most: float
    #: The limit's unit of time: "a second". "": at any time.
    unit: str
    #: The consequence beyond the limit.
    beyond: str


REFUSALS = Budget("a session", "refusals of events", 64, "and 16 a second", "further refusals make no SyncError")
UNMATCHED_FRAMES = Budget(
    "a socket",
    "frames beyond two for each frame of the hub; each further 4 KiB of a frame count as a frame",
    64,
    "a second",
    "closed with 1008",
)
FRAMES_A_TURN = Budget("a socket", "frames that the hub reads", 16, "a turn", "the next turn reads the rest")
HANDSHAKES = Budget("an endpoint", "handshakes", 60, "a minute", "429")
PIPELINED = Budget("a connection", "requests that wait for earlier answers", 16, "", "closed")
HEADER_BYTES = Budget("a connection", "bytes of a request's line and headers", 64 << 10, "", "closed")
HEADERS = Budget("a connection", "headers of a request", 256, "", "closed")
HEADER_SECONDS = Budget("a connection", "seconds for a request's line and headers", 15, "", "closed")
BODY_SECONDS = Budget("a connection", "seconds for a body", 30, "", "408")
CHUNKS = Budget("a connection", "chunks of a body", 32768, "", "400, and closed")
OVERHEAD = Budget(
    "a connection", "bytes of a request beside its headers and body: sizes of chunks, trailers", 256 << 10, "", "closed"
)
SLICE = Budget(
    "a connection", "bytes of headers or chunks that the hub reads", 4096, "a step", "a later step reads the rest"
)
STALLED = Budget("a connection", "seconds in which the client reads nothing of an answer", 20, "", "closed")
CONNECTIONS = Budget(
    "an address",
    "HTTP connections; no limit for a trusted proxy",
    2048,
    "",
    "the connection that is idle for longest is closed",
)
ACCEPTED = Budget(
    "the hub", "connections that the hub accepts; each of several workers: 8", 64, "a turn", "other connections wait"
)
TURN = Budget("the hub", "seconds of a turn's steps", 0.005, "", "the next turn has fewer steps")
STARTED = Budget("the hub", "steps of requests that begin", 48, "a turn", "users and connections take turns")
BIG_FRAME = Budget(
    "a socket", "bytes of a frame that is written without a step of its own", 64 << 10, "", "users take turns"
)
BIG_BODY = Budget("the hub", "bytes of a body that is read without a turn of its own", 64 << 10, "", "users take turns")
WAITING = Budget("a user", "requests that wait for a step", 256, "", "429, or 503 and closed")
CPU_BURST = Budget("a user", "seconds of CPU at once", 0.25, "", "other users go first, and big bodies wait")
CPU = Budget(
    "a user", "seconds of CPU", 0.25, "a second", "other users go first; big bodies wait, after 5 seconds: 429"
)
BODIES = Budget("a user", "bytes of bodies under way, or two of MAX_BODY_BYTES", 16 << 20, "", "429")
BODY_BURST = Budget("a user", "bytes of bodies at once", 16 << 20, "", "as for seconds of CPU")
BODY_BYTES = Budget("a user", "bytes of bodies", 2 << 20, "a second", "as for seconds of CPU")
BIG_ANSWERS = Budget("a user", "bytes of answers under way, of those above 64 KiB", 64 << 20, "", "429")
QUEUED = Budget("a user", "bytes that wait for all sockets", 64 << 20, "", "closed with 1013")

NEW_CALLBACKS = Budget("a user", "new callbacks at once", 60, "", "429")
MORE_CALLBACKS = Budget("a user", "new callbacks after those", 30, "a minute", "429")
QUESTIONS = Budget("a callback's host", "verifications under way", 1, "", "other verifications wait")
AT_WORK = Budget(
    "the hub", "posts to callbacks under way; verifications; denials: of each kind", 512, "", "others of the kind wait"
)
RESOLVED = Budget(
    "the hub", "lookups under way: of new callbacks' names, of known callbacks' names", 128, "", "other lookups wait"
)
SHARE = Budget("a user", "part of the free places of the two rows above", 0.25, "", "other users go first")

STREAMS = Budget("an operator", "streams of the console", 4, "", "the oldest ends")
ALL_STREAMS = Budget("the hub", "streams of the console", 32, "", "the oldest of the largest realm ends, or 429")

#: All of the above, in this order.
TABLE = tuple(value for value in list(globals().values()) if isinstance(value, Budget))
#: Budgets with a limit from the settings: holder, counted, the setting's name, beyond.
SETTINGS = (
    ("a token", "requests a minute", "RATE_LIMIT_TOKEN", "429"),
    ("an address", "requests and sockets' handshakes a minute", "RATE_LIMIT_ADDRESS", "429"),
    ("a request", "bytes of a body", "MAX_BODY_BYTES", "413"),
    ("a request", "entries of an update", "MAX_BUNDLE_ENTRIES", "413"),
    ("a socket", "bytes that wait", "QUEUE_BYTES", "closed with 1013"),
    ("a socket", "frames that wait", "QUEUE_MESSAGES", "closed with 1013"),
    ("a topic", "subscriptions", "MAX_SUBSCRIPTIONS_PER_TOPIC", "429"),
    (
        "a user",
        "subscriptions",
        "MAX_SUBSCRIPTIONS_PER_USER",
        "the application's longest disconnected one ends, else 429",
    ),
    ("a user", "topics", "MAX_TOPICS_PER_USER", "abandoned sessions end, else 429"),
    ("a user", "bytes of sessions", "MAX_BYTES_PER_USER", "sessions without subscriptions end, else 413"),
    ("the hub", "bytes of sessions", "MAX_BYTES", "sessions without subscriptions end, else 503"),
)

#: Bytes of an answer above which the answer is big. Big answers are written in parts of this size.
BIG_ANSWER = 64 << 10
#: Seconds of CPU that the store takes for each byte of a body. The store writes outside of the requests' steps, for all users together.
STORE_SECONDS = 5e-9

#: Seconds of a monotonic clock.
Monotonic = Callable[[], float]


def rows() -> list[str]:
    """The rows of SECURITY.md's table in Markdown."""
    fixed = [(each.holder, each.counted, f"{_shown(each)} {each.unit}".strip(), each.beyond) for each in TABLE]
    chosen = [(holder, counted, f"`FHIRCAST_{name}`", beyond) for holder, counted, name, beyond in SETTINGS]
    return [f"| {holder} | {counted} | {most} | {beyond} |" for holder, counted, most, beyond in (*fixed, *chosen)]


def _shown(budget: Budget) -> str:
    """The limit as people read one: bytes in KiB or MiB."""
    if not budget.counted.startswith("bytes"):
        return f"{budget.most:g}"
    if budget.most >= 1 << 20:
        return f"{budget.most / (1 << 20):g} MiB"
    return f"{budget.most / (1 << 10):g} KiB"
