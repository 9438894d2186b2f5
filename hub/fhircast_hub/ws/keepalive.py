"""Keepalive of a socket by pings (SYN-34). A peer is alive if it answers pings, or at least goes on reading."""

from __future__ import annotations


class Pings:
    """The numbered pings of one socket. At most one is unanswered."""

    __slots__ = ("_number", "_sent_at", "_unanswered", "_unread")

    def __init__(self) -> None:
        self._number = 0
        #: Payload of the unanswered ping. None: all are answered.
        self._unanswered: bytes | None = None
        #: When the last ping was sent, in epoch seconds.
        self._sent_at = 0.0
        #: Bytes in the transport's buffer at the last check.
        self._unread = 0

    def is_gone(self, unread: int) -> bool:
        """Whether the peer left the last ping unanswered, or read nothing since the last check.

        `unread` are the bytes in the transport's buffer.
        """
        gone = self._unanswered is not None or (unread > 0 and unread == self._unread)
        self._unread = unread
        return gone

    def next(self, now: float) -> bytes:
        """The payload of a new ping; `now` in epoch seconds."""
        self._number += 1
        self._unanswered, self._sent_at = self._number.to_bytes(4), now
        return self._unanswered

    def answered(self, data: bytes | bytearray | memoryview) -> float | None:
        """When the ping answered by this pong was sent, in epoch seconds. None: the pong answers no open ping."""
        if data != self._unanswered:
            return None
        self._unanswered = None
        return self._sent_at
