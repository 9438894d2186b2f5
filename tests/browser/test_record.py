"""What the record says of the session, in a real browser: what is shown, who takes part, and what was signed."""

from __future__ import annotations

from playwright.async_api import Browser, expect

from browser.test_access import is_fit
from browser.test_story import AASE, HEAD, HEAD_UID, REPORT
from browsing import Record, RunningDemo, clinician, take_picture

OTHER = "ImagingStudy/study-9"


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
