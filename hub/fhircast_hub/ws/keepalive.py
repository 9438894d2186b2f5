"""Whether a peer is there still (SYN-13): it answers pings, or at least reads."""

from __future__ import annotations


class Pings:
    """The pings of one socket, by number."""

    def __init__(self) -> None:
        self._number = 0
        self._open: bytes | None = None  # that was sent and not answered
        self._asked = 0.0
        self._held_back = 0  # bytes that the peer had not read at the last one

    def is_gone(self, held_back: int) -> bool:
        """Whether the peer did not answer the last one, or has read nothing of these bytes since."""
        gone = self._open is not None or (held_back > 0 and held_back == self._held_back)
        self._held_back = held_back
        return gone

    def next(self, now: float) -> bytes:
        """What to send now (epoch seconds)."""
        self._number += 1
        self._open, self._asked = self._number.to_bytes(4), now
        return self._open

    def answered(self, data: bytes | bytearray | memoryview) -> float | None:
        """When the ping was sent that this pong answers (epoch seconds); None for another."""
        if data != self._open:
            return None
        self._open = None
        return self._asked
