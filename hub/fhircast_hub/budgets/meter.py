"""Measures the CPU time of a request, step by step."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

from fhircast_hub.budgets.accounts import Account

_Result = TypeVar("_Result")
#: A coroutine that has not begun waits for nothing. A coroutine may wait for None: the next turn of the loop.
NOTHING = object()


class Meter:
    """The CPU time of one request, in seconds.

    `on_step` gets the time of every step. Once `account` is set, the account pays for all steps, also for earlier ones.
    """

    __slots__ = ("_on_step", "account", "seconds")

    def __init__(self, on_step: Callable[[float], None] = lambda seconds: None) -> None:
        self._on_step = on_step
        self.seconds = 0.0
        self.account: Account | None = None

    def add(self, seconds: float, *, within_step: bool = False) -> None:
        """Add the seconds of one step. `within_step`: an outer step counts these seconds for the turn."""
        if not within_step:
            self._on_step(seconds)
        self.seconds += seconds
        if self.account is not None:
            self.account.charge(self.seconds)
            self.seconds = 0.0


class MeteredCoroutine(Awaitable[_Result]):
    """A coroutine with each step timed. `waits_for`: what the coroutine waits for, if its first step was made elsewhere."""

    __slots__ = ("_meter", "_waits_for", "_work")

    def __init__(self, work: Coroutine[Any, Any, _Result], meter: Meter, waits_for: object = NOTHING) -> None:
        self._work, self._meter, self._waits_for = work, meter, waits_for

    def __await__(self) -> Generator[Any, Any, _Result]:
        # Like `yield from`, but reads the clock before and after each step.
        work, meter, waits_for, clock = self._work, self._meter, self._waits_for, time.perf_counter
        step: Callable[[Any], Any] = work.send
        value: Any = None
        while True:
            if waits_for is not NOTHING:
                try:
                    step, value = work.send, (yield waits_for)
                except BaseException as error:
                    step, value = work.throw, error
            began = clock()
            try:
                waits_for = step(value)
            except StopIteration as end:
                result: _Result = end.value
                return result
            finally:
                meter.add(clock() - began)


async def metered(work: Coroutine[Any, Any, None], meter: Meter) -> None:
    """Run `work` with each step timed, for callers that need a coroutine."""
    await MeteredCoroutine(work, meter)
