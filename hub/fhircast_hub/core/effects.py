"""What the world is to do after a decision was committed, in this order."""

from __future__ import annotations

import msgspec

#: Close codes of RFC 6455 section 7.4.1 (1013: the IANA registry).
NORMAL, GOING_AWAY, ABNORMAL, POLICY_VIOLATION, TRY_AGAIN_LATER = 1000, 1001, 1006, 1008, 1013


class Send(msgspec.Struct, frozen=True):
    """Write one frame (the JSON text of a message, UTF-8) to each of these connections; those of other nodes are theirs."""

    to: tuple[str, ...]
    frame: bytes


class Close(msgspec.Struct, frozen=True):
    """Close a connection with this code (RFC 6455 section 7.4), after all that was sent to it before."""

    connection: str
    code: int
    reason: str


Effect = Send | Close
