"""Frames that are not events: confirmations, denials, heartbeats (FHIRcast 3.0.0, 2.4; STU2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fhircast_client.errors import in_one_line
from fhircast_client.events import Event

#: The id of the event. Ids of resources come later in the frame, within "event".
_ID = re.compile(r'"id"\s*:\s*"([^"\\\x00-\x1f]+)"')


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A confirmed subscription: the granted events, and the lease in seconds, None where the hub does not tell."""

    events: tuple[str, ...]
    lease_seconds: float | None


def read_confirmation(message: Any) -> Confirmation | None:
    """The confirmation in a message, None for any other message."""
    if not isinstance(message, dict) or "event" in message or is_denial(message):
        return None
    if message.get("hub.mode") != "subscribe" and ("hub.mode" in message or "hub.topic" not in message):
        return None
    names = message.get("hub.events")
    names = names.split(",") if isinstance(names, str) else names if isinstance(names, list) else []
    events = tuple(name.strip() for name in names if isinstance(name, str) and name.strip())
    return Confirmation(events, _seconds(message.get("hub.lease_seconds")))


def id_in(frame: str | bytes) -> str:
    """The id of the event in a frame that is not valid JSON, "" where there is none."""
    text = frame if isinstance(frame, str) else frame.decode(errors="replace")
    found = _ID.search(text.partition('"event"')[0])
    return found[1] if found else ""


def is_denial(message: Any) -> bool:
    """Whether a message ends the subscription."""
    return isinstance(message, dict) and message.get("hub.mode") in ("denied", "unsubscribe")


def denial_reason(message: Mapping[str, Any]) -> str:
    """The hub's reason for ending the subscription, in one line. "" where it gives none: `hub.reason` is "OPTIONAL"
    (2.4)."""
    reason = message.get("hub.reason")
    return in_one_line(reason) if isinstance(reason, str) else ""


def heartbeat_period(event: Event) -> float | None:
    """Seconds until the next heartbeat, as a heartbeat tells them. None where it does not."""
    for item in event.context:
        if item.get("key") == "period":
            return _seconds(item.get("decimal"))
    return None


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < float("inf") else None
