"""A report that is signed while something goes wrong: nobody is told what is not so, and nothing that was written is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Dialog, Page, Route, expect

from tests.browser.test_access import is_fit
from tests.browser.test_record import reporting_on_head
from tests.browser.test_story import AASE, IRIS, REPORT, measure
from tests.browser.test_unsent import HUB
from tests.browsing import PATIENCE, RunningDemo, Window, clinician, take_picture

#: The loop of the browser that all these tests share.
pytestmark = pytest.mark.asyncio(loop_scope="session")

UNKNOWN = "Nobody knows whether the report is signed: the record server gave no answer."


async def lose_the_answer(route: Route) -> None:
    await route.fetch()
    await route.abort()


@asynccontextmanager
async def saving(reporting: Window) -> AsyncIterator[None]:
    """Reporting signs, and the answer of the record server is on its way until the end of the block."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def wait(route: Route) -> None:
        answer = await route.fetch()
        begun.set()
        await over.wait()
        await route.fulfill(response=answer)

    await reporting.page.route("**/fhir/", wait)
    await reporting.by("sign").click()
    await begun.wait()
    yield
    over.set()


async def asks_before_it_closes(page: Page) -> bool:
    """The page stays."""
    asked = asyncio.get_running_loop().create_future()

    async def stay(dialog: Dialog) -> None:
        asked.set_result(dialog.type == "beforeunload")
        await dialog.dismiss()

    page.once("dialog", lambda dialog: asyncio.ensure_future(stay(dialog)))
    await page.close(run_before_unload=True)
    return await asyncio.wait_for(asked, PATIENCE / 1000)


async def test_what_was_kept_is_signed_and_what_was_written_since_is_not(
    browser: Browser, own_demo: RunningDemo
) -> None:
    """The record got the report and its answer was lost; then a word was changed."""
    async with clinician(browser, own_demo) as samuel:
        samuel.may_complain = True
        ehr, _, reporting = await reporting_on_head(samuel, "Samuel Okafor")
        await reporting.by("findings").fill("A small bleeding.")
        await reporting.page.route("**/fhir/", lose_the_answer)
        await reporting.by("sign").click()
        await reporting.sees("failure", f"{UNKNOWN} Sign again: the same report is not kept twice.")
        await expect(reporting.by("close-report")).to_have_text("Close")
        await reporting.page.unroute("**/fhir/")
        await is_fit(reporting.page, "reporting, nobody knows whether the report is signed")
        await reporting.by("findings").fill("A large bleeding.")
        await reporting.by("sign").click()
        await reporting.sees("failure", "The record keeps the report as it was signed at ")
        await reporting.sees("failure", "What was written since is not in it.")
        await expect(reporting.by("findings")).to_have_value("A small bleeding.")
        await expect(reporting.by("unsigned-text")).to_have_value("A large bleeding.")
        await expect(reporting.by("sign")).to_be_hidden()
        await is_fit(reporting.page, "reporting, what is not in the signed report")
        await take_picture("unsigned", reporting)
        await reporting.by("close-report").click()
        await reporting.sees("said", "The record keeps it.")
        row = ehr.by("part", reference=REPORT, open="false")
        await expect(row).to_contain_text("A small bleeding.")
        await expect(row).to_contain_text("final")
        await expect(reporting.by("unsigned-text")).to_have_value("A large bleeding.")
        assert await asks_before_it_closes(reporting.page)
        await ehr.close_patient()
        await expect(reporting.by("unsigned")).to_be_hidden()
        await ehr.open_patient(AASE)
        await reporting.by("unsigned-throw-away").click()
        await expect(reporting.by("unsigned")).to_be_hidden()


async def test_whoever_closes_a_report_is_told_whether_it_is_signed(browser: Browser, own_demo: RunningDemo) -> None:
    """The record is asked; where it cannot be, nobody is told that the report is not signed."""
    async with clinician(browser, own_demo) as samuel:
        samuel.may_complain = True
        ehr, _, reporting = await reporting_on_head(samuel, "Samuel Okafor")
        await reporting.by("findings").fill("A small bleeding.")
        await reporting.page.route("**/fhir/", lambda route: route.fulfill(status=504, body="<h1>Timeout</h1>"))
        await reporting.by("sign").click()
        await reporting.sees("failure", UNKNOWN)
        await reporting.page.route("**/fhir/**", lambda route: route.abort())
        await reporting.by("close-report").click()
        await reporting.sees("said", "The report is closed. Nobody knows whether it is signed")
        await reporting.page.unroute("**/fhir/**")
        await reporting.page.unroute("**/fhir/")
        await ehr.open_part(REPORT)
        await expect(reporting.by("findings")).to_have_value("A small bleeding.")
        await reporting.page.route("**/fhir/", lose_the_answer)
        await reporting.by("sign").click()
        await reporting.sees("failure", UNKNOWN)
        await reporting.by("close-report").click()
        await reporting.sees("said", "The report is signed and closed. The record keeps it.")
        await expect(ehr.by("part", reference=REPORT, open="false")).to_contain_text("final")


async def test_nothing_is_written_while_a_report_is_saved(browser: Browser, own_demo: RunningDemo) -> None:
    """Whoever closes the window meanwhile is asked."""
    async with clinician(browser, own_demo) as samuel:
        _, _, reporting = await reporting_on_head(samuel, "Samuel Okafor")
        await reporting.by("findings").fill("A small bleeding.")
        await reporting.by("save-preliminary").click()
        await reporting.sees("said", "shared as preliminary")
        await expect(reporting.by("findings")).to_be_editable()
        async with saving(reporting):
            for field in ("findings", "conclusion"):
                await expect(reporting.by(field)).not_to_be_editable()
            assert await asks_before_it_closes(reporting.page)
        await reporting.sees("said", "The report is signed and closed.")


async def test_a_measurement_that_comes_too_late_is_not_lost(browser: Browser, own_demo: RunningDemo) -> None:
    """The reporting application says that the signed report is without it; in its viewer it stays."""
    async with clinician(browser, own_demo) as samuel:
        _, pacs, reporting = await reporting_on_head(samuel, "Samuel Okafor")
        await measure(pacs)
        await expect(reporting.by("measurement")).to_have_count(1)
        async with saving(reporting):
            await measure(pacs)
            await expect(reporting.by("measurement")).to_have_count(2)
        await reporting.sees("said", "Not in it, for it came too late: Length")
        await expect(pacs.by("measurement", state="signed")).to_have_count(1)
        late = pacs.by("measurement", state="local")
        await expect(late).to_have_count(1)
        await expect(late).to_contain_text("Was shared, in no signed report")
        await is_fit(pacs.page, "the viewer, a measurement that came too late")


async def test_what_comes_after_the_signature_is_marked(browser: Browser, own_demo: RunningDemo) -> None:
    """In the reporting application and in the viewers, for as long as the report is open."""

    async def refuse_closes(route: Route) -> None:
        is_close = "DiagnosticReport-close" in (route.request.post_data or "")
        await (route.fulfill(status=403, content_type="text/plain", body="not now") if is_close else route.continue_())

    async with clinician(browser, own_demo) as samuel:
        samuel.may_complain = True
        _, pacs, reporting = await reporting_on_head(samuel, "Samuel Okafor")
        await measure(pacs)
        await expect(reporting.by("measurement")).to_have_count(1)
        await reporting.page.route(HUB, refuse_closes)
        await reporting.by("sign").click()
        await reporting.sees("failure", "It could not be closed for the others")
        await expect(reporting.by("measurement-insert")).to_have_count(0)
        await measure(pacs)
        await expect(reporting.by("measurement")).to_have_count(2)
        await expect(reporting.by("measurement-late")).to_have_count(1)
        await expect(pacs.by("measurements").get_by_text("Not in the signed report")).to_have_count(1)
        await is_fit(reporting.page, "reporting, a measurement that came too late")
        await is_fit(pacs.page, "the viewer, a measurement that came too late")


async def test_what_is_shared_in_a_report_that_is_closed_unsigned_stays_where_it_was_made(
    browser: Browser, own_demo: RunningDemo
) -> None:
    """What another window has deleted does not come back."""
    async with clinician(browser, own_demo) as samuel:
        ehr, pacs, reporting = await reporting_on_head(samuel, "Samuel Okafor")
        second = await samuel.launch(ehr, "second-opinion")
        for count in (1, 2):
            await measure(pacs)
            await expect(second.by("measurement")).to_have_count(count)
        await second.by("measurement-delete").first.click()
        await expect(pacs.by("measurement")).to_have_count(1)
        await reporting.by("close-report").click()
        await reporting.sees("said", "not signed")
        await expect(second.by("measurement")).to_have_count(0)
        await expect(pacs.by("measurement", state="local")).to_have_count(1)


async def test_what_was_signed_is_not_said_of_the_next_patient(browser: Browser, own_demo: RunningDemo) -> None:
    """The session moves on while the report is saved."""
    async with clinician(browser, own_demo) as samuel:
        ehr, _, reporting = await reporting_on_head(samuel, "Samuel Okafor")
        await reporting.by("findings").fill("A small bleeding.")
        async with saving(reporting):
            await ehr.open_patient(IRIS)
            await reporting.sees("patient-banner", "Sokki")
        await reporting.sees("said", "of the patient before. The report is signed and closed.")
        await ehr.open_patient(AASE)
        await expect(reporting.by("said")).to_be_empty()
        await ehr.close_patient()
