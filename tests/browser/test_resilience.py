"""What happens to windows when the hub dies, or the laptop's lid is closed: nobody reloads, and everybody is in step again."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from playwright.async_api import Browser, Playwright, Route, expect

from tests.browsing import RunningDemo, asleep, clinician, launch_browser

#: The loop of the browser that all these tests share.
pytestmark = pytest.mark.asyncio(loop_scope="session")

AASE, SOKKI, WOJCIECH = "patient-1", "patient-2", "patient-5"
HEAD, EAR, SPINE = "ImagingStudy/study-1", "ImagingStudy/study-7", "ImagingStudy/study-8"
REPORT = "DiagnosticReport/report-1"
HEAD_UID = "2.25.194508215601508701336214457588706156187"
EAR_UID = "2.25.154440352457249767032453014025597306168"
#: Seconds that the lid is closed: longer than the hub waits for an answer to its pings.
LID_SECONDS = 60


async def test_every_window_is_in_step_after_the_hub_was_killed(browser: Browser, demo: RunningDemo) -> None:
    """Each says that it is not connected, and comes back to what was open, without a reload."""
    async with clinician(browser, demo) as ingrid:
        ehr = await ingrid.log_in()
        await ehr.open_patient(AASE)
        pacs, second = await ingrid.launch(ehr, "pacs"), await ingrid.launch(ehr, "second-opinion")
        reporting = await ingrid.launch(ehr, "reporting")
        await ehr.open_part(HEAD)
        windows = [ehr, ehr.chart(), pacs, second, reporting]
        await expect(pacs.by("image")).to_have_attribute("data-ready", HEAD_UID)
        for window in windows:
            await window.in_step()
        pages = {window.page for window in windows}
        for page in pages:
            await page.evaluate("window.neverReloaded = true")
        demo.kill_hub()
        await asyncio.gather(*(expect(window.by("sync-status", state="busy")).to_be_visible() for window in windows))
        await asyncio.gather(*(window.in_step() for window in windows))
        await ehr.open_patient(SOKKI)
        await ehr.open_part(EAR)
        await expect(pacs.by("image")).to_have_attribute("data-ready", EAR_UID)
        await expect(second.by("image")).to_have_attribute("data-ready", EAR_UID)
        await ehr.chart().sees("local-number", "ANE-20414")
        await reporting.sees("patient-banner", "Sokki")
        await asyncio.gather(*(window.in_step() for window in windows))
        for page in pages:
            assert await page.evaluate("window.neverReloaded")
        await ehr.close_patient()


async def test_nobody_goes_back_to_a_refused_study_after_the_hub_was_killed(
    browser: Browser, own_demo: RunningDemo
) -> None:
    """The hub tells again that a study of another patient is open: PACS had refused it, and everybody has left it."""
    demo = own_demo
    async with clinician(browser, demo) as ingrid:
        ehr = await ingrid.log_in()
        await ehr.open_patient(AASE)
        pacs, reporting = await ingrid.launch(ehr, "pacs"), await ingrid.launch(ehr, "reporting")
        await ehr.open_patient(WOJCIECH)
        await ehr.open_part(SPINE)
        await expect(pacs.by("refusal")).to_be_visible()
        await ehr.open_patient(AASE)
        await ehr.open_part(REPORT)
        await expect(reporting.by("report")).to_be_visible()
        await reporting.by("sign").click()
        await reporting.sees("said", "signed and closed")
        windows = [ehr, pacs, reporting]
        await asyncio.gather(*(window.in_step() for window in windows))
        demo.kill_hub()
        await asyncio.gather(*(expect(window.by("sync-status", state="busy")).to_be_visible() for window in windows))
        await asyncio.gather(*(window.in_step() for window in windows))
        for name in ("PACS", "Reporting"):
            await ehr.participant(name, "in-step")
        for window in windows:
            await window.sees("patient-banner", "Åse")
        await ehr.close_patient()


async def test_a_lid_that_was_closed_for_a_minute(browser: Browser, demo: RunningDemo, playwright: Playwright) -> None:
    """The laptop's windows sleep while the clinician goes on at another place; awake again, they show what is open there."""
    laptop = await launch_browser(playwright)
    async with clinician(browser, demo) as at_desk, clinician(laptop, demo) as on_laptop:
        desk, lap = await at_desk.log_in("Mei-Lin Chen"), await on_laptop.log_in("Mei-Lin Chen")
        await desk.open_patient(AASE)
        pacs = await on_laptop.launch(lap, "pacs")
        await desk.open_part(HEAD)
        await expect(pacs.by("image")).to_have_attribute("data-ready", HEAD_UID)
        await pacs.page.evaluate("window.neverReloaded = true")
        async with asleep(laptop):
            await desk.open_patient(SOKKI)
            await desk.open_part(EAR)
            await asyncio.sleep(LID_SECONDS)
            for connected in ("in-step", "silent"):
                await expect(desk.by("participant", name="PACS", state=connected)).to_have_count(0)
        await expect(pacs.by("image")).to_have_attribute("data-ready", EAR_UID)
        await pacs.in_step()
        await desk.participant("PACS", "in-step")
        assert await pacs.page.evaluate("window.neverReloaded")
        await desk.close_patient()
    await laptop.close()


@pytest.mark.req("CLT-14")
async def test_a_window_that_is_closed_leaves_the_session_of_a_hub_that_is_slow(
    browser: Browser, own_demo: RunningDemo
) -> None:
    """Else the record would tell of a lost participant until its lease ends, also to the tests that come later."""
    async with clinician(browser, own_demo) as ingrid:
        ingrid.may_complain = True
        ehr = await ingrid.log_in()
        pacs = await ingrid.launch(ehr, "pacs")
        await ehr.participant("PACS", "connected")
        hub = own_demo.hub_pid()
        os.kill(hub, signal.SIGSTOP)
        try:
            await pacs.page.close()
            await ehr.sees("participants-none", "The hub cannot be reached.")
        finally:
            os.kill(hub, signal.SIGCONT)
        await ehr.participant("Hospital record", "connected")
        await expect(ehr.by("participant", name="PACS")).to_have_count(0)


async def test_an_older_list_of_participants_does_not_take_the_place_of_a_newer_one(
    browser: Browser, demo: RunningDemo
) -> None:
    """Two questions may be on their way at once, and be answered the other way round."""
    async with clinician(browser, demo) as ingrid:
        ehr = await ingrid.log_in()
        await ehr.participant("Hospital record", "connected")
        await ehr.page.evaluate("AbortSignal.timeout = () => new AbortController().signal")  # the page waits for both
        held: asyncio.Queue[Route] = asyncio.Queue()
        await ehr.page.route("**/participants", held.put)
        older = await held.get()
        await ehr.open_patient(AASE)  # at every event the hub is asked anew
        newer = await held.get()
        newest = [{"name": "Newest", "state": "in sync"}]
        await newer.fulfill(json=newest)
        await ehr.participant("Newest", "in-step")
        await older.fulfill(json=[{"name": "Older", "state": "in sync"}])
        await held.get()  # the next question: the older answer was read long before
        await expect(ehr.by("participant", name="Older")).to_have_count(0)
        await ehr.page.unroute("**/participants")
        await ehr.close_patient()
