"""The access token: its source, and when to ask for a new one."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable

from fhircast_client.errors import HubError, TokenError
from fhircast_client.event_loops import PerLoop

TokenSource = str | Callable[[], str | Awaitable[str]]
_log = logging.getLogger("fhircast_client")


class Tokens:
    """The access token in use. Requests that get a 401 at the same time ask for one new token."""

    def __init__(self, source: TokenSource | None) -> None:
        """Raises TypeError for a source that is neither text nor function, ValueError for a text that cannot be sent as
        a token."""
        if source is not None and not isinstance(source, str) and not callable(source):
            raise TypeError(f"token must be a text or a function, not {type(source).__name__}")
        if isinstance(source, str) and not can_be_sent(source):
            raise ValueError("token must consist of visible ASCII characters")
        self._source = source
        self._token: str | None = source if isinstance(source, str) else None
        self._lock = PerLoop(asyncio.Lock)

    async def current(self) -> str | None:
        """The token in use. Asks for the first one. Raises the same as `renewed`."""
        if self._token is None and self._source is not None:
            return await self.renewed(None)
        return self._token

    async def renewed(self, instead_of: str | None) -> str | None:
        """Ask for a new token, unless the token in use is no longer `instead_of`.

        Raises TokenError where the function says that there will be no token, HubError with status 0 where the function
        failed for another reason.
        """
        if self._source is None or isinstance(self._source, str):
            return self._token
        async with self._lock.here:
            if self._token == instead_of:
                self._token = await self._ask(self._source)
            return self._token

    @property
    def changes(self) -> bool:
        """Whether the source may give another token."""
        return callable(self._source)

    async def _ask(self, source: Callable[[], str | Awaitable[str]]) -> str:
        try:
            found = source()
            token: object = await found if inspect.isawaitable(found) else found
        except TokenError:
            raise
        except Exception as error:
            # Log only the type: the text may contain secrets.
            _log.warning("the token function failed: %s", type(error).__name__)
            raise HubError(0, f"there is no access token: {type(error).__name__}") from None
        if not isinstance(token, str) or not can_be_sent(token):
            raise HubError(0, "there is no access token: the function returned none that can be sent")
        return token


def can_be_sent(token: str) -> bool:
    """Whether a header can hold the token. HTTP libraries may quote other tokens in their error."""
    return token != "" and token.isascii() and token.isprintable() and " " not in token
