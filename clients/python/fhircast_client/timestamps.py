"""Timestamps, and instants: picoseconds since 1970."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_SECOND = 10**12
#: Differences of two instants.
MINUTE = 60 * _SECOND
_MILLISECOND = 10**9
DAY = 1440 * MINUTE
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d+))?)?(?:[Zz]|([+-]\d\d):?(\d\d)?)?", re.ASCII
)


def instant(timestamp: str) -> int | None:
    """An ISO 8601 date and time as picoseconds since 1970, in UTC where the zone is missing. None where it cannot be
    read."""
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
    """The local clock, as an instant."""
    return int(datetime.now(UTC).timestamp() * 1000) * _MILLISECOND


def timestamp_now(after: int | None = None) -> str:
    """The time in UTC, with milliseconds and Z.

    `after`: the `instant` of the previous event. Another machine's clock may be ahead, and everybody "SHALL ignore
    messages with older timestamps". The result is then one millisecond after `after`, if `after` is ahead by at most a
    day.
    """
    milliseconds = int(datetime.now(UTC).timestamp() * 1000)
    if after is not None and 0 <= after // _MILLISECOND - milliseconds < DAY // _MILLISECOND:
        milliseconds = after // _MILLISECOND + 1
    whole = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03}Z"
