"""What the record says of the session, in a real browser: what is shown, who takes part, and what was signed."""

from __future__ import annotations

import os
import signal

from playwright.async_api import Browser, expect

from browser.test_access import is_fit
from browser.test_story import AASE, HEAD, HEAD_UID, REPORT
from browsing import Record, RunningDemo, clinician, take_picture

OTHER = "ImagingStudy/study-9"


async def test_a_first_login_leaves_no_complaint_in_the_console(browser: Browser, demo: RunningDemo) -> None:
    """Nothing is asked that cannot be answered yet."""
    async with clinician(browser, demo) as mei:
        refused: list[str] = []
        mei.context.on(
            "response", lambda answer: refused.append(answer.url) if not answer.ok and answer.status >= 400 else None
        )
        ehr = await mei.log_in("Mei-Lin Chen")
        await ehr.participant("Hospital record", "in-step")
        await ehr.open_patient(AASE)
        await ehr.participant("Anaesthesia chart", "in-step")
        await ehr.close_patient()
        assert refused == []


async def test_nobody_is_in_step_while_the_hub_is_away(browser: Browser, demo: RunningDemo) -> None:
    """Whether it is dead, or does not answer: the strip is grey, and so is the status of the record."""
    async with clinician(browser, demo) as ingrid:
        ingrid.may_complain = True
        ehr = await ingrid.log_in()
        await ehr.open_patient(AASE)
        await ehr.participant("Anaesthesia chart", "in-step")
        await ehr.chart().in_step()
        demo.kill_hub()
        await is_grey(ehr)
        await ehr.participant("Anaesthesia chart", "in-step")
        await ehr.in_step()
        hub = demo.hub_pid()
        os.kill(hub, signal.SIGSTOP)
        try:
            await is_grey(ehr)
            await take_picture("away", ehr)
            await is_fit(ehr.page, "the record, the hub does not answer")
        finally:
            os.kill(hub, signal.SIGCONT)
        await ehr.participant("Anaesthesia chart", "in-step")
        await ehr.in_step()
        await ehr.close_patient()


async def is_grey(ehr: Record) -> None:
    """Who took part is still named, and nothing is said of them."""
    await ehr.participant("Anaesthesia chart", "unknown")
    await expect(ehr.by("participant", state="in-step")).to_have_count(0)
    await ehr.sees("participants-none", "The hub cannot be reached.")
    await expect(ehr.by("sync-status")).to_have_attribute("data-state", "busy")


async def shows(ehr: Record, current: str, *others: str) -> None:
    """Of these, which are all open, one is shown now, and the others can be shown or closed."""
    row = ehr.by("part", reference=current)
    await expect(row).to_contain_text("Shown now")
    await expect(row.get_by_role("button")).to_have_text(["Close"])
    for other in others:
        row = ehr.by("part", reference=other, open="true")
        await expect(row.get_by_role("button")).to_have_text(["Show", "Close"])
    await expect(ehr.by("lists").get_by_text("Shown now")).to_have_count(1)


async def test_only_what_is_current_is_shown_now(browser: Browser, demo: RunningDemo) -> None:
    """What is open beside it can be shown again, to everybody, and can be closed."""
    async with clinician(browser, demo) as ingrid:
        ehr = await ingrid.log_in()
        await ehr.open_patient(AASE)
        pacs = await ingrid.launch(ehr, "pacs")
        await ehr.open_part(HEAD)
        await shows(ehr, HEAD)
        await ehr.open_part(OTHER)
        await ehr.open_part(REPORT)
        await shows(ehr, REPORT, HEAD, OTHER)
        await take_picture("shown-now", ehr)
        await is_fit(ehr.page, "the record, much of which is open")
        await ehr.by("part", reference=HEAD).get_by_role("button", name="Show").click()
        await shows(ehr, HEAD, REPORT, OTHER)
        await expect(pacs.by("image")).to_have_attribute("data-ready", HEAD_UID)
        await ehr.by("part", reference=OTHER).get_by_role("button", name="Close").click()
        await expect(ehr.by("part", reference=OTHER, open="false")).to_be_visible()
        await shows(ehr, HEAD, REPORT)
        await ehr.close_patient()
