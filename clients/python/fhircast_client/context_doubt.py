"""Whether the hub's current context is known here, and whether the client must ask for it (FHIRcast 3.0.0, 2.9). No
I/O, no clock."""

from __future__ import annotations

from fhircast_client.event_order import Mark, Order
from fhircast_client.status import Sync

UNREAD = "A message of the hub could not be read, so the hub is asked what is open"
DOUBT = "Several contexts were opened or closed at once, so the hub is asked what is open"
UNCERTAIN = "The connection was lost while an event was published, so the hub is asked what is open"
NO_ECHO = "An own event did not come back from the hub, so the hub is asked what is open"
_ASKING = "The connection is back, and the hub is asked what is open"
_UNTOLD = "The connection was lost for a while, and the hub does not tell what is open. Wait for the next open"
_OTHER = "Another context is open at the hub, which this application does not follow"


class ContextDoubt:
    """Whether the hub's current context is known, and whether the client must ask for it. Reports doubts, and their
    end, to `sync`."""

    def __init__(self, sync: Sync, order: Order) -> None:
        self._sync, self._order = sync, order
        #: Whether an event since the connection was made tells the current context.
        self.is_answered = False
        #: Whether to send "Get Current Context", though the connection was not lost. The sender of the request resets
        #: this flag.
        self.must_ask = False
        #: The moment of the request.
        self._asked_at = 0
        #: Whether the shown context may have been left while the connection was lost.
        self._may_differ = False

    def connected(self, *, may_differ: bool, follows_opens: bool) -> None:
        """The connection was made. `may_differ`: the shown context may have been left meanwhile."""
        self._asked_at, self._may_differ, self.is_answered = self._order.moment, may_differ, not follows_opens
        if may_differ and follows_opens:
            self._sync.context_unknown(_ASKING, self._asked_at)

    def raise_doubt(self, why: str) -> None:
        """The current context is not known any more. `why` is a sentence."""
        self.is_answered, self._may_differ, self.must_ask = False, True, True
        self._asked_at = self._order.moment
        self._sync.context_unknown(why, self._asked_at)

    def accepted(self, mark: Mark) -> None:
        """The hub accepted the context that is shown here."""
        self.is_answered |= mark.last_seen > self._asked_at

    def resolved(self, *, agrees: bool) -> None:
        """The hub's answer came. `agrees`: this application shows the hub's context, or was handed it."""
        self._sync.context_unknown("" if agrees else _OTHER, self._asked_at)

    def unanswered(self, *, is_final: bool) -> None:
        """The hub does not tell the current context. `is_final`: another request gets the same answer."""
        self._may_differ |= not is_final
        self._sync.context_unknown(_UNTOLD if self._may_differ else "", self._asked_at)

    @property
    def must_ask_again(self) -> bool:
        """Whether the missing answer matters."""
        return self._may_differ and not self.is_answered
