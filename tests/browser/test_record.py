"""What the record says of the session, in a real browser: what is shown, who takes part, and what was signed."""

from __future__ import annotations

import os
import signal

import pytest
from playwright.async_api import Browser, Route, expect

from tests.browser.test_access import is_fit
from tests.browser.test_story import AASE, HEAD, HEAD_UID, REPORT, measure
from tests.browser.test_unsent import GATEWAY, unheard
from tests.browsing import Clinician, Record, RunningDemo, Window, clinician, take_picture

#: The loop of the browser that all these tests share.
pytestmark = pytest.mark.asyncio(loop_scope="session")

OTHER = "ImagingStudy/study-9"


async def test_a_first_login_leaves_no_complaint_in_the_console(browser: Browser, demo: RunningDemo) -> None:
    """Nothing is asked that cannot be answered yet."""
    async with clinician(browser, demo) as mei:
        refused: list[str] = []
        mei.context.on(
            "response", lambda answer: refused.append(answer.url) if not answer.ok and answer.status >= 400 else None
        )
        ehr = await mei.log_in("Mei-Lin Chen")
        await ehr.participant("Hospital record", "connected")
        await ehr.open_patient(AASE)
        await ehr.participant("Anaesthesia chart", "in-step")
        await ehr.close_patient()
        assert refused == []


async def test_nobody_is_in_step_while_the_hub_is_away(browser: Browser, own_demo: RunningDemo) -> None:
    """Whether it is dead, or does not answer: the strip is grey, and so is the status of the record.

    In the shared demo, a chart of an earlier test may still be a lost participant, which is grey too.
    """
    demo = own_demo
    async with clinician(browser, demo) as ingrid:
        ingrid.may_complain = True
        ehr = await ingrid.log_in()
        await ehr.open_patient(AASE)
        await ehr.participant("Anaesthesia chart", "in-step")
        await ehr.chart().in_step()
        os.kill(demo.process.pid, signal.SIGSTOP)  # it would start the hub again
        try:
            demo.kill_hub()
            await is_grey(ehr)
        finally:
            os.kill(demo.process.pid, signal.SIGCONT)
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


async def reporting_on_head(who: Clinician, name: str) -> tuple[Record, Window, Window]:
    """The record, PACS and Reporting with the report on Åse's head."""
    ehr = await who.log_in(name)
    await ehr.open_patient(AASE)
    pacs, reporting = await who.launch(ehr, "pacs"), await who.launch(ehr, "reporting")
    await ehr.open_part(HEAD)
    await expect(pacs.by("image")).to_have_attribute("data-ready", HEAD_UID)
    await ehr.open_part(REPORT)
    await expect(reporting.by("report")).to_be_visible()
    return ehr, pacs, reporting


async def test_a_signed_report_is_kept(browser: Browser, own_demo: RunningDemo) -> None:
    """The record shows its text and what was measured, the viewers show that at the study; also to the next user."""
    async with clinician(browser, own_demo) as at_desk:
        ehr, pacs, reporting = await reporting_on_head(at_desk, "Samuel Okafor")
        await measure(pacs)
        await expect(reporting.by("measurement")).to_have_count(1)
        await reporting.by("findings").fill("A small bleeding.")
        await reporting.by("conclusion").fill("Bleeding, to be watched.")
        await reporting.by("sign").click()
        await reporting.sees("said", "The record keeps it.")
        row = ehr.by("part", reference=REPORT, open="false")
        for text in ("final", "A small bleeding.", "Bleeding, to be watched."):
            await expect(row).to_contain_text(text)
        await expect(row.locator('[data-test="report-text"] li')).to_contain_text("Length")
        await expect(pacs.by("measurement", state="signed")).to_have_count(1)
        await expect(pacs.by("measurement-delete")).to_have_count(0)
        await take_picture("signed", ehr)
        await take_picture("signed-viewer", pacs)
        await is_fit(ehr.page, "the record, a signed report")
        await is_fit(pacs.page, "the viewer, a signed measurement")
        await ehr.close_patient()
        await ehr.by("logout").click()
        await ehr.by("logout-sure-yes").click()
        await ehr.by("log-in").click()
        await ehr.page.get_by_role("button", name="Mei-Lin Chen").click()
        await ehr.open_patient(AASE)
        await expect(ehr.by("part", reference=REPORT)).to_contain_text("A small bleeding.")
        await ehr.by("launch-pacs").click()  # into the window of the one before, which was logged out
        await pacs.consent()
        await ehr.open_part(HEAD)
        await expect(pacs.by("measurement", state="signed")).to_have_count(1)
        await ehr.close_patient()


async def test_a_report_that_is_not_kept_stays_open_and_is_not_signed(browser: Browser, own_demo: RunningDemo) -> None:
    """Whether the record refuses or gives no answer. What was kept though no answer came is signed by the second try."""
    async with clinician(browser, own_demo) as samuel:
        ehr, _, reporting = await reporting_on_head(samuel, "Samuel Okafor")
        page = reporting.page
        await reporting.by("findings").fill("A small bleeding.")
        await page.route("**/fhir/", lambda route: route.fulfill(status=500, json={"resourceType": "OperationOutcome"}))
        await reporting.by("sign").click()
        await reporting.sees("failure", "The report is not signed, for the record did not keep it.")
        await expect(reporting.by("findings")).to_have_value("A small bleeding.")
        await expect(ehr.by("part", reference=REPORT, open="true")).to_contain_text("preliminary")
        await is_fit(page, "reporting, a report that is not kept")
        await page.unroute("**/fhir/")

        async def lose_the_answer(route: Route) -> None:
            await route.fetch()
            await route.abort()

        await page.route("**/fhir/", lose_the_answer)
        await reporting.by("sign").click()
        await reporting.sees("failure", "Nobody knows whether the report is signed: the record server gave no answer.")
        await page.unroute("**/fhir/")
        await reporting.by("sign").click()
        await reporting.sees("said", "The record keeps it.")
        await expect(ehr.by("part", reference=REPORT, open="false")).to_contain_text("final")


async def test_of_two_who_sign_a_report_the_second_is_told(browser: Browser, own_demo: RunningDemo) -> None:
    """The second one's text is kept apart."""
    async with clinician(browser, own_demo) as samuel, clinician(browser, own_demo) as mei:
        _, _, first = await reporting_on_head(samuel, "Samuel Okafor")
        _, _, second = await reporting_on_head(mei, "Mei-Lin Chen")
        await first.by("findings").fill("A small bleeding.")
        await second.by("findings").fill("No bleeding.")
        await first.by("sign").click()
        await first.sees("said", "The record keeps it.")
        await second.by("sign").click()
        await second.sees("failure", "The record keeps the report as Samuel Okafor signed it")
        await expect(second.by("findings")).to_have_value("A small bleeding.")
        await expect(second.by("unsigned-text")).to_have_value("No bleeding.")


async def test_a_report_that_is_kept_and_not_told_is_closed_later(browser: Browser, own_demo: RunningDemo) -> None:
    """Also after a reload the page knows that it is signed."""
    async with clinician(browser, own_demo) as samuel:
        samuel.may_complain = True
        ehr, _, reporting = await reporting_on_head(samuel, "Samuel Okafor")
        await reporting.by("findings").fill("A small bleeding.")
        async with unheard(reporting.page, **GATEWAY):
            await reporting.by("sign").click()
            await reporting.sees("failure", "The report is signed, and the record keeps it.")
            await expect(reporting.by("sign")).to_be_hidden()
            await reporting.page.reload()
            await expect(reporting.by("findings")).to_have_value("A small bleeding.")
            await expect(reporting.by("sign")).to_be_hidden()
        await reporting.by("close-report").click()
        await reporting.sees("said", "The record keeps it.")
        await expect(ehr.by("part", reference=REPORT, open="false")).to_contain_text("A small bleeding.")


async def test_a_report_that_is_kept_is_shown_once_it_is_closed(browser: Browser, own_demo: RunningDemo) -> None:
    """Whoever closes it, and though nobody was told that it is signed."""
    async with clinician(browser, own_demo) as samuel:
        samuel.may_complain = True
        ehr, _, reporting = await reporting_on_head(samuel, "Samuel Okafor")
        other = Record(await samuel.context.new_page())
        await other.page.goto(own_demo.apps["ehr"])
        await expect(other.by("part", reference=REPORT, open="true")).to_contain_text("preliminary")
        await reporting.by("findings").fill("A small bleeding.")
        async with unheard(reporting.page, **GATEWAY):
            await reporting.by("sign").click()
            await reporting.sees("failure", "The report is signed, and the record keeps it.")
            await ehr.by("part", reference=REPORT).get_by_role("button", name="Close").click()
            for record in (ehr, other):
                row = record.by("part", reference=REPORT, open="false")
                await expect(row).to_contain_text("A small bleeding.")
                await expect(row).to_contain_text("final")


async def test_the_chart_is_not_loaded_again_over_notes_without_a_question(browser: Browser, demo: RunningDemo) -> None:
    """Saved or not, they are gone with its page. Without notes nobody is asked."""
    async with clinician(browser, demo) as ingrid:
        ehr = await ingrid.log_in()
        await ehr.open_patient(AASE)
        chart = ehr.chart()
        await chart.in_step()
        await chart.by("notes").fill("Slow wake-up")
        await ehr.by("chart-again").click()
        await ehr.sees("chart-sure", "throws them away, saved or not")
        await is_fit(ehr.page, "whether to load the chart again")
        await ehr.by("chart-sure-no").click()
        await expect(chart.by("notes")).to_have_value("Slow wake-up")
        await chart.by("notes-save").click()
        await ehr.by("chart-again").click()
        await ehr.by("chart-sure-yes").click()
        await expect(chart.by("notes")).to_have_value("")
        await chart.in_step()
        await ehr.by("chart-again").click()
        await expect(ehr.by("chart-sure")).to_have_count(0)
        await chart.in_step()
        await ehr.close_patient()


async def test_the_record_knows_of_notes_in_the_chart_when_it_logs_out(browser: Browser, demo: RunningDemo) -> None:
    """They are in a frame of another origin, which says so."""
    async with clinician(browser, demo) as ingrid:
        ehr = await ingrid.log_in()
        await ehr.open_patient(AASE)
        await ehr.chart().by("notes").fill("Slow wake-up")
        await ehr.by("logout").click()
        await ehr.sees("logout-sure", "Something here is not saved.")
        await ehr.by("logout-sure-yes").click()
        await ehr.sees("logged-out", "What was not saved in it is gone.")
