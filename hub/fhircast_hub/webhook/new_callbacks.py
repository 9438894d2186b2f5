"""How many new callbacks each user may bring (WHK-13)."""

from __future__ import annotations

from collections import OrderedDict

from fhircast_hub.budgets.table import MORE_CALLBACKS, NEW_CALLBACKS
from fhircast_hub.webhook.fair_slots import User

#: New callbacks at once. An application that starts subscribes some dozens.
BURST = int(NEW_CALLBACKS.most)
#: Seconds until one more is allowed. At 30 a minute, a scan of somebody else's hosts takes weeks.
SECONDS_EACH = 60 / MORE_CALLBACKS.most
#: Users that are counted; the user counted longest ago is forgotten first.
MAX_USERS = 10_000


class NewCallbacks:
    """A leaky bucket for each user: BURST at once, then one each SECONDS_EACH. Times are seconds of one clock."""

    def __init__(self) -> None:
        #: When the bucket of a user is empty.
        self._empty_at: OrderedDict[User, float] = OrderedDict()

    def wait(self, user: User, now: float) -> float:
        """Seconds until this user may bring a new callback; 0: now."""
        return max(0.0, self._empty_at.get(user, now) - now - (BURST - 1) * SECONDS_EACH)

    def take(self, user: User, now: float) -> None:
        """Count a new callback."""
        self._empty_at[user] = max(self._empty_at.pop(user, now), now) + SECONDS_EACH
        if len(self._empty_at) > MAX_USERS:
            self._empty_at.popitem(last=False)
