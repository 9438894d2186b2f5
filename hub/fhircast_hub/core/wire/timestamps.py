"""Timestamps of events (FHIRcast 3.0.0, 2.3: "ISO 8601-2"), read and written; durations in words."""

from __future__ import annotations

import datetime
import functools
import re

from fhircast_hub.core.errors import BadRequest

_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d)(?::(\d\d)(?:[.,](\d+))?)?(Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII)
#: Digits behind the second. Clients send nanoseconds at most.
_MAX_DIGITS = 9
_LEAP_SECOND = "60"
_MINUTE = 60
#: Units and their seconds, the largest first.
_UNITS = ((86400, "day"), (3600, "hour"), (_MINUTE, "minute"), (1, "second"))


@functools.lru_cache(maxsize=1024)  # each event's is read again when the next open is compared with it
def instant(timestamp: str) -> float:
    """A timestamp in epoch seconds. A timestamp without a zone is UTC, as the specification asks for.

    A leap second is one second after second 59. Raises BadRequest for a text that is no ISO 8601 date and time, or has too many
    digits (EVT-5, EVT-19).
    """
    found = _TIMESTAMP.fullmatch(timestamp)
    if found and len(found[3] or "") > _MAX_DIGITS:
        raise BadRequest(f"timestamp may have at most {_MAX_DIGITS} digits behind the second, not {len(found[3])}")
    leap = found is not None and found[2] == _LEAP_SECOND
    try:
        if not found:
            raise ValueError
        moment = datetime.datetime.fromisoformat(timestamp if not leap else f"{found[1]}:59{timestamp[found.end(2) :]}")
    except ValueError:
        raise BadRequest(
            "timestamp must be an ISO 8601 date and time such as 2026-01-31T09:30:00.000Z,"
            f" not {len(timestamp)} characters of something else"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp() + leap


def has_zone(timestamp: str) -> bool:
    """Whether an accepted timestamp has a zone."""
    found = _TIMESTAMP.fullmatch(timestamp)
    return found is not None and found[4] is not None


def rfc3339(now: float) -> str:
    """A time (epoch seconds) as the hub writes timestamps: UTC, milliseconds, Z."""
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(seconds: float) -> str:
    """A duration (seconds) in words: `2523 days 20 hours`, `10 minutes`, `0.25 seconds`."""
    if seconds < _MINUTE:
        return _counted(f"{max(seconds, 0.001):.3f}".rstrip("0").rstrip("."), "second")
    parts: list[tuple[int, str]] = []
    left = round(seconds)
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, unit))
    return " ".join(_counted(str(count), unit) for count, unit in parts[:2] if count)


def _counted(count: str, unit: str) -> str:
    return f"{count} {unit}" if count == "1" else f"{count} {unit}s"
