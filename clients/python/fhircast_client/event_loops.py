"""A client in one event loop after the other, as several calls of `asyncio.run` make them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class PerLoop(Generic[_T]):
    """A thing of one event loop, such as a lock. Each other loop has one of its own."""

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._loop: asyncio.AbstractEventLoop | None = None
        self._made: _T | None = None

    @property
    def here(self) -> _T:
        """The one of the loop that runs."""
        loop = asyncio.get_running_loop()
        if self._made is None or self._loop is not loop:
            self._loop, self._made = loop, self._make()
        return self._made


class OneLoop:
    """Sees that a client is used in one event loop at a time: nothing in it is made for two threads."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> None:
        """Raises RuntimeError where another loop, in which the client was used, runs still."""
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop and self._loop.is_running():
            raise RuntimeError(
                "expected a client in one event loop at a time; it is in use in another one. Make a client for each thread, or hand "
                "the call over: asyncio.run_coroutine_threadsafe"
            )
        self._loop = loop
