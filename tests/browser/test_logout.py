"""Logging out, in a real browser: nothing of the former user is left in any window, and no window says what is not so."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Response, Route, WebSocketRoute, expect

from tests.browser.test_access import is_fit
from tests.browser.test_story import AASE, HEAD, HEAD_UID, IRIS, REPORT, measure
from tests.browsing import PATIENCE, Clinician, Record, RunningDemo, Window, clinician, take_picture

#: The loop of the browser that all these tests share.
pytestmark = pytest.mark.asyncio(loop_scope="session")

#: What would be left of a patient somewhere: a name, a number, a note.
TRACES = ("Bjørnstad", "Åse", "ANE-20407", "Slow wake-up", "No bleeding", "patient-1")
#: All that a window holds, beside what is seen: attributes, values of fields, and what it keeps for a reload.
HELD = """() => [document.title, document.documentElement.outerHTML, JSON.stringify(sessionStorage),
  ...[...document.querySelectorAll("input, textarea")].map(({ value }) => value)].join(" ")"""


async def is_blank(window: Window, said: str = "Ingrid Nygård has logged out", *, tries: bool = False) -> None:
    """It says who has logged out, and nothing of the patient is in it or in a frame of it. Nobody logs in while it `tries` still."""
    await window.sees("who-left", said)
    await expect(window.by("log-in")).to_have_count(0 if tries else 1)
    assert await window.page.locator("iframe").count() == 0
    held = await window.page.evaluate(HELD)
    assert [trace for trace in TRACES if trace in held] == []
    assert "accessToken" not in held


async def leave(window: Window) -> None:
    """Log out, and say yes."""
    await window.by("logout").click()
    await window.by("logout-sure-yes").click()


async def test_logging_out_blanks_every_window_and_the_next_user_begins_afresh(
    browser: Browser, own_demo: RunningDemo
) -> None:
    """Also what was written and not saved is gone. Who comes next has to say who it is, in whichever window.

    In the shared demo, a window of an earlier test may still be a lost participant of the next user's session.
    """
    async with clinician(browser, own_demo) as at_desk:
        ehr = await at_desk.log_in()
        await ehr.open_patient(AASE)
        chart = ehr.chart()
        await chart.in_step()
        windows = [ehr, *[await at_desk.launch(ehr, name) for name in ("pacs", "second-opinion", "reporting")]]
        _, pacs, second, reporting = windows
        await ehr.open_part(HEAD)
        await ehr.open_part(REPORT)
        await expect(reporting.by("report")).to_be_visible()
        await expect(pacs.by("image")).to_have_attribute("data-ready", HEAD_UID)
        await measure(pacs)
        await expect(reporting.by("measurement")).to_have_count(1)
        await reporting.by("findings").fill("No bleeding.")
        await chart.by("notes").fill("Slow wake-up")
        await second.by("wire-toggle").click()
        await ehr.by("logout").click()
        await expect(ehr.by("logout-sure")).to_have_accessible_description(re.compile("logs Ingrid Nygård out of all"))
        await ehr.by("logout-sure-no").click()
        await reporting.in_step()
        await leave(ehr)
        await asyncio.gather(*(is_blank(window) for window in windows))
        await expect(ehr.by("who-left")).to_be_focused()
        await reporting.sees("logged-out", "What was not saved in it is gone.")
        await take_picture("logout", *windows)
        await ehr.page.reload()
        await is_blank(ehr)

        await ehr.by("log-in").click()
        await ehr.page.get_by_role("button", name="Samuel Okafor").click()
        await ehr.sees("user", "Samuel Okafor")
        await ehr.in_step()
        await expect(ehr.by("welcome")).to_be_visible()
        await expect(ehr.by("participant").first).to_be_visible()
        for former in ("PACS", "Second opinion", "Reporting"):  # the chart's frame may have joined already
            await expect(ehr.by("participant", name=former)).to_have_count(0)
        await ehr.open_patient(IRIS)
        await ehr.chart().sees("local-number", "ANE-20414")
        await pacs.by("log-in").click()
        await pacs.consent()
        await pacs.sees("user", "Samuel Okafor")
        await pacs.sees("patient-banner", "Sokki")
        await is_blank(reporting)
        await leave(pacs)
        await is_blank(ehr, "Samuel Okafor has logged out")


async def test_whoever_opens_a_new_window_after_a_logout_has_to_log_in(browser: Browser, demo: RunningDemo) -> None:
    """The login server does not take the next user for the one before."""
    async with clinician(browser, demo) as at_desk:
        ehr = await at_desk.log_in()
        again = await at_desk.context.new_page()
        await again.goto(demo.apps["ehr"])
        await Window(again).sees("user", "Ingrid Nygård")
        await leave(Window(again))
        await is_blank(ehr)
        page = await at_desk.context.new_page()
        await page.goto(demo.apps["ehr"])
        await expect(page.get_by_role("button", name="Mei-Lin Chen")).to_be_visible()


async def test_a_window_whose_login_had_begun_does_not_take_the_next_user(browser: Browser, demo: RunningDemo) -> None:
    """The former user opened the window. Its login goes on when the next user is logged in, whom the window has to ask."""
    async with clinician(browser, demo) as at_desk:
        ehr = await at_desk.log_in()
        begun, over = asyncio.Event(), asyncio.Event()

        async def hold(route: Route) -> None:
            if route.request.frame.url.startswith(demo.apps["pacs"]):
                begun.set()
                await over.wait()
            await route.continue_()

        await at_desk.context.route("**/.well-known/smart-configuration", hold)
        async with at_desk.context.expect_page() as opening:
            await ehr.by("launch-pacs").click()
        pacs = await opening.value
        await asyncio.wait_for(begun.wait(), PATIENCE / 1000)
        await leave(ehr)
        await is_blank(ehr)
        await ehr.by("log-in").click()
        await ehr.page.get_by_role("button", name="Samuel Okafor").click()
        await ehr.sees("user", "Samuel Okafor")
        over.set()
        await expect(pacs.get_by_role("button", name="Mei-Lin Chen")).to_be_visible()


async def test_a_window_that_is_busy_is_blank_at_once(browser: Browser, demo: RunningDemo) -> None:
    """Events wait for those before them, here for a study that never comes; a logout does not. Nor do unsaved notes hold it."""
    async with clinician(browser, demo) as at_desk:
        ehr = await at_desk.log_in()
        await ehr.open_patient(AASE)
        pacs = await at_desk.launch(ehr, "pacs")
        await pacs.page.route("**/dicomweb/studies/**", lambda _: asyncio.sleep(0))
        await ehr.open_part(HEAD)
        await pacs.sees("empty", "Fetching the study")
        await pacs.page.route("**/token", lambda route: route.abort())  # nor does the login server tell it
        await ehr.chart().by("notes").fill("Slow wake-up")
        await leave(ehr)
        await asyncio.gather(is_blank(ehr), is_blank(pacs))


async def refuse(route: Route) -> None:
    """As a gateway whose hub is away, to whoever publishes."""
    if "json" in (route.request.headers.get("content-type") or ""):
        await route.fulfill(status=502, content_type="text/html", body="<h1>Bad gateway</h1>")
    else:
        await route.continue_()


@asynccontextmanager
async def unheard(browser: Browser, demo: RunningDemo) -> AsyncIterator[tuple[Clinician, Record, Window]]:
    """A record and a PACS that show a patient. Nothing that the record publishes gets through to the hub."""
    async with clinician(browser, demo) as at_desk:
        at_desk.may_complain = True
        ehr = await at_desk.log_in()
        await ehr.open_patient(AASE)
        await ehr.chart().in_step()
        pacs = await at_desk.launch(ehr, "pacs")
        await ehr.page.route("**/api/hub", refuse)
        yield at_desk, ehr, pacs


async def test_a_logout_that_is_not_told_is_not_said_to_be(browser: Browser, demo: RunningDemo) -> None:
    """The page is blank at once, and says that the others may still show patients, until they are told."""
    async with unheard(browser, demo) as (at_desk, ehr, pacs):
        needed = {f"{demo.apps[name]}/end-session" for name in ("auth", "login")}  # the chart has a login of its own
        ended = asyncio.Event()

        def note(answer: Response) -> None:
            needed.discard(answer.url)
            if not needed:
                ended.set()

        at_desk.context.on("response", note)
        await leave(ehr)
        await ehr.sees("logged-out", "could not be told, and may still show patients: the hub answered with status 502")
        await asyncio.wait_for(ended.wait(), PATIENCE / 1000)
        await is_blank(ehr, tries=True)
        await pacs.sees("patient-banner", "Åse")
        await take_picture("logout-unsent", ehr)
        await is_fit(ehr.page, "logged out, and the others do not know")
        await ehr.page.unroute("**/api/hub")
        await is_blank(pacs)
        await expect(ehr.by("logged-out")).not_to_contain_text("other windows")
        await is_blank(ehr)


async def test_a_reload_before_the_others_are_told_does_not_make_it_well(browser: Browser, demo: RunningDemo) -> None:
    """The page says that the others were not told. They ask the login server as soon as they have to connect again."""
    async with unheard(browser, demo) as (_, ehr, pacs):
        await leave(ehr)
        await ehr.sees("logged-out", "tries again")
        ehr.page.on("dialog", lambda dialog: dialog.accept())
        await ehr.page.reload()
        await ehr.sees("logged-out", "were not told, and may still show patients")
        await is_blank(ehr)
        await pacs.in_step()
        demo.kill_hub()
        await is_blank(pacs)


async def test_a_reload_before_the_hub_has_answered_says_so(browser: Browser, own_demo: RunningDemo) -> None:
    """Nobody may think that the others know."""
    async with unheard(browser, own_demo) as (_, ehr, _):
        await ehr.page.route("**/api/hub", lambda _: asyncio.sleep(0))
        await leave(ehr)
        kept = None
        while kept is None:  # at once, for a tab that dies now
            kept = await ehr.page.evaluate("sessionStorage.getItem('logged-out')")
        assert "the hub does not answer" in kept
        ehr.page.on("dialog", lambda dialog: dialog.accept())
        await ehr.page.reload()
        await ehr.sees("logged-out", "were not told, and may still show patients")
        await is_blank(ehr)


async def test_a_page_whose_login_has_ended_says_that_it_tells_nobody_any_more(
    browser: Browser, own_demo: RunningDemo
) -> None:
    """Once its token is over, it gets no other one."""
    async with unheard(browser, own_demo) as (_, ehr, _):
        await leave(ehr)
        await ehr.sees("logged-out", "tries again")

        async def expired(route: Route) -> None:
            await route.fulfill(status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})

        await ehr.page.route("**/api/hub", expired)
        await ehr.sees("logged-out", "were not told, and may still show patients")
        await is_blank(ehr)


async def test_the_chart_in_a_window_of_its_own_logs_out_like_any_other(browser: Browser, demo: RunningDemo) -> None:
    """Its token for the hub comes from the login of the house, and allows that."""
    async with clinician(browser, demo) as at_desk:
        ehr = await at_desk.log_in()
        chart = Window(await at_desk.context.new_page())
        await chart.page.goto(demo.apps["chart"])
        await chart.in_step()
        await leave(chart)
        await asyncio.gather(is_blank(ehr), is_blank(chart))


async def test_a_window_that_was_away_learns_of_the_logout(browser: Browser, demo: RunningDemo) -> None:
    """The hub dies, the user leaves meanwhile, and the session is gone before the other window is back."""
    async with clinician(browser, demo) as at_desk:
        at_desk.may_complain = True
        ehr = await at_desk.log_in()
        await ehr.open_patient(AASE)
        pacs = await at_desk.launch(ehr, "pacs")
        demo.kill_hub()
        await leave(ehr)
        await asyncio.gather(is_blank(ehr), is_blank(pacs))


async def test_a_window_in_another_browser_learns_of_the_logout_too(browser: Browser, own_demo: RunningDemo) -> None:
    """Its own login goes on. The session that it showed has ended, and whoever logs in now has another one."""
    async with clinician(browser, own_demo) as at_desk, clinician(browser, own_demo) as at_home:
        at_desk.may_complain = at_home.may_complain = True
        is_away = False

        async def connect(socket: WebSocketRoute) -> None:
            await socket.close() if is_away else socket.connect_to_server()

        await at_home.context.route_web_socket("**/*", connect)
        ehr, other = await at_desk.log_in(), await at_home.log_in()
        await other.open_patient(AASE)
        await other.in_step()

        async def unnamed(route: Route) -> None:
            """As of a login server whose hub gave no session in time."""
            answer = await route.fetch()
            named = await answer.json()
            await route.fulfill(response=answer, json={name: named[name] for name in named if name != "hub.topic"})

        is_away = True
        await other.page.route("**/token", unnamed)
        own_demo.kill_hub()
        await expect(ehr.by("sync-status", state="busy")).to_be_visible()
        await ehr.in_step()
        await leave(ehr)
        await is_blank(ehr)
        await expect(ehr.by("logged-out")).not_to_contain_text("other windows")
        await other.sees("patient-banner", "Åse")
        is_away = False
        await other.sees("sync-why", "The login server has not said yet")
        await other.page.unroute("**/token")
        await is_blank(other, "This session has ended")


async def test_a_page_whose_login_is_over_follows_nobody(browser: Browser, demo: RunningDemo) -> None:
    """It says so, and is not in step, be the patient still there."""
    async with clinician(browser, demo) as at_desk:
        at_desk.may_complain = True
        ehr = await at_desk.log_in()
        await ehr.in_step()
        over = {"error": "invalid_grant", "error_description": "refresh_token is revoked"}
        await ehr.page.route("**/token", lambda route: route.fulfill(status=400, json=over))
        demo.kill_hub()
        await ehr.sees("problem-text", "The login has ended.")
        await expect(ehr.by("sync-status", connection="ended")).to_be_visible()


async def test_nobody_is_in_step_before_the_login_server_has_said_who_is_logged_in(
    browser: Browser, demo: RunningDemo
) -> None:
    """A window that comes back may have missed the logout. It asks until it is answered."""
    async with clinician(browser, demo) as at_desk:
        at_desk.may_complain = True
        ehr = await at_desk.log_in()
        await ehr.in_step()
        await ehr.page.route("**/token", lambda route: route.abort())
        demo.kill_hub()
        await ehr.sees("sync-why", "The login server has not said yet")
        await ehr.page.reload()
        await ehr.sees("sync-why", "The login server has not said yet")
        await ehr.page.unroute("**/token")
        await ehr.in_step()


async def test_a_login_server_that_does_not_answer_is_told_of(browser: Browser, demo: RunningDemo) -> None:
    """Then it may take the next user for this one; this window asks anew all the same."""
    async with clinician(browser, demo) as at_desk:
        at_desk.may_complain = True
        ehr = await at_desk.log_in()
        await ehr.page.route("**/end-session", lambda route: route.abort())
        await leave(ehr)
        await ehr.sees("logged-out", "may take the next user for Ingrid Nygård")
        await ehr.by("log-in").click()
        await expect(ehr.page.get_by_role("button", name="Mei-Lin Chen")).to_be_visible()
        record = Record(ehr.page)
        await record.page.get_by_role("button", name="Ingrid Nygård").click()
        await leave(record)
        await is_blank(record)


async def test_an_application_that_the_record_launches_asks_nobody_again(browser: Browser, demo: RunningDemo) -> None:
    """A launch names its user, also where the login server did not answer when the former user left."""
    async with clinician(browser, demo) as at_desk:
        at_desk.may_complain = True
        ehr = await at_desk.log_in()
        await ehr.open_patient(AASE)
        await ehr.chart().in_step()
        await at_desk.context.route("**/end-session", lambda route: route.abort())
        await leave(ehr)
        await ehr.sees("logged-out", "may take the next user for Ingrid Nygård")
        await ehr.by("log-in").click()
        await ehr.page.get_by_role("button", name="Samuel Okafor").click()
        await ehr.open_patient(IRIS)
        await ehr.chart().sees("local-number", "ANE-20414")
        await ehr.chart().in_step()
        await leave(ehr)
        await is_blank(ehr, "Samuel Okafor has logged out")


async def test_a_page_that_comes_back_out_of_the_browsers_memory_begins_anew(
    browser: Browser, demo: RunningDemo
) -> None:
    """The user may have left since. Playwright's Chromium keeps no such page, so that the event is made here."""
    async with clinician(browser, demo) as at_desk:
        ehr = await at_desk.log_in()
        await ehr.in_step()
        await ehr.page.evaluate("window.neverReloaded = true")
        async with ehr.page.expect_navigation():
            await ehr.page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
        await ehr.in_step()
        assert not await ehr.page.evaluate("window.neverReloaded")
