"""What the record opens and the hub does not take: the record says so, tries again, and shows nobody else without a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.browser.test_access import is_fit
from tests.browser.test_story import AASE, HEAD, IRIS, SPINE, WOJCIECH
from tests.browsing import Record, RunningDemo, Window, clinician, take_picture

#: The loop of the browser that all these tests share.
pytestmark = pytest.mark.asyncio(loop_scope="session")

HUB = "**/api/hub"
#: What comes in the hub's place: a gateway's page, which is tried again, and the hub's own no, which is not.
GATEWAY = {"status": 502, "content_type": "text/html", "body": "<h1>Bad gateway</h1>"}
REFUSAL = {"status": 403, "content_type": "text/plain", "body": "not now"}

#: Keeps the ids of all patients that are shown from now on.
WATCH = """() => {
  const banner = document.querySelector("patient-banner");
  window.shown = [];
  const keep = () => window.shown.push(banner.dataset.patient);
  new MutationObserver(keep).observe(banner, { attributes: true });
}"""


@asynccontextmanager
async def unheard(page: Page, **answer: object) -> AsyncIterator[None]:
    """Whatever the page publishes within the block is answered so."""

    async def reply(route: Route) -> None:
        if "json" in (route.request.headers.get("content-type") or ""):
            await route.fulfill(**answer)  # type: ignore[arg-type]
        else:
            await route.continue_()

    await page.route(HUB, reply)
    yield
    await page.unroute(HUB)


@asynccontextmanager
async def at_desk(browser: Browser, demo: RunningDemo) -> AsyncIterator[tuple[Record, Window]]:
    """The record and PACS, both at Åse; at the end nobody is open."""
    async with clinician(browser, demo) as ingrid:
        ingrid.may_complain = True
        ehr = await ingrid.log_in()
        await ehr.open_patient(AASE)
        pacs = await ingrid.launch(ehr, "pacs")
        await ehr.chart().in_step()
        yield ehr, pacs
        await ehr.open_patient(AASE)
        await ehr.in_step()
        await ehr.close_patient()


async def is_out_of_step(ehr: Record, name: str) -> None:
    """It shows this patient, and says that nobody else does."""
    await ehr.sees("patient-banner", name)
    await expect(ehr.by("sync-status")).to_have_attribute("data-state", "bad")
    await ehr.sees(
        "sync-why", "The others were not told of Patient-open, and may show something else: the hub answered"
    )


@pytest.mark.parametrize("answer", [GATEWAY, REFUSAL], ids=["gateway", "refusal"])
async def test_tell_the_others_tries_again(browser: Browser, demo: RunningDemo, answer: dict[str, object]) -> None:
    async with at_desk(browser, demo) as (ehr, pacs):
        async with unheard(ehr.page, **answer):
            await ehr.open_patient(IRIS)
            await is_out_of_step(ehr, "Sokki")
            await ehr.by("tell-others").click()
            await ehr.sees("trouble", "The others were not told")
            await is_out_of_step(ehr, "Sokki")
            await pacs.sees("patient-banner", "Åse")
            await take_picture("unsent", ehr)
        if answer is REFUSAL:  # after a gateway's answer the page tries by itself, and the button may be gone
            await ehr.by("tell-others").click()
        await pacs.sees("patient-banner", "Sokki")
        await ehr.in_step()
        await expect(ehr.by("tell-others")).to_have_count(0)
        await expect(ehr.by("trouble")).to_be_hidden()


async def test_tell_the_others_tells_what_is_shown(browser: Browser, demo: RunningDemo) -> None:
    """Not the patient before, whom the others were not told of either, while the hub takes its time with the newer one."""
    async with at_desk(browser, demo) as (ehr, pacs), unheard(ehr.page, **GATEWAY):
        await ehr.open_patient(IRIS)
        await is_out_of_step(ehr, "Sokki")
        waiting: asyncio.Queue[Route] = asyncio.Queue()
        is_slow = True

        async def hold(route: Route) -> None:
            if is_slow and AASE in (route.request.post_data or ""):
                await waiting.put(route)
            elif is_slow:
                await route.fallback()
            else:
                await route.continue_()

        await ehr.page.route(HUB, hold)
        await ehr.open_patient(AASE)
        held = await waiting.get()
        is_slow = False
        await ehr.by("tell-others").click()
        await ehr.in_step()
        await held.abort()
        for window in (ehr, pacs):
            await window.sees("patient-banner", "Åse")
            await window.in_step()


async def test_who_asks_for_what_the_others_show_closes_nothing_for_them(browser: Browser, demo: RunningDemo) -> None:
    """A hub that does not answer says of nobody that nobody is open."""
    async with at_desk(browser, demo) as (ehr, pacs):
        async with unheard(ehr.page, **GATEWAY):
            await ehr.open_patient(IRIS)
            await is_out_of_step(ehr, "Sokki")
            await ehr.page.reload()
            await is_out_of_step(ehr, "Sokki")
        await ehr.page.route(
            f"{HUB}/*", lambda route: route.abort() if route.request.method == "GET" else route.continue_()
        )
        await ehr.by("follow-others").click()
        await ehr.sees("trouble", "The others were not told")
        await ehr.sees("patient-banner", "Sokki")
        await pacs.sees("patient-banner", "Åse")
        await ehr.page.unroute(f"{HUB}/*")
        await ehr.by("follow-others").click()
        await ehr.sees("patient-banner", "Åse")
        await ehr.in_step()


async def test_the_others_are_told_without_a_click_once_the_hub_is_there(browser: Browser, demo: RunningDemo) -> None:
    async with at_desk(browser, demo) as (ehr, pacs):
        async with unheard(ehr.page, **GATEWAY):
            await ehr.open_patient(IRIS)
            await is_out_of_step(ehr, "Sokki")
        await pacs.sees("patient-banner", "Sokki")
        await ehr.in_step()
        await expect(ehr.by("trouble")).to_be_hidden()


async def test_whoever_goes_back_before_the_hub_is_there_has_told_the_others(
    browser: Browser, demo: RunningDemo
) -> None:
    """What this window and the others show already is given to no handler."""
    async with at_desk(browser, demo) as (ehr, pacs):
        async with unheard(ehr.page, **GATEWAY):
            await ehr.open_patient(IRIS)
            await is_out_of_step(ehr, "Sokki")
            await ehr.open_patient(AASE)
            await is_out_of_step(ehr, "Åse")
        await ehr.in_step()
        await expect(ehr.by("trouble")).to_be_hidden()
        await pacs.sees("patient-banner", "Åse")


@pytest.mark.parametrize(("choice", "name"), [("tell-others", "Sokki"), ("follow-others", "Åse")])
async def test_a_reload_does_not_jump(browser: Browser, demo: RunningDemo, choice: str, name: str) -> None:
    """The window shows whom it showed, says that the others do not, and lets the clinician choose."""
    async with at_desk(browser, demo) as (ehr, pacs):
        async with unheard(ehr.page, **GATEWAY):
            await ehr.open_patient(IRIS)
            await is_out_of_step(ehr, "Sokki")
            await ehr.page.reload()
            await is_out_of_step(ehr, "Sokki")
            await expect(pacs.by("sync-status")).to_have_attribute("data-state", "warn")
            await pacs.sees("sync-why", "Hospital record")
            await is_out_of_step(ehr, "Sokki")
            for frame in ehr.page.frames:  # the chart logs in again, and is blank meanwhile
                await frame.wait_for_selector("html[data-ready]", state="attached")
            await take_picture("unsent-reload", ehr)
            await is_fit(ehr.page, "the record, out of step")
        await ehr.by(choice).click()
        for window in (ehr, pacs):
            await window.sees("patient-banner", name)
            await window.in_step()
        await ehr.page.reload()
        await ehr.sees("patient-banner", name)
        await ehr.in_step()


@pytest.mark.parametrize("answer", [GATEWAY, REFUSAL], ids=["gateway", "refusal"])
async def test_what_was_not_told_can_be_given_up(
    browser: Browser, demo: RunningDemo, answer: dict[str, object]
) -> None:
    """Without a reload, and while the hub takes nothing: what was given up is never told afterwards."""
    async with at_desk(browser, demo) as (ehr, pacs):
        await ehr.open_part(HEAD)
        await expect(pacs.by("viewer")).to_have_attribute("data-study", HEAD)
        await pacs.page.evaluate(WATCH)
        async with unheard(ehr.page, **answer):
            await ehr.open_patient(IRIS)
            await is_out_of_step(ehr, "Sokki")
            await is_fit(ehr.page, "the record, what was not told can be given up")
            await ehr.by("follow-others").click()
            await ehr.sees("sync-why", "The others were not told of ImagingStudy-open")
            await ehr.sees("patient-banner", "Åse")
        if answer is REFUSAL:
            await ehr.by("follow-others").click()
        for window in (ehr, pacs):
            await window.sees("patient-banner", "Åse")
            await window.in_step()
        await expect(ehr.by("follow-others")).to_have_count(0)
        assert "patient-2" not in await pacs.page.evaluate("window.shown")


async def test_what_was_not_told_can_be_given_up_where_nobody_is_open(browser: Browser, demo: RunningDemo) -> None:
    async with at_desk(browser, demo) as (ehr, pacs):
        await ehr.close_patient()
        await pacs.sees("patient-banner", "No patient is open")
        async with unheard(ehr.page, **GATEWAY):
            await ehr.open_patient(IRIS)
            await is_out_of_step(ehr, "Sokki")
            await ehr.by("follow-others").click()
            await expect(ehr.by("welcome")).to_be_visible()
        for window in (ehr, pacs):
            await window.in_step()
            await window.sees("patient-banner", "No patient is open")


async def test_a_refusal_is_in_english_on_the_wire_and_in_the_users_language_in_the_own_window(
    browser: Browser, demo: RunningDemo
) -> None:
    """Another application quotes what came over the wire."""
    async with clinician(browser, demo, locale="nb-NO") as ingrid:
        ehr = await ingrid.log_in()
        await ehr.open_patient(AASE)
        other = Record(await ingrid.context.new_page())
        await other.page.route("**/fhir/Patient?**", without_iris)
        await other.page.goto(demo.apps["ehr"])
        await other.sees("patient-banner", "Åse")
        await ehr.open_patient(IRIS)
        await other.sees("sync-why", "journalen kjenner ikke denne pasienten")
        await ehr.sees("refusals", "fulgte ikke: «the record does not know this patient»")
        await ehr.open_patient(WOJCIECH)
        await other.sees("patient-banner", "Wojciech")
        pacs = await ingrid.launch(ehr, "pacs")
        await ehr.open_part(SPINE)
        await pacs.sees("sync-why", "arkivet har ikke undersøkelsen")
        await ehr.sees("refusals", "fulgte ikke: «No study here")
        await ehr.close_patient()


async def without_iris(route: Route) -> None:
    """As a record that does not know her."""
    answer = await route.fetch()
    found = await answer.json()
    found["entry"] = [entry for entry in found["entry"] if entry["resource"]["id"] != IRIS]
    await route.fulfill(response=answer, json=found)


async def test_a_close_that_is_not_told_leaves_nobody_here_and_says_so(browser: Browser, demo: RunningDemo) -> None:
    async with at_desk(browser, demo) as (ehr, pacs):
        async with unheard(ehr.page, **REFUSAL):
            await ehr.close_patient()
            await ehr.sees("sync-why", "The others were not told of Patient-close")
            await ehr.page.reload()
            await ehr.sees("sync-why", "The others were not told of Patient-close")
            await expect(ehr.by("welcome")).to_be_visible()
            await pacs.sees("patient-banner", "Åse")
        await ehr.by("follow-others").click()
        await ehr.sees("patient-banner", "Åse")


async def test_a_part_that_is_closed_tells_nobody_who_is_shown(browser: Browser, demo: RunningDemo) -> None:
    """The hub takes the close, and the others go on showing another patient than the record."""
    async with at_desk(browser, demo) as (ehr, pacs):
        await ehr.open_part(HEAD)
        await ehr.open_patient(IRIS)
        await pacs.sees("patient-banner", "Sokki")
        async with unheard(ehr.page, **REFUSAL):
            await ehr.open_patient(AASE)
            await is_out_of_step(ehr, "Åse")
        await ehr.by("part", reference=HEAD).get_by_role("button", name="Close").click()
        await expect(ehr.by("part", reference=HEAD, open="false")).to_be_visible()
        await is_out_of_step(ehr, "Åse")
        await pacs.sees("patient-banner", "Sokki")


async def test_open_again_opens_whom_the_record_shows(browser: Browser, demo: RunningDemo) -> None:
    """The chart did not follow, and then the record could not tell whom it shows: both are mended by one click."""
    async with at_desk(browser, demo) as (ehr, pacs):
        await ehr.chart().by("notes").fill("Slow wake-up")
        await ehr.open_patient(IRIS)
        await expect(ehr.by("refusal-panel")).to_have_count(1)
        await ehr.chart().by("moved-discard").click()
        await ehr.chart().by("notes").fill("Slow wake-up")
        await ehr.open_patient(AASE)
        await expect(ehr.by("refusal-panel")).to_have_count(1)
        async with unheard(ehr.page, **REFUSAL):
            await ehr.open_patient(IRIS)
            await is_out_of_step(ehr, "Sokki")
        await ehr.by("refusal-again").click()
        await pacs.sees("patient-banner", "Sokki")
        await ehr.chart().by("moved-discard").click()
        await ehr.in_step()
