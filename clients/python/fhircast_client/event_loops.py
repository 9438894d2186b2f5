"""Use of one client in several event loops, one after the other, as several calls of `asyncio.run` do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class PerLoop(Generic[_T]):
    """A value that belongs to one event loop, such as a lock. Each loop gets its own value."""

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._loop: asyncio.AbstractEventLoop | None = None
        self._made: _T | None = None

    @property
    def here(self) -> _T:
        """The value of the running loop."""
        loop = asyncio.get_running_loop()
        if self._made is None or self._loop is not loop:
            self._loop, self._made = loop, self._make()
        return self._made


class OneLoop:
    """Checks that a client is used in one event loop at a time: the client is not thread-safe."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> None:
        """Raises RuntimeError where the client was used in another loop that is still running."""
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop and self._loop.is_running():
            raise RuntimeError(
                "the client is in use in another event loop. Make a client for each thread, or call it by "
                "asyncio.run_coroutine_threadsafe"
            )
        self._loop = loop
