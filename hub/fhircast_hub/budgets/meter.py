"""Measures the CPU time of a request, step by step."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

from fhircast_hub.budgets.accounts import Account


class Meter:
    """The CPU time of one request, in seconds.

    `on_step` gets the time of every step. Once `account` is set, the account pays for all steps, also for earlier ones.
    """

    __slots__ = ("_on_step", "account", "seconds")

    def __init__(self, on_step: Callable[[float], None] = lambda seconds: None) -> None:
        self._on_step = on_step
        self.seconds = 0.0
        self.account: Account | None = None

    def add(self, seconds: float) -> None:
        """Add the seconds of one step."""
        self._on_step(seconds)
        self.seconds += seconds
        if self.account is not None:
            self.account.charge(self.seconds)
            self.seconds = 0.0


class MeteredCoroutine(Awaitable[None]):
    """A coroutine with each step timed."""

    __slots__ = ("_meter", "_work")

    def __init__(self, work: Coroutine[Any, Any, None], meter: Meter) -> None:
        self._work, self._meter = work, meter

    def __await__(self) -> Generator[Any, Any, None]:
        # Like `yield from`, but reads the clock before and after each step.
        work, meter, clock = self._work, self._meter, time.perf_counter
        step: Callable[[Any], Any] = work.send
        value: Any = None
        while True:
            began = clock()
            try:
                waits_for = step(value)
            except StopIteration:
                return
            finally:
                meter.add(clock() - began)
            try:
                step, value = work.send, (yield waits_for)
            except BaseException as error:
                step, value = work.throw, error


async def metered(work: Coroutine[Any, Any, None], meter: Meter) -> None:
    """Run `work` with each step timed, for callers that need a coroutine."""
    await MeteredCoroutine(work, meter)
