"""Paced: a number that costs something to find is found now and then, and shown to all who look meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Generic, TypeVar

from fhircast_hub.core.errors import TooMany, Unavailable

#: A value is asked for again after so many times the seconds that the last answer took: the cost is a fiftieth of the time.
REST = 50.0
#: Seconds that a look waits for an answer, and seconds for which an answer stands in for one that is late.
PATIENCE, KEPT = 5.0, 120.0
#: Seconds in Retry-After where no answer came.
RETRY_AFTER = 5

T = TypeVar("T")


class Late(Unavailable):
    """No answer came in time. It is looked for still."""

    def __init__(self) -> None:
        super().__init__("the answer takes longer than usual", retry_after=RETRY_AFTER)


class Paced(Generic[T]):
    """Asks `find` at most every `seconds`, and less often where the answer takes long. Requests at a time share one answer.

    `rest`: see REST.
    """

    def __init__(
        self,
        find: Callable[[], Awaitable[T]],
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        rest: float | None = None,
    ) -> None:
        self._rest = REST if rest is None else rest
        self._find = find
        self._seconds = seconds
        self._clock = clock
        self._asked: asyncio.Task[T] | None = None
        self._next = 0.0
        #: The last answer, and when it came.
        self._last: tuple[T, float] | None = None

    async def get(self, turn: AbstractAsyncContextManager[object] | None = None) -> T:
        """The last answer, or a new one. Where the new one is late, the last counts for KEPT seconds.

        `turn`: what `find` waits for. Raises what `find` and `turn` raise, and Late after PATIENCE seconds.
        """
        if self._asked is None or (self._asked.done() and self._clock() >= self._next):
            self._asked = asyncio.create_task(self._ask(turn or nullcontext()))
            self._asked.add_done_callback(_look_at_error)
        asked = self._asked
        await asyncio.wait((asked,), timeout=PATIENCE)
        if asked.done() and not asked.cancelled() and not isinstance(asked.exception(), TooMany):
            return _result_of(asked)
        if self._last is not None and self._clock() - self._last[1] < KEPT:
            return self._last[0]
        if asked.cancelled():
            raise TooMany("too many other searches came after this one", retry_after=RETRY_AFTER)
        if asked.done():
            return _result_of(asked)
        raise Late

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        if self._asked is not None:
            self._asked.cancel()

    async def _ask(self, turn: AbstractAsyncContextManager[object]) -> T:
        async with turn:
            began = self._clock()
            try:
                found = await self._find()
                self._last = found, self._clock()
                return found
            finally:
                took = self._clock() - began
                self._next = self._clock() + max(self._seconds, took * self._rest)


def _result_of(asked: asyncio.Task[T]) -> T:
    """The task's answer. Its error is raised as a copy: each that asks would add frames to the error, with their requests."""
    if error := asked.exception():
        raise _copied(error)
    return asked.result()


def _copied(error: BaseException) -> BaseException:
    """As copy.copy would, which calls the class: some classes of errors take no text."""
    copied = type(error).__new__(type(error), *error.args)
    copied.__dict__.update(error.__dict__)
    return copied


def _look_at_error(task: asyncio.Task[T]) -> None:
    """All that asked may have left: then nobody else looks at the error, and asyncio would report it."""
    if not task.cancelled():
        task.exception()
