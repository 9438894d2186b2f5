"""Messages that a fake hub makes itself: events without subscribers, and messages of STU2.

A hub of STU2 has no versions. It writes names in lower case, and does not confirm renewals.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from fhircast_client.events import Kind, encode, parse_event
from fhircast_hub.core.state.effects import Send
from fhircast_hub.core.state.session import OpenContext, Session
from fhircast_hub.core.wire.event_names import CATALOGUE

#: The configuration of a hub of STU2.
CONFIGURATION_OF_STU2 = {
    "eventsSupported": [name.lower() for name in CATALOGUE if name != "heartbeat"],
    "websocketSupport": True,
    "webhookSupport": False,
    "fhircastVersion": "STU2",
}
_VERSION, _PRIOR = "context.versionId", "context.priorVersionId"


def spelled(context: OpenContext) -> str:
    """`Patient/p1` of an open context."""
    return f"{context.type}/{context.ref.partition('/')[2]}"


def accepted(message: dict[str, Any], session: Session | None) -> dict[str, Any]:
    """A posted event without subscribers, as it would have been distributed."""
    event, context = parse_event(message), _context_of(message, session)
    inner = {name: value for name, value in message["event"].items() if name not in (_VERSION, _PRIOR)}
    if context is not None and event.kind in (Kind.OPEN, Kind.UPDATE):
        inner[_VERSION] = context.version
    if event.kind is Kind.UPDATE:
        inner[_PRIOR] = event.version
    return {**message, "event": inner}


def is_overtaken(message: dict[str, Any], session: Session | None) -> bool:
    """Whether an accepted event repeats an open that is no longer the newest: the hub does not distribute it (EVT-17)."""
    current = session.contexts.get(session.current) if session else None
    return parse_event(message).kind is Kind.OPEN and (current is None or current.id != message["id"])


def from_stu2(message: Any, session: Session | None) -> Any:
    """A message posted to a hub of STU2, as for STU3: updates get the current version."""
    try:
        is_update = parse_event(message).kind is Kind.UPDATE
    except ValueError:
        return message
    context = _context_of(message, session) if is_update else None
    return message if context is None else {**message, "event": {**message["event"], _VERSION: context.version}}


def to_stu2(message: dict[str, Any]) -> dict[str, Any]:
    """An event as a hub of STU2 sends it."""
    inner = {name: value for name, value in message["event"].items() if name not in (_VERSION, _PRIOR)}
    if inner["hub.event"] == "SyncError":
        inner["hub.event"] = "syncerror"
    return {**message, "event": inner}


class ConfirmationsOfStu2:
    """Keeps the first confirmation of each socket."""

    def __init__(self) -> None:
        self._confirmed: set[str] = set()

    def convert(self, send: Send, message: dict[str, Any]) -> Send | None:
        """The confirmation to send; None for a renewal."""
        if self._confirmed.issuperset(send.to):
            return None
        self._confirmed.update(send.to)
        return replace(send, frame=encode({**message, "hub.events": message["hub.events"].lower()}))


def _context_of(message: dict[str, Any], session: Session | None) -> OpenContext | None:
    type_, _, id_ = parse_event(message).anchor.partition("/")
    return session.contexts.get(f"{type_.lower()}/{id_}") if session else None
