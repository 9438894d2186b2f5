"""The operator's console in a real browser: logging in, what changes by itself, ending a session, and that everybody can use it."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import pytest
from playwright.async_api import Browser, expect

from fhircast_hub.auth.issuer_health import About
from fhircast_hub.console import streams
from fhircast_hub.core.access.scopes import CONSOLE_READ, CONSOLE_WRITE
from tests.browser.console_page import console_page
from tests.browser.test_access import is_fit
from tests.browsing import save_picture
from tests.console.console_world import Operated, operated
from tests.console.login_server import LoginServer
from tests.running import TOPIC, event, until

#: The loop of the browser that all these tests share.
pytestmark = pytest.mark.asyncio(loop_scope="session")

EVENTS = "Patient-open,Patient-close,SyncError"
CLIENT = "fhircast-console"
LAPTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


async def refuse(console: Operated, endpoint: str) -> None:
    """A patient is opened, and the subscriber of this endpoint does not follow."""
    async with console.hub.follow(endpoint) as follower:
        await console.open()
        message = await follower.next()
        answer = {"id": message["id"], "status": 409, "reason": "a note is not signed"}
        await follower.connection.send(json.dumps(answer))
        async with console.stream(session=console.hash()) as stream:
            await stream.until("session", lambda part: part["problems"])


# Logging in


@pytest.mark.req("CSL-10")
async def test_an_operator_logs_in_by_code_and_pkce(browser: Browser) -> None:
    """The request names the hub as resource, both scopes and a challenge. Afterwards nothing of it is in the address bar or kept."""
    async with LoginServer() as server:
        server.publish_login()
        async with operated(issuer=server, console_client_id=CLIENT) as console:
            server.token = lambda: console.operator
            async with console_page(browser, console) as page:
                await page.open()
                await page.by("login-begin").click()
                await expect(page.by("shown")).to_be_visible()
                (asked,) = server.asked_for
                assert asked["response_type"] == "code"
                assert asked["client_id"] == CLIENT
                assert asked["redirect_uri"] == f"{console.hub.origin}/console"
                assert asked["scope"] == f"{CONSOLE_READ} {CONSOLE_WRITE}"
                assert asked["aud"] == asked["resource"] == console.hub.url
                assert (asked["code_challenge_method"], len(asked["code_challenge"])) == ("S256", 43)
                assert page.page.url == f"{console.hub.origin}/console"
                kept = "JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie])"
                assert console.operator not in await page.page.evaluate(kept)
                await page.by("leave").click()
                await expect(page.by("login-begin")).to_be_focused()
                await expect(page.by("shown")).to_be_hidden()


@pytest.mark.req("CSL-10")
@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"error": "access_denied"}, "The login failed: access_denied"),
        ({"named": "https://evil.example"}, "does not belong to this page"),
    ],
)
async def test_a_login_that_fails_says_why(browser: Browser, members: dict[str, str], words: str) -> None:
    """The answer of another server is not taken either (RFC 9207)."""
    async with LoginServer() as server:
        server.publish_login()
        for name, value in members.items():
            setattr(server, name, value)
        async with operated(issuer=server, console_client_id=CLIENT) as console, console_page(browser, console) as page:
            await page.open()
            await page.by("login-begin").click()
            await expect(page.by("login-why")).to_contain_text(words)
            await expect(page.by("login-begin")).to_be_visible()


@pytest.mark.req("CSL-10")
async def test_an_answer_that_nobody_asked_for_is_not_taken(browser: Browser) -> None:
    """Its state is not the one of this window."""
    async with LoginServer() as server:
        server.publish_login()
        async with operated(issuer=server, console_client_id=CLIENT) as console, console_page(browser, console) as page:
            await page.open("?code=x&state=y")
            await expect(page.by("login-why")).to_contain_text("does not belong to this page")
            assert page.page.url == f"{console.hub.origin}/console"


@pytest.mark.req("CSL-10")
async def test_a_token_is_pasted_on_loopback_only(browser: Browser) -> None:
    """Elsewhere the page says what to do. A token without the scope is refused in words."""
    async with operated() as console, console_page(browser, console) as page:
        await page.open(host="hub.localhost")
        await expect(page.by("login-about")).to_contain_text("FHIRCAST_CONSOLE_CLIENT_ID")
        await expect(page.by("paste")).to_be_hidden()
        await page.open()
        await page.by("token").fill(console.hub.token())
        await page.by("token").press("Enter")
        await expect(page.by("login-why")).to_contain_text("The token does not allow the console")
        await page.by("token").fill(console.reader)
        await page.by("token").press("Enter")
        await expect(page.by("shown")).to_be_visible()


@pytest.mark.req("CSL-10", "CSL-14")
async def test_without_https_the_page_says_why_there_is_no_login(browser: Browser) -> None:
    """In both languages. A token may be pasted still, on loopback."""
    async with LoginServer() as server:
        server.publish_login()
        async with operated(issuer=server, console_client_id=CLIENT) as console, console_page(browser, console) as page:
            await page.page.add_init_script("Object.defineProperty(crypto, 'subtle', { value: undefined })")
            await page.open()
            await expect(page.by("login-about")).to_contain_text("Open the page with https")
            await expect(page.by("login-begin")).to_be_hidden()
            await expect(page.by("token-label")).to_have_text("Paste a token")
            await page.page.get_by_role("button", name="Norsk").click()
            await expect(page.by("login-about")).to_contain_text("Åpne siden med https")


@pytest.mark.req("CSL-12")
async def test_a_token_of_the_fragment_leaves_the_address_bar(browser: Browser) -> None:
    async with operated() as console, console_page(browser, console) as page:
        await page.open(f"#token={console.operator}")
        await expect(page.by("shown")).to_be_visible()
        assert page.page.url == f"{console.hub.origin}/console"
        await page.page.goto("about:blank")
        await page.open(f"#token={console.operator}", host="hub.localhost")
        await expect(page.by("login-about")).to_be_visible()
        assert "token" not in page.page.url
        await expect(page.by("shown")).to_be_hidden()


# What is shown


@pytest.mark.req("CSL-3", "CSL-4", "CSL-14")
async def test_changes_are_seen_and_move_neither_focus_nor_scroll_position(browser: Browser) -> None:
    """A participant refuses while the operator reads: the list keeps its order, the text that was selected stays selected."""
    async with operated() as console, console_page(browser, console) as page:
        chart = await console.hub.subscribe(EVENTS, **{"subscriber.name": "Chart"})
        for number in range(30):
            console.hub.clock.now += 1
            await console.open(topic=f"topic-{number:02}")
        await page.paste(console.reader)
        await expect(page.by("count")).to_have_text("31 sessions")
        await page.row().click()
        await expect(page.by("participants")).to_contain_text("not connected yet")
        button = page.row("topic-20")
        await button.focus()
        await page.page.evaluate("scrollBy(0, 300)")
        await page.page.evaluate("getSelection().selectAllChildren(document.getElementById('session-title'))")
        order = "[...document.querySelectorAll('#list tbody tr')].map((row) => row.dataset.key)"
        place = f"[scrollY, getSelection().toString(), {order}.join()]"
        before = await page.page.evaluate(place)
        console.hub.clock.now += 1
        await refuse(console, chart)
        await expect(page.by("problems")).to_contain_text("Chart refused to follow Patient-open (status 409)")
        await expect(page.by("events")).to_contain_text("Patient-open")
        await expect(page.fact("fact.refusals")).to_have_text("1")
        assert await page.page.evaluate(place) == before
        await expect(button).to_be_focused()
        await expect(page.by("end")).to_be_hidden()  # a reader only looks


@pytest.mark.req("CSL-3")
async def test_states_are_seen_in_words(browser: Browser) -> None:
    """Three applications of a clinician: one follows, one refuses with a reason, one is not there yet."""
    async with operated() as console, console_page(browser, console) as page:
        clock, names = console.hub.clock, ("Hospital record", "Image viewer", "Anaesthesia chart")
        for number, topic in enumerate(
            ("5b3f6e0c-8f3e-4f6e-9a5e-0d5b7c1f2a11", "c0a1d5fe-3a41-4c52-8a0e-6f1d2b9e7c34")
        ):
            await console.hub.subscribe(EVENTS, console.hub.token(f"user-{number}"), hub__topic=topic)
            clock.now += 40
        record, viewer, _ = [await console.hub.subscribe(EVENTS, subscriber__name=name) for name in names]
        async with console.hub.follow(record) as first, console.hub.follow(viewer) as second:
            clock.now += 20
            await console.open()
            for follower, status in ((first, 200), (second, 409)):
                answer = {"id": (await follower.next())["id"], "status": status, "reason": "a measurement is not saved"}
                await follower.connection.send(json.dumps(answer))
            clock.now += 12
            await page.paste(console.operator)
            await page.row().click()
            shown = page.by("participants")
            for words in ("in sync", "refused Patient-open", "not connected yet"):
                await expect(shown.get_by_text(words, exact=True)).to_be_visible()
            await expect(page.by("problems")).to_contain_text("… measurement is not saved")
            await expect(page.by("events")).to_contain_text("Hospital record")
            await page.page.evaluate("document.getElementById('sessions').scrollIntoView()")
            save_picture("console", [await page.page.screenshot()])


@pytest.mark.req("CSL-3")
async def test_a_session_is_found_by_the_hash_of_a_log_line(browser: Browser) -> None:
    async with operated() as console, console_page(browser, console) as page:
        for topic in (TOPIC, "another"):
            await console.open(topic=topic)
        await page.paste(console.reader)
        await page.page.keyboard.press("/")
        await expect(page.by("search")).to_be_focused()
        await page.page.keyboard.type(console.hash("another"))
        await expect(page.by("count")).to_have_text("1 session")
        await expect(page.row("another")).to_be_visible()
        await expect(page.row()).to_have_count(0)
        await page.by("shortcut").uncheck()  # who dictates may switch a key of one character off (WCAG 2.1.4)
        await page.page.keyboard.press("/")
        await expect(page.by("search")).not_to_be_focused()


@pytest.mark.req("CSL-15")
async def test_a_cut_connection_is_said_and_made_again(browser: Browser) -> None:
    """What was shown stays there meanwhile. An expired token asks to log in."""
    async with operated() as console, console_page(browser, console) as page:
        await console.open()
        await page.paste(console.reader)
        await expect(page.by("connection")).to_have_text("Connected")
        open_streams = console.console.streams
        open_streams.stop()
        await expect(page.by("connection")).to_contain_text("Not connected")
        await expect(page.row()).to_be_visible()
        open_streams._stopped.clear()
        await expect(page.by("connection")).to_have_text("Connected")
        console.hub.clock.now += 2 * 86400
        await expect(page.by("login-why")).to_contain_text("The token is not valid any more")
        await expect(page.by("shown")).to_be_hidden()


@pytest.mark.req("CSL-15")
async def test_a_refused_stream_is_said_in_the_hubs_words(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as a cut. The page waits for as long as the hub says."""
    monkeypatch.setattr(streams, "OF_ALL", 1)
    monkeypatch.setattr(streams, "RETRY_AFTER", 1)
    async with operated() as console, console_page(browser, console) as page:
        async with console.stream(console.operator) as other:
            await other.next()
            await page.open()
            await page.by("token").fill(console.reader)
            await page.by("token").press("Enter")
            words = "Not connected: as many streams of the console are open as may be. Trying again in a while."
            await expect(page.by("connection")).to_have_text(words)
        await expect(page.by("connection")).to_have_text("Connected")


@pytest.mark.req("CSL-10", "CSL-15")
@pytest.mark.parametrize("lives", [True, False])
async def test_a_token_that_ends_soon_is_renewed_without_a_question(browser: Browser, lives: bool) -> None:
    """If the server's session lives. Else the page asks to log in, and leads back to what was looked at."""
    async with LoginServer() as server:
        server.publish_login()
        async with operated(issuer=server, console_client_id=CLIENT) as console:
            await console.open()

            def token(seconds: int = 3600) -> str:
                return console.hub.token("operator", CONSOLE_READ, exp=int(console.hub.clock.now) + seconds)

            server.token = lambda: token(60)
            async with console_page(browser, console) as page:
                await page.open()
                await page.by("login-begin").click()
                await page.by("search").fill(TOPIC)
                await page.row().click()
                await expect(page.by("session-title")).to_be_visible()
                server.token, server.error = token, "" if lives else "login_required"
                console.hub.clock.now += 45
                await until(lambda: len(server.asked_for) == 2)
                assert server.asked_for[1]["prompt"] == "none"
                if not lives:
                    await expect(page.by("login-why")).to_contain_text("Log in again")
                    server.error = ""
                    await page.by("login-begin").click()
                    await until(lambda: len(server.asked_for) == 3)
                    assert "prompt" not in server.asked_for[2]
                await expect(page.by("session-title")).to_contain_text(console.hash())
                await expect(page.by("search")).to_have_value(TOPIC)
                assert await page.page.evaluate("sessionStorage.length") == 0
                await expect(page.by("connection")).to_have_text("Connected")


@pytest.mark.req("CSL-8", "CSL-15")
async def test_a_page_whose_place_was_taken_follows_again_when_somebody_looks(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pages do not take the place from each other for ever."""
    monkeypatch.setattr(streams, "OF_OPERATOR", 1)
    async with operated() as console, console_page(browser, console) as page:
        await page.paste(console.reader)
        async with console.stream() as newer:
            await expect(page.by("connection")).to_contain_text("Another page of yours took this place")
            await page.page.evaluate("window.dispatchEvent(new Event('focus'))")
            assert (await newer.until("end", lambda part: True))["reason"] == "taken"
        await expect(page.by("connection")).to_have_text("Connected")


# Ending a session


@pytest.mark.req("CSL-7", "CSL-14")
@pytest.mark.parametrize(
    ("locale", "words"),
    [
        ("en-GB", ("End this session?", "no such session")),
        ("nb-NO", ("Avslutte denne sesjonen?", "finnes ikke lenger")),
    ],
)
async def test_a_session_is_ended_by_keyboard_alone(browser: Browser, locale: str, words: tuple[str, str]) -> None:
    """Without a mouse. What has the focus is seen to have it; without a reason nothing ends."""
    async with operated() as console, console_page(browser, console, locale=locale) as page:
        keyboard = page.page.keyboard
        for topic in ("first", "second"):
            console.hub.clock.now += 1
            await console.open(topic=topic)
        await page.open()
        await page.tab_to("token")
        await keyboard.insert_text(console.operator)
        await keyboard.press("Enter")
        await expect(page.row("second")).to_be_visible()
        await keyboard.press("/")
        await page.tab_to("shortcut")
        await keyboard.press("Tab")
        await expect(page.row("second")).to_be_focused()
        assert await page.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        await keyboard.press("ArrowDown")
        await expect(page.row("first")).to_be_focused()
        await keyboard.press("Enter")
        await expect(page.fact("topic")).to_have_text("first")
        await page.tab_to("end")
        await keyboard.press("Enter")
        await expect(page.by("ending-title")).to_have_text(words[0])
        await expect(page.by("reason")).to_be_focused()
        await keyboard.press("Enter")  # no reason: the dialog stays
        await expect(page.by("ending")).to_be_visible()
        await keyboard.press("Escape")
        await expect(page.by("end")).to_be_focused()
        await keyboard.press("Enter")
        await keyboard.type("A shared workstation")
        await page.tab_to("ending-sure")
        await keyboard.press("Enter")
        await expect(page.by("over")).to_contain_text(words[1])
        await expect(page.row("first")).to_have_count(0)
        await expect(page.row("second")).to_be_visible()
        assert console.hub.hub.service.usage.topics == 1


# For everybody


@pytest.mark.req("CSL-14")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("locale", "viewport"), [("en-GB", LAPTOP), ("nb-NO", PHONE)], ids=["laptop", "phone"])
async def test_the_page_keeps_nobody_out(
    browser: Browser, scheme: Literal["light", "dark"], locale: str, viewport: dict[str, int]
) -> None:
    """axe finds nothing, and nothing sticks out of a narrow window: the login, all sections, a session, the dialog."""
    options: dict[str, Any] = {"color_scheme": scheme, "locale": locale, "viewport": viewport}
    async with operated() as console, console_page(browser, console, **options) as page:
        names = ("Chart", "A viewer with a long name", "Averylongnamewithoutanyspacethatcannotbebroken" * 2)
        endpoints = [await console.hub.subscribe(EVENTS, **{"subscriber.name": name}) for name in names]
        await refuse(console, endpoints[0])
        await console.hub.publish(event("Patient-open", topic="t" * 120))
        console.hub.hub._verifier.health()[0].failed(About.KEYS, "not reached (ConnectError)")
        await page.open()
        await expect(page.by("login-about")).to_be_visible()
        await is_fit(page.page, "login")
        await page.by("token").fill(console.operator)
        await page.by("token").press("Enter")
        await expect(page.by("shown")).to_be_visible()
        await page.row().click()
        await expect(page.by("problems")).to_contain_text("Chart")
        await is_fit(page.page, "all sections, a session")
        await page.by("end").click()
        await is_fit(page.page, "the end of a session")


@pytest.mark.req("CSL-14")
async def test_both_languages_have_all_words_and_change_at_once(browser: Browser) -> None:
    async with operated() as console, console_page(browser, console) as page:
        await console.open()
        await page.paste(console.reader)
        assert await page.page.evaluate("import('/console/words.js').then((words) => words.untranslated())") == []
        await page.page.get_by_role("button", name="Norsk").click()
        await expect(page.by("sessions-title")).to_have_text("Sesjoner")
        await expect(page.by("count")).to_have_text("1 sesjon")
        assert await page.page.evaluate("document.documentElement.lang") == "nb"
        await expect(page.by("connection")).to_have_text("Tilkoblet")
        await page.page.get_by_role("button", name="English").click()
        await expect(page.by("sessions-title")).to_have_text("Sessions")
        shown = await page.page.inner_text("body")
        assert not re.findall(r"\b(?:fact|state|budget|login|end)\.[a-z]+", shown)
        assert "{" not in shown
