"""Derived opens (FHIRcast 3.0.0, 2.5 "Hub Generated open Events"): what one context implies for subscribers of others.

"When distributing a received event, a Hub SHALL ensure open events for the referenced resource types of the received event
are also sent to subscribers."
"""

from __future__ import annotations

import msgspec

from fhircast_hub.core.state.effects import EventRef, Message
from fhircast_hub.core.state.session import OpenContext
from fhircast_hub.core.wire.context_items import DERIVED_KEYS, raw_items
from fhircast_hub.core.wire.event_names import DERIVED, spelling
from fhircast_hub.core.wire.frames import derived_id, event_frame

#: Which items of the source a derived open's context takes over, in this order (DER-7).
_PARTS = {
    "patient": ("patient",),
    "encounter": ("encounter", "patient"),
    "imagingstudy": ("imagingstudy", "encounter", "patient"),
}


class DerivedOpen(msgspec.Struct, frozen=True):
    """An open that the hub sends on behalf of another: its `type` in lower case, the `ref` it opens, and its context array."""

    type: str
    ref: str
    source: OpenContext
    context: bytes

    @property
    def key(self) -> str:
        """Its event's name in lower case."""
        return f"{self.type}-open"

    @property
    def event_ref(self) -> EventRef:
        """What its frame tells of: "for a derived open the source's id and name" (SYN-1)."""
        source = self.source.event_ref
        return EventRef(derived_id(source.id, spelling(self.key)), source.event, source.name, self.ref)

    def message(self, topic: str) -> Message:
        """The message: same timestamp as its source, an id made of the source's, no version."""
        event_ref = self.event_ref
        return event_frame(topic, spelling(self.key), event_ref.id, self.source.timestamp, self.context), event_ref


def names_of(source: OpenContext, derived: str) -> dict[str, str]:
    """The refs of the contexts that an open names, by type of event_names.DERIVED: of the source's own open ("" as `derived`), or of that
    which is derived for a type."""
    refs = {**source.closed, **source.implied, source.anchor: source.ref}
    return {type_: refs[type_] for type_ in (_PARTS[derived] if derived else DERIVED) if type_ in refs}


def derive(source: OpenContext) -> list[DerivedOpen]:
    """The opens that `source` implies, in the order in which they are sent."""
    if not source.implied:
        return []
    items: dict[str, tuple[str, bytes]] = {}
    for key, ref, raw in raw_items(source.context):
        type_ = DERIVED_KEYS.get(key, "")
        if ref.startswith(type_ + "/"):
            items.setdefault(type_, (ref, raw))
    return [
        DerivedOpen(
            type=type_,
            ref=source.implied[type_],
            source=source,
            context=b"[%b]" % b",".join(items[part][1] for part in _PARTS[type_] if part in items),
        )
        for type_ in DERIVED
        if type_ in source.implied
    ]
