"""What goes wrong at real authorization servers, on request: each page says what is wrong, and goes on when it is right again."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.test_story import AASE, IRIS
from tests.browsing import RunningDemo, Window, clinician, running_demo

#: The loop of the browser that all these tests share.
pytestmark = pytest.mark.asyncio(loop_scope="session")

#: Seconds that access tokens last where renewal is to be seen.
SHORT = 20


@asynccontextmanager
async def switched(page: Page, demo: RunningDemo, switch: str) -> AsyncIterator[None]:
    """The EHR's authorization server fails so within the block."""
    await page.goto(f"{demo.apps['auth']}/switches")
    await page.locator(f"input[name={switch}]").check()
    await page.get_by_role("button", name="Save").click()
    try:
        yield
    finally:
        await page.goto(f"{demo.apps['auth']}/switches")
        await page.get_by_role("button", name="Reset all").click()


@pytest.mark.parametrize("switch", ["expired_token", "unknown_key"])
async def test_a_token_that_the_hub_does_not_take(browser: Browser, demo: RunningDemo, switch: str) -> None:
    """The page says so; after a login when all is well again it is in the session."""
    async with clinician(browser, demo) as samuel:
        samuel.may_complain = True
        ehr = await samuel.log_in("Samuel Okafor")
        await ehr.in_step()
        page = await samuel.context.new_page()
        async with switched(page, demo, switch):
            async with samuel.context.expect_page() as opening:
                await ehr.by("launch-pacs").click()
            pacs = Window(await opening.value)
            await allow(pacs)
            await expect(pacs.by("problem-text")).to_be_visible()
        await pacs.by("try-again").click()
        await pacs.in_step()


async def test_a_scope_withheld_stops_publishing_and_not_following(browser: Browser, demo: RunningDemo) -> None:
    async with clinician(browser, demo) as samuel:
        samuel.may_complain = True
        page = await samuel.context.new_page()
        async with switched(page, demo, "scope_withheld"):
            ehr = await samuel.log_in("Samuel Okafor")
            await ehr.by("patient", patient=AASE).click()
            await expect(ehr.by("trouble")).to_contain_text("403")


async def allow(window: Window) -> None:
    """Consent, where it is asked for."""
    button, problem = window.page.locator("button[value=allow]"), window.by("problem-text")
    await expect(button.or_(problem)).to_be_visible()
    if await button.is_visible():
        await button.click()


async def test_tokens_are_renewed_while_everybody_stays_in_step(browser: Browser) -> None:
    """With tokens that last for seconds: all windows outlive theirs, and follow after it."""
    with running_demo("--token-seconds", str(SHORT)) as demo:
        async with clinician(browser, demo) as ingrid:
            ehr = await ingrid.log_in()
            await ehr.open_patient(AASE)
            pacs = await ingrid.launch(ehr, "pacs")
            began = time.monotonic()
            windows = (ehr, ehr.chart(), pacs)
            for window in windows:
                await window.in_step()
            renewed = pacs.by("wire-item", kind="confirmation").nth(3)
            await pacs.by("wire-toggle").click()
            await expect(renewed).to_be_attached(timeout=120_000)
            assert time.monotonic() - began > SHORT
            for window in windows:
                await window.in_step()
            await ehr.open_patient(IRIS)
            await ehr.chart().sees("local-number", "ANE-20414")
            await pacs.sees("patient-banner", "Sokki")
