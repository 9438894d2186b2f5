"""Errors of the library, and the exception by which a handler refuses."""

from __future__ import annotations


class Refuse(Exception):
    """Raised by a handler that does not follow an event. The event is answered with 409, and other applications are
    shown `reason`.

    "The Subscriber refuses to follow the context change" (FHIRcast 3.0.0, 2.5).
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


#: Client errors that may pass. All others are final.
_PASSING = frozenset((408, 409, 425, 429))
_CONFLICT = 409
#: Answers of an ingress while the hub is away. Some of their texts look like the hub's.
_AWAY = frozenset((404, 405))


#: Characters of the hub's text that are kept.
_MOST_WORDS = 300


def in_one_line(words: str) -> str:
    """The hub's text as a part of a sentence: one line of at most 300 characters."""
    return " ".join(words.split())[:_MOST_WORDS]


class HubError(Exception):
    """The hub refused a request, or could not be reached.

    `status`: the HTTP status, 0 without an answer. `message`: the hub's text, in one line. `retry_after`: the seconds
    that the hub asks to wait, None where it does not. `is_hubs`: False where a proxy or an ingress answered instead of
    the hub.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None, *, is_hubs: bool = True) -> None:
        super().__init__(f"the hub answered {status}: {message}" if status else message)
        self.status = status
        self.message = message
        self.retry_after = retry_after
        self.is_hubs = is_hubs

    @property
    def is_final(self) -> bool:
        """Whether the refusal is final: another request gets the same answer."""
        return 400 <= self.status < 500 and self.status not in _PASSING

    @property
    def is_from_hub(self) -> bool:
        """Whether the hub itself refused, and certainly no proxy or ingress."""
        return self.is_hubs and self.status not in _AWAY

    @property
    def is_refusal(self) -> bool:
        """Whether the hub refused a published event. Otherwise the hub may have the event, or accept it later."""
        return self.is_from_hub and (self.is_final or self.status == _CONFLICT)


class TokenError(HubError):
    """No token is good: the hub refused a second one. A token function raises TokenError when there will be no token
    any more."""

    def __init__(self, message: str, *, is_hubs: bool = True) -> None:
        super().__init__(401, message, is_hubs=is_hubs)
