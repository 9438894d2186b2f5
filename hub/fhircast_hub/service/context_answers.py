"""The answers to GET that were made last: one bytes object for each version of a context, however many ask for it (GET-11)."""

from __future__ import annotations

from collections import OrderedDict

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.rules.contexts import View, encode_view

#: Bytes of all answers that are kept, and what an answer takes beside its own.
MAX_BYTES, OVERHEAD = 32 << 20, 512


class Answers:
    """Of each session the answers that its readers were given, one for each kind of reader; the longest unused go first."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[SessionKey, dict[str, tuple[View, bytes]]] = OrderedDict()
        self.bytes = 0

    def of(self, key: SessionKey, view: View) -> bytes:
        """The answer for readers of this view of the session."""
        if view.context is None:
            return encode_view(view)
        kept = self._kept.setdefault(key, {})
        self._kept.move_to_end(key)
        if (found := kept.get(view.kind)) is not None:
            if found[0].is_same(view):
                return found[1]
            self.bytes -= len(found[1]) + OVERHEAD
        answer = encode_view(view)
        kept[view.kind] = view, answer
        self.bytes += len(answer) + OVERHEAD
        while self.bytes > self._max_bytes:
            self.forget(next(iter(self._kept)))
        return answer

    def forget(self, key: SessionKey) -> None:
        """The session has changed."""
        for _, answer in self._kept.pop(key, {}).values():
            self.bytes -= len(answer) + OVERHEAD
