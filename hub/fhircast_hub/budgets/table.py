"""Budgets: what a socket, a connection, an address and a user may cost, so that no holder of a token stops the hub (LIM-3).

One event loop serves everybody. So each turn of it is shared out, and what lasts is bounded. The code reads these budgets, and
SECURITY.md shows `TABLE`. To charge somebody is arithmetic: no lock, no task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Budget(NamedTuple):
    """What somebody may cost: `most` of `what`, in `unit`; `then` is what happens beyond it."""

    who: str
    what: str
    most: float
    unit: str
    then: str


REFUSALS = Budget("a session", "refusals of events", 64, "and 16 a second", "no SyncError tells of more")
UNMATCHED_FRAMES = Budget(
    *(
        "a socket",
        "frames beyond two for each that the hub sent; each further 4 KiB count as one frame",
        64,
        "a second",
    ),
    "closed with 1008",
)
FRAMES_A_TURN = Budget("a socket", "frames that are read", 16, "a turn", "the rest is read in the next turn")
HANDSHAKES = Budget("an endpoint", "handshakes", 60, "a minute", "429")
PIPELINED = Budget("a connection", "requests that wait for the answers before them", 16, "", "closed")
HEADER_BYTES = Budget("a connection", "bytes of a request's line and headers", 64 << 10, "", "closed")
HEADERS = Budget("a connection", "headers of a request", 256, "", "closed")
HEADER_SECONDS = Budget("a connection", "seconds for a request's line and headers", 15, "", "closed")
BODY_SECONDS = Budget("a connection", "seconds for a body", 30, "", "408")
CHUNKS = Budget("a connection", "chunks of a body", 32768, "", "400, and closed")
OVERHEAD = Budget(
    "a connection",
    "bytes of a request that are neither head nor body: chunks' sizes, trailers",
    256 << 10,
    "",
    "closed",
)
SLICE = Budget("a connection", "bytes of heads or chunks that are read", 4096, "a step", "the rest waits for its turn")
STALLED = Budget("a connection", "seconds in which nothing of an answer is taken", 20, "", "cut")
CONNECTIONS = Budget(
    "an address",
    "HTTP connections, unless it is a trusted proxy's",
    2048,
    "",
    "that which is idle for longest is closed",
)
ACCEPTED = Budget("the hub", "connections that are accepted", 64, "a turn", "others wait")
TURN = Budget("the hub", "seconds of steps in a turn, beyond which the next turn has fewer", 0.005, "", "others wait")
STARTED = Budget("the hub", "steps of requests that are begun", 48, "a turn", "users and connections take turns")
BIG_FRAME = Budget(
    "a socket", "bytes from which on a frame is written in a step of its own", 64 << 10, "", "users take turns"
)
BIG_BODY = Budget("the hub", "bytes from which on a body has a turn of its own", 64 << 10, "", "users take turns")
WAITING = Budget("a user", "requests that wait for their turn", 256, "", "429, or 503 and closed")
CPU_BURST = Budget("a user", "seconds of CPU at once", 0.25, "", "others go first, and big bodies wait")
CPU = Budget("a user", "seconds of CPU", 0.25, "a second", "the same; big bodies that wait for 5 seconds: 429")
BODIES = Budget("a user", "bytes of bodies that are under way, or two of MAX_BODY_BYTES", 16 << 20, "", "429")
BODY_BURST = Budget("a user", "bytes of bodies at once", 16 << 20, "", "the same")
BODY_BYTES = Budget("a user", "bytes of bodies", 2 << 20, "a second", "the same")
BIG_ANSWERS = Budget("a user", "bytes of answers of more than 64 KiB each that are under way", 64 << 20, "", "429")
QUEUED = Budget("a user", "bytes that wait for all sockets", 64 << 20, "", "closed with 1013")

NEW_CALLBACKS = Budget("a user", "new callbacks at once", 60, "", "429")
MORE_CALLBACKS = Budget("a user", "new callbacks beyond these", 30, "a minute", "429")
QUESTIONS = Budget("a host of callbacks", "questions under way", 1, "", "others wait")
AT_WORK = Budget("the hub", "posts to callbacks; questions; denials: of each under way", 512, "", "others wait")
RESOLVED = Budget("the hub", "names of new callbacks, and of known ones, that are looked up", 128, "", "others wait")
SHARE = Budget(
    "a user", "places among those of these two, as a part of those that are free", 0.25, "", "others go first"
)

#: All of the above, in this order.
TABLE = tuple(value for value in list(globals().values()) if isinstance(value, Budget))
#: Budgets that settings say: who, what, the setting's name, and what happens beyond it.
SETTINGS = (
    ("a token", "requests a minute", "RATE_LIMIT_TOKEN", "429"),
    ("an address", "requests a minute, handshakes of sockets too", "RATE_LIMIT_ADDRESS", "429"),
    ("a request", "bytes of a body", "MAX_BODY_BYTES", "413"),
    ("a request", "entries of an update", "MAX_BUNDLE_ENTRIES", "413"),
    ("a socket", "bytes that wait", "QUEUE_BYTES", "closed with 1013"),
    ("a socket", "frames that wait", "QUEUE_MESSAGES", "closed with 1013"),
    ("a topic", "subscriptions", "MAX_SUBSCRIPTIONS_PER_TOPIC", "429"),
    ("a user", "subscriptions", "MAX_SUBSCRIPTIONS_PER_USER", "the application's longest absent goes, else 429"),
    ("a user", "topics", "MAX_TOPICS_PER_USER", "those that are abandoned go, else 429"),
    ("a user", "bytes of sessions", "MAX_BYTES_PER_USER", "sessions that nobody follows go, else 413"),
    ("the hub", "bytes of sessions", "MAX_BYTES", "sessions that nobody follows go, else 503"),
)

#: Bytes of an answer from which on it counts as a big one, and in which it is written.
BIG_ANSWER = 64 << 10
#: Seconds of CPU that the store takes for each byte of a body: it writes in turns of its own, for all users together.
STORE_SECONDS = 5e-9

Monotonic = Callable[[], float]


def rows() -> list[str]:
    """The table in Markdown, as SECURITY.md has it."""
    own = [(each.who, each.what, f"{_shown(each)} {each.unit}".strip(), each.then) for each in TABLE]
    chosen = [(who, what, f"`FHIRCAST_{setting}`", then) for who, what, setting, then in SETTINGS]
    return [f"| {who} | {what} | {most} | {then} |" for who, what, most, then in (*own, *chosen)]


def _shown(budget: Budget) -> str:
    """A number for people: bytes in KiB or MiB."""
    if budget.what.startswith("bytes") and budget.most >= 1 << 20:
        return f"{budget.most / (1 << 20):g} MiB"
    if budget.what.startswith("bytes"):
        return f"{budget.most / (1 << 10):g} KiB"
    return f"{budget.most:g}"
