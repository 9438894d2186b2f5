"""What can go wrong, and how a handler says that it does not follow."""

from __future__ import annotations


class Refuse(Exception):
    """Raised by a handler that does not follow an event: answered with 409, and `reason` is told to the other applications.

    "The Subscriber refuses to follow the context change" (FHIRcast 3.0.0, 2.5).
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


#: Client errors that may pass; every other one stays.
_PASSING = frozenset((408, 409, 425, 429))
_CONFLICT = 409
#: What an ingress answers while the hub is away, some of them with a text like the hub's.
_AWAY = frozenset((404, 405))


#: Characters of another's words that are passed on.
_MOST_WORDS = 300


def in_one_line(words: str) -> str:
    """What a hub says, as a part of a sentence: one line, of 300 characters at most."""
    return " ".join(words.split())[:_MOST_WORDS]


class HubError(Exception):
    """The hub said no, or could not be reached.

    `status` is the HTTP status, 0 where there was no answer; `message` is the hub's, in one line. `retry_after` is the number of
    seconds that the hub asks to wait, None where it does not. `is_hubs` is False where something between answered for the hub, such
    as an ingress while the hub restarts.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None, *, is_hubs: bool = True) -> None:
        super().__init__(f"the hub answered {status}: {message}" if status else message)
        self.status = status
        self.message = message
        self.retry_after = retry_after
        self.is_hubs = is_hubs

    @property
    def is_final(self) -> bool:
        """Whether the hub says never: asking again the same brings the same."""
        return 400 <= self.status < 500 and self.status not in _PASSING

    @property
    def is_from_hub(self) -> bool:
        """Whether it is certain that the hub itself refused, and nothing between."""
        return self.is_hubs and self.status not in _AWAY

    @property
    def is_refusal(self) -> bool:
        """Whether the hub does not take what was published; else the hub may have it, or take it later."""
        return self.is_from_hub and (self.is_final or self.status == _CONFLICT)


class TokenError(HubError):
    """No token is good: the hub refused a second one. A token function raises it to say that there will be none any more."""

    def __init__(self, message: str, *, is_hubs: bool = True) -> None:
        super().__init__(401, message, is_hubs=is_hubs)
