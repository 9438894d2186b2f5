"""What a peer may send on its socket (SYN-17)."""

from __future__ import annotations

from fhircast_hub.budgets.leaky_bucket import LeakyBucket
from fhircast_hub.budgets.table import UNMATCHED_FRAMES

#: Credits for each frame that was sent: some clients acknowledge twice.
CREDITS = 2
#: Bytes of a frame without credit that count as another frame.
WEIGHT = 4096


class Allowance:
    """Frames that acknowledge what was sent, whenever they come, and so many others a second."""

    def __init__(self) -> None:
        self.credit = 0
        self.others = LeakyBucket(UNMATCHED_FRAMES.most, UNMATCHED_FRAMES.most)

    def sent(self) -> None:
        """A frame was sent to the peer."""
        self.credit += CREDITS

    def exceeds(self, size: int, now: float) -> bool:
        """Whether a frame of so many bytes, which came now (seconds), is too much."""
        if self.credit:
            self.credit -= 1
            return False
        self.others.use(1 + size // WEIGHT, now)
        return self.others.wait(now) > 0


class Parts:
    """A text message in several frames; of one that is not text nothing is kept."""

    def __init__(self) -> None:
        self._begun: bytearray | None = None

    def begin(self, *, text: bool) -> None:
        """The first frame of a message comes."""
        self._begun = bytearray() if text else None

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """What a frame of it says. No list of frames is kept: those that are empty may be as many as they like."""
        if self._begun is not None:
            self._begun += data

    def end(self) -> bytes | None:
        """The whole text; None of what is none."""
        whole, self._begun = self._begun, None
        return None if whole is None else bytes(whole)
