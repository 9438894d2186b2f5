"""The demo as a process, and a real browser that looks at it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Playwright

from tests.browsing import RunningDemo, launch_browser, playing, running_demo


@pytest.fixture(scope="session")
def demo() -> Iterator[RunningDemo]:
    """One for all tests; each leaves no patient open in the sessions of the three clinicians."""
    with running_demo() as demo:
        yield demo


@pytest.fixture
def own_demo() -> Iterator[RunningDemo]:
    """For a test that leaves something behind: a signed report, a patient who is open."""
    with running_demo() as demo:
        yield demo


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def playwright() -> AsyncIterator[Playwright]:
    async with playing() as playwright:
        yield playwright


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(playwright: Playwright) -> AsyncIterator[Browser]:
    """One for all tests. Each clinician has a profile of their own, which ends with the test."""
    browser = await launch_browser(playwright)
    yield browser
    await browser.close()
