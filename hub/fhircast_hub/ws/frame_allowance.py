"""How many frames a peer may send on its socket (SYN-17)."""

from __future__ import annotations

from fhircast_hub.budgets.leaky_bucket import LeakyBucket
from fhircast_hub.budgets.table import UNMATCHED_FRAMES

#: Frames that a peer may send for each frame from the hub: some clients acknowledge twice.
CREDITS_PER_FRAME = 2
#: A frame without credit counts as one more frame for each so many bytes.
BYTES_PER_EXTRA_FRAME = 4096


class FrameAllowance:
    """Credits for acknowledgements, which never expire; and a leaky bucket for all other frames.

    A socket counts `credit` by itself: up by CREDITS_PER_FRAME for each frame that it sends, and down by 1 for each that it reads.
    """

    __slots__ = ("credit", "others")

    def __init__(self) -> None:
        self.credit = 0
        self.others = LeakyBucket(UNMATCHED_FRAMES.most, UNMATCHED_FRAMES.most)

    def exceeds(self, size: int, now: float) -> bool:
        """Count a frame without credit: `size` in bytes, `now` in seconds. True: the peer sent more than allowed."""
        self.others.use(1 + size // BYTES_PER_EXTRA_FRAME, now)
        return self.others.wait(now) > 0
