"""A commit's outcome reaches a waiter with a task, and a waiter without one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from fhircast_hub.waiter import Waiter


async def test_a_task_is_woken() -> None:
    written = Waiter()
    waiting = asyncio.ensure_future(_wait(written))
    await asyncio.sleep(0)
    assert not waiting.done()
    written.settle()
    await waiting


async def test_a_task_gets_the_error() -> None:
    written = Waiter()
    waiting = asyncio.ensure_future(_wait(written))
    await asyncio.sleep(0)
    written.settle(OSError("full"))
    with pytest.raises(OSError, match="full"):
        await waiting


async def test_a_settled_outcome_is_not_waited_for() -> None:
    written = Waiter()
    written.settle()
    await written


async def test_the_outcome_of_a_cancelled_task_is_ignored() -> None:
    written = Waiter()
    waiting = asyncio.ensure_future(_wait(written))
    await asyncio.sleep(0)
    waiting.cancel()
    written.settle()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_without_a_task_the_waiter_goes_on_within_settle() -> None:
    ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def begin() -> None:
        written = Waiter()
        steps = _wait(written)
        assert steps.send(None) is written
        written.then = lambda: _go_on(steps, ended)
        written.settle(OSError("full"))
        assert ended.done()

    asyncio.get_running_loop().call_soon(begin)  # a callback has no task
    assert isinstance(await ended, OSError)


async def test_the_first_outcome_counts() -> None:
    written = Waiter()
    written.settle(OSError("full"))
    written.settle()
    with pytest.raises(OSError, match="full"):
        await written


async def test_an_error_of_the_waiter_is_reported_and_not_raised() -> None:
    reports: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, report: reports.append(report))
    written = Waiter()
    written.then = _fail
    written.settle()
    assert [type(report["exception"]) for report in reports] == [ValueError]


def _fail() -> None:
    raise ValueError


def _go_on(steps: Coroutine[object, None, None], ended: asyncio.Future[BaseException]) -> None:
    try:
        steps.send(None)
    except BaseException as end:
        ended.set_result(end)


async def _wait(written: Waiter) -> None:
    await written
