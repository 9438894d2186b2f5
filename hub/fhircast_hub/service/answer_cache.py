"""AnswerCache: the newest answers to GET, one bytes object for all readers of a version (GET-11).

core/rules/contexts.py makes the answer.
"""

from __future__ import annotations

from collections import OrderedDict

from fhircast_hub.core.access.principal import SessionKey
from fhircast_hub.core.rules.contexts import View, encode_view

#: Bytes of all kept answers.
MAX_BYTES = 32 << 20
#: Bytes that an answer takes besides its text.
OVERHEAD = 512


class AnswerCache:
    """Keeps answers by session and kind of reader. Those of the session that was read least recently are dropped first."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[SessionKey, dict[str, tuple[View, bytes]]] = OrderedDict()
        #: Bytes of all kept answers.
        self.bytes = 0

    def get(self, key: SessionKey, view: View) -> bytes:
        """The answer to readers with this view of the session, as JSON."""
        if view.context is None:
            return encode_view(view)
        kept = self._kept.setdefault(key, {})
        self._kept.move_to_end(key)
        if (found := kept.get(view.part)) is not None:
            if found[0].is_same(view):
                return found[1]
            self.bytes -= len(found[1]) + OVERHEAD
        answer = encode_view(view)
        kept[view.part] = view, answer
        self.bytes += len(answer) + OVERHEAD
        while self.bytes > self._max_bytes:
            self.forget(next(iter(self._kept)))
        return answer

    def forget(self, key: SessionKey) -> None:
        """Drop the answers of a session that has changed."""
        if (kept := self._kept.pop(key, None)) is not None:
            self.bytes -= sum(len(answer) + OVERHEAD for _, answer in kept.values())
