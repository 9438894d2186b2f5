"""How often an issuer is asked for a key that is not known (AUT-19): strangers can make up as many as they like."""

from __future__ import annotations

from math import inf

#: Fetches that may follow at once, and seconds until there is one more.
FETCHES, SECONDS_EACH = 3, 30.0


class Budget:
    """FETCHES at once, then one each SECONDS_EACH. Times are in seconds since the epoch."""

    def __init__(self) -> None:
        self._full_at = -inf  # when nothing will be missing any more

    def wait(self, now: float) -> float:
        """Seconds until there is a fetch; 0 where there is one."""
        # A clock that was set back must not keep the issuer from being asked: no more than all fetches are missing.
        self._full_at = min(self._full_at, now + FETCHES * SECONDS_EACH)
        return max(0.0, self._full_at - now - (FETCHES - 1) * SECONDS_EACH)

    def take(self, now: float) -> bool:
        """Take a fetch; False where there is none."""
        if self.wait(now) > 0:
            return False
        self._full_at = max(self._full_at, now) + SECONDS_EACH
        return True
