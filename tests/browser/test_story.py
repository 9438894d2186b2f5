"""The demo's story (demo/README.md), sentence by sentence, in a real browser."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import Browser, expect

from tests.browsing import RunningDemo, Window, clinician, take_picture

#: The loop of the browser that all these tests share.
pytestmark = pytest.mark.asyncio(loop_scope="session")

#: Who has two studies; who is neither in the chart's table nor, with that study, in PACS; whose birth date the chart has otherwise.
AASE, WOJCIECH, MARIA, IRIS = "patient-1", "patient-5", "patient-9", "patient-2"
HEAD, SPINE = "ImagingStudy/study-1", "ImagingStudy/study-8"
HEAD_UID = "2.25.194508215601508701336214457588706156187"
REPORT = "DiagnosticReport/report-1"
#: By the clocks of the browser, in milliseconds: when the next click comes, and when the image of a study is there.
CLICKED = """() => addEventListener("click", (event) => {
  window.clicked = performance.timeOrigin + event.timeStamp;
}, { capture: true, once: true })"""
SHOWN = """(uid) => new Promise((shown) => {
  const image = document.querySelector('[data-test="image"]');
  const look = () => image.dataset.ready === uid && shown(performance.timeOrigin + performance.now());
  new MutationObserver(look).observe(image, { attributes: true });
  look();
})"""


async def test_the_viewers_show_the_study_that_the_record_opens(
    browser: Browser, demo: RunningDemo, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each finds it by a number of its own. The time from the click to the image is printed."""
    async with clinician(browser, demo) as ingrid:
        ehr = await ingrid.log_in()
        await ehr.open_patient(AASE)
        pacs, second = await ingrid.launch(ehr, "pacs"), await ingrid.launch(ehr, "second-opinion")
        await ehr.participant("PACS", "in-step")
        await ehr.participant("Second opinion", "in-step")
        await ehr.page.evaluate(CLICKED)
        shown = asyncio.create_task(pacs.page.evaluate(SHOWN, HEAD_UID))
        await ehr.open_part(HEAD)
        milliseconds = await shown - await ehr.page.evaluate("window.clicked")
        with capsys.disabled():
            print(f"\nfrom the click in the record to the image in PACS: {milliseconds:.0f} ms")
        await expect(pacs.by("image")).to_have_attribute("data-ready", HEAD_UID)
        await expect(second.by("image")).to_have_attribute("data-ready", HEAD_UID)
        await pacs.sees("study-facts", "PACS-100231")
        await second.sees("study-facts", "SO/1")
        await ehr.close_patient()
        await expect(pacs.by("work")).to_be_hidden()
        await expect(second.by("work")).to_be_hidden()


async def test_the_chart_follows_with_a_token_of_another_issuer(browser: Browser, demo: RunningDemo) -> None:
    """It finds its own number of the patient, and shows nobody whom it does not know for certain."""
    async with clinician(browser, demo) as ingrid:
        ehr = await ingrid.log_in()
        await ehr.open_patient(AASE)
        chart = ehr.chart()
        await chart.sees("local-number", "ANE-20407")
        await expect(chart.by("two-issuers")).to_be_visible()
        await chart.in_step()
        await ehr.open_patient(WOJCIECH)
        await chart.sees("moved-text", "no chart number")
        await ehr.sees("refusals", "Anaesthesia chart")
        await ehr.open_patient(MARIA)
        await chart.sees("moved-text", "birth date")
        await ehr.open_patient(AASE)
        await chart.sees("local-number", "ANE-20407")
        await expect(ehr.by("refusal-panel")).to_have_count(0)
        await ehr.in_step()
        await ehr.close_patient()


@pytest.mark.parametrize(("deed", "kept"), [("save", "Slow wake-up"), ("discard", "")])
async def test_unsaved_notes_hold_the_chart_back(browser: Browser, demo: RunningDemo, deed: str, kept: str) -> None:
    """The record says who did not follow, and why; once the clinician has decided, the chart follows."""
    async with clinician(browser, demo) as ingrid:
        ehr = await ingrid.log_in()
        await ehr.open_patient(AASE)
        chart = ehr.chart()
        await chart.sees("local-number", "ANE-20407")
        await chart.in_step()
        await chart.by("notes").fill("Slow wake-up")
        await chart.by("shown").evaluate("() => scrollTo(0, document.documentElement.scrollHeight)")
        await expect(chart.by("legend")).not_to_be_in_viewport()
        await ehr.open_patient(IRIS)
        await ehr.sees("refusals", "Anaesthesia chart")
        await ehr.sees("refusals", "unsaved notes")
        await chart.sees("sync-why", "its notes are not saved")
        await ehr.participant("Anaesthesia chart", "refused")
        await chart.sees("local-number", "ANE-20407")
        for kept_in_view in ("patient-name", "local-number", "moved-text", "moved-save", "moved-discard"):
            await expect(chart.by(kept_in_view)).to_be_in_viewport(ratio=1)
        await expect(chart.by("legend")).not_to_be_in_viewport()
        await take_picture("refusal", ehr)
        await chart.by(f"moved-{deed}").click()
        await chart.sees("local-number", "ANE-20414")
        await ehr.participant("Anaesthesia chart", "in-step")
        await expect(ehr.by("refusal-panel")).to_have_count(0)
        await ehr.in_step()
        await ehr.open_patient(AASE)
        await chart.sees("local-number", "ANE-20407")
        await expect(chart.by("notes")).to_have_value(kept)
        await ehr.close_patient()


async def test_applications_are_called_as_they_call_themselves_in_norwegian(
    browser: Browser, demo: RunningDemo
) -> None:
    """In the session they go by one name, whatever language each is shown in."""
    async with clinician(browser, demo, locale="nb-NO") as ingrid:
        ehr = await ingrid.log_in()
        await ehr.open_patient(WOJCIECH)
        chart = ehr.by("participant", name="Anaesthesia chart", state="refused")
        await expect(chart).to_contain_text("Anestesikurve")
        await ehr.sees("refusals", "Anestesikurve fulgte ikke")
        await ehr.sees("sync-why", "Anestesikurve")
        await ehr.close_patient()


async def test_a_study_that_a_viewer_does_not_have_is_refused(browser: Browser, demo: RunningDemo) -> None:
    """It shows no images and says why; the other viewer shows it, and the record tells of it."""
    async with clinician(browser, demo) as ingrid:
        ehr = await ingrid.log_in()
        await ehr.open_patient(AASE)
        pacs, second = await ingrid.launch(ehr, "pacs"), await ingrid.launch(ehr, "second-opinion")
        await ehr.open_part(HEAD)
        await expect(pacs.by("image")).to_have_attribute("data-ready", HEAD_UID)
        await ehr.open_patient(WOJCIECH)
        await ehr.open_part(SPINE)
        await second.sees("study-facts", "SO/8")
        await expect(pacs.by("refusal")).to_be_visible()
        await expect(pacs.by("image")).to_be_hidden()
        await expect(pacs.by("announcement")).to_be_empty()
        await ehr.sees("refusals", "PACS")
        await ehr.participant("PACS", "refused")
        await ehr.participant("Second opinion", "in-step")
        await ehr.close_patient()


async def test_a_measurement_is_in_the_report_and_in_both_viewers(browser: Browser, own_demo: RunningDemo) -> None:
    """As it is made; what is selected in one place is highlighted in all; signing closes the report everywhere."""
    demo = own_demo
    async with clinician(browser, demo) as samuel:
        ehr = await samuel.log_in("Samuel Okafor")
        await ehr.open_patient(AASE)
        pacs, second = await samuel.launch(ehr, "pacs"), await samuel.launch(ehr, "second-opinion")
        reporting = await samuel.launch(ehr, "reporting")
        await ehr.open_part(HEAD)
        await ehr.open_part(REPORT)
        await expect(reporting.by("report")).to_be_visible()
        await expect(pacs.by("image")).to_have_attribute("data-ready", HEAD_UID)
        await measure(pacs)
        await expect(reporting.by("measurement")).to_have_count(1)
        await expect(second.by("measurement")).to_have_count(1)
        await measure(second)
        await expect(reporting.by("measurement")).to_have_count(2)
        await expect(pacs.by("measurement")).to_have_count(2)
        await reporting.by("measurement-select").first.click()
        await expect(reporting.by("measurement", selected="yes")).to_have_count(1)
        for viewer in (pacs, second):
            await expect(
                viewer.by("measurement-select").and_(viewer.page.locator("[aria-pressed=true]"))
            ).to_have_count(1)
        await take_picture("windows", ehr, pacs, second, reporting)
        await second.by("wire-toggle").click()
        await expect(second.by("wire-item", event="DiagnosticReport-select", kind="event")).not_to_have_count(0)
        await take_picture("messages", second)
        await pacs.by("measurement-delete").first.click()
        await expect(reporting.by("measurement")).to_have_count(1)
        await expect(second.by("measurement")).to_have_count(1)
        await reporting.by("findings").fill("No bleeding.")
        await reporting.by("sign").click()
        await reporting.sees("said", "signed and closed")
        await expect(reporting.by("announced")).to_be_empty()
        await expect(ehr.by("part", reference=REPORT, open="false")).to_contain_text("final")
        await ehr.close_patient()


async def measure(viewer: Window) -> None:
    """A length, from one point of the image to another, once the image is there."""
    await expect(viewer.by("image")).to_have_attribute("data-ready", re.compile("."))
    await viewer.by("length").click()
    box = await viewer.by("image").bounding_box()
    assert box
    for part in (0.4, 0.6):
        await viewer.page.mouse.click(box["x"] + box["width"] * part, box["y"] + box["height"] * part)
    await viewer.by("length").click()


async def test_two_clinicians_do_not_see_each_other(browser: Browser, demo: RunningDemo) -> None:
    """Each has a session of their own."""
    async with clinician(browser, demo) as ingrid, clinician(browser, demo) as mei:
        hers, theirs = await ingrid.log_in(), await mei.log_in("Mei-Lin Chen")
        await hers.open_patient(AASE)
        await hers.sees("patient-banner", "Åse")
        await theirs.open_patient(IRIS)
        await theirs.sees("patient-banner", "Sokki")
        await hers.in_step()
        await hers.sees("patient-banner", "Åse")
        for record in (hers, theirs):
            await record.close_patient()
