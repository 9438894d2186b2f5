"""Every page for everybody: axe finds nothing, no page is wider than its window, and the story goes by keyboard alone."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Frame, Page, expect

from tests.browser.test_story import AASE, HEAD, IRIS, REPORT, measure
from tests.browsing import Record, RunningDemo, Window, clinician

#: The loop of the browser that all these tests share.
pytestmark = pytest.mark.asyncio(loop_scope="session")

LAPTOP, TABLET = {"width": 1280, "height": 800}, {"width": 820, "height": 1180}
LANGUAGES = [pytest.param("en-GB", LAPTOP, id="english, laptop"), pytest.param("nb-NO", TABLET, id="norwegian, tablet")]
#: The rules of WCAG 2.2, levels A and AA, and axe's own for good practice.
RULES = {"iframes": False, "resultTypes": ["violations"], "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}  # fmt: skip


async def is_fit(page: Page, what: str) -> None:
    """No rule of axe is broken in the page or in a frame of it, and nothing sticks out."""
    for frame in page.frames:
        assert await broken(frame) == [], f"{what}: {frame.url}"
        width = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        wide, room = await frame.evaluate(width)
        assert wide <= room, f"{what}: {wide} pixels in {room}"


async def broken(frame: Frame) -> list[str]:
    """What axe says, each with the elements that it says it of."""
    found = (await Axe().run(frame, options=RULES)).response["violations"]
    return [f"{each['id']}: {[node['html'] for node in each['nodes']]}" for each in found]


@pytest.mark.parametrize(("locale", "viewport"), LANGUAGES)
async def test_no_page_keeps_anybody_out(
    browser: Browser, demo: RunningDemo, locale: str, viewport: dict[str, int]
) -> None:
    """Logging in and out, consent, and each application with all that it can show: studies, measurements, a refusal."""
    async with clinician(browser, demo, locale=locale, viewport=viewport) as ingrid:
        page = await ingrid.context.new_page()
        await page.goto(demo.apps["ehr"])
        await expect(page.get_by_role("button", name="Ingrid Nygård")).to_be_visible()
        await is_fit(page, "login")
        await page.close()
        ehr = await ingrid.log_in()
        await ehr.in_step()
        await is_fit(ehr.page, "the record, nobody open")
        await ehr.by("help-open").click()
        await is_fit(ehr.page, "the record, its help")
        await ehr.by("help-close").click()
        await ehr.open_patient(AASE)
        pacs, reporting = await ingrid.launch(ehr, "pacs"), await ingrid.launch(ehr, "reporting")
        await ehr.open_part(HEAD)
        await ehr.open_part(REPORT)
        await expect(reporting.by("report")).to_be_visible()
        await measure(pacs)
        await expect(reporting.by("measurement")).to_have_count(1)
        await ehr.chart().by("notes").fill("Slow wake-up")
        await ehr.open_patient(IRIS)
        await expect(ehr.by("refusal-panel")).to_have_count(1)
        await is_fit(ehr.page, "the record and the chart, a refusal")
        await ehr.chart().by("moved-discard").click()
        await ehr.open_patient(AASE)
        for window, what in ((ehr, "record"), (pacs, "viewer"), (reporting, "reporting")):
            await window.in_step()
            await is_fit(window.page, what)
            await window.by("wire-toggle").first.click()
            await expect(window.by("wire-item").first).to_be_visible()
            await is_fit(window.page, f"{what} with its messages")
        await ehr.by("wire-close").first.click()
        await ehr.by("logout").click()
        await is_fit(ehr.page, "whether to log out")
        await ehr.by("logout-sure-yes").click()
        for window, what in ((ehr, "record"), (pacs, "viewer"), (reporting, "reporting")):
            await expect(window.by("who-left")).to_be_visible()
            await is_fit(window.page, f"{what}, logged out")


@pytest.mark.parametrize(("locale", "viewport"), LANGUAGES)
async def test_consent_and_switches_keep_nobody_out(
    browser: Browser, demo: RunningDemo, locale: str, viewport: dict[str, int]
) -> None:
    async with clinician(browser, demo, locale=locale, viewport=viewport) as samuel:
        page = await samuel.context.new_page()
        await page.goto(f"{demo.apps['auth']}/switches")
        await is_fit(page, "switches")
        ehr = await samuel.log_in("Samuel Okafor")
        async with samuel.context.expect_page() as opening:
            await ehr.by("launch-second-opinion").click()
        viewer = Window(await opening.value)
        allow = viewer.page.locator("button[value=allow]")
        await expect(allow.or_(viewer.by("sync-status"))).to_be_visible()
        if await allow.is_visible():
            await is_fit(viewer.page, "consent")


async def test_a_patient_is_opened_by_keyboard_and_the_language_changes_everywhere(
    browser: Browser, demo: RunningDemo
) -> None:
    """Without a mouse; what has the focus is seen to have it."""
    async with clinician(browser, demo) as mei:
        ehr = await mei.log_in("Mei-Lin Chen")
        await until_focused(ehr, "patient")
        outline = await ehr.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        await ehr.page.keyboard.press("Enter")
        await expect(ehr.by("close-patient")).to_be_visible()
        await ehr.chart().in_step()
        await until_focused(ehr, "language-no", backwards=True)
        await ehr.page.keyboard.press("Enter")
        await expect(ehr.by("close-patient")).to_have_text(re.compile("Lukk pasient"))
        await expect(ehr.chart().by("sync-status")).to_contain_text("I takt")
        await until_focused(ehr, "close-patient")
        await ehr.page.keyboard.press("Enter")
        await expect(ehr.by("close-patient")).to_be_hidden()
        await expect(ehr.by("search")).to_be_focused()


async def until_focused(window: Record, test: str, *, backwards: bool = False) -> None:
    """Press Tab until what carries this data-test has the focus."""
    for _ in range(80):
        await window.page.keyboard.press("Shift+Tab" if backwards else "Tab")
        if await window.page.evaluate("document.activeElement.dataset.test") == test:
            return
    pytest.fail(f"no key leads to {test}")
