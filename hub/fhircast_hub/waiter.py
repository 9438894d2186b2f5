"""Waiter: the end of a coroutine's wait, with a task or without one.

A commit, or a turn, settles its waiters in one call. A coroutine in a task is woken by a future of the loop. A coroutine without a
task (http/direct.py) goes on at once, within that call: no future, no further turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any


class Waiter(Awaitable[None]):
    """Awaited once. Raises the error of `settle`."""

    __slots__ = ("_error", "_future", "_settled", "then")

    def __init__(self) -> None:
        self._settled = False
        self._error: Exception | None = None
        #: Wakes the task that waits. None: no task waits.
        self._future: asyncio.Future[None] | None = None
        #: Called by `settle`. Set by the driver of a coroutine without a task.
        #: An error goes to the loop's exception handler, so that other waiters of the call are settled.
        self.then: Callable[[], None] | None = None

    def settle(self, error: Exception | None = None) -> None:
        """Wake the coroutine, or raise `error` there. The first call counts. Raises nothing."""
        if self._settled:
            return
        self._settled, self._error = True, error
        if self.then is not None:
            try:
                self.then()
            except (Exception, asyncio.CancelledError) as failure:
                report = {"message": "a request failed after a wait", "exception": failure}
                asyncio.get_running_loop().call_exception_handler(report)
        elif self._future is not None and not self._future.done():  # the waiting task may be cancelled
            self._future.set_result(None)

    def __await__(self) -> Generator[Any, None, None]:
        if not self._settled:
            if asyncio.current_task() is None:
                yield self
            else:
                self._future = asyncio.get_running_loop().create_future()
                yield from self._future
        if self._error is not None:
            raise self._error
