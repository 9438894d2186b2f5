"""Time: how long the client waits for what, and the order of timestamps."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

_SECOND = 10**12
#: As the difference of two instants.
MINUTE = 60 * _SECOND
_MILLISECOND = 10**9
DAY = 1440 * MINUTE
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d+))?)?(?:[Zz]|([+-]\d\d):?(\d\d)?)?", re.ASCII
)


@dataclass(frozen=True, kw_only=True)
class Timings:
    """How long the client waits, in seconds.

    backoff_first, backoff_most: before the first attempt to reconnect, and at most between two. request: for the answer to a
    request. confirmation: for a socket to open and confirm. accept_after: before an event is answered with 202. give_up: before
    the others are told that an event is not followed. resend: before an own open that was not followed is sent again, None or 0
    for never. unseen: how long a SyncError about an event that is not subscribed to counts, unless another one comes. settle: after joining, before a hub that told nothing is asked. echo: for an own update to come back.
    """

    backoff_first: float = 0.5
    backoff_most: float = 30.0
    request: float = 5.0
    confirmation: float = 10.0
    accept_after: float = 2.0
    give_up: float = 10.0
    resend: float | None = 10.0
    unseen: float = 25.0
    settle: float = 1.0
    echo: float = 2.0


class Backoff:
    """Delays that double, in seconds, each shortened by up to half so that clients of one hub do not all come at once."""

    def __init__(self, first: float, most: float, chance: Callable[[], float] = random.random) -> None:
        self._first, self._most, self._chance = first, most, chance
        self._next = first

    def next(self) -> float:
        """The next delay."""
        delay = min(self._next, self._most)
        self._next = min(delay * 2, self._most)
        return delay * (0.5 + self._chance() / 2)

    def reset(self) -> None:
        """Begin again with the first."""
        self._next = self._first


def instant(timestamp: str) -> int | None:
    """An ISO 8601 date and time as picoseconds since 1970; without a zone it is UTC. None for what is none."""
    found = _TIMESTAMP.fullmatch(timestamp)
    if found is None:
        return None
    date, minute, second, fraction, hours, minutes = found.groups()
    zone = f"{hours}:{minutes or '00'}" if hours else "+00:00"
    try:
        whole = datetime.fromisoformat(f"{date}T{minute}:{second or '00'}{zone}").timestamp()
    except (ValueError, OverflowError):
        return None
    return int(whole) * _SECOND + int((fraction or "0")[:12].ljust(12, "0"))


def now() -> int:
    """The own clock, as an instant."""
    return int(datetime.now(UTC).timestamp() * 1000) * _MILLISECOND


def timestamp_now(after: int | None = None) -> str:
    """The time in UTC, with milliseconds and Z.

    `after` is the `instant` of what this follows: where another machine's clock is ahead, by up to a day, the next millisecond is
    taken, for what is older than the current context is ignored by everybody ("SHALL ignore messages with older timestamps").
    """
    milliseconds = int(datetime.now(UTC).timestamp() * 1000)
    if after is not None and 0 <= after // _MILLISECOND - milliseconds < DAY // _MILLISECOND:
        milliseconds = after // _MILLISECOND + 1
    whole = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03}Z"
