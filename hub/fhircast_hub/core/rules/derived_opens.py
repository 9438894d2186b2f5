"""Derived opens: the opens of a patient, an encounter and a study that another open implies (DER-7).

"When distributing a received event, a Hub SHALL ensure open events for the referenced resource types of the received event
are also sent to subscribers" (FHIRcast 3.0.0, 2.5 "Hub Generated open Events").

Example: ImagingStudy-open s1 has the items study s1 and patient p1. Its context is the source of one derived open.
Subscribers of Patient-open who are not sent the source are sent a Patient-open with the item patient p1.
The modules last_opens.py and publishing.py decide who is sent a derived open; closing.py ends derived opens.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from fhircast_hub.core.state.effects import EventRef, Message
from fhircast_hub.core.state.session import OpenContext
from fhircast_hub.core.wire.context_items import DERIVED_KEYS, raw_items
from fhircast_hub.core.wire.event_names import DERIVED, OPEN_KEYS, spelling
from fhircast_hub.core.wire.frames import derived_id, event_frame

#: Opened type -> types of the source's items that the derived open has, in this order (DER-12).
_ITEM_TYPES = {
    "patient": ("patient",),
    "encounter": ("encounter", "patient"),
    "imagingstudy": ("imagingstudy", "encounter", "patient"),
}


class DerivedOpen(msgspec.Struct, frozen=True):
    """An open that the hub makes from the open of another context, its source."""

    #: Type of the opened context, in lower case.
    type: str
    #: Ref of the opened context.
    ref: str
    #: The context that the open is derived from.
    source: OpenContext
    #: The context array, as JSON.
    context: bytes

    @property
    def key(self) -> str:
        """The event's name in lower case."""
        return f"{self.type}-open"

    @property
    def event_ref(self) -> EventRef:
        """The reference for acknowledgements. A SyncError has the source's id and name (SYN-21)."""
        source = self.source.event_ref
        return EventRef(derived_id(source.id, spelling(self.key)), source.event, source.name, self.ref)

    def message(self, topic: str) -> Message:
        """The message: the source's timestamp, an id made from the source's, no version."""
        event_ref = self.event_ref
        return event_frame(topic, spelling(self.key), event_ref.id, self.source.timestamp, self.context), event_ref


def granted_refs(source: OpenContext, derived_type: str, keys: Collection[str]) -> dict[str, str]:
    """The refs of the contexts that an open names, by type of event_names.DERIVED, of the types whose opens `keys` have.

    With `derived_type` "", the open is the source's own. Else the open is the derived open of that type.
    """
    refs = {**source.closed, **source.implied, source.anchor_type: source.ref}
    types = _ITEM_TYPES[derived_type] if derived_type else DERIVED
    return {type_: refs[type_] for type_ in types if type_ in refs and OPEN_KEYS[type_] in keys}


def derive_opens(source: OpenContext) -> list[DerivedOpen]:
    """The opens that are derived from `source`, in the order of sending."""
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
            context=b"[%b]" % b",".join(items[item_type][1] for item_type in _ITEM_TYPES[type_] if item_type in items),
        )
        for type_ in DERIVED
        if type_ in source.implied
    ]
