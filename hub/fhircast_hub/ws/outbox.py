"""What waits for one peer to read: bounded for its socket, and for all sockets of its user (SYN-14)."""

from __future__ import annotations

from collections import deque

from fhircast_hub.budgets.accounts import Account
from fhircast_hub.budgets.table import QUEUED
from fhircast_hub.core.state.effects import EventRef
from fhircast_hub.ws.frames import Frame, size_of


class Outbox:
    """Frames in their order, each with what it tells of. `most` are the messages and the bytes that may wait."""

    def __init__(self, most: tuple[int, int]) -> None:
        self._most = most
        self._frames: deque[tuple[Frame, EventRef | None]] = deque()
        self._size = 0
        self._exempt = (0, 0)  # messages and bytes that waited for the handshake: they do not count against the limits
        self._account: Account | None = None

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._size

    @property
    def over(self) -> bool:
        """Whether more waits than may. A single frame may exceed the limit."""
        (messages, size), (more_messages, more_size) = self._most, self._exempt
        if len(self._frames) < 2:
            return False
        too_many = self._size > size + more_size or len(self._frames) > messages + more_messages
        return too_many or (self._account is not None and self._account.queued > QUEUED.most)

    @property
    def first(self) -> int:
        """Bytes of the frame that waits longest."""
        return size_of(self._frames[0][0])

    def opened(self, account: Account) -> None:
        """The handshake was accepted, for a user with this account. What waits by now was to be sent at once."""
        self._account = account
        account.queued += self._size
        self._exempt = len(self._frames), self._size

    def put(self, frame: Frame, event_ref: EventRef | None) -> None:
        """Let a frame wait."""
        self._frames.append((frame, event_ref))
        self._charge(size_of(frame))

    def take(self) -> tuple[Frame, EventRef | None]:
        """The frame that waited longest."""
        frame, event_ref = self._frames.popleft()
        self._charge(-size_of(frame))
        if not self._frames:
            self._exempt = (0, 0)
        return frame, event_ref

    def clear(self) -> None:
        """Drop all of them."""
        self._frames.clear()
        self._charge(-self._size)

    def _charge(self, size: int) -> None:
        self._size += size
        if self._account is not None:
            self._account.queued += size
